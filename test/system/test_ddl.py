"""DDL on mirrored tables: what no row trigger sees is compared as a whole, names follow, and what cannot be followed stops
the mirror in a clear state (hazards 4, 5, 25, 26)."""

import psycopg
import pytest

from harness import stays, wait_until
from items import VECTOR, Items


def values(first, last, tag="row"):
    return f"SELECT i, '{tag} ' || i, 0, {VECTOR.format('i')} FROM generate_series({first}, {last}) i"


@pytest.fixture
def parts(db):
    """items, partitioned by id, with leaves p0 (1 to 99) and p1 (100 to 199), mirrored and live."""
    db.sql("CREATE TABLE items (id bigint PRIMARY KEY, title text, n integer NOT NULL DEFAULT 0, embedding real[]) "
           "PARTITION BY RANGE (id)")
    db.sql("CREATE TABLE p0 PARTITION OF items FOR VALUES FROM (0) TO (100)")
    db.sql("CREATE TABLE p1 (embedding real[], n integer NOT NULL DEFAULT 0, gone text, title text, id bigint NOT NULL)")
    db.sql("ALTER TABLE p1 DROP COLUMN gone")
    db.sql("ALTER TABLE items ATTACH PARTITION p1 FOR VALUES FROM (100) TO (200)")
    items = Items.of(db)
    db.sql(f"INSERT INTO items {values(90, 109)}")
    items.mirror()
    assert items.converged() == 20
    items.wait_state("live")
    return items


def sweeps(db):
    return db.one("SELECT sweep_done FROM qdrant_internal.progress")


# --- partitions ---

def test_rows_of_an_attached_partition_come_and_of_a_detached_one_leave(db, parts):
    db.sql(f"CREATE TABLE p2 AS {values(200, 219)}".replace("SELECT i,", "SELECT i::bigint AS id,")
           .replace("'row ' || i,", "'row ' || i AS title,").replace(" 0, ARRAY", " 0 AS n, ARRAY")
           .replace("]::real[]", "]::real[] AS embedding"))
    db.sql("ALTER TABLE p2 ALTER id SET NOT NULL, ALTER n SET NOT NULL")
    db.sql("ALTER TABLE items ATTACH PARTITION p2 FOR VALUES FROM (200) TO (300)")
    assert parts.converged() == 40
    parts.update("id = 205")
    assert parts.converged() == 40
    db.sql("ALTER TABLE items DETACH PARTITION p2")
    assert parts.converged() == 20
    assert db.sql("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'p2'::regclass AND NOT tgisinternal") == [(0,)]
    db.sql("UPDATE p2 SET n = 7")
    assert parts.converged() == 20


def test_partition_that_is_detached_concurrently_leaves(db, parts):
    db.sql("ALTER TABLE items DETACH PARTITION p0 CONCURRENTLY")
    assert parts.converged() == 10


def test_attach_that_is_rolled_back_changes_nothing(db, parts):
    db.sql("CREATE TABLE p2 (LIKE items)")
    db.sql(f"INSERT INTO p2 {values(200, 204)}")
    with db.connect(autocommit=False) as conn:
        conn.execute("ALTER TABLE items ATTACH PARTITION p2 FOR VALUES FROM (200) TO (300)")
        conn.rollback()
    parts.update("id = 99")
    assert parts.converged() == 20


def test_dropped_leaf_takes_its_points(db, parts):
    db.sql("DROP TABLE p0")
    assert parts.converged() == 10


def test_truncated_leaf_takes_its_points(db, parts):
    db.sql("TRUNCATE p1")
    assert parts.converged() == 10
    with db.connect(autocommit=False) as conn:
        conn.execute("TRUNCATE p0")
        conn.execute(f"INSERT INTO items {values(1, 3)}")
        conn.commit()
    assert parts.converged() == 3


def test_new_empty_partition_needs_no_comparison_and_its_truncate_is_seen(db, parts):
    before = sweeps(db)
    db.sql("CREATE TABLE p3 PARTITION OF items FOR VALUES FROM (300) TO (400)")
    db.sql(f"INSERT INTO items {values(300, 319)}")
    assert parts.converged() == 40
    assert sweeps(db) == before
    assert db.sql("SELECT tgname, tgenabled::text FROM pg_trigger WHERE tgrelid = 'p3'::regclass ORDER BY 1") == [
        ("qdrant_sync", "A"), ("qdrant_sync_truncate", "A")]
    db.sql("SET session_replication_role = replica; TRUNCATE p3; RESET session_replication_role")
    assert parts.converged() == 20


