"""Partitioned tables and whatever else a table can be: rows are captured in the leaf and filled leaf by leaf."""

import contextlib
import threading

import psycopg
import pytest

from harness import wait_until
from items import VECTOR, Items, end_worker, points_path, workers
from keyed import Keyed

faults = pytest.mark.faults

CLUSTER = {"conf": {"qdrant_sync.segment_size": "64kB", "max_prepared_transactions": 5}, "wal_level": "logical"}

COLUMNS = "id bigint, title text, n integer NOT NULL DEFAULT 0, embedding real[]"

# How 1 to 400 are split; the last kind has two levels, a default partition, and leaves of other shapes.
SPLITS = {
    "hash": ("HASH (id)", ["PARTITION OF items FOR VALUES WITH (MODULUS 3, REMAINDER 0)",
                           "PARTITION OF items FOR VALUES WITH (MODULUS 3, REMAINDER 1)",
                           "PARTITION OF items FOR VALUES WITH (MODULUS 3, REMAINDER 2)"]),
    "range": ("RANGE (id)", ["PARTITION OF items FOR VALUES FROM (0) TO (100)",
                             "PARTITION OF items FOR VALUES FROM (100) TO (200)",
                             "PARTITION OF items FOR VALUES FROM (200) TO (MAXVALUE)"]),
    "list": ("LIST (n)", ["PARTITION OF items FOR VALUES IN (0)", "PARTITION OF items FOR VALUES IN (1, 2)",
                          "PARTITION OF items DEFAULT"]),
}


def make(db, split="two levels", rows=400, mirror=True, live=True, **options):
    items = Items.of(db, **options)
    if split == "two levels":
        two_levels(db)
    else:
        by, leaves = SPLITS[split]
        key = "id, n" if split == "list" else "id"
        db.sql(f"CREATE TABLE items ({COLUMNS}, PRIMARY KEY ({key})) PARTITION BY {by}")
        for i, leaf in enumerate(leaves):
            db.sql(f"CREATE TABLE items_{i} {leaf}")
    if rows:
        items_insert(db, 1, rows)
    if mirror:
        items.mirror()
    if mirror and live:
        items.wait_state("live")
    return items


def two_levels(db):
    """items_0 is a leaf; items_1 has two leaves whose columns lie in another order; items_2 is the default."""
    db.sql("CREATE TABLE items (gone int, id bigint PRIMARY KEY, title text, n integer NOT NULL DEFAULT 0, embedding real[]) "
           "PARTITION BY RANGE (id)")
    db.sql("ALTER TABLE items DROP gone")
    db.sql("CREATE TABLE items_0 PARTITION OF items FOR VALUES FROM (0) TO (100)")
    db.sql("CREATE TABLE items_1 (embedding real[], x text, n integer NOT NULL DEFAULT 0, id bigint NOT NULL, title text) "
           "PARTITION BY RANGE (id)")
    db.sql("ALTER TABLE items_1 DROP x")
    db.sql("ALTER TABLE items ATTACH PARTITION items_1 FOR VALUES FROM (100) TO (300)")
    db.sql("CREATE TABLE items_1a PARTITION OF items_1 FOR VALUES FROM (100) TO (200)")
    db.sql("CREATE TABLE items_1b (n integer NOT NULL DEFAULT 0, y int, title text, embedding real[], id bigint NOT NULL)")
    db.sql("ALTER TABLE items_1b DROP y")
    db.sql("ALTER TABLE items_1 ATTACH PARTITION items_1b FOR VALUES FROM (200) TO (300)")
    db.sql("CREATE TABLE items_2 PARTITION OF items DEFAULT")


def items_insert(db, first, last, table="items", conn=None):
    (conn or db.conn).execute(f"INSERT INTO {table} (id, title, n, embedding) SELECT i, 'title ' || i, 0, "
                              f"{VECTOR.format('i')} FROM generate_series({first}, {last}) i")


@pytest.fixture
def items(db):
    return make(db)


# --- writes ---

