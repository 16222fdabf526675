"""qdrant_mirror and its kin as DDL: what they look at, what they leave behind, what they mend."""

import concurrent.futures
import contextlib
import re

import psycopg
import pytest
from qdrant_client import models

from harness import collection_points, new_extension_db, stays, wait_until
from items import Items, points_path

faults = pytest.mark.faults


class Notices(list):
    """What a connection was told beside its results."""

    def __init__(self, conn):
        super().__init__()
        conn.add_notice_handler(lambda diag: self.append(diag.message_primary))


def segments(db):
    return db.one("SELECT count(*) FROM pg_class WHERE relnamespace = 'qdrant_internal'::regnamespace "
                  "AND relname LIKE 'segment%%'")


# --- the look at Qdrant (hazards 20, 30) ---

def test_alias_as_collection_is_refused_and_its_target_named(db, front):
    items = Items(db, rows=1, mirror=False)
    front.client.create_collection("behind_" + db.name, vectors_config=models.VectorParams(
        size=4, distance=models.Distance.COSINE))
    front.client.update_collection_aliases([models.CreateAliasOperation(create_alias=models.CreateAlias(
        collection_name="behind_" + db.name, alias_name=items.collection))])
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=f'alias of "behind_{db.name}"') as error:
        items.mirror()
    assert "behind_" + db.name in error.value.diag.message_hint
    items.mirror(collection="behind_" + db.name)


@faults
def test_mirror_that_is_made_while_qdrant_is_away_says_so_and_is_filled_later(db, front):
    items = Items(db, rows=20, mirror=False)
    notices = Notices(db.conn)
    front.faults.pause_listening()
    items.mirror()
    assert any("could not be looked at" in notice for notice in notices), notices
    assert not items.wait("1s")
    front.faults.resume_listening()
    items.converged()


@faults
def test_wrong_key_is_an_error_at_once_and_a_forbidden_look_is_not(db, front):
    items = Items(db, rows=2, mirror=False)
    front.faults.fault("401", method="GET", times=None)
    with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification):
        items.mirror()
    assert segments(db) == 0
    front.faults.clear_faults()
    front.faults.fault("403", method="GET", path_regex="^/aliases$", times=1)
    items.mirror()
    items.converged()


# --- transactions ---

def test_unmirror_and_mirror_again_in_one_transaction(db):
    items = Items(db, rows=5)
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT qdrant_unmirror('items', true)")
        items.insert(6, conn=conn)
        items.mirror(conn=conn, payload="title, n, id")
        items.insert(7, conn=conn)
        conn.commit()
    items.converged()


def test_prepared_mirror_is_made_when_it_commits(db):
    items = Items(db, rows=5, mirror=False)
    with db.connect(autocommit=False) as conn:
        items.mirror(conn=conn)
        conn.execute(f"PREPARE TRANSACTION '{db.name}'")
        conn.rollback()
    assert items.state() is None
    db.sql(f"COMMIT PREPARED '{db.name}'")
    items.insert(6)
    items.converged()


def test_two_sessions_mirror_into_one_collection(db):
    """Whoever commits second is told, and leaves nothing."""
    first, second = Items(db, "first", rows=1, mirror=False), Items(db, "second", rows=1, mirror=False)
    with db.connect(autocommit=False) as one, db.connect(autocommit=False) as two:
        first.mirror(conn=one, collection="shared_" + db.name)
        two.execute("SET statement_timeout = '500ms'")
        with pytest.raises((psycopg.errors.QueryCanceled, psycopg.errors.UniqueViolation)):
            second.mirror(conn=two, collection="shared_" + db.name)
        two.rollback()
        one.commit()
        with pytest.raises(psycopg.errors.DuplicateObject, match="belongs to another mirror"):
            second.mirror(conn=two, collection="shared_" + db.name)
    first.collection = "shared_" + db.name
    first.converged()


def test_mirror_beside_an_open_transaction_that_made_another(db):
    """Hazard 24: making segments must not lock the extension."""
    first, second = Items(db, "first", rows=1, mirror=False), Items(db, "second", rows=1, mirror=False)
    with db.connect(autocommit=False) as conn:
        first.mirror(conn=conn)
        db.sql("SET statement_timeout = '2s'")
        second.mirror()
        second.converged()
        conn.commit()
    first.converged()


# --- what is left behind (hazard 24) ---

def test_segments_go_with_their_mirror(db):
    items = Items(db, rows=5)
    assert segments(db) == 2
    items.unmirror(drop_collection=True)
    wait_until(lambda: segments(db) == 0, what="the segments are dropped")
    assert db.one("SELECT count(*) FROM qdrant_internal.mirror") == 0
    assert db.one("SELECT count(*) FROM qdrant_internal.progress") == 0
    items.mirror()
    items.converged()
    db.sql("DROP TABLE items")
    wait_until(lambda: segments(db) == 0, what="the segments of the dropped table are dropped")
    assert db.one("SELECT count(*) FROM pg_extension WHERE extname = 'qdrant_sync'") == 1


