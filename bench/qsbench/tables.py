"""The benchmark's tables and triggers: bigint key, real[384], three more columns."""

import contextlib

from harness import new_extension_db, wait_until
from qsbench import native
from qsbench.report import say

DIMENSION = 384

# Triggers on the table, and what they are called in the report.
VARIANTS = {
    "none": "no trigger",
    "empty": "empty C trigger",
    "mirror": "qdrant_sync",
    "plpgsql": "plpgsql outbox trigger",
}

COLUMNS = "id bigint PRIMARY KEY, embedding real[], title text, category text, price numeric"

# The usual way: a queue table that a plpgsql row trigger fills.
PLPGSQL_OUTBOX = """
CREATE TABLE queue (seq bigserial PRIMARY KEY, item bigint NOT NULL, operation text NOT NULL);
CREATE FUNCTION enqueue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO queue (item, operation) VALUES (OLD.id, TG_OP);
    ELSE
        INSERT INTO queue (item, operation) VALUES (NEW.id, TG_OP);
    END IF;
    RETURN NULL;
END $$;
"""


def vectors(rows, dimension=DIMENSION):
    """A query that gives i and embedding; few enough random vectors that making them does not take the day."""
    return (f"SELECT i, (SELECT array_agg((random() * 2 - 1)::real) FROM generate_series(1, {dimension}) "
            f"WHERE i = i) AS embedding FROM generate_series(1, {rows}) AS i")


def make_source(db, rows, dimension=DIMENSION):
    """source: rows to insert; base: a thousand vectors."""
    db.sql(f"CREATE UNLOGGED TABLE base AS {vectors(1000, dimension)}")
    db.sql("ALTER TABLE base ADD PRIMARY KEY (i)")
    db.sql(f"CREATE TABLE source ({COLUMNS})")
    db.sql("INSERT INTO source SELECT n, embedding, 'title number ' || n || ' of the benchmark', "
           f"'category ' || n % 10, n % 1000 + 0.99 FROM generate_series(1, {rows}) AS n JOIN base ON i = n % 1000 + 1 "
           "ORDER BY n")
    db.sql("VACUUM ANALYZE source")


def make_table(db, variant, name=None, rows=0, payload="title, category, price"):
    """items_<variant>, with its trigger, holding the first rows of source; row 0 tells a mirror the dimension."""
    name = name or f"items_{variant}"
    db.sql(f"CREATE TABLE {name} ({COLUMNS})")
    db.sql(f"INSERT INTO {name} SELECT 0, embedding, title, category, price FROM source WHERE id = 1")
    db.sql(f"INSERT INTO {name} SELECT * FROM source WHERE id <= {rows}")
    if variant == "empty":
        db.sql(f"CREATE OR REPLACE FUNCTION empty_trigger() RETURNS trigger LANGUAGE c "
               f"AS '{native.module('empty_trigger')}'")
        trigger(db, name, "empty_trigger()")
    elif variant == "plpgsql":
        if db.one("SELECT to_regclass('queue') IS NULL"):
            db.sql(PLPGSQL_OUTBOX)
        trigger(db, name, "enqueue()")
    elif variant == "mirror":
        mirror(db, name, payload)
    return name


def trigger(db, table, function):
    db.sql(f"CREATE TRIGGER capture AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW "
           f"EXECUTE FUNCTION {function}")


def mirror(db, table, payload="title, category, price"):
    db.sql(f"SELECT qdrant_mirror('{table}', vector => 'embedding', payload => '{payload}')")
    wait_live(db, table)


def wait_live(db, table, timeout=600):
    """The mirror has been filled, and nothing waits."""
    wait_sent(db, table, timeout)
    state = "SELECT state = 'live' FROM qdrant_mirrors WHERE source = %s::regclass"
    wait_until(lambda: db.one(state, (table,)), timeout,
               lambda: f"mirror live: {db.sql('SELECT * FROM qdrant_mirrors')}")


def wait_sent(db, table, timeout=600):
    """Everything committed so far has been acknowledged."""
    if not db.one("SELECT qdrant_wait(%s, %s::regclass)", (f"{timeout} s", table)):
        raise TimeoutError(f"{table} was not sent: {db.sql('SELECT * FROM qdrant_mirrors')}")


def analyze(db):
    db.sql("VACUUM ANALYZE")


def segments(db, table):
    """The two outbox segments of a mirror, as names that SQL takes."""
    return db.sql("SELECT segment_a::regclass::text, segment_b::regclass::text FROM qdrant_internal.mirror "
                  "WHERE relid = %s::regclass AND NOT dropped", (table,))[0]


class Server:
    """What new_extension_db takes for a front: where the sink is."""

    def __init__(self, sink):
        self.url = sink.url
        self.api_key = None


@contextlib.contextmanager
def database(cluster, sink, rows, dimension=DIMENSION):
    """A database with the extension, the sink as its server, and a source of rows."""
    db = new_extension_db(cluster, Server(sink))
    try:
        say(f"making {rows:,} rows")
        make_source(db, rows, dimension)
        yield db
    finally:
        db.drop()
