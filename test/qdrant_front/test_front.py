"""Calibration of the front: driven by the official client, and by raw HTTP where it misbehaves."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
import uuid
import warnings

import numpy
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from qdrant_front import Front

pytestmark = pytest.mark.timeout(60)

UUID = "6f9619ff-8b86-d011-b42d-00c04fc964ff"
MB = 1 << 20


@pytest.fixture(scope="module")
def shared():
    with Front() as front:
        yield front


@pytest.fixture
def front(shared):
    """The shared front, emptied."""
    shared.release()
    shared.clear_faults()
    for one in call(shared, "GET", "/collections")[1]["result"]["collections"]:
        call(shared, "DELETE", f"/collections/{one['name']}")
    shared.clear_log()
    return shared


def client_of(front: Front, **options) -> QdrantClient:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # keys over plain HTTP
        return QdrantClient(url=front.url, check_compatibility=False, timeout=20, **options)


@pytest.fixture
def client(front):
    return client_of(front)


def call(front, method, path, body=None, headers=None, timeout=20):
    """(status, decoded JSON or text, headers) of one request."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(front.url + path, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            status, raw, got = response.status, response.read(), response.headers
    except urllib.error.HTTPError as error:
        status, raw, got = error.code, error.read(), error.headers
    try:
        return status, json.loads(raw), got
    except ValueError:
        return status, raw.decode(), got


def failure(front, method, path, body=None, headers=None):
    status, answer, _ = call(front, method, path, body, headers)
    return status, answer["status"]["error"] if isinstance(answer, dict) else answer


def make(front, name="c", size=2, distance="Dot", **more):
    body = {"vectors": {"size": size, "distance": distance}, **more}
    assert call(front, "PUT", f"/collections/{name}", body)[0] == 200


def point(identifier, vector=(1, 2), **payload):
    return {"id": identifier, "vector": list(vector), "payload": payload}


def put(front, points, name="c", wait="true", **more):
    return call(front, "PUT", f"/collections/{name}/points?wait={wait}", {"points": points}, **more)


def get(front, identifier, name="c"):
    status, answer, _ = call(front, "GET", f"/collections/{name}/points/{identifier}")
    return answer["result"]["payload"] if status == 200 else None


def raw_request(method, path, body: bytes, **headers) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: front", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def connect(front) -> socket.socket:
    return socket.create_connection(("127.0.0.1", front.port), timeout=10)


def upsert_body(points) -> bytes:
    return json.dumps({"points": points}).encode()


def alias_action(front, *actions):
    return call(front, "POST", "/collections/aliases", {"actions": list(actions)})


def create_alias(front, alias, collection):
    return alias_action(front, {"create_alias": {"alias_name": alias, "collection_name": collection}})


def rename_alias(front, old, new):
    return alias_action(front, {"rename_alias": {"old_alias_name": old, "new_alias_name": new}})


# ---------------------------------------------------------------- with the official client


def test_points_of_both_kinds_of_id(client):
    client.create_collection("c", models.VectorParams(size=3, distance=models.Distance.COSINE))
    client.upsert("c", [models.PointStruct(id=1, vector=[1, 0, 0], payload={"n": 1}),
                        models.PointStruct(id=UUID.upper(), vector=[0, 1, 0], payload={"n": 2}),
                        models.PointStruct(id=2**64 - 1, vector=[0, 0, 1], payload={"n": 2**63})])
    points, after = client.scroll("c", with_vectors=True)
    assert {p.id: p.payload["n"] for p in points} == {1: 1, UUID: 2, 2**64 - 1: 2**63}
    assert after is None and client.count("c").count == 3
    assert client.retrieve("c", [UUID])[0].payload == {"n": 2}
    hits = client.query_points("c", [1.0, 0.5, 0.0], limit=2, with_payload=True).points
    assert [hit.id for hit in hits] == [1, UUID]
    assert client.query_points("c", 1, limit=5).points[0].id != 1
    client.delete("c", [1])
    assert client.count("c").count == 2
    assert client.get_collection("c").points_count == 2


def test_uuid_forms_are_one_id(front):
    make(front)
    for form in (UUID, UUID.upper(), UUID.replace("-", ""), "urn:uuid:" + UUID):
        assert put(front, [point(form, form=form)])[0] == 200
    assert call(front, "POST", "/collections/c/points/count", {})[1]["result"]["count"] == 1


