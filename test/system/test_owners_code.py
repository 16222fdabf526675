"""What runs of users' code where a definition is only read: a literal of a definition becomes a value at its analysis, and in an
array, a row or a range around a domain that evaluates the domain's CHECK, which its owner may have altered since."""

import psycopg
import pytest

from harness import wait_until
from items import Items
from test_isolation import make_role

CLUSTER = {"conf": {"qdrant_sync.row_timeout": "1s"}}

LIST = "title, ('{{x}}'::{domain}[])[1] AS z"
CONDITION = "title <> ALL ('{{x}}'::{domain}[])"
ROW = "title, ('(a,1)'::{domain}_row).b AS z"

# Who runs it, a line each; that of a superuser would be one of postgres.
SPY = """
    CREATE TABLE seen (who text);
    CREATE FUNCTION spy(text) RETURNS boolean LANGUAGE plpgsql AS $f$
    BEGIN
        IF NOT current_setting('transaction_read_only')::boolean THEN
            INSERT INTO public.seen VALUES (current_user);
        ELSIF current_user <> '{role}' THEN
            RAISE 'runs as %', current_user;
        END IF;
        RETURN true;
    END $f$;
    GRANT INSERT ON seen TO PUBLIC;
    CREATE DOMAIN {domain} AS text CHECK (public.spy(VALUE));
    CREATE TYPE {domain}_row AS (a {domain}, b int)"""


class Spy:
    def __init__(self, db, cluster):
        self.db = db
        self.role = make_role(cluster, db, "mallory")
        self.conn = db.connect(user=self.role)
        self.domain = "watched"
        self.conn.execute(SPY.format(role=self.role, domain=self.domain))

    def seen(self):
        return {who for who, in self.db.sql("SELECT DISTINCT who FROM seen")}

    def mirror(self, table, **options):
        self.conn.execute(f"CREATE TABLE {table} (id bigint PRIMARY KEY, title text, embedding real[])")
        self.conn.execute(f"INSERT INTO {table} SELECT i, 't', ARRAY[i,1,1,1] FROM generate_series(1, 5) i")
        given = {name: text.format(domain=self.domain) for name, text in options.items()}
        self.conn.execute("SELECT qdrant_mirror(%s::regclass, vector => 'embedding', payload => coalesce(%s, '*'), "
                          "row_filter => %s, collection => %s)",
                          (table, given.get("payload"), given.get("row_filter"), self.db.collection(table)))
        assert self.db.wait(table)


@pytest.fixture
def spy(db, cluster):
    return Spy(db, cluster)


@pytest.mark.parametrize("options", [{"payload": LIST}, {"payload": ROW}, {"row_filter": CONDITION}], ids=["list", "row", "filter"])
def test_definition_is_analysed_as_the_tables_owner(db, spy, options):
    """Whoever asks: a superuser whose statement has nothing to do with it, too."""
    spy.mirror("items", **options)
    for statement in ("CREATE SCHEMA s1", "ALTER SCHEMA s1 RENAME TO s2", "ALTER TABLE items RENAME COLUMN title TO name",
                      "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "ALTER FUNCTION f() RENAME TO g",
                      "ALTER FUNCTION g() SET SCHEMA s2", f"ALTER SERVER qdrant RENAME TO qdrant_{spy.role}",
                      f"ALTER SERVER qdrant_{spy.role} RENAME TO qdrant", "SELECT * FROM qdrant_verify('items')",
                      "SELECT qdrant_pause('items')", "SELECT qdrant_resume('items')", "SELECT qdrant_search(NULL::items, '[1,1,1,1]')",
                      "SELECT qdrant_resync('items')", "SELECT qdrant_rebuild('items', distance => 'Dot')"):
        db.sql(statement)
        assert 'failed' not in {state for state, in db.sql("SELECT state FROM qdrant_mirrors")}, statement
    assert db.wait("items")
    assert spy.seen() == {spy.role}


def altered(spy, check, **options):
    """A mirror whose domain has this CHECK by the time that the worker reads the definition first."""
    spy.conn.execute("""CREATE DOMAIN later AS text;
        CREATE TABLE items (id bigint PRIMARY KEY, title text, embedding real[]);
        BEGIN;
        SELECT qdrant_mirror('items', vector => 'embedding', payload => $q$title, ('{x}'::later[])[1] AS z$q$)""")
    spy.conn.execute(f"ALTER DOMAIN later ADD CHECK ({check}) NOT VALID; COMMIT")


def failed(db):
    return wait_until(lambda: db.one("SELECT last_error FROM qdrant_mirrors WHERE state = 'failed'"), what="the mirror fails")


