"""qdrant_upload: the rows of a query as points, in bounded memory, with the transaction and as the caller."""

import contextlib
import inspect
import threading

import psycopg
import pytest
from qdrant_client import AsyncQdrantClient, models

from harness import collection_points, wait_until
from items import Items
from test_memory import MB
from test_payload import database_with_encoding

faults = pytest.mark.faults


@pytest.fixture
def target(db):
    """A collection of nobody's mirror."""
    name = db.collection("uploaded")
    db.sql("SELECT qdrant_create_collection(%s, '{\"size\": 4, \"distance\": \"Dot\"}')", (name,))
    return name


def upload(conn, target, query, **more):
    names = "".join(f", {name} => %s" for name in more)
    return conn.execute(f"SELECT qdrant_upload(%s, %s{names})", (target, query, *more.values())).fetchone()[0]


def wait(db, timeout="60s"):
    assert db.one("SELECT qdrant_wait(%s)", (timeout,)) is True


ROWS = "SELECT i AS id, ARRAY[i, 1, 0, 0]::real[] AS vector, i AS n FROM generate_series(1, {}) i"


def test_arguments_are_those_of_the_client(db):
    """upload_points has them all but for those of its threads and retries, which the outbox is instead of."""
    theirs = set(inspect.signature(AsyncQdrantClient.upload_points).parameters)
    theirs -= {"self", "kwargs", "points", "parallel", "method", "max_retries", "wait"}
    ours = set(db.one("SELECT proargnames FROM pg_proc WHERE proname = 'qdrant_upload'"))
    assert ours == theirs | {"query", "server"}
    assert db.one("SELECT pg_get_function_arguments('qdrant_upload'::regproc)").count("batch_size bigint DEFAULT 64") == 1
    assert inspect.signature(AsyncQdrantClient.upload_points).parameters["batch_size"].default == 64


@faults
def test_batch_size_is_the_number_of_points_in_a_request(db, front, target):
    since = front.faults.log()[-1]["n"]
    assert upload(db.conn, target, ROWS.format(25), batch_size=10) == 25
    wait(db)
    writes = front.faults.log(method="PUT", path_regex=f"^/collections/{target}/points$", since=since)
    assert [len(entry["ids"]) for entry in writes] == [10, 10, 5]
    assert [one for entry in writes for one in entry["ids"]] == list(range(1, 26))


def test_uploaded_points_are_those_that_the_client_uploads(db, front, target):
    """Everything beside the points, too: the same call of the official client leaves the same collection."""
    other = db.collection("theirs")
    front.client.create_collection(other, vectors_config=models.VectorParams(size=4, distance="Dot"))
    for name in (target, other):
        front.client.upsert(name, [models.PointStruct(id=2, vector=[9, 9, 9, 9], payload={"old": True})], wait=True)
    front.client.upload_points(other, [models.PointStruct(id=i, vector=[i, 1, 0, 0], payload={"n": i}) for i in range(1, 6)],
                               wait=True, update_mode=models.UpdateMode.INSERT_ONLY)
    assert upload(db.conn, target, ROWS.format(5), update_mode="insert_only") == 5
    wait(db)
    assert collection_points(front, target) == collection_points(front, other)


def test_a_hundred_thousand_rows_arrive(db, front, target):
    assert upload(db.conn, target, ROWS.format(100_000), batch_size=1000) == 100_000
    wait(db)
    assert front.client.count(target, exact=True).count == 100_000
    assert front.client.retrieve(target, [77_777])[0].payload == {"n": 77_777}


def test_millions_of_rows_take_bounded_memory(db, target):
    """Looked at from within, at the beginning and at the end; rolled back, since it is the reading that may not grow."""
    conn = db.connect(autocommit=False)
    conn.execute("CREATE TABLE seen (at int, bytes bigint)")
    conn.execute("CREATE FUNCTION look(at int) RETURNS int LANGUAGE sql AS 'INSERT INTO seen SELECT at, sum(total_bytes) "
                 "FROM pg_backend_memory_contexts RETURNING at'")
    assert upload(conn, target, """SELECT i AS id, ARRAY[i, 1, 0, 0]::real[] AS vector,
        CASE WHEN i IN (5000, 1999000) THEN look(i::int) END AS n FROM generate_series(1, 2000000) i""", batch_size=1000) == 2_000_000
    (_, early), (_, late) = conn.execute("SELECT at, bytes FROM seen ORDER BY at").fetchall()
    kept = conn.execute("SELECT coalesce(sum(total_bytes), 0) FROM pg_backend_memory_contexts "
                        "WHERE name LIKE 'qdrant_sync%'").fetchone()[0]
    conn.rollback()
    assert late - early <= MB, late - early
    assert kept <= 1.1 * MB, kept