@pytest.mark.parametrize("split", SPLITS)
def test_partitioned_table_is_filled_and_followed(db, split):
    items = make(db, split, mirror=False)
    if split == "list":
        # Two columns: a key whose partition is in it.
        with pytest.raises(psycopg.errors.InvalidTableDefinition, match="no unique index"):
            items.mirror(key="id")
        keyed = Keyed.of(db, "items", collection=items.collection)
        keyed.key, keyed.hashed = ("id", "n"), True
        keyed.mirror()
        converged = keyed.equal
    else:
        items.mirror()
        converged = items.converged
    assert converged() == 400
    db.sql("UPDATE items SET n = n + 1 WHERE id % 3 = 0")
    db.sql("UPDATE items SET id = id + 1000 WHERE id BETWEEN 90 AND 110")
    db.sql("DELETE FROM items WHERE id % 10 = 0")
    items_insert(db, 2000, 2010)
    converged()
    db.sql("UPDATE items SET n = 2 - n WHERE n < 3")
    converged()


def test_writes_straight_to_leaves_of_two_levels(db, items):
    items_insert(db, 1000, 1010, "items_2")
    db.sql("DELETE FROM items_0 WHERE id < 20")
    db.sql("UPDATE items_1 SET title = 'middle', embedding = '{1,1,1,1}' WHERE id IN (150, 250)")
    db.sql("UPDATE items_1b SET n = 9 WHERE id = 299")
    items_insert(db, 1, 5, "items_0")
    db.sql("DELETE FROM items WHERE id = 130")
    with db.conn.cursor().copy("COPY items_1a (id, title, embedding) FROM STDIN") as copy:
        copy.write_row((130, "copied", [1.0, 2.0, 3.0, 4.0]))
    items.converged()


def test_rows_that_move_between_leaves(db, items):
    db.sql("UPDATE items SET id = id + 100 WHERE id BETWEEN 51 AND 99 AND id + 100 NOT IN (SELECT id FROM items)")
    db.sql("DELETE FROM items WHERE id BETWEEN 100 AND 199")
    db.sql("UPDATE items SET id = id + 100 WHERE id BETWEEN 51 AND 99")
    items.converged()
    db.sql("BEGIN; UPDATE items SET id = id + 800 WHERE id BETWEEN 151 AND 160; SAVEPOINT a; "
           "UPDATE items SET id = id + 5000 WHERE id > 390; ROLLBACK TO a; UPDATE items SET id = 9000 WHERE id = 1; COMMIT")
    items.converged()


def test_transaction_over_many_leaves_is_one_mirrors(db):
    db.sql(f"CREATE TABLE items ({COLUMNS}, PRIMARY KEY (id)) PARTITION BY HASH (id)")
    for i in range(40):
        db.sql(f"CREATE TABLE items_{i} PARTITION OF items FOR VALUES WITH (MODULUS 40, REMAINDER {i})")
    items = Items.of(db)
    items_insert(db, 1, 3)
    items.mirror()
    items.wait_state("live")
    assert items.converged() == 3
    db.sql("BEGIN; UPDATE items SET n = 1; SAVEPOINT a; DELETE FROM items; ROLLBACK TO a; "
           "INSERT INTO items SELECT i, 'x', 0, '{1,2,3,4}' FROM generate_series(10, 3000) i; SAVEPOINT b; "
           "UPDATE items SET n = 2 WHERE id % 2 = 0; COMMIT")
    assert items.converged() == 2994
    assert items.wait() is True


# --- filling ---

@faults
def test_worker_that_is_ended_in_mid_filling_of_leaves(db, cluster, front):
    items = make(db, rows=0, mirror=False)
    items_insert(db, 1, 20_000)
    front.faults.fault("delay", method="PUT", path_regex=points_path(items), times=None, seconds=0.02)
    items.mirror()
    for _ in range(3):
        seen = len(front.faults.log())
        wait_until(lambda: len(front.faults.log()) > seen + 5, what="some more of the filling")
        end_worker(cluster, db)
        db.sql("UPDATE items SET n = n + 1 WHERE id % 100 = 0")
    front.faults.clear_faults()
    assert items.converged(90) == 20_000
    items.wait_state("live")


@faults
@pytest.mark.parametrize("rewrite", ["VACUUM FULL items_2", "CLUSTER items_2 USING items_2_pkey",
                                     "VACUUM FULL items_1a", "DELETE FROM items_2 WHERE id % 2 = 0; VACUUM FULL items_2"])