def test_dump_holds_the_definition_and_nothing_of_the_state(db, cluster):
    Items(db, rows=2)
    dump = cluster.dump(db.name)
    assert "qdrant_internal.capture(" in dump and "ENABLE ALWAYS TRIGGER qdrant_sync" in dump
    assert not re.search("segment_|qdrant_internal.(mirror|progress|dead_letter)", dump)


# --- triggers that were touched (hazard 26) ---

@pytest.mark.parametrize("harm", [
    "ALTER TABLE items DISABLE TRIGGER qdrant_sync",
    "ALTER TABLE items DISABLE TRIGGER USER",
    "ALTER TABLE items ENABLE TRIGGER qdrant_sync",
    "DROP TRIGGER qdrant_sync_truncate ON items",
    "CREATE OR REPLACE TRIGGER qdrant_sync AFTER INSERT OR UPDATE OR DELETE ON items FOR EACH ROW WHEN (false) "
    "EXECUTE FUNCTION {}",
])
def test_resume_mends_triggers_and_compares_all_rows(db, harm):
    items = Items(db, rows=5)
    items.wait()
    call = re.search(r"EXECUTE FUNCTION (.*)$", db.one(
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'qdrant_sync'"))[1]
    db.sql(harm.format(call).replace("%", "%%"))
    items.insert(6, 10)
    items.delete("id = 1")
    items.resume()
    assert db.sql("SELECT tgname, tgenabled, tgqual IS NULL FROM pg_trigger WHERE tgrelid = 'items'::regclass "
                  "ORDER BY 1") == [("qdrant_sync", "A", True), ("qdrant_sync_truncate", "A", True)]
    items.converged()
    items.insert(11)
    items.converged()


def test_trigger_that_was_dropped_is_said_and_the_mirror_can_be_ended(db):
    items = Items(db, rows=5)
    db.sql("DROP TRIGGER qdrant_sync ON items")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is gone"):
        items.resume()
    items.unmirror()
    wait_until(lambda: segments(db) == 0, what="the mirror is gone")
    items.mirror(take_over=True)
    items.converged()


# --- names, keys and columns of all kinds ---

def test_names_that_need_quotes(db, front):
    db.sql("""
        CREATE SCHEMA "My Schema";
        CREATE TABLE "My Schema"."Sélect table"
            ("Key's id" uuid PRIMARY KEY, "from" text, "a""b" integer, "Vec tor" real[]);
        INSERT INTO "My Schema"."Sélect table"
            SELECT gen_random_uuid(), 'it''s \\ x', i, ARRAY[i, 1, 2]::real[] FROM generate_series(1, 5) i""")
    notices = Notices(db.conn)
    db.sql("""SELECT qdrant_mirror('"My Schema"."Sélect table"', collection => %s)""", (db.collection("tricky"),))
    assert notices and '"Key\'s id", "from", "a""b"' in notices[0]
    assert db.one("SELECT qdrant_wait('30s')")
    points = collection_points(front, db.collection("tricky"))
    assert len(points) == 5
    assert {tuple(sorted(point.payload)) for point in points.values()} == {("Key's id", 'a"b', "from")}
    db.sql("""SELECT qdrant_unmirror('"My Schema"."Sélect table"', true)""")
    db.sql("""SELECT qdrant_mirror('"My Schema"."Sélect table"', collection => %s, vector => '"Vec tor" AS "V''1"',
              payload => $$ "from" || E'\\n' AS "it's \\ it", "a""b" + 1 AS "select" $$)""", (db.collection("other"),))
    assert db.one("SELECT qdrant_wait('30s')")
    points = collection_points(front, db.collection("other"))
    assert {tuple(sorted(point.payload)) for point in points.values()} == {("it's \\ it", "select")}
    assert {point.payload["it's \\ it"] for point in points.values()} == {"it's \\ x\n"}


def test_expression_means_the_same_under_another_search_path(db, front):
    """What the caller meant is what the worker runs, also where a schema on the caller's path hides something."""
    db.sql("""
        CREATE SCHEMA mine;
        CREATE FUNCTION mine.upper(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'mine ' || $1 $$;
        CREATE FUNCTION mine.plus(integer, integer) RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 1000 $$;
        CREATE OPERATOR mine.+ (LEFTARG = integer, RIGHTARG = integer, FUNCTION = mine.plus);
        CREATE DOMAIN mine.text AS pg_catalog.text""")
    items = Items(db, rows=1, mirror=False)
    with db.connect() as conn:
        conn.execute("SET search_path = mine, public, pg_catalog")
        items.mirror(conn=conn, payload="upper(title) AS a, n + 1 AS b, pg_catalog.upper(title) AS c, n::text AS d")
    assert items.wait()
    assert items.point(1).payload == {"a": "mine title 1", "b": 1000, "c": "TITLE 1", "d": "0"}


def test_columns_that_were_dropped_and_added_are_followed_by_name(db):
    items = Items(db, rows=3, mirror=False, columns=", extra text")
    db.sql("ALTER TABLE items DROP COLUMN extra, DROP COLUMN n, ADD COLUMN n integer NOT NULL DEFAULT 7")
    items.mirror()
    items.converged()


# --- wait ---

def test_wait_of_a_role_that_may_not_read_is_refused_and_of_all_is_not(db, cluster):
    items = Items(db, rows=3)
    cluster.sql("DROP ROLE IF EXISTS waits; CREATE ROLE waits LOGIN")
    with contextlib.closing(db.connect(user="waits")) as conn:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT qdrant_wait('1s', 'items'::regclass)")
        assert conn.execute("SELECT qdrant_wait('30s')").fetchone()[0]
        assert conn.execute("SELECT count(*) FROM qdrant_mirrors").fetchone()[0] == 0
    assert items.wait()


@faults
def test_wait_is_interruptible_and_ends_with_its_mirror(db, front):
    items = Items(db, rows=3)
    front.faults.pause_listening()
    items.insert(4)
    db.sql("SET statement_timeout = '300ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        db.sql("SELECT qdrant_wait()")
    db.sql("RESET statement_timeout")
    with contextlib.closing(db.connect()) as other:
        assert other.execute("SELECT qdrant_wait('200ms')").fetchone()[0] is False
        # Waiting goes on while the mirror is paused by somebody else: the answer is no, and at once.
        items.pause()
        assert other.execute("SELECT qdrant_wait()").fetchone()[0] is False
        items.resume()
    front.faults.resume_listening()
    assert items.wait()


@faults
def test_wait_beside_a_paused_and_a_failed_mirror_is_for_all_that_can_still_arrive(db, front):
    paused, failed, live = (Items(db, table, rows=3) for table in ("paused", "failed", "live"))
    written = db.collection("written")
    db.sql("SELECT qdrant_create_collection(%s, vectors_config => '{\"size\": 4, \"distance\": \"Dot\"}')", (written,))
    paused.pause()
    db.sql("ALTER TABLE failed ALTER embedding TYPE text USING embedding::text")
    failed.wait_state("failed")
    front.faults.fault("hold", path_regex=f"{points_path(live)}|^/collections/{written}/", times=None)
    for items in (paused, live):
        items.insert(4, 5)
    db.sql("SELECT qdrant_upsert(%s, '[{\"id\": 7, \"vector\": [1, 2, 3, 4]}]')", (written,))
    with contextlib.closing(db.connect()) as other:
        notices = Notices(other)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(lambda: other.execute("SELECT qdrant_wait('60s')").fetchone()[0])
            # Both are under way, and it waits: an answer that came now would be caught here.
            front.faults.wait_held(2)
            wait_until(lambda: answer.done() or db.one(
                "SELECT true FROM pg_stat_activity WHERE pid = %s AND wait_event IN ('QdrantWait', 'Extension')",
                (other.info.backend_pid,)), 30, "it waits")
            stays(lambda: not answer.done(), 0.5)
            front.faults.clear_faults()
            front.faults.release()
            assert answer.result(60) is False
    assert {"4", "5"} <= live.points().keys()
    assert front.client.count(written).count == 1
    assert not {"4", "5"} & paused.points().keys()
    assert {name for name in ("paused", "failed", "live") if any(f'"{name}"' in notice for notice in notices)} == \
        {"paused", "failed"}


@faults
def test_wait_for_a_mirror_whose_table_is_dropped_has_nothing_to_wait_for(db, front):
    """Dropped before the wait or during it, and while the worker cannot clean up."""
    dropped, paused = (Items(db, table, rows=3) for table in ("dropped", "paused"))
    assert db.wait()
    paused.pause()
    front.faults.fault("hold", path_regex="^/collections", times=None)
    dropped.insert(4)
    front.faults.wait_held(1)
    db.sql("DROP TABLE paused")
    with contextlib.closing(db.connect()) as other, concurrent.futures.ThreadPoolExecutor(1) as pool:
        notices = Notices(other)
        answer = pool.submit(lambda: other.execute("SELECT qdrant_wait('60s')").fetchone()[0])
        wait_until(lambda: answer.done() or db.one(
            "SELECT true FROM pg_stat_activity WHERE pid = %s AND wait_event IN ('QdrantWait', 'Extension')",
            (other.info.backend_pid,)), 30, "it waits")
        db.sql("DROP TABLE dropped")
        assert answer.result(60) is True
        assert notices == []
    front.faults.clear_faults()
    front.faults.release()


def test_a_partition_has_no_mirror_of_its_own(db):
    db.sql("CREATE TABLE items (id bigint PRIMARY KEY, embedding real[]) PARTITION BY RANGE (id)")
    db.sql("CREATE TABLE part PARTITION OF items FOR VALUES FROM (0) TO (10)")
    Items.of(db).mirror()
    for call in ("qdrant_wait('1s', 'part')", "qdrant_pause('part')", "qdrant_verify('part')"):
        with pytest.raises(psycopg.errors.UndefinedObject, match='"part" has no mirror'):
            db.sql(f"SELECT {call}")


def test_two_databases_mirror_the_same_names(db, cluster, front):
    other = new_extension_db(cluster, front)
    mine, theirs = Items(db, rows=3), Items(other, rows=4)
    mine.converged()
    theirs.converged()
    other.drop()
