"""Searching from SQL, seen from outside: answers against the official client's, rows against the table."""

import contextlib
import json
import re
import socket
import threading
import uuid

import psycopg
import pytest
from psycopg.types.json import Jsonb
from qdrant_client import models

from harness import Cluster, new_extension_db
from items import VECTOR, Items

pytestmark = pytest.mark.versions

RED = [0.9, 0.1, 0.1, 0.5]


def ids(db, call, params=None):
    return [row[0] for row in db.sql(f"SELECT (hit).id FROM {call} ORDER BY rank", params)]


@pytest.fixture
def points(db, front):
    """A collection that no mirror owns, with one point a color."""
    name = db.collection("colors")
    front.client.create_collection(name, vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    front.client.upsert(name, [
        models.PointStruct(id=1, vector=RED, payload={"color": "red"}),
        models.PointStruct(id=2, vector=[0.1, 0.9, 0.1, 0.5], payload={"color": "green"}),
        models.PointStruct(id=3, vector=[0.1, 0.1, 0.9, 0.5], payload={"color": "blue"})], wait=True)
    return name


# --- answers ---

def test_query_points_is_the_official_clients(db, front, points):
    """The same points, scores and payloads as query_points of the Python client, argument for argument."""
    cases = [
        ({}, ""),
        ({"limit": 2, "offset": 1}, ', "limit" => 2, "offset" => 1'),
        ({"with_payload": False, "with_vectors": True}, ", with_payload => false, with_vectors => true"),
        ({"score_threshold": 0.5}, ", score_threshold => 0.5"),
        ({"query_filter": models.Filter(must_not=[models.HasIdCondition(has_id=[1])])},
         """, query_filter => '{"must_not": [{"has_id": [1]}]}'"""),
        ({"search_params": models.SearchParams(exact=True), "timeout": 5},
         """, search_params => '{"exact": true}', "timeout" => '5s'"""),
    ]
    for arguments, text in cases:
        expected = [(str(p.id), pytest.approx(p.score), p.payload, p.vector)
                    for p in front.client.query_points(points, query=RED, **arguments).points]
        got = db.sql(f"SELECT id, score, payload, vector FROM qdrant_query_points(%s, %s::real[]{text})", (points, RED))
        assert got == expected, text


def test_prefetch_fusion_and_lookups(db, front, points):
    got = db.sql("""SELECT id FROM qdrant_query_points(%s, '{"fusion": "rrf"}', prefetch => %s)""", (points, Jsonb([
        {"query": RED, "limit": 2}, {"query": [0.1, 0.1, 0.9, 0.5], "limit": 1}])))
    expected = front.client.query_points(points, query=models.FusionQuery(fusion=models.Fusion.RRF), prefetch=[
        models.Prefetch(query=RED, limit=2), models.Prefetch(query=[0.1, 0.1, 0.9, 0.5], limit=1)]).points
    assert sorted(row[0] for row in got) == sorted(str(p.id) for p in expected)
    other = db.sql("SELECT id FROM qdrant_query_points(%s, 1, lookup_from => %s, \"limit\" => 1)",
                   (points, Jsonb({"collection": points})))
    assert len(other) == 1


def test_sparse_and_multi_vectors(db, front):
    name = db.collection("kinds")
    front.client.create_collection(
        name, vectors_config={"many": models.VectorParams(
            size=2, distance=models.Distance.DOT,
            multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM))},
        sparse_vectors_config={"words": models.SparseVectorParams()})
    front.client.upsert(name, [
        models.PointStruct(id=1, vector={"many": [[1, 0], [0, 1]],
                                         "words": models.SparseVector(indices=[0, 2], values=[1, 2])}),
        models.PointStruct(id=2, vector={"many": [[-1, 0], [0, -1]],
                                         "words": models.SparseVector(indices=[1], values=[3])})], wait=True)
    # pgvector counts the elements of a sparse vector from 1, Qdrant from 0.
    for query in ("{1:1,3:0.5}/4", "{ 3:0.5 , 1:1 } / 4", '{"indices": [0, 2], "values": [1, 0.5]}'):
        assert db.sql("SELECT id, score FROM qdrant_query(%s, %s::text, vector_name => 'words')", (name, query)) \
            == [("1", 2.0)], query
    # Without an element it is near to nothing.
    for query in ("{}/4", " { } / 4", '{"indices": [], "values": []}'):
        assert db.sql("SELECT * FROM qdrant_query(%s, %s::text, vector_name => 'words')", (name, query)) == [], query
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="not understood"):
        db.sql("SELECT * FROM qdrant_query(%s, '{1:1,}/4', vector_name => 'words')", (name,))
    for query in ("ARRAY[[1,0],[0,1]]", "'[[1, 0], [0, 1]]'", "'{{1,0},{0,1}}'", "'[[1,0],[0,1]]'::jsonb"):
        assert db.sql(f"SELECT id, score FROM qdrant_query(%s, {query}, 1, vector_name => 'many')", (name,)) \
            == [("1", 2.0)], query
    assert db.sql("SELECT vector FROM qdrant_query_points(%s, ARRAY[[1,0]], 'many', \"limit\" => 1, "
                  "vector_names => '{words}')", (name,)) == [({"words": {"indices": [0, 2], "values": [1.0, 2.0]}},)]