def test_leaf_that_is_rewritten_in_mid_filling(db, front, rewrite):
    items = make(db, rows=0, mirror=False)
    items_insert(db, 1, 12_000)
    # Its rows lie in another order afterwards.
    db.sql("UPDATE items SET n = 1 WHERE id % 3 = 0")
    front.faults.fault("delay", method="PUT", path_regex=points_path(items), times=None, seconds=0.03)
    items.mirror()
    wait_until(lambda: len(items.requests()) > 8, what="a part of the filling")
    for statement in rewrite.split("; "):
        db.sql(statement)
    front.faults.clear_faults()
    items.converged(90)
    items.wait_state("live")


@faults
def test_plain_table_that_is_rewritten_by_a_new_type_in_mid_filling(db, front):
    items = Items(db, rows=10_000, mirror=False)
    front.faults.fault("delay", method="PUT", path_regex=points_path(items), times=None, seconds=0.03)
    items.mirror()
    wait_until(lambda: len(items.requests()) > 8, what="a part of the filling")
    db.sql("ALTER TABLE items ALTER n TYPE bigint, ALTER title TYPE varchar(40)")
    db.sql("UPDATE items SET n = n + 5000000000 WHERE id % 500 = 0")
    front.faults.clear_faults()
    items.converged(90)
    items.wait_state("live")


@faults
def test_leaf_that_is_dropped_in_mid_filling(db, front):
    items = make(db, "range", rows=0, mirror=False)
    items_insert(db, 1, 6_000)
    front.faults.fault("delay", method="PUT", path_regex=points_path(items), times=None, seconds=0.05)
    items.mirror()
    wait_until(lambda: len(items.requests()) > 8, what="a part of the filling")
    db.sql("DROP TABLE items_2")
    db.sql("SELECT qdrant_resync('items')")
    front.faults.clear_faults()
    items.converged(90)
    items.wait_state("live")


# --- TRUNCATE ---

@faults
@pytest.mark.parametrize("kind", ["plain", "partitioned"])
def test_table_that_is_truncated_in_its_first_filling_leaves_nothing_behind(db, front, kind):
    """The filling begins again, and has to find what it had sent before."""
    items = make(db, rows=0, mirror=False) if kind == "partitioned" else Items(db, mirror=False)
    items_insert(db, 1, 6_000)
    front.faults.fault("delay", method="PUT", path_regex=points_path(items), times=None, seconds=0.03)
    items.mirror()
    wait_until(lambda: len(items.requests()) > 8, what="a part of the filling")
    db.sql("BEGIN; TRUNCATE items; INSERT INTO items SELECT i, 'new', 0, '{1,2,3,4}' FROM generate_series(5990, 6010) i; COMMIT")
    front.faults.clear_faults()
    assert items.converged(60) == 21
    items.wait_state("live")


TRUNCATES = {
    "alone": "TRUNCATE items",
    "and again": "BEGIN; TRUNCATE items; INSERT INTO items (id, title, embedding) SELECT i, 'again', '{1,2,3,4}' "
                 "FROM generate_series(50, 250) i; COMMIT",
    "rolled back": "BEGIN; UPDATE items SET n = 4 WHERE id = 7; TRUNCATE items; ROLLBACK",
    "in a savepoint": "BEGIN; UPDATE items SET n = 5 WHERE id = 7; SAVEPOINT a; TRUNCATE items; ROLLBACK TO a; COMMIT",
    "in a savepoint that stays": "BEGIN; SAVEPOINT a; TRUNCATE items; RELEASE a; INSERT INTO items (id, title, embedding) "
                                 "VALUES (301, 'new', '{1,2,3,4}'); COMMIT",
    "cascade": "TRUNCATE referenced CASCADE",
    "restart identity": "TRUNCATE items RESTART IDENTITY",
}


@pytest.mark.parametrize("kind", ["plain", "partitioned"])
@pytest.mark.parametrize("how", TRUNCATES)
def test_truncate_of_the_table(db, kind, how):
    items = make(db) if kind == "partitioned" else Items(db, rows=400)
    if how == "cascade":
        db.sql("CREATE TABLE referenced (id bigint PRIMARY KEY)")
        db.sql("ALTER TABLE items ADD COLUMN r bigint REFERENCES referenced")
    db.sql(TRUNCATES[how])
    assert items.converged() == db.one("SELECT count(*) FROM items")
    assert items.wait() is True


