"""row_filter, and the columns whose change counts: rows that stop matching leave, and what is in no point sends nothing."""

import contextlib

import psycopg
import pytest

from harness import wait_until
from items import VECTOR, Items

faults = pytest.mark.faults

CLUSTER = {"conf": {"qdrant_sync.segment_size": "64kB"}}

FILTER = "deleted_at IS NULL AND n % 7 <> 3"


@pytest.fixture
def filtered(db):
    """Rows 1 to 20, of which 3, 10 and 17 do not match."""
    items = Items(db, mirror=False, columns=", deleted_at timestamptz")
    db.sql(f"INSERT INTO items SELECT i, 'title ' || i, i, {VECTOR.format('i')}, NULL FROM generate_series(1, 20) i")
    items.mirror(row_filter=FILTER)
    items.wait_state("live")
    items.where = FILTER
    return items


# --- the filter ---

def test_rows_that_stop_matching_leave_and_those_that_begin_to_match_come(db, filtered):
    assert filtered.converged(where=FILTER) == 17
    db.sql("UPDATE items SET deleted_at = now() WHERE id <= 5")
    assert filtered.converged(where=FILTER) == 13
    db.sql("UPDATE items SET deleted_at = NULL WHERE id <= 2")
    db.sql("UPDATE items SET n = 0 WHERE id = 10")
    assert filtered.converged(where=FILTER) == 16
    filtered.insert(30)
    db.sql(f"INSERT INTO items VALUES (31, 'no', 3, {VECTOR.format(31)})")
    db.sql("UPDATE items SET id = id + 100 WHERE id IN (1, 4, 31)")
    db.sql("DELETE FROM items WHERE id IN (2, 5)")
    assert filtered.converged(where=FILTER) == 16
    assert filtered.wait() is True


def test_condition_that_is_null_does_not_match(db):
    items = Items(db, rows=4, mirror=False)
    db.sql("UPDATE items SET title = NULL WHERE id = 2")
    items.mirror(row_filter="title <> 'title 3'")
    assert items.converged(where="coalesce(title <> 'title 3', false)") == 2
    db.sql("UPDATE items SET title = NULL WHERE id = 1")
    assert items.converged(where="coalesce(title <> 'title 3', false)") == 1


def test_sweep_honours_the_filter(db, filtered):
    """Points of rows that do not match are left over, though the rows are there."""
    from qdrant_client.models import PointStruct
    db.front.client.upsert(filtered.collection, [
        PointStruct(id=i, vector=[1.0, 1.0, 1.0, 1.0], payload={"id": i}) for i in (3, 10, 99)])
    db.front.client.delete(filtered.collection, [1, 20])
    db.sql("SELECT qdrant_resync('items')")
    assert filtered.converged(where=FILTER) == 17


def test_whoever_truncates_a_filtered_table_empties_its_collection(db, filtered):
    db.sql("BEGIN; TRUNCATE items; INSERT INTO items SELECT i, 't', i, '{1,2,3,4}' FROM generate_series(1, 10) i; COMMIT")
    assert filtered.converged(where=FILTER) == 8


@pytest.mark.parametrize("condition, error", [
    ("now() > '2020-01-01'", "not immutable"), ("title", "must be type boolean"), ("no_such = 1", "does not exist"),
    ("EXISTS (SELECT 1)", "a subquery"), ("count(*) > 0", "aggregate"), ("true, false", "one condition"),
    ("true AS x", "one condition"), ("true FROM items", "nothing else"), ("volatile_one(n)", "not immutable"),
    ("xmin IS NOT NULL", "system column"), ("", "one condition|syntax error"), ("items IS NOT NULL", "whole row")])
def test_filter_that_is_no_condition_over_the_row_is_refused(db, condition, error):
    items = Items(db, rows=1, mirror=False)
    db.sql("CREATE FUNCTION volatile_one(n int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END'")
    with pytest.raises(psycopg.Error, match=error):
        items.mirror(row_filter=condition)
    assert items.state() is None