@pytest.mark.pgvector
def test_types_of_pgvector(cluster, front):
    front.clear()
    db = new_extension_db(cluster, front, extensions=("vector",))
    try:
        items = Items(db, rows=5)
        wanted = ids(db, "qdrant_search(NULL::items, (SELECT embedding FROM items WHERE id = 3), 2)")
        assert ids(db, "qdrant_search(NULL::items, (SELECT embedding::vector FROM items WHERE id = 3), 2)") == wanted
        assert ids(db, "qdrant_search(NULL::items, (SELECT embedding::vector::halfvec FROM items WHERE id = 3), 2)") \
            == wanted
        name = db.collection("sparse")
        front.client.create_collection(name, vectors_config={}, sparse_vectors_config={
            "words": models.SparseVectorParams()})
        front.client.upsert(name, [models.PointStruct(id=1, vector={
            "words": models.SparseVector(indices=[0, 2], values=[1, 2])})], wait=True)
        assert db.sql("SELECT id, score FROM qdrant_query(%s, '{1:1,3:0.5}/4'::sparsevec, vector_name => 'words')",
                      (name,)) == [("1", 2.0)]
        assert db.sql("SELECT * FROM qdrant_query(%s, '{}/4'::sparsevec, vector_name => 'words')", (name,)) == []
        with pytest.raises(psycopg.errors.DatatypeMismatch):
            db.sql("SELECT * FROM qdrant_query(%s, ARRAY['[1,2]'::vector])", (name,))
        assert items.state() == "live"
    finally:
        db.drop()


def test_values_as_drivers_send_them(db):
    """Bound on the server's side: lists are float8[], and what has no type is text."""
    Items(db, rows=5)
    vector = db.one("SELECT embedding::float8[] FROM items WHERE id = 3")
    cases = [vector, "[" + ",".join(map(str, vector)) + "]", "{" + ",".join(f'"{v}"' for v in vector) + "}",
             Jsonb(vector), Jsonb({"nearest": vector})]
    for case in cases:
        assert ids(db, "qdrant_search(NULL::items, %s, 1)", (case,)) == [3], case
    assert ids(db, "qdrant_search(NULL::items, %s, 5)", (3,)) == ids(db, "qdrant_search(NULL::items, 3::bigint, 5)")
    assert 3 not in ids(db, "qdrant_search(NULL::items, %s, 5)", (3,))
    assert db.sql("SELECT * FROM qdrant_search(NULL::items, %s, 1)", (None,)) == []