def test_truncate_of_a_leaf(db, items):
    db.sql("TRUNCATE items_1a")
    assert items.converged() == 300
    db.sql("BEGIN; TRUNCATE items_1; INSERT INTO items (id, title, embedding) VALUES (201, 'x', '{1,2,3,4}'); COMMIT")
    assert items.converged() == 201


def test_truncate_under_concurrent_writers(db, items):
    stop = threading.Event()
    errors = []

    def write(first):
        with contextlib.closing(db.connect()) as conn:
            i = first
            try:
                while not stop.is_set():
                    i += 1
                    conn.execute(f"INSERT INTO items (id, title, embedding) VALUES ({i}, 'w', '{{1,2,3,4}}') "
                                 "ON CONFLICT (id) DO UPDATE SET n = items.n + 1")
                    conn.execute(f"UPDATE items SET n = n + 1 WHERE id % 50 = {i % 50}")
            except psycopg.errors.DeadlockDetected:
                pass
            except Exception as e:  # noqa: BLE001 - shown below
                errors.append(e)

    threads = [threading.Thread(target=write, args=(first,)) for first in (90, 250, 100_000)]
    for thread in threads:
        thread.start()
    for i in range(6):
        with contextlib.suppress(psycopg.errors.DeadlockDetected):
            db.sql(("TRUNCATE items", "TRUNCATE items_1b", "TRUNCATE items_2")[i % 3])
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not errors, errors
    items.converged(60)


# --- leaves of others, locks ---

def test_leaf_of_another_role_stops_the_mirror_until_its_owner_may_read_it(db, items):
    role = f"other_{db.name}"
    owner = f"owner_{db.name}"
    db.sql(f"CREATE ROLE {role}; CREATE ROLE {owner}; GRANT USAGE ON FOREIGN SERVER qdrant TO {owner}")
    try:
        for table in ("items", "items_0", "items_1", "items_1a", "items_1b"):
            db.sql(f"ALTER TABLE {table} OWNER TO {owner}")
        db.sql(f"ALTER TABLE items_2 OWNER TO {role}")
        db.sql("UPDATE items SET n = n + 1 WHERE id IN (5, 350)")
        # Rows by their keys are read through the table itself, whose owner's rights count.
        items.converged()
        db.sql("SELECT qdrant_resync('items')")
        assert "permission denied for table items_2" in items.wait_state("failed")["last_error"]
        db.sql(f"GRANT SELECT ON items_2 TO {owner}")
        items.resume()
        items.converged()
        items.wait_state("live")
    finally:
        db.sql("DROP TABLE items")
        db.sql(f"DROP OWNED BY {role}, {owner}; DROP ROLE {role}, {owner}")


def test_lock_on_one_leaf_is_waited_out_without_a_queue(db, items):
    other = Items(db, "others", rows=3)
    with db.connect(autocommit=False) as conn:
        conn.execute("LOCK TABLE items_1a IN ACCESS EXCLUSIVE MODE")
        db.sql("UPDATE items SET n = n + 1 WHERE id = 5")
        other.update()
        other.converged()
        conn.execute("DELETE FROM items_1a WHERE id = 150")
        conn.commit()
    items.converged()


# --- what else a table can be ---

@pytest.mark.parametrize("made, error, match", [
    ("CREATE TABLE t (id bigint PRIMARY KEY, embedding real[]); CREATE TABLE child () INHERITS (t)",
     psycopg.errors.FeatureNotSupported, "inheritance"),
    ("CREATE TABLE parent (id bigint, embedding real[]); CREATE TABLE t (PRIMARY KEY (id)) INHERITS (parent)",
     psycopg.errors.FeatureNotSupported, "inheritance"),
    ("CREATE UNLOGGED TABLE t (id bigint PRIMARY KEY, embedding real[])", psycopg.errors.WrongObjectType, "unlogged"),
    ("CREATE TEMP TABLE t (id bigint PRIMARY KEY, embedding real[])", psycopg.errors.WrongObjectType, "temporary"),
    ("CREATE VIEW t AS SELECT 1::bigint AS id, '{1}'::real[] AS embedding", psycopg.errors.WrongObjectType, "a view"),
    ("CREATE MATERIALIZED VIEW t AS SELECT 1::bigint AS id, '{1}'::real[] AS embedding", psycopg.errors.WrongObjectType,
     "a view"),
    ("CREATE TABLE t (id bigint, embedding real[]) PARTITION BY LIST (id); CREATE UNLOGGED TABLE t1 PARTITION OF t DEFAULT; "
     "ALTER TABLE t ADD PRIMARY KEY (id)", psycopg.errors.WrongObjectType, 'unlogged partition, "t1"'),
    ("CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw; CREATE FOREIGN TABLE t (id bigint, "
     "embedding real[]) SERVER files OPTIONS (filename '/dev/null')", psycopg.errors.WrongObjectType, "a foreign table"),
    ("CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw; "
     "CREATE TABLE t (id bigint, embedding real[]) PARTITION BY LIST (id); CREATE FOREIGN TABLE t1 PARTITION OF t DEFAULT "
     "SERVER files OPTIONS (filename '/dev/null')", psycopg.errors.WrongObjectType, 'foreign partition, "t1"')])