def test_upload_that_was_rolled_back_sends_nothing(db, front, target):
    conn = db.connect(autocommit=False)
    upload(conn, target, ROWS.format(100))
    conn.rollback()
    with pytest.raises(psycopg.errors.DivisionByZero):
        upload(db.conn, target, "SELECT i AS id, '[1, 2, 3, 4]' AS vector, 1 / (90 - i) AS n FROM generate_series(1, 100) i")
    upload(db.conn, target, "SELECT 500 AS id, '[1, 2, 3, 4]' AS vector")
    wait(db)
    assert [point.id for point in front.client.scroll(target, limit=1000)[0]] == [500]


def test_the_query_runs_as_the_caller(db, target):
    """Its rights, its row security, its role within the query."""
    db.sql("CREATE TABLE secret (id int, who text)")
    db.sql("INSERT INTO secret VALUES (1, 'a'), (2, 'b')")
    db.sql("DROP ROLE IF EXISTS uploader")
    db.sql("CREATE ROLE uploader")
    try:
        server = db.one("SELECT srvname FROM pg_foreign_server")
        db.sql(f"GRANT USAGE ON FOREIGN SERVER {server} TO uploader")
        conn = db.connect()
        conn.execute("SET ROLE uploader")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            upload(conn, target, "SELECT id, '[1, 2, 3, 4]' AS vector FROM secret")
        db.sql("GRANT SELECT ON secret TO uploader")
        db.sql("ALTER TABLE secret ENABLE ROW LEVEL SECURITY")
        db.sql("CREATE POLICY own ON secret USING (who = 'a')")
        assert upload(conn, target, "SELECT id, '[1, 2, 3, 4]' AS vector, current_user AS me FROM secret") == 1
        conn.close()
        wait(db)
        point, = db.sql("SELECT id, payload FROM qdrant_query(%s, '[1, 0, 0, 0]'::jsonb)", (target,))
        assert point == ("1", {"me": "uploader"})
    finally:
        db.sql("DROP OWNED BY uploader")
        db.sql("DROP ROLE uploader")


def test_collection_of_a_mirror_is_refused_before_the_query_runs(db):
    items = Items(db, rows=1)
    with pytest.raises(psycopg.errors.ObjectInUse):
        upload(db.conn, items.collection, "SELECT 1 / 0 AS id")


def test_progress_is_seen_while_the_query_is_read(db, target):
    """By the role that asked and by monitors, and not by others; gone when it ended, in whatever way."""
    db.sql("CREATE TABLE gate ()")
    holder = db.connect(autocommit=False)
    holder.execute("SELECT pg_advisory_lock(1)")
    conn = db.connect()
    failed = []

    def run():
        try:
            upload(conn, target, "SELECT i AS id, '[1, 2, 3, 4]' AS vector, CASE WHEN i = 1000 THEN "
                   "pg_advisory_lock(1)::text END AS gate FROM generate_series(1, 2000) i")
        except psycopg.errors.QueryCanceled as e:
            failed.append(e)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        seen = wait_until(lambda: [row for row in db.sql("SELECT pid, points, started < clock_timestamp() FROM qdrant_uploads")
                                   if row[1] >= 900], what="progress")
        assert seen == [(conn.info.backend_pid, seen[0][1], True)] and seen[0][1] <= 1000
        db.sql("DROP ROLE IF EXISTS onlooker")
        db.sql("CREATE ROLE onlooker")
        with contextlib.closing(db.connect()) as other:
            other.execute("SET ROLE onlooker")
            assert other.execute("SELECT * FROM qdrant_uploads").fetchall() == []
            db.sql("GRANT pg_monitor TO onlooker")
            assert len(other.execute("SELECT * FROM qdrant_uploads").fetchall()) == 1
        db.sql("DROP ROLE onlooker")
        db.sql("SELECT pg_cancel_backend(%s)", (conn.info.backend_pid,))
    finally:
        thread.join(30)
        holder.close()
    assert failed
    assert db.sql("SELECT * FROM qdrant_uploads") == []
    # The same session again, and one that ends in the middle.
    assert upload(conn, target, "SELECT u.points AS id, '[1, 2, 3, 4]' AS vector FROM qdrant_uploads u") == 1
    with pytest.raises(psycopg.OperationalError):
        upload(conn, target, "SELECT 1 AS id, pg_terminate_backend(pg_backend_pid())")
    wait_until(lambda: db.sql("SELECT * FROM qdrant_uploads") == [], what="the place is free")