def test_filters_and_queries(client):
    client.create_collection(
        "c", {"d": models.VectorParams(size=2, distance=models.Distance.DOT)},
        sparse_vectors_config={"s": models.SparseVectorParams()}, metadata={"owner": "me"})
    client.upsert("c", [models.PointStruct(
        id=n, payload={"n": n, "g": "even" if n % 2 == 0 else "odd"},
        vector={"d": [n, 1], "s": models.SparseVector(indices=[1, n + 2], values=[1, n])}) for n in range(10)])
    client.create_payload_index("c", "n", "integer")
    client.create_payload_index("c", "g", "keyword")
    even = models.Filter(must=[models.FieldCondition(key="g", match=models.MatchValue(value="even"))],
                         must_not=[models.HasIdCondition(has_id=[8])])

    def ids(query=None, **more):
        return [p.id for p in client.query_points("c", query, limit=3, **more).points]

    assert ids([1.0, 1.0], using="d", query_filter=even) == [6, 4, 2]
    assert ids(9, using="d") == [8, 7, 6]
    assert ids(models.SparseVector(indices=[7], values=[1]), using="s") == [5]
    assert ids(models.OrderByQuery(order_by=models.OrderBy(key="n", direction="desc"))) == [9, 8, 7]
    assert ids(models.RecommendQuery(recommend=models.RecommendInput(positive=[3], strategy="best_score")),
               using="d")[0] == 9
    fused = client.query_points("c", models.FusionQuery(fusion="rrf"), prefetch=[
        models.Prefetch(query=[1.0, 1.0], using="d"), models.Prefetch(query=9, using="s")], limit=1).points
    assert len(fused) == 1
    assert {hit.value: hit.count for hit in client.facet("c", "g").hits} == {"even": 5, "odd": 5}
    groups = client.query_points_groups("c", "g", [1.0, 1.0], using="d", limit=2, group_size=1).groups
    assert [(group.id, group.hits[0].id) for group in groups] == [("odd", 9), ("even", 8)]
    info = client.get_collection("c")
    assert info.payload_schema["n"].points == 10 and info.config.metadata == {"owner": "me"}
    client.update_collection("c", metadata={"owner": None, "beat": 7})
    assert client.get_collection("c").config.metadata == {"beat": 7}


def test_scroll_pages_and_lookup_from(client, front):
    for name in ("c", "other"):
        make(front, name)
        put(front, [point(n, (n, 1)) for n in range(25)], name)
    seen, after = [], 0
    while after is not None:
        points, after = client.scroll("c", limit=10, offset=after)
        seen += [p.id for p in points]
    assert seen == list(range(25))
    hits = client.query_points("c", 24, lookup_from=models.LookupLocation(collection="other"), limit=1).points
    assert hits[0].id == 24, "an id of another collection leaves nothing out"


def test_payload_and_vector_operations(client, front):
    make(front)
    put(front, [point(1, a=1), point(2, a=2)])
    client.set_payload("c", {"b": 1}, [1])
    assert get(front, 1) == {"a": 1, "b": 1}
    client.overwrite_payload("c", {"z": 1}, [1])
    assert get(front, 1) == {"z": 1}
    client.delete_payload("c", ["z"], [1])
    client.clear_payload("c", models.FilterSelector(filter=models.Filter(must=[models.HasIdCondition(has_id=[2])])))
    assert get(front, 1) == get(front, 2) == {}
    client.update_vectors("c", [models.PointVectors(id=1, vector=[7, 7])])
    assert client.retrieve("c", [1], with_vectors=True)[0].vector == [7, 7]
    client.delete_vectors("c", [""], [1])
    assert not client.retrieve("c", [1], with_vectors=True)[0].vector
    results = client.batch_update_points("c", [
        models.DeleteOperation(delete=models.PointIdsList(points=[1])),
        models.SetPayloadOperation(set_payload=models.SetPayload(payload={"x": 1}, points=[2]))])
    assert results[1].operation_id == results[0].operation_id + 1
    assert get(front, 1) is None and get(front, 2) == {"x": 1}