def test_numbers_are_exact_and_nul_is_replaced(db, front, points):
    payload = {"big": 18446744073709551615, "text": "a\u0000b \\u0000", "\u0000": 1}
    front.client.upsert(points, [models.PointStruct(id=18446744073709551615, vector=[9, 9, 9, 9], payload=payload)],
                        wait=True)
    notices = []
    db.conn.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
    rows = db.sql("SELECT id, payload FROM qdrant_query(%s, %s::real[], 2)", (points, RED))
    assert rows == [("18446744073709551615",
                     {"big": 18446744073709551615, "text": "a\ufffdb \\u0000", "\ufffd": 1}),
                    ("1", {"color": "red"})]
    assert len(notices) == 1 and "point 18446744073709551615" in notices[0]
    near = db.sql("SELECT id FROM qdrant_query(%s, '{\"recommend\": {\"positive\": [18446744073709551615]}}')", (points,))
    assert sorted(near) == [("1",), ("2",), ("3",)]


def test_database_in_another_encoding(cluster, front):
    front.clear()
    name = f"latin_{uuid.uuid4().hex[:8]}"
    cluster.sql(f"CREATE DATABASE {name} ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    with cluster.connect(name) as conn:
        conn.execute("CREATE EXTENSION qdrant_sync")
        conn.execute(f"CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{front.url}')")
        collection = f"latin_{uuid.uuid4().hex[:8]}_é"
        conn.execute("SELECT qdrant_create_collection(%s, '{\"size\": 1, \"distance\": \"Dot\"}')", (collection,))
        assert front.client.collection_exists(collection)
        front.client.upsert(collection, [models.PointStruct(id=1, vector=[1], payload={"é": "ü"})], wait=True)
        conn.execute("SET client_encoding = 'UTF8'")
        assert conn.execute("SELECT payload FROM qdrant_query(%s, '[1]', filter => %s)", (
            collection, Jsonb({"must": [{"key": "é", "match": {"value": "ü"}}]}))).fetchall() == [({"é": "ü"},)]
        front.client.upsert(collection, [models.PointStruct(id=7, vector=[2], payload={"price": "3 €"})], wait=True)
        with pytest.raises(psycopg.errors.UntranslatableCharacter, match="point 7 "):
            conn.execute("SELECT payload FROM qdrant_query(%s, '[1]')", (collection,))
        assert conn.execute("SELECT id FROM qdrant_query(%s, '[1]', with_payload => false)", (collection,)).fetchall() \
            == [("7",), ("1",)]
    cluster.dropdb(name)


# --- joined to rows ---

def test_uuid_keys(db):
    db.sql("CREATE TABLE things (key uuid PRIMARY KEY, r text, embedding real[])")
    keys = [uuid.uuid4() for _ in range(5)]
    for i, key in enumerate(keys):
        db.sql("INSERT INTO things VALUES (%s, 'x', %s)", (key, [float(i), 1.0, 0.0, 0.0]))
    db.sql("SELECT qdrant_mirror('things', collection => %s)", (db.collection("things"),))
    assert db.one("SELECT qdrant_wait('30s', 'things')")
    got = [row[0] for row in db.sql("SELECT (hit).key FROM qdrant_search(NULL::things, '[1,0,0,0]', 5)")]
    assert got[:4] == keys[:0:-1]
    near = [row[0] for row in db.sql("SELECT (hit).key FROM qdrant_search(NULL::things, %s, 5)", (keys[4],))]
    assert near[0] == keys[3] and keys[4] not in near


@pytest.mark.parametrize("type", ["smallint", "integer"])
def test_ids_beyond_the_keys_type_have_no_row(db, front, type):
    """Somebody else's points in the collection are passed over."""
    items = Items(db, rows=3, key=type)
    front.client.upsert(items.collection, [
        models.PointStruct(id=1 << 40, vector=[9, 9, 9, 9], payload={}),
        models.PointStruct(id=str(uuid.uuid4()), vector=[9, 9, 9, 9], payload={})], wait=True)
    assert sorted(ids(db, "qdrant_search(NULL::items, '[1,1,1,1]', 3)")) == [1, 2, 3]


def test_asks_on_until_k_rows_are_found(db, front):
    """Rows that are gone or hidden cost further pages, not rows; the order stays."""
    Items(db, rows=300)
    everything = ids(db, "qdrant_search(NULL::items, '[1,1,1,1]', 300)")
    assert len(everything) == 300
    with db.conn.transaction(force_rollback=True):
        db.sql("DELETE FROM items WHERE id = ANY(%s)", (everything[:250],))
        assert ids(db, "qdrant_search(NULL::items, '[1,1,1,1]', 20)") == everything[250:270]
        assert ids(db, "qdrant_search(NULL::items, '[1,1,1,1]', 1000)") == everything[250:]
    filter = Jsonb({"should": [{"key": "id", "match": {"any": everything[:60]}}]})
    with db.conn.transaction(force_rollback=True):
        db.sql("DELETE FROM items WHERE id = ANY(%s)", (everything[:50],))
        assert ids(db, "qdrant_search(NULL::items, '[1,1,1,1]', 20, filter => %s)", (filter,)) == everything[50:60]
    # A row that this statement's snapshot does not see yet.
    with db.connect() as other, other.transaction():
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1")
        db.sql(f"INSERT INTO items SELECT 1000, 'new', 0, {VECTOR.format('1000')}")
        assert db.one("SELECT qdrant_wait('30s', 'items')")
        assert 1000 in ids(db, "qdrant_search(NULL::items, 300, 500)")
        seen = other.execute("SELECT (hit).id FROM qdrant_search(NULL::items, 300, 500)").fetchall()
        assert (1000,) not in seen and len(seen) == 299


def test_asking_on_ends_at_a_limit(db):
    """All rows are hidden: the search gives up after 10,000 points, and says so."""
    items = Items(db, live=False, mirror=False)
    db.sql("INSERT INTO items SELECT i, 't', 0, ARRAY[1, i, 0, 0] FROM generate_series(1, 10500) i")
    items.mirror()
    items.wait_state("live", timeout=60)
    notices = []
    with db.connect() as conn, conn.transaction(force_rollback=True):
        conn.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
        conn.execute("DELETE FROM items")
        assert conn.execute("SELECT * FROM qdrant_search(NULL::items, '[1,1,1,1]', 3)").fetchall() == []
    assert notices == ["search stopped at 10003 points, of which 0 have rows that you can see"]


def test_whole_rows_of_any_shape(db):
    """Dropped columns, a column named like the row in our query, long values, mixed case, a schema off the path."""
    db.sql('CREATE SCHEMA "My Things"')
    db.sql('CREATE TABLE "My Things"."Some Items" (gone int, "Id" int PRIMARY KEY, r text, asked int, n int, '
           'embedding real[])')
    db.sql('ALTER TABLE "My Things"."Some Items" DROP COLUMN gone')
    db.sql('INSERT INTO "My Things"."Some Items" SELECT i, repeat(\'long \', 20000), i, i, ARRAY[i, 1, 0, 0] '
           'FROM generate_series(1, 3) i')
    db.sql("SELECT qdrant_mirror('\"My Things\".\"Some Items\"', collection => %s, payload => 'n')",
           (db.collection("shape"),))
    assert db.one("SELECT qdrant_wait('30s', '\"My Things\".\"Some Items\"')")
    rows = db.sql('SELECT (hit)."Id", length((hit).r), (hit).asked, (hit).n '
                  'FROM qdrant_search(NULL::"My Things"."Some Items", \'[1,0,0,0]\', 2)')
    assert rows == [(3, 100000, 3, 3), (2, 100000, 2, 2)]
    # Renamed while a plan is kept.
    db.sql('ALTER TABLE "My Things"."Some Items" RENAME COLUMN "Id" TO key')
    db.sql('ALTER TABLE "My Things"."Some Items" RENAME TO others')
    db.sql('ALTER TABLE "My Things".others SET SCHEMA public')
    db.sql('CREATE TABLE "My Things"."Some Items" ("Id" int PRIMARY KEY)')
    assert db.sql("SELECT (hit).key FROM qdrant_search(NULL::others, '[1,0,0,0]', 2)") == [(3,), (2,)]


def test_table_made_anew_under_plpgsql(db):
    """A function that was planned for the old table works again after one clear error."""
    Items(db, rows=3)
    db.sql("""CREATE FUNCTION nearest() RETURNS TABLE (id bigint) LANGUAGE plpgsql AS
              $$ BEGIN RETURN QUERY SELECT (hit).id FROM qdrant_search(NULL::items, '[1,1,1,1]', 1); END $$""")
    before = db.sql("SELECT * FROM nearest()")
    db.sql("SELECT qdrant_unmirror('items', drop_collection => true)")
    db.sql("DROP TABLE items")
    Items(db, rows=3, collection=db.collection("anew"))
    with pytest.raises(psycopg.errors.UndefinedTable, match="was dropped after the statement was prepared"):
        db.sql("SELECT * FROM nearest()")
    assert db.sql("SELECT * FROM nearest()") == before


def test_a_copied_database_does_not_search_the_originals_collection(db, cluster):
    Items(db, rows=3)
    db.conn.close()
    copy = f"{db.name}_copy"
    cluster.createdb(copy, template=db.name)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="restored or copied") as caught:
        cluster.sql("SELECT * FROM qdrant_search(NULL::items, '[1,1,1,1]')", dbname=copy)
    assert "qdrant_resume" in caught.value.diag.message_hint
    cluster.dropdb(copy)