def test_filter_that_raises_for_one_row_is_its_dead_letter(db):
    items = Items(db, rows=10, mirror=False)
    db.sql("UPDATE items SET title = '1'")
    db.sql("UPDATE items SET title = 'x' WHERE id = 3")
    items.mirror(row_filter="title::int > 0")
    wait_until(lambda: items.dead_letters(), what="a dead letter")
    assert list(items.dead_letters()) == ["3"] and "invalid input syntax" in items.dead_letters()["3"]
    good = "title !~ 'x' AND title <> '0'"
    assert items.converged(where=good) == 9
    db.sql("UPDATE items SET title = 'x' WHERE id = 4; UPDATE items SET title = '0' WHERE id = 5; "
           "UPDATE items SET title = '2' WHERE id = 6")
    wait_until(lambda: set(items.dead_letters()) == {"3", "4"}, what="dead letters")
    # A dead letter's row leaves its point in the last state that was accepted.
    wait_until(lambda: set(items.points()) == {"1", "2", "4", "6", "7", "8", "9", "10"}, what="the others go on")
    db.sql("UPDATE items SET title = '0' WHERE id = 3; UPDATE items SET title = '5' WHERE id = 4")
    wait_until(lambda: items.dead_letters() == {}, what="no dead letter any more")
    assert items.converged(where="title <> '0'") == 8


def test_filter_over_a_user_function_runs_as_the_owner_and_is_restored_by_name(db):
    """Its text says schemas, so a session's search_path does not matter."""
    items = Items(db, rows=6, mirror=False)
    db.sql("CREATE SCHEMA other; CREATE FUNCTION other.odd(i bigint) RETURNS boolean IMMUTABLE LANGUAGE sql "
           "AS 'SELECT i % 2 = 1'")
    with contextlib.closing(db.connect()) as conn:
        conn.execute("SET search_path = public, other")
        items.mirror(conn=conn, row_filter="odd(id)")
    assert items.converged(where="id % 2 = 1") == 3
    items.insert(7, 8)
    assert items.converged(where="id % 2 = 1") == 4


# --- columns that count ---

def outbox_bytes(db):
    return db.one("SELECT coalesce(sum(pg_relation_size(s)), 0) FROM qdrant_internal.mirror m, "
                  "unnest(ARRAY[segment_a, segment_b]) s WHERE NOT dropped")


@pytest.fixture
def narrow(db):
    """Only title and n count, beside key and vector; `unmirrored` and `big` do not."""
    items = Items(db, mirror=False, columns=", unmirrored int DEFAULT 0, big text, flag boolean DEFAULT true")
    db.sql("ALTER TABLE items ALTER big SET STORAGE EXTERNAL, ALTER embedding SET STORAGE EXTERNAL")
    db.sql("INSERT INTO items SELECT i, 'title ' || i, i, (SELECT array_agg(sin(i * j)::real) FROM generate_series(1, 1000) j), "
           "0, repeat('big', 3000) FROM generate_series(1, 20) i")
    items.mirror(payload="title, n", row_filter="flag")
    items.wait_state("live")
    assert items.wait() is True
    wait_until(lambda: outbox_bytes(db) == 0, what="an empty outbox")
    return items


@faults
@pytest.mark.parametrize("update", [
    "UPDATE items SET unmirrored = unmirrored + 1", "UPDATE items SET big = repeat('other', 2000)",
    "UPDATE items SET big = NULL, unmirrored = NULL", "UPDATE items SET big = big, unmirrored = 1 - unmirrored",
    "INSERT INTO items (id, n) VALUES (5, 0), (6, 0) ON CONFLICT (id) DO UPDATE SET unmirrored = 77"])
def test_update_of_nothing_that_counts_sends_nothing(db, narrow, update):
    since = narrow.mark()
    db.sql(update)
    db.sql(f"BEGIN; SAVEPOINT s; {update}; RELEASE s; COMMIT")
    assert outbox_bytes(db) == 0
    # What counts is sent, and nothing beside it.
    db.sql("UPDATE items SET n = n + 1 WHERE id = 7")
    assert narrow.wait() is True
    assert narrow.sent(since) == {"7"}
    wait_until(lambda: outbox_bytes(db) == 0, what="an empty outbox")


@faults
def test_statement_that_sets_what_counts_is_taken_at_its_word(db, narrow):
    """Equal values are not looked for there; a point is sent again as it is."""
    since = narrow.mark()
    db.sql("UPDATE items SET title = title WHERE id = 3")
    assert narrow.wait() is True
    assert narrow.sent(since) <= {"3"}
    narrow.converged(payload=("title", "n"))