@faults
def test_what_waits_to_be_sent_is_seen(db, front, target):
    front.faults.down()
    try:
        upload(db.conn, target, ROWS.format(50), batch_size=10)
        wait_until(lambda: db.one("SELECT pending FROM qdrant_operations") == 5, what=lambda: f"{db.sql('TABLE qdrant_operations')}")
    finally:
        front.faults.up()
    wait(db)
    wait_until(lambda: db.one("SELECT pending, more, lag_seconds, dead_letters FROM qdrant_operations") is not None
               and db.sql("SELECT pending, more, lag_seconds, dead_letters FROM qdrant_operations") == [(0, False, 0, 0)],
               what=lambda: f"nothing waits: {db.sql('TABLE qdrant_operations')}")


def test_settings_of_the_session_change_the_query_and_not_the_points(db, front, target):
    db.sql("SET DateStyle = 'SQL, DMY'")
    db.sql("SET TimeZone = 'Asia/Tokyo'")
    db.sql("SET IntervalStyle = 'postgres'")
    assert upload(db.conn, target, """SELECT 1 AS id, '[1, 2, 3, 4]' AS vector, '2026-11-23 09:00+09'::timestamptz AS at,
        '02/11/2026'::date AS day, ('2026-11-23 09:00+09'::timestamptz)::text AS as_text, '1 day'::interval AS span,
        daterange('02/11/2026', '03/11/2026') AS days FROM generate_series(1, 100) i WHERE i = 50""") == 1
    assert db.one("SHOW DateStyle") == "SQL, DMY"
    wait(db)
    assert front.client.retrieve(target, [1])[0].payload == {
        "at": "2026-11-23T00:00:00Z", "day": "2026-11-02", "as_text": "23/11/2026 09:00:00 JST", "span": "P1D",
        "days": "[2026-11-02,2026-11-03)"}


@pytest.mark.parametrize("query", ["", "  ", ";", "-- nothing"])
def test_an_empty_query_is_named(db, target, query):
    with pytest.raises(psycopg.errors.SyntaxError, match="query is empty") as caught:
        upload(db.conn, target, query)
    assert "SELECT" in caught.value.diag.message_hint


def test_upload_within_the_query_of_an_upload(db, front, target):
    inner = ROWS.format(3).replace("'", "''")
    assert upload(db.conn, target, f"SELECT 100 + qdrant_upload('{target}', '{inner}') AS id, '[1, 2, 3, 4]' AS vector") == 1
    wait(db)
    assert sorted(point.id for point in front.client.scroll(target)[0]) == [1, 2, 3, 103]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_text_of_a_database_in_another_encoding_arrives_in_utf8(cluster, front, encoding):
    with database_with_encoding(cluster, front, encoding) as db:
        target = db.collection("uploaded")
        db.sql("SELECT qdrant_create_collection(%s, '{\"size\": 2, \"distance\": \"Dot\"}')", (target,))
        conn = db.connect()
        conn.execute("SET client_encoding = 'UTF8'")
        assert upload(conn, target, "SELECT 1 AS id, ARRAY[1, 2] AS vector, 'Größe' AS \"naïve\", "
                      "'{\"ä\": \"ö\"}'::jsonb AS doc") == 1
        assert db.one("SELECT qdrant_wait('30s')") is True
        assert front.client.retrieve(target, [1])[0].payload == {"naïve": "Größe", "doc": {"ä": "ö"}}
    front.clear()


@pytest.mark.pgvector
def test_types_of_pgvector(db, front):
    db.sql("CREATE EXTENSION vector")
    target = db.collection("kinds")
    front.client.create_collection(
        target, vectors_config={"dense": models.VectorParams(size=2, distance="Dot"),
                                "half": models.VectorParams(size=2, distance="Dot"),
                                "multi": models.VectorParams(size=2, distance="Dot", multivector_config=models.MultiVectorConfig(
                                    comparator="max_sim"))},
        sparse_vectors_config={"words": models.SparseVectorParams()})
    assert upload(db.conn, target, """SELECT 1 AS id, '[1,2]'::vector AS dense, '[0.5,2]'::halfvec AS half,
        ARRAY['[1,2]', '[3,4]']::vector[] AS multi, '{1:0.5,8:2}/10'::sparsevec AS words""") == 1
    with pytest.raises(psycopg.errors.DatatypeMismatch):
        upload(db.conn, target, "SELECT 1 AS id, '{1:1}/2'::sparsevec AS vector")
    wait(db)
    point, = front.client.retrieve(target, [1], with_vectors=True)
    assert point.vector == {"dense": [1, 2], "half": [0.5, 2], "multi": [[1, 2], [3, 4]],
                            "words": models.SparseVector(indices=[0, 7], values=[0.5, 2])}
    assert point.payload == {}