@pytest.mark.faults
def test_a_search_whose_time_is_up_names_its_own_limit(db, front):
    """Not what was left of it for the last of its requests."""
    Items(db, rows=10)
    front.faults.fault("delay", path_regex="/points/query", nth=1, seconds=0.2)
    front.faults.fault("hold", path_regex="/points/query", nth=2)
    with db.conn.transaction(force_rollback=True):
        db.sql("DELETE FROM items WHERE id < 9")
        with pytest.raises(psycopg.errors.ConnectionFailure, match="did not answer within 1500 ms"):
            db.sql("SELECT * FROM qdrant_search(NULL::items, '[1, 1, 1, 1]', k => 2, \"timeout\" => '1500ms')")


def test_explain_and_prepare_send_nothing(db, front, points):
    """Hazard R14: planning never calls Qdrant."""
    Items(db, rows=3)
    before = len(front.faults.log(path_regex="/query")) if front.faults else 0
    db.sql("PREPARE one AS SELECT * FROM qdrant_search(NULL::items, '[1,1,1,1]')")
    db.sql("EXPLAIN SELECT * FROM qdrant_search(NULL::items, '[1,1,1,1]')")
    db.sql("EXPLAIN EXECUTE one")
    db.sql(f"EXPLAIN SELECT * FROM items WHERE id IN (SELECT id::bigint FROM qdrant_query('{points}', '[1,1,1,1]'))")
    db.sql(f"EXPLAIN SELECT qdrant_query('{points}', '[1,1,1,1]')")
    if front.faults:
        assert len(front.faults.log(path_regex="/query")) == before