def test_ten_thousand_points_take_seconds(client, front):
    make(front, size=384, distance="Cosine")
    vectors = numpy.random.default_rng(1).random((10_000, 384), dtype=numpy.float32)
    started = time.monotonic()
    for first in range(0, 10_000, 1000):
        client.upsert("c", models.Batch(ids=list(range(first, first + 1000)),
                                        vectors=vectors[first:first + 1000].tolist()))
    assert time.monotonic() - started < 15
    assert client.count("c").count == 10_000
    assert client.query_points("c", vectors[77].tolist(), limit=1).points[0].id == 77


def test_floats_come_back_to_the_bit(front):
    make(front, size=4)
    vector = [0.1, 16777217.0, 1e-45, 3.4028235e38]
    put(front, [point(1, vector)])
    got = call(front, "GET", "/collections/c/points/1")[1]["result"]["vector"]
    assert numpy.array_equal(numpy.float32(got), numpy.float32(vector)) and got[0] == 0.1


# ---------------------------------------------------------------- errors, as qdrant-api.md §3 and §8


@pytest.mark.parametrize("body, status, text", [
    ({"points": [{"id": 1, "vector": [1, 2, 3]}]}, 400, "Wrong input: Vector dimension error: expected dim: 2, got 3"),
    ({"points": [{"id": -1, "vector": [1, 2]}]}, 400, "is not a valid point ID"),
    ({"points": [{"id": 1.0, "vector": [1, 2]}]}, 400, "is not a valid point ID"),
    ({"points": [{"id": "123", "vector": [1, 2]}]}, 400, "is not a valid point ID"),
    ({"points": [{"id": 2**64, "vector": [1, 2]}]}, 400, "is not a valid point ID"),
    ({"points": [{"id": 1}]}, 400, "Format error in JSON body: missing field `vector`"),
    ({"points": [{"id": 1, "vector": []}]}, 422, "Validation error in JSON body: [points[0].vector"),
    ({"points": [{"id": 1, "vector": {"x": [1]}}]}, 400, "Wrong input: Not existing vector name error: x"),
    (b'{"points":[{"id":1,"vector":[NaN,1]}]}', 400, "Format error in JSON body: "),
    (b'{"points":[{"id":1,"vector":[1e400,1]}]}', 400, "Format error in JSON body: "),
    (b'{"points":[{"id":1,"vector":[1,2],"payload":{"a":' + b"[" * 130 + b"]" * 130 + b"}}]}", 400, "recursion"),
    (b"", 400, "Format error in JSON body: EOF"),
])
def test_refused_upserts(front, body, status, text):
    make(front)
    got, message = failure(front, "PUT", "/collections/c/points?wait=true", body)
    assert got == status and text in message
    assert call(front, "POST", "/collections/c/points/count", {})[1]["result"]["count"] == 0


def test_a_wrong_dimension_applies_nothing(front):
    make(front)
    points = [point(n) for n in range(100)] + [point(100, (1, 2, 3))]
    assert put(front, points)[0] == put(front, points, wait="false")[0] == 400
    assert call(front, "POST", "/collections/c/points/count", {})[1]["result"]["count"] == 0


def test_an_unknown_vector_name_is_acknowledged_without_wait(front):
    make(front)
    status, answer, _ = put(front, [{"id": 1, "vector": {"x": [1]}}], wait="false")
    assert (status, answer["result"]["status"]) == (200, "acknowledged")


def test_oddities_that_are_accepted(front):
    make(front)
    assert put(front, [point(1, a="\0"), {"id": 2, "vector": [1e39, 1], "payload": None}])[0] == 200
    assert get(front, 1) == {"a": "\0"}
    assert call(front, "GET", "/collections/c/points/2")[1]["result"]["vector"] == [None, 1]
    assert put(front, [point(3, v=1), point(3, v=2)])[0] == 200
    assert get(front, 3) == {"v": 2}


def test_a_missing_point_ends_set_payload_half_way(front):
    make(front)
    put(front, [point(1)])
    status, message = failure(front, "POST", "/collections/c/points/payload?wait=true",
                              {"payload": {"x": 1}, "points": [1, 999]})
    assert (status, message) == (404, "Not found: No point with id 999 found")