@pytest.mark.parametrize("check, says", [
    ("pg_read_file('PG_VERSION')::int = 1", "permission denied for function pg_read_file"),
    ("pg_reload_conf()", "permission denied for function pg_reload_conf"),
    ("set_config('role', 'postgres', false) IS NULL", "cannot set parameter \"role\""),
    ("lo_get(12345::oid) IS NULL", "large object 12345 does not exist"),
], ids=["a file", "a signal", "a role", "a snapshot"])
def test_worker_reads_a_definition_with_its_owners_rights(db, spy, check, says):
    pid = db.one("SELECT pid FROM qdrant_workers WHERE kind = 'sync' AND database = current_database()")
    altered(spy, check)
    assert says in failed(db)
    assert db.one("SELECT pid FROM qdrant_workers WHERE kind = 'sync' AND database = current_database()") == pid


def test_definition_that_takes_too_long_stops_its_own_mirror(db, spy):
    others = Items(db, "others", rows=3)
    altered(spy, "pg_sleep(1000) IS NOT NULL")
    assert "longer than qdrant_sync.row_timeout" in failed(db)
    others.insert(4, 6)
    others.converged()


def test_plan_that_takes_too_long_stops_its_own_mirror(db, spy):
    """The domain gets its CHECK after the definition was read: making the plan runs it."""
    others = Items(db, "others", rows=3)
    spy.conn.execute("""CREATE TABLE gate (open boolean); INSERT INTO gate VALUES (true);
        CREATE FUNCTION slow(text) RETURNS boolean LANGUAGE plpgsql AS $f$
        BEGIN IF NOT (SELECT open FROM public.gate) THEN PERFORM pg_sleep(1000); END IF; RETURN true; END $f$;
        CREATE DOMAIN later AS text CHECK (public.slow(VALUE));
        CREATE TABLE items (id bigint PRIMARY KEY, title text, embedding real[])""")
    spy.conn.execute("SELECT qdrant_mirror('items', vector => 'embedding', payload => $q$title, ('{x}'::later[])[1] AS z$q$)")
    spy.conn.execute("INSERT INTO items VALUES (1, 'a', '{1,1,1,1}')")
    assert db.wait("items")
    spy.conn.execute("UPDATE gate SET open = false; INSERT INTO items VALUES (2, 'b', '{1,1,1,1}')")
    spy.conn.execute("ALTER TABLE items ALTER COLUMN title SET NOT NULL")
    others.insert(4, 6)
    others.converged()


KEYS = {
    "array of a domain": ("watched[]", "'{{x{i}}}'"),
    "row with a domain": ("watched_row", "'(x{i},1)'"),
    "range over a domain": ("watched_range", "'[a{i},b{i}]'"),
}


@pytest.mark.parametrize("what", KEYS)
def test_text_of_a_key_is_read_by_nobody_else(db, spy, cluster, what):
    type_, value = KEYS[what]
    spy.conn.execute("CREATE TYPE watched_range AS RANGE (subtype = watched)")
    spy.conn.execute(f"CREATE TABLE items (k {type_} PRIMARY KEY, embedding real[])")
    for i in (1, 2):
        spy.conn.execute(f"INSERT INTO items VALUES ({value.format(i=i)}, '{{{i},1,1,1}}')")
    spy.conn.execute("SELECT qdrant_mirror('items', vector => 'embedding'); GRANT SELECT ON items TO PUBLIC")
    assert db.wait("items")
    for statement in ("SELECT rank FROM qdrant_search(NULL::items, '[1,1,1,1]')",
                      f"SELECT rank FROM qdrant_search(NULL::items, like_key => {value.format(i=1)})"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only the owner of table \"items\" can search it"):
            db.sql(statement)
        assert spy.conn.execute(statement).fetchall()
    db.sql("SELECT * FROM qdrant_verify('items')")
    assert spy.seen() == {spy.role}


def test_text_of_a_key_of_any_other_type_is_read_by_all(db, spy, cluster):
    """Enums, arrays of them, PostgreSQL's own ranges, and a domain that is the column's own type."""
    spy.conn.execute("CREATE TYPE mood AS ENUM ('sad', 'ok')")
    for n, (type_, value) in enumerate({"mood": "'ok'", "mood[]": "'{ok,sad}'", "int4range": "'[1,5)'", "watched": "'x'",
                                        "text[]": "'{a}'"}.items()):
        spy.conn.execute(f"""CREATE TABLE t{n} (k {type_} PRIMARY KEY, embedding real[]);
            INSERT INTO t{n} VALUES ({value}, '{{1,1,1,1}}'); SELECT qdrant_mirror('t{n}', vector => 'embedding')""")
        assert db.wait(f"t{n}")
        assert db.sql(f"SELECT rank FROM qdrant_search(NULL::t{n}, '[1,1,1,1]')") == [(1,)]
    assert spy.seen() == {spy.role}