def test_without_preload_a_search_says_what_to_do(pgversion, front):
    with Cluster(pgversion, preload=False, name="nopreload") as cluster:
        cluster.sql("CREATE EXTENSION qdrant_sync")
        cluster.sql(f"CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{front.url}')")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
            cluster.sql("SELECT * FROM qdrant_query('x', '[1]')")
        assert "shared_preload_libraries" in caught.value.diag.message_hint


# --- answers that are wrong ---

class RawServer:
    """Answers every request with the same bytes."""

    def __init__(self, answer):
        self._answer = answer
        self._turns = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self._socket.getsockname()[1]
        self.requests = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            # Who has enough, or no time, goes in the middle.
            with connection, contextlib.suppress(OSError):
                self.requests.append(self._read(connection))
                if self._turns:
                    self.say(self._turns.pop(0))
                connection.sendall(self._answer)

    def _read(self, connection):
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n")
                       if line.lower().startswith(b"content-length:")), 0)
        while len(body) < length:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def say(self, body, status="200 OK", kind="application/json"):
        """The body of all answers from now on."""
        self._answer = (f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                        "Connection: close\r\n\r\n").encode() + body

    def say_in_turn(self, bodies):
        """One body an answer; the last is that of all that follow."""
        self._turns = list(bodies)

    def close(self):
        # Also wakes the thread that waits for a connection.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def raw(db):
    """raw(status, body): the answer of the server "raw" of this database; returns the server."""
    servers = []

    def start(body, status="200 OK", kind="application/json"):
        servers.append(RawServer(b""))
        servers[-1].say(body, status, kind)
        db.sql(f"DROP SERVER IF EXISTS raw CASCADE; CREATE SERVER raw FOREIGN DATA WRAPPER qdrant_fdw "
               f"OPTIONS (url '{servers[-1].url}')")
        return servers[-1]
    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize("body,error", [
    (b'{"result":{"points":[{"id":1,"score":1,"payload":{"a":"\xff\xfe"}}]},"status":"ok","time":0}',
     psycopg.errors.CharacterNotInRepertoire),
    (b'{"result":{"points":[{"id":1,"score":1,"payload":{"a":"\x00"}}]},"status":"ok","time":0}',
     psycopg.errors.CharacterNotInRepertoire),
    (b'{"result":{"points":[{"id":1', psycopg.errors.ProtocolViolation),
    (b'{"result":{"points":[1]},"status":"ok","time":0}', psycopg.errors.ProtocolViolation),
    (b'{"result":{"points":[{"score":1}]},"status":"ok","time":0}', psycopg.errors.ProtocolViolation),
    (b'{"result":true,"status":"ok","time":0}', psycopg.errors.ProtocolViolation),
    (b'<html>hello</html>', psycopg.errors.ProtocolViolation),
    (b'', psycopg.errors.ProtocolViolation),
    (b'[' * 1_000_000, psycopg.errors.ProtocolViolation),
    (b'{"result":{"points":[{"id":1,"payload":' + b'[' * 1_000_000, psycopg.errors.StatementTooComplex),
], ids=["bytes that are no UTF-8", "a raw NUL", "cut off", "a number as point", "a point without id",
        "another document", "HTML", "nothing", "brackets", "too deep a payload"])