def test_collections_found_and_not_found(front):
    make(front)
    assert failure(front, "PUT", "/collections/c", {}) == (
        409, "Wrong input: Collection `c` already exists!")
    for method, path, body in (("GET", "/collections/x", None), ("PUT", "/collections/x/points", {"points": []}),
                               ("POST", "/collections/x/points/query", {}), ("PATCH", "/collections/x", {})):
        assert failure(front, method, path, body) == (404, "Not found: Collection `x` doesn't exist!")
    assert call(front, "DELETE", "/collections/x")[1]["result"] is False
    assert call(front, "GET", "/collections/x/exists")[1]["result"] == {"exists": False}
    assert failure(front, "PUT", "/collections/" + "n" * 256, {})[0] == 422
    assert call(front, "GET", "/cluster")[1]["result"] == {"status": "disabled"}
    assert call(front, "GET", "/readyz")[:2] == (200, "all shards are ready")


def test_a_member_that_nobody_knows_is_taken_and_logged(front):
    make(front)
    assert put(front, [{**point(1), "paylod": {}}])[0] == 200
    assert [entry["unknown"] for entry in front.log()] == [[], ["points.0.paylod"]]


def test_operation_ids_increase(front):
    make(front)
    numbers = [put(front, [point(1)])[1]["result"] for _ in range(3)]
    assert [one["operation_id"] for one in numbers] == [0, 1, 2]
    assert {one["status"] for one in numbers} == {"completed"}


@pytest.mark.parametrize("condition", [
    {"key": "a[", "match": {"value": 1}}, {"key": "a", "match": {"value": 2**63}}, {"key": "a", "range": {"gte": "x"}},
    {"has_id": [-1]}, {"has_id": ["x"]}, {"key": "a", "match": {"valeu": 1}}])
def test_refused_filters(front, condition):
    make(front)
    status, message = failure(front, "POST", "/collections/c/points/count", {"filter": {"must": [condition]}})
    assert status == 400 and message.startswith("Format error in JSON body: ")


def test_the_client_reads_our_errors(client):
    with pytest.raises(UnexpectedResponse) as caught:
        client.count("nowhere")
    assert caught.value.status_code == 404


# ---------------------------------------------------------------- aliases (hazards 1, 23, 30, 32)


def test_alias_semantics(front):
    make(front)
    make(front, "d")
    assert create_alias(front, "a", "c")[0] == 200
    put(front, [point(1)], "a")
    assert get(front, 1, "c") == {} and get(front, 1, "a") == {}
    assert create_alias(front, "b", "a")[0] == 404, "an alias of an alias"
    assert create_alias(front, "c", "d")[0] == 409
    assert create_alias(front, "a", "d")[0] == 200, "silently repointed"
    assert call(front, "GET", "/collections/d/aliases")[1]["result"]["aliases"] == [
        {"alias_name": "a", "collection_name": "d"}]
    assert rename_alias(front, "nope", "b")[0] == 404
    assert rename_alias(front, "a", "a")[0] == 200
    assert rename_alias(front, "a", "b")[0] == 200
    assert put(front, [point(1)], "a")[0] == 404
    assert call(front, "PUT", "/collections/b", {})[0] == 400, "a collection named like an alias"
    assert call(front, "DELETE", "/collections/b")[1]["result"] is False
    assert create_alias(front, "other", "c")[0] == 200
    assert rename_alias(front, "b", "other")[0] == 200, "overwritten"
    assert call(front, "GET", "/aliases")[1]["result"]["aliases"] == [
        {"alias_name": "other", "collection_name": "d"}]
    status = alias_action(front, {"delete_alias": {"alias_name": "other"}},
                          {"rename_alias": {"old_alias_name": "gone", "new_alias_name": "x"}})[0]
    assert status == 404
    assert call(front, "GET", "/aliases")[1]["result"]["aliases"] == [], "a list of actions is not atomic"


def test_deleting_a_collection_takes_its_aliases(front):
    make(front)
    create_alias(front, "a", "c")
    call(front, "DELETE", "/collections/c")
    make(front)
    assert call(front, "GET", "/aliases")[1]["result"]["aliases"] == []


# ---------------------------------------------------------------- keys (hazard 28)