def test_partition_of_a_partition_made_later(db, parts):
    db.sql("CREATE TABLE p4 PARTITION OF items FOR VALUES FROM (400) TO (600) PARTITION BY RANGE (id)")
    db.sql("CREATE TABLE p40 PARTITION OF p4 FOR VALUES FROM (400) TO (500)")
    db.sql(f"INSERT INTO p40 {values(400, 409)}")
    assert parts.converged() == 30
    db.sql("TRUNCATE p40")
    assert parts.converged() == 20
    db.sql(f"INSERT INTO p4 {values(410, 412)}")
    assert parts.converged() == 23
    db.sql("ALTER TABLE items DETACH PARTITION p4")
    assert parts.converged() == 20


def test_unmirrored_partitioned_table_keeps_no_trigger(db, parts):
    parts.unmirror()
    assert db.sql("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgrelid IN "
                  "('items'::regclass, 'p0'::regclass, 'p1'::regclass)") == [(0,)]


# --- columns ---

def test_column_that_is_computed_anew_under_the_same_type_is_sent(db):
    items = Items(db, rows=10)
    db.sql("ALTER TABLE items ALTER n TYPE integer USING n + 100")
    assert items.converged() == 10
    assert items.point(1).payload["n"] == 100


def test_added_column_is_sent_where_the_payload_is_all_columns(db):
    items = Items(db, rows=10)
    db.sql("ALTER TABLE items ADD COLUMN colour text DEFAULT 'red'")
    assert items.converged(payload=("id", "title", "n", "colour")) == 10
    db.sql("ALTER TABLE items DROP COLUMN colour")
    wait_until(lambda: "colour" not in items.point(1).payload, what="the field to go")
    assert items.converged() == 10


def test_added_column_is_not_sent_where_the_payload_was_chosen(db):
    items = Items(db, rows=10, payload="title")
    before = sweeps(db)
    db.sql("ALTER TABLE items ADD COLUMN colour text DEFAULT 'red'")
    db.sql("ALTER TABLE items ALTER n SET DEFAULT 3, ALTER n SET STATISTICS 10")
    assert items.wait()
    assert sweeps(db) == before
    assert items.point(1).payload == {"title": "title 1"}


def test_dropped_column_that_the_definition_names_stops_the_mirror_until_it_is_mended(db):
    items = Items(db, rows=10, payload="title, n")
    db.sql("ALTER TABLE items DROP COLUMN title")
    assert "title" in items.wait_state("failed")["last_error"]
    db.sql("ALTER TABLE items ADD COLUMN title text DEFAULT 'again'")
    items.resume()
    assert items.converged(payload=("title", "n")) == 10


def test_vector_of_another_type_stops_the_mirror(db):
    items = Items(db, rows=10)
    db.sql("ALTER TABLE items ALTER embedding TYPE text USING embedding::text")
    assert "not a vector" in items.wait_state("failed")["last_error"]


# --- triggers ---

def test_changes_while_the_trigger_was_disabled_are_found(db):
    items = Items(db, rows=10)
    db.sql("ALTER TABLE items DISABLE TRIGGER qdrant_sync")
    items.insert(11, 20)
    items.delete("id < 5")
    db.sql("ALTER TABLE items ENABLE ALWAYS TRIGGER qdrant_sync")
    assert items.converged() == 16
    assert items.wait_state("live")


def test_trigger_that_is_enabled_as_an_ordinary_one_waits_for_resume(db):
    items = Items(db, rows=10)
    db.sql("ALTER TABLE items DISABLE TRIGGER ALL")
    items.insert(11, 20)
    db.sql("ALTER TABLE items ENABLE TRIGGER ALL")
    assert "trigger" in items.wait_state("failed")["last_error"]
    items.resume()
    assert items.converged() == 20


def test_trigger_that_was_given_a_condition_waits_for_resume(db):
    items = Items(db, rows=10)
    argument = db.one("SELECT convert_from(substring(tgargs FOR length(tgargs) - 1), 'UTF8') FROM pg_trigger "
                      "WHERE tgrelid = 'items'::regclass AND tgname = 'qdrant_sync'")
    quoted = argument.replace("'", "''")
    db.sql("CREATE OR REPLACE TRIGGER qdrant_sync AFTER INSERT OR UPDATE OR DELETE ON items FOR EACH ROW WHEN (false) "
           f"EXECUTE FUNCTION qdrant_internal.capture('{quoted}')")
    items.insert(11, 20)
    assert "trigger" in items.wait_state("failed")["last_error"]
    items.resume()
    assert items.converged() == 20