def test_table_that_cannot_be_mirrored_is_refused_by_what_it_is(db, cluster, made, error, match):
    if "file_fdw" in made and not cluster.one("SELECT true FROM pg_available_extensions WHERE name = 'file_fdw'"):
        pytest.skip(f"PostgreSQL {cluster.version} has no file_fdw here")
    for statement in made.split("; "):
        db.sql(statement)
    with pytest.raises(error, match=match):
        db.sql("SELECT qdrant_mirror('t')")


def test_leaf_is_not_mirrored_by_itself(db, items):
    with pytest.raises(psycopg.errors.WrongObjectType, match="a partition"):
        db.sql("SELECT qdrant_mirror('items_0')")


def test_columns_of_many_kinds(db):
    """Identity, dropped columns, domains, values that are compressed or out of line."""
    db.sql("CREATE DOMAIN short AS text CHECK (length(VALUE) < 40); CREATE DOMAIN vec AS real[]")
    db.sql("CREATE TABLE items (a int, id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, b text, title short, big text, n int "
           "NOT NULL DEFAULT 0, c date, embedding vec)")
    db.sql("ALTER TABLE items DROP a, DROP c; ALTER TABLE items ALTER big SET STORAGE EXTERNAL")
    items = Items.of(db)
    row = f"SELECT repeat('compressed ', 1000), 'title', repeat(md5(i::text), 500), 0, {VECTOR.format('i')} " \
          "FROM generate_series(1, 10) i"
    db.sql(f"INSERT INTO items (b, title, big, n, embedding) {row}")
    items.mirror(payload="b, title, big, n, id")
    columns = ("id", "b", "title", "big", "n")
    assert items.converged(payload=columns) == 10
    db.sql("UPDATE items SET title = 'x' WHERE id = 2")
    db.sql("UPDATE items SET big = big || 'y', b = NULL WHERE id = 3")
    db.sql(f"INSERT INTO items (b, title, big, n, embedding) {row}")
    db.sql("ALTER TABLE items ADD later int DEFAULT 7")
    db.sql("UPDATE items SET n = later WHERE id > 15")
    assert items.converged(payload=columns) == 20


@pytest.mark.parametrize("kind", ["plain", "partitioned"])
def test_rows_of_a_session_that_is_a_replica(db, kind):
    items = make(db) if kind == "partitioned" else Items(db, rows=400)
    with contextlib.closing(db.connect()) as conn:
        conn.execute("SET session_replication_role = replica")
        conn.execute("UPDATE items SET n = 8 WHERE id % 2 = 0")
        conn.execute("DELETE FROM items WHERE id BETWEEN 150 AND 260")
        items.converged()
        conn.execute("TRUNCATE items")
        assert items.converged() == 0