def test_three_kinds_of_key():
    with Front(api_key="full", read_only_key="read", no_alias_key="scoped") as front:
        full, read, scoped = ({"api-key": key} for key in ("full", "read", "scoped"))
        assert call(front, "GET", "/")[0] == call(front, "GET", "/readyz")[0] == 200
        status, text, headers = call(front, "GET", "/collections")
        assert status == 401 and text.startswith("Must provide an API key")
        assert headers["Content-Type"].startswith("text/plain")
        assert call(front, "GET", "/collections", headers={"api-key": "wrong"})[:2] == (401, "Invalid API key or JWT")
        assert call(front, "PUT", "/collections/c", {"vectors": {"size": 2, "distance": "Dot"}},
                    {"Authorization": "Bearer full"})[0] == 200
        create = {"actions": [{"create_alias": {"alias_name": "a", "collection_name": "c"}}]}
        assert call(front, "POST", "/collections/aliases", create, full)[0] == 200

        assert failure(front, "PUT", "/collections/c/points", {"points": []}, read)[1].startswith("Forbidden: ")
        assert call(front, "GET", "/collections/c", headers=read)[0] == 200
        assert put(front, [point(1)], headers=scoped)[0] == 200
        assert put(front, [point(1)], "a", headers=scoped)[0] == 403
        assert call(front, "POST", "/collections/aliases", create, scoped)[0] == 403
        assert call(front, "GET", "/aliases", headers=scoped)[1]["result"] == {"aliases": []}
        assert client_of(front, api_key="full").count("a").count == 1
        assert front.log()[-1]["api_key"] and "full" not in json.dumps(front.log()[-1]["headers"])


# ---------------------------------------------------------------- HTTP


def test_a_body_over_32_mib_is_refused_unread(front):
    make(front)
    with connect(front) as sock:
        sock.sendall(f"PUT /collections/c/points HTTP/1.1\r\nHost: f\r\nContent-Length: {33 * MB}\r\n\r\n".encode())
        answer = b""
        while True:
            piece = sock.recv(65536)
            if not piece:
                break
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 ") and b"is larger than allowed (limit: 33554432 bytes)" in answer
    assert front.log()[-1]["body_bytes"] == 0


def test_keep_alive_ends_after_five_seconds(front):
    early, late = connect(front), connect(front)
    for sock in (early, late):
        sock.sendall(raw_request("GET", "/readyz", b""))
        assert sock.recv(65536)
    time.sleep(4.5)
    early.sendall(raw_request("GET", "/readyz", b""))
    assert early.recv(65536).startswith(b"HTTP/1.1 200")
    time.sleep(1.0)
    assert late.recv(1) == b""
    first, second, third = (entry["connection"] for entry in front.log())
    assert first == third != second
    early.close(), late.close()


def test_expect_100_continue(front):
    make(front)
    body = upsert_body([point(1)])
    head, _, _ = raw_request("PUT", "/collections/c/points", body, Expect="100-continue").partition(b"\r\n\r\n")
    with connect(front) as sock:
        sock.sendall(head + b"\r\n\r\n")
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("action, status, json_body", [
    ("401", 401, False), ("403", 403, True), ("404", 404, True), ("408", 408, True), ("429", 429, True),
    ("429_no_retry", 429, True), ("500", 500, True), ("502", 502, False), ("503", 503, True),
    ("504", 504, False), ("507", 507, True), ("early_400", 400, True)])
def test_statuses_to_order(front, action, status, json_body):
    make(front)
    front.fault(action, method="PUT", path_regex="/points$", times=1)
    got, answer, headers = put(front, [point(1)])
    assert got == status and isinstance(answer, dict) == json_body
    assert ("Retry-After" in headers) == (action == "429")
    assert get(front, 1) is None
    assert put(front, [point(1)])[0] == 200, "once only"
    assert front.faults()[0]["fired"] == 1


def test_rules_match_by_turn_and_by_id(front):
    make(front)
    front.fault("500", method="PUT", nth=2)
    assert [put(front, [point(1)])[0] for _ in range(3)] == [200, 500, 200]
    front.clear_faults()
    front.fault("poison", ids=[7, UUID])
    assert put(front, [point(6), point(7)])[0] == put(front, [point(UUID)])[0] == 400
    assert put(front, [point(6)])[0] == 200
    assert call(front, "POST", "/collections/c/points/delete", {"points": [7]})[0] == 400
    with pytest.raises(ValueError):
        front.fault("no such action")