@faults
@pytest.mark.parametrize("update", [
    "UPDATE items SET title = 'x' WHERE id = 3", "UPDATE items SET embedding[1] = 7 WHERE id = 3",
    "UPDATE items SET flag = false WHERE id = 3", "UPDATE items SET flag = NULL WHERE id = 3",
    "UPDATE items SET title = NULL WHERE id = 3", "UPDATE items SET embedding = NULL WHERE id = 3"])
def test_update_of_anything_that_counts_is_sent(db, narrow, update):
    since = narrow.mark()
    db.sql(update)
    assert narrow.wait() is True
    assert narrow.sent(since) == {"3"}
    narrow.converged(payload=("title", "n"), where="flag AND embedding IS NOT NULL")


@faults
def test_every_column_counts_where_the_payload_is_everything(db):
    items = Items(db, rows=5, columns=", other int")
    since = items.mark()
    db.sql("UPDATE items SET other = 1 WHERE id = 2")
    items.converged(payload=("id", "title", "n", "other"))
    db.sql("ALTER TABLE items ADD later int DEFAULT 3")
    db.sql("UPDATE items SET later = 4 WHERE id = 4")
    wait_until(lambda: items.point(4).payload.get("later") == 4, what="a column that was added")
    assert {"2", "4"} <= items.sent(since)


def test_column_that_a_before_trigger_changes_counts(db, narrow):
    db.sql("CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.title := ''touched''; RETURN NEW; END'")
    db.sql("CREATE TRIGGER touch BEFORE UPDATE ON items FOR EACH ROW EXECUTE FUNCTION touch()")
    db.sql("UPDATE items SET unmirrored = 1 WHERE id = 9")
    narrow.converged(payload=("title", "n"))
    assert narrow.point(9).payload["title"] == "touched"


@pytest.mark.parametrize("kind", ["STORED", "VIRTUAL"])
def test_generated_column_counts_when_what_it_is_made_of_changes(db, cluster, kind):
    if kind == "VIRTUAL" and int(cluster.version) < 18:
        pytest.skip(f"PostgreSQL {cluster.version} has no virtual columns")
    items = Items(db, mirror=False, columns=f", base int DEFAULT 1, made int GENERATED ALWAYS AS (base * 2) {kind}")
    db.sql(f"INSERT INTO items (id, n, embedding) SELECT i, 0, {VECTOR.format('i')} FROM generate_series(1, 5) i")
    items.mirror(payload="made, n", row_filter="made < 100")
    items.wait_state("live")
    db.sql("UPDATE items SET base = id")
    items.converged(payload=("made", "n"))
    db.sql("UPDATE items SET base = 60 WHERE id = 2")
    assert items.converged(payload=("made", "n"), where="made < 100") == 4


@faults
def test_columns_count_in_a_leaf_with_another_order(db):
    """Numbers of columns are the leaf's own; a dropped one in each shifts them."""
    db.sql("CREATE TABLE items (gone int, id bigint, title text, n int NOT NULL DEFAULT 0, embedding real[], other int) "
           "PARTITION BY RANGE (id)")
    db.sql("ALTER TABLE items DROP gone; ALTER TABLE items ADD PRIMARY KEY (id)")
    db.sql("CREATE TABLE high (other int, embedding real[], dropped int, n int NOT NULL DEFAULT 0, title text, id bigint NOT NULL)")
    db.sql("ALTER TABLE high DROP dropped; ALTER TABLE items ATTACH PARTITION high FOR VALUES FROM (100) TO (200)")
    db.sql("CREATE TABLE low PARTITION OF items FOR VALUES FROM (0) TO (100)")
    items = Items.of(db)
    db.sql(f"INSERT INTO items (id, title, embedding) SELECT i, 't', {VECTOR.format('i')} FROM generate_series(95, 105) i")
    items.mirror(payload="title, n")
    items.wait_state("live")
    assert items.wait() is True
    wait_until(lambda: outbox_bytes(db) == 0, what="an empty outbox")
    since = items.mark()
    db.sql("UPDATE items SET other = id")
    db.sql("UPDATE high SET other = 5")
    assert outbox_bytes(db) == 0
    for change in ("title = 'new'", "n = 4", "embedding = '{4,3,2,1}'", "id = id + 50"):
        db.sql(f"UPDATE high SET {change} WHERE id = 103")
        items.converged(payload=("title", "n"))
    assert items.sent(since) == {"103", "153"}