# --- names ---

LISTED = {"vector": "embedding", "payload": "title, upper(title) AS loud, n + 1 AS more", "row_filter": "n >= 0"}
LISTED_FIELDS = {"title": "title", "loud": "upper(title)", "more": "n + 1"}


def test_renamed_columns_are_followed_and_fields_keep_their_names(db):
    items = Items(db, rows=10, key="bigint", **LISTED)
    before = sweeps(db)
    db.sql("ALTER TABLE items RENAME title TO headline")
    db.sql("ALTER TABLE items RENAME n TO number")
    db.sql("ALTER TABLE items RENAME id TO code")
    db.sql("ALTER TABLE items RENAME embedding TO vec")
    db.sql("UPDATE items SET headline = 'new ' || code, number = 5 WHERE code < 4")
    fields = {"title": "headline", "loud": "upper(headline)", "more": "number + 1"}
    assert items.converged(key="code", vector="vec", payload=fields) == 10
    assert sweeps(db) == before
    items.pause()
    items.resume()
    db.sql("UPDATE items SET number = -1 WHERE code = 1")
    assert items.converged(key="code", vector="vec", payload=fields, where="number >= 0") == 9


def test_rename_in_a_savepoint_that_is_rolled_back(db):
    items = Items(db, rows=3, **LISTED)
    with db.connect(autocommit=False) as conn:
        conn.execute("SAVEPOINT a")
        conn.execute("ALTER TABLE items RENAME title TO headline")
        conn.execute("ROLLBACK TO a")
        conn.execute("ALTER TABLE items RENAME n TO number")
        conn.commit()
    db.sql("UPDATE items SET title = 'x', number = 2")
    assert items.converged(payload={"title": "title", "loud": "upper(title)", "more": "number + 1"}) == 3


def test_renamed_column_renames_the_field_where_the_payload_is_all_columns(db):
    items = Items(db, rows=5)
    db.sql("ALTER TABLE items RENAME title TO headline")
    assert items.converged(payload=("id", "headline", "n")) == 5
    assert "title" not in items.point(1).payload


def test_renamed_function_schema_and_table_are_followed(db):
    db.sql("CREATE SCHEMA helpers")
    db.sql("CREATE FUNCTION helpers.shout(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT upper($1)'")
    items = Items(db, rows=5, payload="helpers.shout(title) AS loud")
    db.sql("ALTER FUNCTION helpers.shout(text) RENAME TO cry")
    db.sql("ALTER SCHEMA helpers RENAME TO tools")
    db.sql("CREATE SCHEMA elsewhere")
    db.sql("ALTER FUNCTION tools.cry(text) SET SCHEMA elsewhere")
    items.update("true")
    assert items.converged(payload={"loud": "upper(title)"}) == 5
    db.sql("ALTER TABLE items RENAME TO things")
    db.sql("ALTER TABLE things SET SCHEMA elsewhere")
    db.sql("UPDATE elsewhere.things SET title = 'moved'")
    moved = Items.of(db, "elsewhere.things", collection=items.collection)
    assert moved.converged(payload={"loud": "upper(title)"}) == 5


def test_renamed_server_is_followed(db, front):
    items = Items(db, rows=5)
    db.sql("ALTER SERVER qdrant RENAME TO vectors")
    items.insert(6, 9)
    assert items.converged() == 9
    assert items.row()["server"] == "vectors"


def test_rename_of_what_no_mirror_names_costs_nothing_and_locks_nothing(db):
    items = Items(db, rows=3, payload="lower(title) AS low")
    db.sql("CREATE TABLE other (a int)")
    with db.connect(autocommit=False) as locker:
        locker.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        with db.connect() as conn:
            conn.execute("SET lock_timeout = '1s'")
            conn.execute("ALTER TABLE other RENAME a TO b")
            conn.execute("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
            conn.execute("ALTER FUNCTION f() RENAME TO g")
        locker.rollback()
    items.update("true")
    assert items.converged(payload={"low": "lower(title)"}) == 3


def test_two_sessions_that_alter_the_table_do_not_deadlock(db):
    items = Items(db, rows=3)
    with db.connect(autocommit=False) as one:
        one.execute("ALTER TABLE items ADD COLUMN a int")
        with db.connect() as two:
            two.execute("SET lock_timeout = '300ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                two.execute("ALTER TABLE items ADD COLUMN b int")
        one.commit()
    stays(lambda: items.state() != "failed", 0.5)
    assert items.converged(payload=("id", "title", "n", "a")) == 3