def test_delay_and_apply_then_fail(front):
    make(front)
    front.fault("delay", seconds=0.3, times=1)
    front.fault("504", apply=True, method="PUT", times=1)
    started = time.monotonic()
    assert put(front, [point(1)])[0] == 504
    assert time.monotonic() - started >= 0.3
    assert get(front, 1) == {}


def test_resets(front):
    make(front)
    for when, applied in (("head", False), ("body", False), ("after", True)):
        front.fault("reset", when=when, method="PUT", times=1)
        with connect(front) as sock, pytest.raises(ConnectionResetError):
            sock.sendall(raw_request("PUT", "/collections/c/points", upsert_body([point(1)])))
            while sock.recv(65536):
                pass
        assert (get(front, 1) is not None) == applied, when


def test_broken_answers(front, client):
    make(front)
    for action, options in (("truncate", {}), ("garbage", {}), ("endless_headers", {"bytes": MB})):
        front.fault(action, method="PUT", times=1, **options)
        with pytest.raises((ResponseHandlingException, UnexpectedResponse, ValueError)):
            client.upsert("c", [models.PointStruct(id=1, vector=[1, 2])])
        assert get(front, 1) == {}
    front.fault("drip", seconds=0.001, path_regex="/points/1$", times=1)
    assert get(front, 1) == {}
    front.fault("huge", path_regex="/points/1$", times=1)
    status, answer, _ = call(front, "GET", "/collections/c/points/1")
    assert status == 200 and len(answer["result"]) == 64 * MB


def test_wait_timeout_and_dropped_writes(front):
    make(front)
    front.fault("wait_timeout", times=1)
    assert put(front, [point(1)])[1]["result"]["status"] == "wait_timeout" and get(front, 1) == {}
    front.fault("wait_timeout", apply=False, method="PUT", times=1)
    assert put(front, [point(2)])[1]["result"]["status"] == "wait_timeout" and get(front, 2) is None
    front.fault("acknowledge_and_drop", method="PUT", times=1)
    assert put(front, [point(3)])[1]["result"]["status"] == "acknowledged" and get(front, 3) is None


def test_a_request_delivered_twice_overwrites_what_came_between(front):
    make(front)
    front.fault("twice", seconds=0.3, method="PUT", times=1)
    put(front, [point(1, v="old")])
    put(front, [point(1, v="new")])
    assert get(front, 1) == {"v": "new"}
    front.wait_for(lambda: get(front, 1) == {"v": "old"}, 5)
    assert [entry["applied"] for entry in front.log(method="PUT", path_regex="points$")] == [2, 1]


def test_operation_ids_that_go_back(front):
    make(front)
    for _ in range(5):
        put(front, [point(1)])
    front.fault("operation_id", to=2, method="PUT", times=1)
    assert [put(front, [point(1)])[1]["result"]["operation_id"] for _ in range(2)] == [2, 3]


@pytest.mark.parametrize("kind", ["hold", "stall"])
@pytest.mark.parametrize("fenced", [False, True])
def test_a_request_in_limbo_wins_unless_its_alias_is_gone(front, kind, fenced):
    """Hazard 1: A is unread or unapplied, its client goes, B is acknowledged, A is let go."""
    make(front)
    create_alias(front, "c__0", "c")
    front.fault(kind, method="PUT", times=1)
    sock = connect(front)
    sock.sendall(raw_request("PUT", "/collections/c__0/points?wait=true",
                             upsert_body([point(1, v="old", fill="x" * MB)])))
    front.wait_held()
    sock.close()
    if kind == "hold":
        front.wait_for(lambda: front.held()[0]["client_gone"])
    if fenced:
        assert rename_alias(front, "c__0", "c__1")[0] == 200
    assert put(front, [point(1, v="new")], "c__1" if fenced else "c__0")[0] == 200
    assert front.release() == [held["n"] for held in front.log() if held["faults"] == [kind]]
    assert get(front, 1)["v"] == ("new" if fenced else "old")


def test_a_reset_drops_a_request_that_is_not_whole(front):
    """One byte is missing: how much of the rest had arrived is the kernel's matter, which keeps it beyond a reset."""
    make(front)
    front.fault("stall", method="PUT", times=1)
    sock = connect(front)
    body = upsert_body([point(1, fill="x" * MB)])
    request = raw_request("PUT", "/collections/c/points?wait=true", body)
    sock.sendall(request[:-1])
    front.wait_held()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    front.release()
    assert get(front, 1) is None