@pytest.mark.parametrize("kind", ["plain", "partitioned"])
def test_rows_and_truncate_through_an_apply_worker(db, cluster, kind):
    """Hazard 4: an apply worker calls no hook, and fires ALWAYS triggers only."""
    source = f"source_{db.name}"
    cluster.createdb(source)
    slot = f"slot_{db.name}"
    try:
        with contextlib.closing(cluster.connect(source)) as publisher:
            publisher.execute(f"CREATE TABLE items ({COLUMNS}, PRIMARY KEY (id))")
            publisher.execute("CREATE PUBLICATION p FOR TABLE items")
            publisher.execute(f"SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")
            items = make(db, rows=0, live=False) if kind == "partitioned" else Items(db, live=False)
            items_insert(db, 390, 400)
            items.converged()
            db.sql(f"CREATE SUBSCRIPTION s_{db.name} CONNECTION '{cluster.conninfo(source)}' PUBLICATION p "
                   f"WITH (create_slot = false, slot_name = '{slot}', copy_data = false)")
            items_insert(db, 1, 300, conn=publisher)
            wait_until(lambda: db.one("SELECT count(*) FROM items") == 311, what="replicated rows")
            assert items.converged() == 311
            publisher.execute("UPDATE items SET n = 1 WHERE id % 3 = 0; DELETE FROM items WHERE id BETWEEN 90 AND 210")
            wait_until(lambda: db.one("SELECT count(*) FROM items") == 190, what="replicated deletes")
            assert items.converged() == 190
            publisher.execute("TRUNCATE items")
            wait_until(lambda: db.one("SELECT count(*) FROM items") == 0, what="a replicated TRUNCATE")
            assert items.converged() == 0
    finally:
        db.sql(f"DROP SUBSCRIPTION IF EXISTS s_{db.name}")
        cluster.dropdb(source)


# --- leaves that come and go ---

@pytest.mark.parametrize("how", ["", " CONCURRENTLY"])
def test_leaf_that_is_detached_and_attached_with_its_rows(db, how):
    items = make(db, "range")
    db.sql(f"ALTER TABLE items DETACH PARTITION items_1{how}")
    assert items.converged() == 300
    db.sql("DELETE FROM items_1 WHERE id < 150; UPDATE items_1 SET title = 'changed'")
    items.converged()
    db.sql("ALTER TABLE items ATTACH PARTITION items_1 FOR VALUES FROM (100) TO (200)")
    assert items.converged() == 350
    db.sql("UPDATE items_1 SET n = 3")
    items.converged()
    db.sql("TRUNCATE items_1")
    assert items.converged() == 300


def test_table_that_changes_while_its_definition_is_read(db, cluster):
    """The relation cache forgets a table's triggers when it hears of a change, as while a leaf is being opened."""
    items = make(db, "range")
    pids = workers(cluster, db)
    for i in range(5):
        with db.connect(autocommit=False) as holder:
            # The cache makes its entry of the leaf anew right after the memory of the triggers is free.
            holder.execute(f"ALTER TABLE items_1 SET (fillfactor = {50 + i}); LOCK TABLE items_1")
            db.sql("GRANT SELECT ON items TO PUBLIC; UPDATE items SET n = n + 1 WHERE id = 1")
            wait_until(lambda: cluster.sql("SELECT 1 FROM pg_locks WHERE NOT granted AND pid = ANY (%s)", (pids,)),
                       what="the worker waits for the leaf")
            db.sql("GRANT SELECT ON items TO PUBLIC")
            holder.commit()
        items.converged()
    assert workers(cluster, db) == pids


def test_leaf_that_is_dropped(db):
    items = make(db, "range")
    db.sql("BEGIN; DROP TABLE items_0; ROLLBACK")
    assert items.converged() == 400
    db.sql("DROP TABLE items_0")
    assert items.converged() == 301
    items.wait_state("live")


def test_leaves_made_later_on_several_levels(db, items):
    db.sql("DELETE FROM items WHERE id >= 300")
    db.sql("CREATE TABLE items_3 PARTITION OF items FOR VALUES FROM (1000) TO (3000) PARTITION BY RANGE (id)")
    db.sql("CREATE TABLE items_3a PARTITION OF items_3 FOR VALUES FROM (1000) TO (2000)")
    db.sql("CREATE TABLE items_3b (n integer NOT NULL DEFAULT 0, title text, embedding real[], id bigint NOT NULL)")
    items_insert(db, 2000, 2050, "items_3b")
    db.sql("ALTER TABLE items_3 ATTACH PARTITION items_3b FOR VALUES FROM (2000) TO (3000)")
    items_insert(db, 1000, 1050)
    items.converged()
    db.sql("TRUNCATE items_3a")
    items.converged()
    db.sql("TRUNCATE items_3")
    items.converged()
    db.sql("ALTER TABLE items DETACH PARTITION items_1")
    items.converged()
    items.wait_state("live")