def test_answers_that_are_not_qdrants(db, raw, body, error):
    raw(body)
    with pytest.raises(error):
        db.sql("SELECT * FROM qdrant_query('x', '[1]', server => 'raw')")
    assert db.sql("SELECT * FROM qdrant_requests") == []


@pytest.mark.parametrize("status,sqlstate", [
    ("301 Moved", "58000"), ("304 Not Modified", "58000"), ("400 Bad Request", "22023"), ("401 Unauthorized", "28000"), ("403 Forbidden", "42501"),
    ("404 Not Found", "42704"), ("408 Timeout", "58000"), ("409 Conflict", "42710"), ("422 Unprocessable", "22023"),
    ("429 Too Many", "57P03"), ("500 Error", "58000"), ("503 Unavailable", "57P03"), ("507 Full", "58000")])
def test_statuses_and_their_errors(db, raw, status, sqlstate):
    raw(json.dumps({"status": {"error": "what Qdrant says"}, "time": 0}).encode(), status)
    with pytest.raises(psycopg.Error, match="HTTP status 304" if status.startswith("304") else "what Qdrant says") as caught:
        db.sql("SELECT * FROM qdrant_query('x', '[1]', server => 'raw')")
    assert caught.value.sqlstate == sqlstate
    assert ("Redirects" in (caught.value.diag.message_hint or "")) == status.startswith("301")
    assert f"HTTP status {status[:3]}" in caught.value.diag.message_detail