def test_held_requests_are_released_one_by_one(front):
    make(front)
    front.fault("hold", method="PUT", times=2)
    results = {}

    def write(number):
        results[number] = put(front, [point(1, v=number)])[0]

    threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
        front.wait_held(len([t for t in threads if t.ident]))
    first, second = (held["n"] for held in front.held())
    front.release(second)
    assert get(front, 1) == {"v": 1}
    front.release(first)
    for thread in threads:
        thread.join()
    assert results == {0: 200, 1: 200} and get(front, 1) == {"v": 0}


def test_a_lagging_alias_map(front):
    """A peer of a cluster that has not heard of the rename yet."""
    make(front)
    create_alias(front, "c__0", "c")
    rename_alias(front, "c__0", "c__1")
    assert put(front, [point(1)], "c__0")[0] == 404
    front.fault("stale_alias", path_regex="c__0", times=1)
    assert put(front, [point(1)], "c__0")[0] == 200
    front.configure(peers=3)
    assert len(call(front, "GET", "/cluster")[1]["result"]["peers"]) == 3
    front.configure(peers=1)


def test_down_and_up_on_the_same_port(front):
    make(front)
    put(front, [point(1, v=1)])
    idle = connect(front)
    front.down()
    with pytest.raises(ConnectionResetError):
        idle.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(front)
    front.up()
    assert get(front, 1) == {"v": 1}
    front.fault("down", seconds=0.2, times=1)
    with pytest.raises((ConnectionError, urllib.error.URLError)):
        call(front, "GET", "/")
    front.wait_for(lambda: front.log() and _reachable(front), 5)


def _reachable(front):
    try:
        return call(front, "GET", "/")[0] == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def test_the_log(front):
    make(front)
    front.configure(bodies=40)
    put(front, [point(5), point(UUID)])
    front.configure(bodies=0)
    entry = front.log(method="PUT", path_regex="/points$")[0]
    assert entry["ids"] == [5, UUID] and entry["points"] == 2 and entry["operations"] == ["upsert"]
    assert entry["status"] == 200 and entry["applied"] == 1 and entry["query"] == "wait=true"
    assert entry["received"] <= entry["body_read"] <= entry["answered"]
    assert entry["body"].startswith('{"points"') and len(entry["body"]) == 40
    assert front.log(since=entry["n"]) == []


# ---------------------------------------------------------------- life


def test_data_survives_kill_and_restart(tmp_path):
    front = Front(data=str(tmp_path / "data"))
    with front:
        make(front)
        create_alias(front, "a", "c")
        put(front, [point(1, v=1), point(UUID)])
        address = front.url
        front.kill()
        front.start()
        assert front.url == address and get(front, 1, "a") == {"v": 1}
        assert put(front, [point(2)])[1]["result"]["operation_id"] == 1
        front.stop()
        front.start()
        assert call(front, "GET", "/collections/c")[1]["result"]["points_count"] == 3


def test_a_frozen_server_takes_connections_and_bytes():
    with Front() as front:
        make(front)
        front.freeze()
        with connect(front) as sock:
            sock.sendall(raw_request("PUT", "/collections/c/points?wait=true", upsert_body([point(1)])))
            sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                sock.recv(1)
        front.thaw()
        front.wait_for(lambda: get(front, 1) == {})


def test_nothing_is_left_behind():
    front = Front().start()
    make(front)
    scratch = [link for link in _open_files(front.pid) if "qdrant-front-" in link]
    assert scratch
    front.stop()
    assert not any(os.path.exists(path.removesuffix(" (deleted)")) for path in scratch)


def _open_files(pid):
    with open(f"/proc/{pid}/maps") as maps:
        mapped = {line.split(maxsplit=5)[5].strip() for line in maps if len(line.split(maxsplit=5)) == 6}
    return mapped | {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}


def test_uuid_keys_of_version_five_are_plain_uuids(front):
    make(front)
    identifier = str(uuid.uuid5(uuid.NAMESPACE_URL, "key"))
    put(front, [point(identifier)])
    assert get(front, identifier) == {}