@pytest.mark.parametrize("answers", [[[1, 1]], [[900], [900]]], ids=["twice in an answer", "though it was left out"])
def test_a_point_that_comes_again_is_no_answer_of_qdrants(db, raw, answers):
    """Row 1 would be two rows, and 900, which has none, be asked away again and again."""
    Items(db, rows=3)
    server = raw(b"")
    bodies = [json.dumps({"result": {"points": [{"id": id, "score": 1} for id in ids]}, "status": "ok", "time": 0})
              for ids in answers]
    server.say_in_turn([body.encode() for body in bodies])
    db.sql(f"ALTER SERVER qdrant OPTIONS (SET url '{server.url}')")
    with pytest.raises(psycopg.errors.ProtocolViolation):
        db.sql("SELECT * FROM qdrant_search(NULL::items, '[1, 1, 1, 1]', k => 2, \"timeout\" => '2s')")
    assert len(server.requests) == len(answers)


def test_errors_in_plain_text(db, raw):
    raw(b"Invalid API key or JWT", "401 Unauthorized", "text/plain")
    with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification, match="Invalid API key or JWT"):
        db.sql("SELECT * FROM qdrant_query('x', '[1]', server => 'raw')")


def test_the_path_stays_in_the_collection(db, raw):
    """Hazard R7: nothing that a name holds reaches another endpoint."""
    server = raw(b'{"result":{"points":[]},"status":"ok","time":0}')
    db.sql("SELECT * FROM qdrant_query('a b%2f..é#&=', '[1]', server => 'raw')")
    assert server.requests[-1].startswith(b"POST /collections/a%20b%252f..%C3%A9%23%26%3D/points/query?timeout=")
    for name in ("..", ".", "", "a/b", "a?b", "a\\b", "x" * 256, "a\nb"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="invalid collection name"):
            db.sql("SELECT * FROM qdrant_query(%s, '[1]', server => 'raw')", (name,))
    assert len(server.requests) == 1


@pytest.mark.parametrize("call", ["qdrant_delete_payload_index('c', %s, server => 'raw')",
                                  "qdrant_create_vector_name('c', %s, '{}', server => 'raw')",
                                  "qdrant_delete_vector_name('c', %s, server => 'raw')"])
def test_a_name_further_down_the_path_stays_where_it_is(db, raw, call):
    """Hazard R7, for what stands behind the collection's name."""
    server = raw(b'{"result":{"operation_id":1,"status":"completed"},"status":"ok","time":0}')
    db.sql(f"SELECT {call}", ("a/../b%2e?x#y\\",))
    assert re.match(rb"(PUT|DELETE) /collections/c/(index|vectors)/a%2F..%2Fb%252e%3Fx%23y%5C\?", server.requests[-1])
    for name in ("..", ".", ""):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="must not be"):
            db.sql(f"SELECT {call}", (name,))
    assert len(server.requests) == 1


def test_the_key_goes_to_the_server_and_nowhere_else(db, raw, cluster):
    server = raw(b'{"result":{"points":[]},"status":"ok","time":0}')
    mark = cluster.log_mark()
    db.sql("CREATE USER MAPPING FOR PUBLIC SERVER raw OPTIONS (api_key 'very-secret-4711')")
    db.sql("SELECT * FROM qdrant_query('x', '[1]', server => 'raw')")
    assert b"api-key: very-secret-4711\r\n" in server.requests[-1]
    server.close()
    with pytest.raises(psycopg.errors.ConnectionFailure) as caught:
        db.sql("SELECT * FROM qdrant_query('x', '[1]', server => 'raw')")
    assert "very-secret" not in str(caught.value)
    assert "very-secret" not in cluster.log_text(mark)


def test_an_answer_that_is_too_large_is_refused(db, raw):
    raw(b'{"result":{"points":[]},"x":"' + b"y" * (13 << 20) + b'","status":"ok","time":0}')
    with pytest.raises(psycopg.errors.ProgramLimitExceeded) as caught:
        db.sql("SELECT * FROM qdrant_query('x', '[1]', server => 'raw')")
    assert "qdrant_sync.answer_memory" in caught.value.diag.message_hint
    raw(b'{"result":{"points":[]},"x":"' + b"y" * (11 << 20) + b'","status":"ok","time":0}')
    assert db.sql("SELECT * FROM qdrant_query('x', '[1]', server => 'raw')") == []
