"""Every kind of explicit write: what Qdrant's own client would have done, after the commit and in its order."""

import contextlib
import json
import time
import uuid

import psycopg
import pytest
from psycopg.types.json import Jsonb
from qdrant_client import models

from harness import collection_points, stays, wait_until
from items import Items, end_worker

faults = pytest.mark.faults

U = "5c56c793-69f3-4fbf-87e6-c4bf54c28c26"

# One call of each kind, about points 1 and 2.
CALLS = {
    "upsert": "qdrant_upsert({c}, '[{{\"id\": 1, \"vector\": [4, 3, 2, 1], \"payload\": {{\"n\": 7}}}}]')",
    "delete": "qdrant_delete({c}, 1)",
    "update_vectors": "qdrant_update_vectors({c}, '[{{\"id\": 1, \"vector\": [4, 3, 2, 1]}}]')",
    "delete_vectors": "qdrant_delete_vectors({c}, '{{\"\"}}', 1)",
    "set_payload": "qdrant_set_payload({c}, '{{\"m\": 1}}', 1)",
    "overwrite_payload": "qdrant_overwrite_payload({c}, '{{\"m\": 1}}', 1)",
    "delete_payload": "qdrant_delete_payload({c}, '{{n}}', 1)",
    "clear_payload": "qdrant_clear_payload({c}, 1)",
    "batch_update_points": "qdrant_batch_update_points({c}, '[{{\"delete\": {{\"points\": [1]}}}}]')",
}


def call(conn, kind, collection):
    conn.execute("SELECT " + CALLS[kind].format(c="%s"), (collection,))


def make(front, name, named=False, multi=False):
    vectors = {"a": models.VectorParams(size=2, distance="Dot"), "b": models.VectorParams(size=3, distance="Dot")}
    if multi:
        vectors["m"] = models.VectorParams(size=2, distance="Dot", multivector_config=models.MultiVectorConfig(
            comparator="max_sim"))
    front.client.create_collection(
        name, vectors_config=vectors if named else models.VectorParams(size=4, distance="Dot"),
        sparse_vectors_config={"s": models.SparseVectorParams()} if named else None)
    return name


def fill(front, name, count=6):
    front.client.upsert(name, [models.PointStruct(id=i, vector=[i, 1, 2, 3], payload={"n": i, "o": {"p": i}})
                               for i in range(1, count + 1)] +
                        [models.PointStruct(id=U, vector=[9, 9, 9, 9], payload={"n": 0})], wait=True)
    return name


@pytest.fixture
def target(db, front):
    return fill(front, make(front, db.collection("written")))


def wait(db, timeout="60s"):
    assert db.one("SELECT qdrant_wait(%s)", (timeout,)) is True


def writes(front, collection, since=0):
    return [entry for entry in front.faults.log(since=since, path_regex=f"^/collections/{collection}/points")
            if "wait=true" in (entry["query"] or "")]


def last_entry(front):
    log = front.faults.log()
    return log[-1]["n"] if log else 0


def letters(db):
    return db.sql("SELECT operation, error, http_status, body FROM qdrant_internal.dead_letter ORDER BY id")


# --- the same as the client ---

@pytest.mark.parametrize("kind", CALLS)
def test_arguments_are_those_of_the_client(idle, kind):
    """In its order, but for those that queued work cannot honour; the documentation names these."""
    import inspect
    from qdrant_client import AsyncQdrantClient
    theirs = set(inspect.signature(getattr(AsyncQdrantClient, kind)).parameters) - {"self", "kwargs", "wait", "ordering", "timeout"}
    if kind == "overwrite_payload":
        theirs -= {"key"}
    ours = idle.one("SELECT proargnames FROM pg_proc WHERE proname = %s", (f"qdrant_{kind}",))
    assert ours[-1] == "server" and set(ours[:-1]) == theirs
    order = [name for name in inspect.signature(getattr(AsyncQdrantClient, kind)).parameters if name in theirs]
    assert ours[:-1] == order
    assert idle.one("SELECT obj_description(oid, 'pg_proc') FROM pg_proc WHERE proname = %s", (f"qdrant_{kind}",))


FILTER = models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gte=4))])
FILTER_JSON = '{"must": [{"key": "n", "range": {"gte": 4}}]}'

SAME = {
    "upsert": (
        "qdrant_upsert(%s, '[{\"id\": 2, \"vector\": [0, 0, 0, 1]}, {\"id\": 77, \"vector\": [1, 1, 1, 1], \"payload\": {\"x\": null}}]')",
        lambda c, name: c.upsert(name, [models.PointStruct(id=2, vector=[0, 0, 0, 1]),
                                        models.PointStruct(id=77, vector=[1, 1, 1, 1], payload={"x": None})])),
    "upsert, update_filter": (
        f"qdrant_upsert(%s, '[{{\"id\": 2, \"vector\": [0, 0, 0, 1]}}, {{\"id\": 5, \"vector\": [0, 0, 0, 1]}}]', "
        f"update_filter => '{FILTER_JSON}')",
        lambda c, name: c.upsert(name, [models.PointStruct(id=2, vector=[0, 0, 0, 1], payload={}),
                                        models.PointStruct(id=5, vector=[0, 0, 0, 1], payload={})], update_filter=FILTER)),
    "upsert, update_mode": (
        "qdrant_upsert(%s, '[{\"id\": 2, \"vector\": [0, 0, 0, 1]}, {\"id\": 77, \"vector\": [0, 0, 0, 1]}]', "
        "update_mode => 'insert_only')",
        lambda c, name: c.upsert(name, [models.PointStruct(id=2, vector=[0, 0, 0, 1], payload={}),
                                        models.PointStruct(id=77, vector=[0, 0, 0, 1], payload={})],
                                 update_mode=models.UpdateMode.INSERT_ONLY)),
    "delete, ids": (f"qdrant_delete(%s, '[1, \"{U}\", 999]')", lambda c, name: c.delete(name, [1, U, 999])),
    "delete, filter": (f"qdrant_delete(%s, '{FILTER_JSON}')", lambda c, name: c.delete(name, FILTER)),
    "delete, everything": ("qdrant_delete(%s, '{\"filter\": {}}'::jsonb)", lambda c, name: c.delete(name, models.Filter())),
    "update_vectors": (
        "qdrant_update_vectors(%s, '[{\"id\": 2, \"vector\": [0, 0, 0, 1]}]')",
        lambda c, name: c.update_vectors(name, [models.PointVectors(id=2, vector=[0, 0, 0, 1])])),
    "delete_vectors": ("qdrant_delete_vectors(%s, ARRAY[''], ARRAY[1, 2])",
                       lambda c, name: c.delete_vectors(name, [""], [1, 2])),
    "set_payload": ("qdrant_set_payload(%s, '{\"n\": 9, \"m\": [1]}', ARRAY[1, 2])",
                    lambda c, name: c.set_payload(name, {"n": 9, "m": [1]}, [1, 2])),
    "set_payload, key": ("qdrant_set_payload(%s, '{\"q\": 9}', 1, key => 'o')",
                         lambda c, name: c.set_payload(name, {"q": 9}, [1], key="o")),
    "set_payload, filter": (f"qdrant_set_payload(%s, '{{\"m\": 9}}', points => '{FILTER_JSON}'::jsonb)",
                            lambda c, name: c.set_payload(name, {"m": 9}, FILTER)),
    "overwrite_payload": ("qdrant_overwrite_payload(%s, '{\"m\": 9}', ARRAY[1, 2]::bigint[])",
                          lambda c, name: c.overwrite_payload(name, {"m": 9}, [1, 2])),
    "delete_payload": ("qdrant_delete_payload(%s, '{n,o.p}', 1)",
                       lambda c, name: c.delete_payload(name, ["n", "o.p"], [1])),
    "clear_payload": (f"qdrant_clear_payload(%s, '{U}'::uuid)", lambda c, name: c.clear_payload(name, [U])),
    "batch_update_points": (
        """qdrant_batch_update_points(%s, '[
            {"upsert": {"points": [{"id": 50, "vector": [1, 2, 3, 4], "payload": {"n": 1}}]}},
            {"set_payload": {"payload": {"n": 2}, "points": [50]}},
            {"update_vectors": {"points": [{"id": 50, "vector": [4, 3, 2, 1]}]}},
            {"delete": {"points": [1]}}, {"clear_payload": {"points": [2]}},
            {"overwrite_payload": {"payload": {"z": 1}, "points": [3]}},
            {"delete_payload": {"keys": ["n"], "points": [4]}},
            {"delete_vectors": {"vector": [""], "points": [5]}},
            {"delete": {"filter": {"must": [{"key": "n", "match": {"value": 6}}]}}}]')""",
        lambda c, name: c.batch_update_points(name, [
            models.UpsertOperation(upsert=models.PointsList(points=[models.PointStruct(id=50, vector=[1, 2, 3, 4], payload={"n": 1})])),
            models.SetPayloadOperation(set_payload=models.SetPayload(payload={"n": 2}, points=[50])),
            models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(points=[models.PointVectors(id=50, vector=[4, 3, 2, 1])])),
            models.DeleteOperation(delete=models.PointIdsList(points=[1])),
            models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[2])),
            models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload={"z": 1}, points=[3])),
            models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["n"], points=[4])),
            models.DeleteVectorsOperation(delete_vectors=models.DeleteVectors(vector=[""], points=[5])),
            models.DeleteOperation(delete=models.FilterSelector(filter=models.Filter(must=[
                models.FieldCondition(key="n", match=models.MatchValue(value=6))])))])),
}


@pytest.mark.parametrize("sql, by_client", SAME.values(), ids=SAME.keys())
def test_leaves_what_the_client_leaves(db, front, target, sql, by_client):
    other = fill(front, make(front, db.collection("by_client")))
    before = collection_points(front, other)
    db.sql(f"SELECT {sql}", (target,))
    wait(db)
    by_client(front.client, other)
    after = collection_points(front, other)
    assert after != before
    assert collection_points(front, target) == after
    assert letters(db) == []


def test_named_sparse_and_multi_vectors(db, front):
    name = make(front, db.collection("named"), named=True, multi=True)
    db.sql("SELECT qdrant_upsert(%s, %s)", (name, Jsonb([
        {"id": 1, "vector": {"a": [1, 2], "b": [1, 2, 3], "s": {"indices": [7, 1], "values": [0.5, 2]},
                             "m": [[0.5, 2], [3, 4]]}},
        {"id": 2, "vector": {"a": [3, 4]}}, {"id": 3, "vector": {}},
        {"id": 4, "vector": {"m": [[1, 2], [3, 4], [5, 6]]}}])))
    db.sql("SELECT qdrant_upsert(%s, '[{\"id\": 5, \"vector\": {\"m\": [[1.0, 2], [3, 4]]}}]')", (name,))
    db.sql("SELECT qdrant_update_vectors(%s, '[{\"id\": 2, \"vector\": {\"b\": [7, 8, 9]}}]')", (name,))
    db.sql("SELECT qdrant_delete_vectors(%s, '{a,s}', 1)", (name,))
    wait(db)
    points = collection_points(front, name)
    assert points["1"].vector == {"b": [1, 2, 3], "m": [[0.5, 2], [3, 4]]}
    assert points["2"].vector == {"a": [3, 4], "b": [7, 8, 9]}
    assert points["3"].vector is None and letters(db) == []
    assert points["4"].vector == {"m": [[1, 2], [3, 4], [5, 6]]} and points["5"].vector == {"m": [[1, 2], [3, 4]]}


SELECTORS = [
    ("2", ["2"]), ("2::smallint", ["2"]), ("2::bigint", ["2"]), ("2::numeric", ["2"]), ("'2'", ["2"]), ("'2'::text", ["2"]),
    ("ARRAY[1, 2]", ["1", "2"]), ("ARRAY[1, 2]::bigint[]", ["1", "2"]), ("ARRAY[1, 2]::smallint[]", ["1", "2"]),
    ("ARRAY[1, 2]::numeric[]", ["1", "2"]), ("'{1,2}'::int[]", ["1", "2"]), ("'{1,2}'", ["1", "2"]),
    ("'{\"1\",\"2\"}'", ["1", "2"]), (f"'{U}'::uuid", [U]), (f"ARRAY['{U}']::uuid[]", [U]), (f"'{U}'", [U]),
    (f"'{{{U},3}}'::text[]", [U, "3"]), (f"'{U.replace('-', '')}'::varchar", [U]),
    ("'[1, 2]'", ["1", "2"]), ("' [1, 2]'::json", ["1", "2"]), (f"'[1, \"{U}\"]'::jsonb", ["1", U]), ("'3'::jsonb", ["3"]),
    (f"'\"{U}\"'", [U]), ("'{\"points\": [1, 2]}'", ["1", "2"]), ("'{\"points\": [1, 2], \"shard_key\": null}'::jsonb", ["1", "2"]),
    ("'{\"must\": [{\"key\": \"n\", \"match\": {\"value\": 3}}]}'", ["3"]),
    ("'{\"filter\": {\"must_not\": {\"has_id\": [1, 2, 3, 4, 5]}}}'::json", ["6", U]),
    ("ARRAY[]::int[]", []), ("'[]'", []), ("'{}'::bigint[]", []),
    ("(SELECT array_agg(i) FROM generate_series(1, 3) i)", ["1", "2", "3"]),
]


def test_points_are_named_in_every_way(db, front, target):
    everything = set(collection_points(front, target))
    db.sql("CREATE DOMAIN some_ids AS bigint[]")
    for selector, ids in [*SELECTORS, ("'{4}'::some_ids", ["4"])]:
        fill(front, target)
        db.sql(f"SELECT qdrant_delete(%s, {selector})", (target,))
        wait(db)
        assert everything - set(collection_points(front, target)) == set(ids), selector


def test_points_as_drivers_send_them(db, front, target):
    """Bound on the server's side: a list is an array of some integer type, a dictionary is text."""
    everything = set(collection_points(front, target))
    for value, ids in [([1, 2], {"1", "2"}), (3, {"3"}), (uuid.UUID(U), {U}), ([uuid.UUID(U)], {U}), (f"{U}", {U}),
                       (json.dumps([1, U]), {"1", U}), (json.dumps({"filter": {"must": {"has_id": [5]}}}), {"5"}),
                       (Jsonb({"points": [4]}), {"4"})]:
        fill(front, target)
        db.sql("SELECT qdrant_delete(%s, %s)", (target, value))
        wait(db)
        assert everything - set(collection_points(front, target)) == ids, value


# --- refused at once ---

def refused(db, statement, state, pattern):
    with pytest.raises(psycopg.Error, match=pattern) as caught:
        db.sql(f"SELECT {statement}")
    assert caught.value.sqlstate == state, caught.value
    assert db.one("SELECT is_called FROM qdrant_internal.operation_number") is False


DEEP = "[" * 125 + "]" * 125
BEYOND = "1" + "0" * 309
DOUBLE = "has a number that is beyond the range of a double"

REFUSED = [
    ("qdrant_delete('c', NULL::int)", "22004", 'argument "points_selector" must not be NULL'),
    ("qdrant_delete('c', NULL)", "22004", 'argument "points_selector" must not be NULL'),
    ("qdrant_delete(NULL, 1)", "22004", 'argument "collection_name" must not be NULL'),
    ("qdrant_delete('a/b', 1)", "22023", "invalid collection name"),
    ("qdrant_delete('c', -1)", "22023", "points_selector: \"-1\" is not the id of a point"),
    ("qdrant_delete('c', 1.5)", "22023", "\"1.5\" is not the id"),
    ("qdrant_delete('c', 18446744073709551616)", "22023", "\"18446744073709551616\" is not the id"),
    ("qdrant_delete('c', ARRAY[1, NULL, 3])", "22023", "element 2: NULL is not"),
    ("qdrant_delete('c', ARRAY[1, 2, -3])", "22023", "element 3: \"-3\" is not"),
    ("qdrant_delete('c', '{1,x}')", "22023", "element 2: \"x\" is not"),
    ("qdrant_delete('c', '[1, 2.5]')", "22023", "element 2: 2.5 is not"),
    ("qdrant_delete('c', '[[1]]'::jsonb)", "22023", "element 1: a value that"),
    ("qdrant_delete('c', 'all')", "22023", "\"all\" is not the id"),
    ("qdrant_delete('c', '{}')", "22023", "may mean no point and every point"),
    ("qdrant_delete('c', '{}'::jsonb)", "22023", "may mean no point and every point"),
    ("qdrant_delete('c', '{\"must_nod\": []}')", "22023", "no member \"must_nod\""),
    ("qdrant_delete('c', '{\"filter\": []}')", "22023", "\"filter\" is not an object"),
    ("qdrant_delete('c', '{\"points\": 3}')", "22023", "\"points\" is not an array"),
    ("qdrant_delete('c', '{\"points\": [], \"filter\": {}}')", "22023", "either \"points\" or \"filter\""),
    ("qdrant_delete('c', '{\"points\": [1], \"wait\": true}')", "22023", "either \"points\" or \"filter\""),
    ("qdrant_delete('c', '[1')", "22P02", "json"),
    ("qdrant_delete('c', true)", "42804", "type boolean of points_selector"),
    ("qdrant_delete('c', ARRAY[0.5]::real[])", "42804", "type real\\[\\] of points_selector"),
    ("qdrant_delete('c', 1, shard_key_selector => 'true')", "22023", "shard_key_selector"),
    *[(f"qdrant_delete('c', 1, shard_key_selector => '{wrong}')", "22023", "shard_key_selector selects no shards")
      for wrong in ("{}", "[null]", "[{}]", '{"must": 5}', '{"target": "a"}', '{"target": "a", "fallback": null}',
                    '{"target": "a", "fallback": "b", "x": 1}', "null", "-1", "1.5", "[[1]]")],
    ("qdrant_delete('c', '{\"points\": [1], \"shard_key\": {}}')", "22023", "points_selector: \"shard_key\" selects no shards"),
    ("qdrant_batch_update_points('c', '[{\"delete\": {\"points\": [1], \"shard_key\": [true]}}]')", "22023",
     "\"shard_key\" selects no shards"),
    ("qdrant_clear_payload('c', '[null]'::json)", "22023", "points_selector, element 1"),
    ("qdrant_set_payload('c', '[]', 1)", "22023", "payload must be a JSON object"),
    ("qdrant_set_payload('c', NULL, 1)", "22004", 'argument "payload" must not be NULL'),
    ("qdrant_set_payload('c', '{}', NULL::int)", "22004", 'argument "points" must not be NULL'),
    (f"qdrant_set_payload('c', '{{\"a\": {DEEP}}}', 1)", "22023", "payload is nested deeper"),
    ("qdrant_set_payload('c', '{\"a\": 1e309}', 1)", "22023", f"payload {DOUBLE}"),
    ("qdrant_set_payload('c', '{}', 1, key => '')", "22023", "key is empty"),
    ("qdrant_set_payload('c', '{}', 1, key => 'a b')", "22023", "key: \"a b\" is not the path"),
    ("qdrant_set_payload('c', '{}', 1, key => 'a.')", "22023", "key: \"a.\" is not the path"),
    ("qdrant_set_payload('c', '{}', 1, key => 'a[x]')", "22023", "key: \"a\\[x\\]\" is not the path"),
    ("qdrant_set_payload('c', '{}', '{\"must\": [{\"key\": \"n\", \"range\": {\"gt\": 1e309}}]}')", "22023", f"points {DOUBLE}"),
    ("qdrant_set_payload('c', '{}', '{\"points\": [1], \"shard_key\": 1e309}')", "22023", f"points: \"shard_key\" {DOUBLE}"),
    ("qdrant_delete('c', 1, shard_key_selector => '[\"a\", 1e309]')", "22023", f"shard_key_selector {DOUBLE}"),
    ("qdrant_overwrite_payload('c', '3', 1)", "22023", "payload must be a JSON object"),
    (f"qdrant_overwrite_payload('c', '{{\"a\": [{{\"b\": [1, -{BEYOND}]}}]}}', 1)", "22023", f"payload {DOUBLE}"),
    ("qdrant_delete_payload('c', '{a,\"\"}', 1)", "22023", "element 2 of keys is empty"),
    ("qdrant_delete_payload('c', '{a,NULL}', 1)", "22004", "element 2 of keys"),
    ("qdrant_delete_payload('c', NULL, 1)", "22004", 'argument "keys" must not be NULL'),
    ("qdrant_delete_vectors('c', '{}', 1)", "22023", "vectors is empty"),
    ("qdrant_update_vectors('c', '{}')", "22023", "points must be a JSON array"),
    ("qdrant_update_vectors('c', '[{\"id\": 1}]')", "22023", "point 1: there is no \"vector\""),
    ("qdrant_update_vectors('c', '[{\"id\": 1, \"vector\": [1], \"payload\": {}}]')", "22023", "\"payload\" is no part"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": [1], \"payloads\": {}}]')", "22023", "point 1: \"payloads\" is no part"),
    (f"qdrant_upsert('c', '[{{\"id\": 1, \"vector\": [1], \"payload\": {{\"a\": {DEEP}}}}}]')", "22023", "point 1: \"payload\" is nested"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": [1]}, {\"id\": 2, \"vector\": [1], \"payload\": {\"a\": 1e309}}]')", "22023",
     f"point 2: \"payload\" {DOUBLE}"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": [1], \"payload\": {\"a\": [[[{\"b\": [0, -1e309]}]]]}}]')", "22023",
     f"point 1: \"payload\" {DOUBLE}"),
    # All doubles end there; Qdrant takes it with an exponent, which jsonb does not write.
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": [1], \"payload\": {\"a\": 1.7976931348623157e308}}]')", "22023",
     f"point 1: \"payload\" {DOUBLE}"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": [1, -1e309]}]')", "22023", "point 1: .* 32-bit float"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": {\"m\": [[1, 2], [1e309, 2.5]]}}]')", "22023", "point 1: .* 32-bit float"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": {\"m\": {\"text\": \"x\", \"model\": \"y\", \"options\": {\"z\": 1e309}}}}]')", "22023",
     f"point 1: \"vector\" {DOUBLE}"),
    ("qdrant_upsert('c', '[]', update_filter => '{\"must\": {\"key\": \"n\", \"range\": {\"gt\": 1e309}}}')", "22023",
     f"update_filter {DOUBLE}"),
    ("qdrant_update_vectors('c', '[{\"id\": 1, \"vector\": {\"s\": {\"indices\": [1], \"values\": [1e309]}}}]')", "22023",
     "point 1: .* 32-bit float"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": [1, 2]}, {\"id\": 2, \"vector\": [1, 2, 3]}]')", "22023",
     "point 2: .* has 3 numbers, and that of point 1 has 2"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": {\"a\": [1]}}, {\"id\": 2, \"vector\": {\"b\": [1, 2], \"a\": [1, 2]}}]')", "22023",
     "point 2: a vector in \"vector\", \"a\", has 2 numbers, and that of point 1 has 1"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": [[1, 2], [3]]}]')", "22023", "rows that are not equally long"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": [[1, 2], []]}]')", "22023", "is empty"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": {\"m\": [[1, 2], [3, 4]]}}]')", "22023", "\"m\", two rows .* sparse vector"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": [1, [2]]}]')", "22023", "not a number"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": {\"s\": {\"indices\": [1, 1], \"values\": [1, 2]}}}]')", "22023", "index 1 twice"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": {\"s\": {\"indices\": [1], \"values\": [1, 2]}}}]')", "22023", "1 indices and 2 values"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": {\"s\": {\"indices\": [4294967296], \"values\": [1]}}}]')", "22023", "2\\^32 - 1"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": {\"s\": {\"indices\": [1], \"values\": [1e39]}}}]')", "22023", "32-bit float"),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": {\"s\": {\"index\": [1]}}}]')", "22023", "\"model\""),
    ("qdrant_upsert('c', '[{\"id\": 1, \"vector\": {\"s\": 3}}]')", "22023", "neither an array nor an object"),
    ("qdrant_upsert('c', (SELECT jsonb_build_array(jsonb_build_object('id', 1, 'vector', jsonb_agg(1))) FROM generate_series(1, 65537)))",
     "22023", "65537 numbers"),
    ("qdrant_upsert('c', '[]', update_mode => 'sometimes')", "22023", "update_mode \"sometimes\""),
    ("qdrant_upsert('c', '[]', update_filter => '[]')", "22023", "update_filter must be"),
    ("qdrant_upsert('c', '[]', update_filter => '{\"mustn_t\": []}')", "22023", "no member"),
    ("qdrant_batch_update_points('c', '{}')", "22023", "update_operations must be a JSON array"),
    ("qdrant_batch_update_points('c', NULL)", "22004", 'argument "update_operations" must not be NULL'),
    ("qdrant_batch_update_points('c', '[3]')", "22023", "operation 1: it is not an object"),
    ("qdrant_batch_update_points('c', '[{\"delete\": {\"points\": [1]}}, {\"upserts\": {}}]')", "22023", "operation 2: there is no operation \"upserts\""),
    ("qdrant_batch_update_points('c', '[{\"delete\": {\"points\": [1]}, \"upsert\": {}}]')", "22023", "operation 1: it is not an object with the name of one"),
    ("qdrant_batch_update_points('c', '[{\"delete\": [1]}]')", "22023", "operation 1 \\(delete\\): it is not an object"),
    ("qdrant_batch_update_points('c', '[{\"delete\": {\"points\": [1, -1]}}]')", "22023", "operation 1 \\(delete\\), element 2"),
    ("qdrant_batch_update_points('c', '[{\"delete\": {}}]')", "22023", "operation 1 \\(delete\\): there is either"),
    ("qdrant_batch_update_points('c', '[{\"delete\": {\"points\": [1], \"wait\": true}}]')", "22023", "\"wait\" is no part"),
    ("qdrant_batch_update_points('c', '[{\"set_payload\": {\"points\": [1]}}]')", "22023", "there is no \"payload\""),
    ("qdrant_batch_update_points('c', '[{\"delete_payload\": {\"keys\": [1], \"points\": [1]}}]')", "22023", "element 1 of \"keys\""),
    ("qdrant_batch_update_points('c', '[{\"delete_payload\": {\"keys\": [\"a..b\"], \"points\": [1]}}]')", "22023",
     "operation 1 \\(delete_payload\\): element 1 of \"keys\": \"a..b\" is not the path"),
    ("qdrant_batch_update_points('c', '[{\"set_payload\": {\"payload\": {}, \"points\": [1], \"key\": \"\"}}]')", "22023",
     "operation 1 \\(set_payload\\): \"key\" is empty"),
    ("qdrant_batch_update_points('c', '[{\"set_payload\": {\"payload\": {}, \"points\": [1], \"key\": 5}}]')", "22023",
     "\"key\" is not a string"),
    ("qdrant_batch_update_points('c', '[{\"set_payload\": {\"payload\": {\"a\": [1e309]}, \"points\": [1]}}]')", "22023",
     f"operation 1 \\(set_payload\\) {DOUBLE}"),
    ("qdrant_batch_update_points('c', '[{\"delete\": {\"points\": [1]}}, {\"upsert\": {\"points\": [{\"id\": 1, \"vector\": [1], "
     "\"payload\": {\"a\": 1e309}}]}}]')", "22023", f"operation 2 \\(upsert\\), point 1: \"payload\" {DOUBLE}"),
    ("qdrant_batch_update_points('c', '[{\"delete\": {\"filter\": {\"must\": {\"key\": \"n\", \"range\": {\"lt\": -1e309}}}}}]')", "22023",
     f"operation 1 \\(delete\\) {DOUBLE}"),
    ("qdrant_batch_update_points('c', '[{\"delete\": {\"points\": [1], \"shard_key\": 1e309}}]')", "22023",
     f"operation 1 \\(delete\\): \"shard_key\" {DOUBLE}"),
    ("qdrant_upload('c', $$SELECT 1 AS id, '[1]' AS vector, '{\"a\": [1e309]}'::jsonb AS payload$$)", "22023",
     "point 1: column \"payload\": .* beyond a double"),
    ("qdrant_upload('c', $$SELECT 1 AS id, '[1]' AS vector, '[1.7976931348623158e308]'::json AS n$$)", "22023",
     "point 1: column \"n\": .* beyond a double"),
    ("qdrant_upload('c', $$SELECT 1 AS id, '[1e309]' AS vector$$)", "22023", "point 1: .* 32-bit float"),
    ("qdrant_batch_update_points('c', '[{\"upsert\": {\"points\": [{\"id\": 1, \"vector\": [1]}]}}, "
     "{\"update_vectors\": {\"points\": [{\"id\": 1, \"vector\": [1, 2]}]}}]')", "22023",
     "operation 2 \\(update_vectors\\), point 1: .* has 2 numbers, and that of point 1 has 1"),
]


@pytest.fixture(scope="module")
def idle(cluster, front):
    """A database in which nothing is written."""
    from harness import new_extension_db
    cluster.ensure_running()
    made = new_extension_db(cluster, front)
    yield made
    made.drop()


@pytest.mark.parametrize("statement, state, pattern", REFUSED, ids=[case[0][:90] for case in REFUSED])
def test_typing_error_is_the_callers_at_once(idle, statement, state, pattern):
    refused(idle, statement, state, pattern)


def test_numbers_that_a_double_holds_or_rounds_to_zero_are_taken(db, front, target):
    numbers = {"1e308": 1e308, "-1.797693134862315e308": -1.797693134862315e308, "9" * 308: 1e308, "-0": 0, "-0.0": 0, "1e-400": 0,
               "-1e-324": 0, "18446744073709551616": 2.0 ** 64, "0.1000000000000000055511151231257827": 0.1,
               "9223372036854775808": 2 ** 63, "-9223372036854775809": -2.0 ** 63}
    payload = '{"a": [[' + ", ".join(numbers) + "]]}"
    db.sql("SELECT qdrant_upsert(%s, jsonb_build_array(jsonb_build_object('id', 1, 'vector', '[0, -0, 1e-400, 3.4e38]'::jsonb, "
           "'payload', %s::jsonb)))", (target, payload))
    db.sql("SELECT qdrant_set_payload(%s, %s::jsonb, 1, key => 'b')", (target, payload))
    db.sql("SELECT qdrant_upload(%s, format('SELECT 2 AS id, ''[1, 2, 3, 4]'' AS vector, %%L::json AS a', %s::text))",
           (target, '[[' + ", ".join(numbers) + ', 1.7976931348623157e308]]'))
    wait(db)
    one, two = front.client.retrieve(target, [1, 2])
    assert one.payload["a"] == one.payload["b"]["a"] == [pytest.approx(list(numbers.values()), rel=1e-15)]
    assert two.payload["a"] == [pytest.approx([*numbers.values(), 1.7976931348623157e308], rel=1e-15)]


PATHS = ["a", "a.b", "a[0]", "a[].b", '"a b"', '"a b".c', '""', "schlüssel", "a-b_c", "1"]


def test_paths_of_fields_are_those_of_qdrant(db, target):
    """Refused here is no path that Qdrant reads; what it made of one is test_writes_are_those_of_the_client's."""
    for path in PATHS:
        db.sql("SELECT qdrant_set_payload(%s, '{\"x\": 1}', 1, key => %s)", (target, path))
        db.sql("SELECT qdrant_delete_payload(%s, ARRAY[%s], 1)", (target, path))
    db.sql("SELECT qdrant_wait('60s')")
    assert db.sql("SELECT * FROM qdrant_dead_letters") == []


@pytest.mark.parametrize("statement", [
    "qdrant_upsert('c', jsonb_build_array(jsonb_build_object('id', 1, 'vector', '[1]'::jsonb), jsonb_build_object("
    "'id', 2, 'vector', '[1]'::jsonb, 'payload', jsonb_build_object('t', repeat('x', 33600000)))))",
    "qdrant_set_payload('c', jsonb_build_object('t', repeat('x', 33600000)), 1)",
    "qdrant_batch_update_points('c', jsonb_build_array(jsonb_build_object('delete', '{\"points\": [1]}'::jsonb), "
    "jsonb_build_object('set_payload', jsonb_build_object('points', '[1]'::jsonb, 'payload', "
    "jsonb_build_object('t', repeat('x', 33600000))))))",
], ids=["upsert", "set_payload", "batch_update_points"])
def test_more_than_qdrant_takes_in_a_request_is_refused_at_once(idle, statement):
    refused(idle, statement, "54000", "(point 2|element 1|operation 2) makes a request of 336")


@pytest.mark.parametrize("kind", CALLS)
def test_collection_of_a_mirror_is_refused(db, kind):
    items = Items(db, rows=2)
    alias, = items.aliases()
    for name in (items.collection, alias, f"{items.collection}__qs_0"):
        with pytest.raises(psycopg.errors.ObjectInUse, match="belongs to a mirror"):
            call(db.conn, kind, name)
    items.converged()


@pytest.mark.parametrize("kind", CALLS)
def test_needs_usage_on_the_server_and_a_transaction_that_writes(db, kind):
    db.sql("CREATE ROLE stranger LOGIN")
    try:
        with contextlib.closing(db.connect(user="stranger")) as conn:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                call(conn, kind, "c")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match=f"qdrant_{kind}"):
            with db.connect() as conn:
                conn.execute("BEGIN READ ONLY")
                call(conn, kind, "c")
    finally:
        db.sql("DROP ROLE stranger")


# --- with their transaction ---

@faults
@pytest.mark.parametrize("kind", CALLS)
def test_undone_with_transaction_and_savepoint(db, front, target, kind):
    since = last_entry(front)
    conn = db.connect()
    conn.execute("BEGIN")
    call(conn, kind, target)
    conn.execute("ROLLBACK")
    conn.execute("BEGIN")
    conn.execute("SAVEPOINT a")
    call(conn, kind, target)
    conn.execute("ROLLBACK TO a")
    conn.execute("SAVEPOINT b")
    conn.execute("SAVEPOINT c")
    call(conn, kind, target)
    conn.execute("RELEASE c")
    conn.execute("ROLLBACK TO b")
    conn.execute("SELECT qdrant_set_payload(%s, '{\"kept\": true}', 6)", (target,))
    conn.execute("COMMIT")
    wait(db)
    sent, = writes(front, target, since)
    assert sent["path"].endswith("/payload") and sent["ids"] == [6]


@pytest.mark.parametrize("kind", CALLS)
def test_prepared_transaction_is_refused(db, target, kind):
    conn = db.connect()
    conn.execute("BEGIN")
    call(conn, kind, target)
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="writes of points"):
        conn.execute("PREPARE TRANSACTION 'never'")


def test_kinds_arrive_in_the_order_of_their_commits(db, cluster, front, target):
    """Each transaction begins after the other's commit, and a later kind would show if an earlier one overtook it."""
    sessions = [db.connect() for _ in range(3)]
    for n in range(120):
        conn = sessions[n % 3]
        conn.execute("SELECT qdrant_upsert(%s, %s)", (target, Jsonb(
            [{"id": i, "vector": [n, 1, 1, 1], "payload": {"n": n, "old": True}} for i in range(1, 4)])))
        sessions[(n + 1) % 3].execute("SELECT qdrant_set_payload(%s, %s, ARRAY[1, 2, 3])", (target, Jsonb({"m": n})))
        conn.execute("SELECT qdrant_delete_payload(%s, '{old}', %s)", (target, Jsonb({"must": {"key": "m", "match": {"value": n}}})))
        sessions[(n + 2) % 3].execute("SELECT qdrant_update_vectors(%s, %s)", (target, Jsonb([{"id": 2, "vector": [0, n, 0, 0]}])))
        conn.execute("SELECT qdrant_batch_update_points(%s, '[{\"delete\": {\"points\": [3]}}]')", (target,))
        if n == 60:
            end_worker(cluster, db)
    wait(db)
    points = collection_points(front, target)
    assert "3" not in points
    assert points["1"].payload == {"n": 119, "m": 119} and points["2"].payload == {"n": 119, "m": 119}
    assert points["1"].vector == [119, 1, 1, 1] and points["2"].vector == [0, 119, 0, 0]
    assert letters(db) == []


def test_roles_share_the_order_of_a_collection(db, front, target):
    db.sql("CREATE ROLE another LOGIN")
    db.sql("GRANT USAGE ON FOREIGN SERVER qdrant TO another")
    if front.api_key:
        db.sql(f"CREATE USER MAPPING FOR another SERVER qdrant OPTIONS (api_key '{front.api_key}')")
    sessions = [db.connect(), db.connect(user="another")]
    for n in range(100):
        sessions[n % 2].execute("SELECT qdrant_set_payload(%s, %s, 1)", (target, Jsonb({"n": n})))
    wait(db)
    assert collection_points(front, target)["1"].payload["n"] == 99
    sessions[1].close()
    db.sql("DROP OWNED BY another CASCADE")
    db.sql("DROP ROLE another")


@faults
def test_no_request_begins_before_the_one_before_has_its_outcome(db, front, target):
    """Of whatever kind, over slow answers, errors that pass and one that does not."""
    since = last_entry(front)
    front.faults.fault("delay", seconds=0.02, when="after", path_regex=f"{target}/points")
    front.faults.fault("503", path_regex=f"{target}/points", nth=[3, 7, 8])
    for kind in [*CALLS, *CALLS]:
        call(db.conn, kind, target)
    wait(db)
    spans = [(entry["received"], entry["answered"]) for entry in writes(front, target, since)]
    assert len(spans) >= 2 * len(CALLS)
    assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:]))


@faults
def test_request_of_a_worker_that_ended_does_not_come_back_over_a_newer_one(db, cluster, front, target):
    """Nobody knows what became of it: the next worker lets it settle first."""
    front.faults.fault("hold", path_regex="/payload$", times=1)
    db.sql("SELECT qdrant_set_payload(%s, '{\"n\": \"old\"}', 1)", (target,))
    held, = front.faults.wait_held(1)
    end_worker(cluster, db)
    db.sql("SELECT qdrant_set_payload(%s, '{\"n\": \"new\"}', 1)", (target,))
    wait_until(lambda: front.faults.held()[0]["client_gone"], what="its client is gone")
    # What a server is doing with it takes a while, in which a new worker could have sent both.
    time.sleep(2)
    front.faults.release(held["n"])
    wait(db)
    stays(lambda: collection_points(front, target)["1"].payload["n"] == "new", 1)


def test_crash_does_not_repeat_a_filter_over_what_came_after_it(db, cluster, front, target):
    db.sql("SELECT qdrant_delete(%s, '{\"must\": {\"key\": \"doomed\", \"match\": {\"value\": true}}}')", (target,))
    db.sql("SELECT qdrant_set_payload(%s, '{\"doomed\": true}', 1)", (target,))
    wait_until(lambda: collection_points(front, target)["1"].payload.get("doomed"), what="both to be done")
    cluster.kill9()
    cluster.start()
    db.sql("SELECT qdrant_set_payload(%s, '{\"after\": true}', 1)", (target,))
    wait(db)
    assert collection_points(front, target)["1"].payload["after"] is True
    assert letters(db) == []


@faults
def test_copy_of_a_database_does_not_send_what_the_original_has_queued(db, cluster, front, target):
    front.faults.fault("503", path_regex=f"{target}/points", times=None)
    call(db.conn, "clear_payload", target)
    db.conn.close()
    copy = f"{db.name}_copy"
    wait_until(lambda: not cluster.sql("SELECT FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'",
                                       (db.name,)), what="the session to be gone")
    cluster.sql(f"CREATE DATABASE {copy} TEMPLATE {db.name}")
    try:
        cluster.sql(f"ALTER DATABASE {db.name} ALLOW_CONNECTIONS false")
        cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (db.name,))
        wait_until(lambda: not cluster.sql("SELECT FROM pg_stat_activity WHERE datname = %s", (db.name,)), what="its worker to end")
        since = last_entry(front)
        with cluster.connect(copy) as conn:
            call(conn, "delete_payload", target)
            wait_until(lambda: writes(front, target, since), what="the copy's own operation")
        assert {entry["path"].rsplit("/", 1)[1] for entry in writes(front, target, since)} == {"delete"}
    finally:
        cluster.sql(f"ALTER DATABASE {db.name} ALLOW_CONNECTIONS true")
        cluster.dropdb(copy)


# --- large ---

def test_delete_of_a_hundred_thousand_ids(db, front, target):
    db.sql("""SELECT qdrant_upsert(%s, (SELECT jsonb_agg(qdrant_point(i, ARRAY[i, 1, 0, 0]::real[]))
              FROM generate_series(1000, 100999) i))""", (target,))
    wait(db)
    assert front.client.count(target, exact=True).count == 100_007
    ids = "SELECT array_agg(i::bigint) FROM generate_series(1000, 100999) i"
    db.sql(f"SELECT qdrant_set_payload(%s, '{{\"t\": 1}}', (SELECT ids[1:50000] FROM ({ids}) AS a(ids)))", (target,))
    db.sql(f"SELECT qdrant_delete(%s, ({ids}))", (target,))
    wait(db)
    assert front.client.count(target, exact=True).count == 7
    assert letters(db) == []


@faults
def test_ids_of_many_megabytes_go_in_several_requests(db, front, target):
    since = last_entry(front)
    db.sql("SELECT qdrant_delete(%s, (SELECT array_agg(md5(i::text)::uuid) FROM generate_series(1, 60000) i))", (target,))
    wait(db)
    sizes = [entry["body_bytes"] for entry in writes(front, target, since)]
    assert len(sizes) == 3 and max(sizes) <= 1024 * 1024 + 100, sizes


@faults
def test_large_payload_does_not_split_its_ids_one_by_one(db, front, target):
    since = last_entry(front)
    db.sql("SELECT qdrant_set_payload(%s, jsonb_build_object('t', repeat('x', 3000000)), ARRAY[1, 2, 3])", (target,))
    wait(db)
    assert len(writes(front, target, since)) == 1


@faults
def test_batch_of_many_megabytes_is_split_between_operations_in_order(db, front, target):
    since = last_entry(front)
    operations = []
    for n in range(60):
        operations += [{"set_payload": {"payload": {"n": n, "text": "x" * 100_000}, "points": [1]}},
                       {"upsert": {"points": [{"id": 2, "vector": [n, 0, 0, 0], "payload": {"n": n}}]}},
                       {"delete_payload": {"keys": ["text"], "points": [1]}}]
    operations.append({"delete": {"points": [3]}})
    db.sql("SELECT qdrant_batch_update_points(%s, %s)", (target, Jsonb(operations)))
    wait(db)
    requests = writes(front, target, since)
    assert {entry["path"].rsplit("/", 1)[1] for entry in requests} == {"batch"} and 6 <= len(requests) <= 8
    assert all(entry["body_bytes"] <= 1024 * 1024 + 100 for entry in requests)
    points = collection_points(front, target)
    assert points["1"].payload == {"n": 59, "o": {"p": 1}} and points["2"].vector == [59, 0, 0, 0] and "3" not in points


# --- what is found later ---

@pytest.mark.parametrize("kind", ["update_vectors", "set_payload", "overwrite_payload", "delete_payload"])
def test_missing_point_is_a_dead_letter_and_the_next_operation_goes_on(db, front, target, kind):
    statement = {
        "update_vectors": "qdrant_update_vectors(%s, '[{\"id\": 1, \"vector\": [1, 1, 1, 9]}, {\"id\": 404, \"vector\": [1, 1, 1, 9]}]')",
        "set_payload": "qdrant_set_payload(%s, '{\"m\": 1}', ARRAY[1, 404])",
        "overwrite_payload": "qdrant_overwrite_payload(%s, '{\"m\": 1}', ARRAY[1, 404])",
        "delete_payload": "qdrant_delete_payload(%s, '{n}', ARRAY[1, 404])",
    }[kind]
    db.sql(f"SELECT {statement}", (target,))
    db.sql("SELECT qdrant_set_payload(%s, '{\"after\": true}', 2)", (target,))
    wait(db)
    (operation, error, status, body), = letters(db)
    assert (operation, status) == (kind, 404) and "404" in error and "404" in body
    assert collection_points(front, target)["2"].payload["after"] is True


@pytest.mark.parametrize("kind", CALLS)
def test_missing_collection_is_a_dead_letter_with_its_body(db, kind):
    name = db.collection("missing")
    call(db.conn, kind, name)
    call(db.conn, "upsert", name)
    wait(db)
    found = letters(db)
    assert [(row[0], row[2]) for row in found] == [(kind, 404), ("upsert", 404)]
    assert json.loads(found[0][3]) and name in found[0][1]


def test_operation_of_a_batch_that_is_refused_ends_its_request(db, front, target):
    db.sql("""SELECT qdrant_batch_update_points(%s, '[{"set_payload": {"payload": {"m": 1}, "points": [1]}},
        {"set_payload": {"payload": {"m": 1}, "points": [404]}}, {"delete": {"points": [2]}}]')""", (target,))
    call(db.conn, "delete", target)
    wait(db)
    points = collection_points(front, target)
    assert "1" not in points and "2" in points
    (operation, _, status, body), = letters(db)
    assert (operation, status) == ("batch_update_points", 404) and len(json.loads(body)["operations"]) == 3


def test_wrong_length_for_the_collection_is_found_later(db, front, target):
    db.sql("SELECT qdrant_upsert(%s, '[{\"id\": 1, \"vector\": [1, 2, 3]}]')", (target,))
    wait(db)
    (operation, error, status, _), = letters(db)
    assert (operation, status) == ("upsert", 400) and "dim" in error


def test_filter_is_resolved_when_it_runs(db, front, target):
    """Not when it is asked for: a point that is written meanwhile is found."""
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT qdrant_delete(%s, '{\"must\": {\"key\": \"late\", \"match\": {\"value\": 1}}}')", (target,))
        front.client.set_payload(target, {"late": 1}, [4], wait=True)
        conn.commit()
    wait(db)
    assert "4" not in collection_points(front, target)


@faults
def test_collection_that_a_mirror_takes_meanwhile_is_not_written_to(db, front):
    """Enqueued while it was nobody's."""
    name = db.collection("items")
    front.faults.fault("503", path_regex=f"^/collections/{name}/points$", times=None)
    call(db.conn, "upsert", name)
    db.sql("CREATE TABLE items (id bigint PRIMARY KEY, title text, n integer NOT NULL DEFAULT 0, embedding real[])")
    items = Items.of(db, collection=name)
    items.insert(5)
    items.mirror()
    (operation, error, status, body), = wait_until(lambda: letters(db), what="a dead letter")
    assert (operation, status) == ("upsert", None) and "belongs to a mirror" in error and json.loads(body)
    items.converged()


# --- arguments ---

@faults
def test_shard_key_and_filters_are_in_every_request(db, front, target):
    front.faults.configure(bodies=100_000)
    since = last_entry(front)
    for statement in (
            "qdrant_upsert(%s, '[{\"id\": 1, \"vector\": [1, 1, 1, 1]}]', shard_key_selector => '\"k\"', update_filter => '{\"must\": []}')",
            "qdrant_update_vectors(%s, '[{\"id\": 1, \"vector\": [1, 1, 1, 1]}]', shard_key_selector => '7', update_filter => '{\"must\": []}')",
            "qdrant_delete(%s, 9, shard_key_selector => '[\"a\", 2]')",
            "qdrant_delete(%s, 9, shard_key_selector => '{\"target\": \"a\", \"fallback\": 3}')",
            "qdrant_delete(%s, '{\"points\": [9], \"shard_key\": \"inside\"}')",
            "qdrant_clear_payload(%s, 1, shard_key_selector => '\"k\"')",
            "qdrant_delete_vectors(%s, '{\"\"}', 1, shard_key_selector => '\"k\"')",
            "qdrant_set_payload(%s, '{}', 1, key => '\"a b\"', shard_key_selector => '\"k\"')",
            "qdrant_overwrite_payload(%s, '{}', 1, shard_key_selector => '\"k\"')",
            "qdrant_delete_payload(%s, ARRAY['\"a b\"'], 1, shard_key_selector => '\"k\"')"):
        db.sql(f"SELECT {statement}", (target,))
    wait_until(lambda: len(writes(front, target, since)) >= 9, what="nine requests")
    bodies = [json.loads(entry["body"]) for entry in writes(front, target, since)]
    assert [body["shard_key"] for body in bodies] == ["k", 7, ["a", 2], {"target": "a", "fallback": 3}, "inside", "k", "k", "k", "k", "k"]
    assert [body.get("update_filter") for body in bodies[:2]] == [{"must": []}, {"must": []}]
    assert bodies[7]["key"] == '"a b"' and bodies[9]["keys"] == ['"a b"']


def test_both_shard_keys_are_refused(idle):
    refused(idle, "qdrant_delete('c', '{\"points\": [9], \"shard_key\": \"a\"}', shard_key_selector => '\"b\"')", "22023", "shard key both")


def test_text_of_a_latin1_database_arrives_in_utf8(cluster, front):
    front.clear()
    name = f"latin_{uuid.uuid4().hex[:8]}"
    collection = f"{name}_é"
    cluster.sql(f"CREATE DATABASE {name} ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    with cluster.connect(name) as conn:
        conn.execute("CREATE EXTENSION qdrant_sync")
        conn.execute(f"CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{front.url}')")
        conn.execute("SET client_encoding = 'UTF8'")
        make(front, collection)
        front.client.upsert(collection, [models.PointStruct(id=1, vector=[1, 1, 1, 1], payload={"ö": 1, "weg": 1})], wait=True)
        conn.execute("SELECT qdrant_set_payload(%s, %s, %s, key => 'schlüssel')", (
            collection, Jsonb({"größe": "ü"}), Jsonb({"must": {"key": "ö", "match": {"value": 1}}})))
        conn.execute("SELECT qdrant_delete_payload(%s, '{ö}', 1)", (collection,))
        assert conn.execute("SELECT qdrant_wait('30s')").fetchone()[0] is True
    assert front.client.retrieve(collection, [1])[0].payload == {"weg": 1, "schlüssel": {"größe": "ü"}}
    cluster.dropdb(name)


# --- once more ---

def retry(conn, ids):
    return conn.execute("SELECT qdrant_internal.retry_operations(%s::bigint[])", (ids,)).fetchone()[0]


def dead(db):
    return [row[0] for row in db.sql("SELECT id FROM qdrant_internal.dead_letter ORDER BY id")]


def test_qdrant_retry_takes_the_numbers_of_operations(db, front):
    name = db.collection("late")
    for n in range(2):
        db.sql("SELECT qdrant_upsert(%s, %s)", (name, Jsonb([{"id": n, "vector": [1, 1, 1, 1]}])))
    wait(db)
    letters = db.sql("SELECT key, operation FROM qdrant_dead_letters WHERE source IS NULL ORDER BY key::bigint")
    assert [operation for _, operation in letters] == ["upsert", "upsert"]
    make(front, name)
    assert db.one("SELECT qdrant_retry()") == 0
    assert db.one("SELECT qdrant_retry(keys => %s)", ([letters[1][0], "nonsense"],)) == 1
    wait(db)
    assert list(collection_points(front, name)) == ["1"]
    assert db.sql("SELECT key FROM qdrant_dead_letters") == [letters[0][:1]]


def test_dead_letters_of_operations_are_enqueued_again_in_order(db, front):
    name = db.collection("late")
    for n in range(3):
        db.sql("SELECT qdrant_upsert(%s, %s)", (name, Jsonb([{"id": 1, "vector": [n, 1, 1, 1]}])))
    wait(db)
    ids = dead(db)
    assert len(ids) == 3
    make(front, name)
    with db.connect(autocommit=False) as conn:
        assert retry(conn, ids) == 3
        conn.rollback()
    assert dead(db) == ids
    with db.connect(autocommit=False) as conn:
        conn.execute("SAVEPOINT a")
        assert retry(conn, ids[:1]) == 1
        conn.execute("ROLLBACK TO a")
        assert retry(conn, [*reversed(ids), 10**9, None]) == 3
        assert retry(conn, ids) == 0
        conn.commit()
    wait(db)
    assert dead(db) == [] and collection_points(front, name)["1"].vector == [2, 1, 1, 1]


def test_dead_letter_of_another_role_is_not_ones_own_to_repeat(db):
    name = db.collection("missing")
    for role in ("asked", "stranger"):
        db.sql(f"CREATE ROLE {role} LOGIN")
        db.sql(f"GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
    if db.front.api_key:
        db.sql(f"CREATE USER MAPPING FOR asked SERVER qdrant OPTIONS (api_key '{db.front.api_key}')")
    try:
        with contextlib.closing(db.connect(user="asked")) as conn:
            call(conn, "delete", name)
        wait(db)
        ids = dead(db)
        with contextlib.closing(db.connect(user="stranger")) as conn:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="operation of another role"):
                retry(conn, ids)
        assert dead(db) == ids
        with contextlib.closing(db.connect(user="asked")) as conn:
            assert retry(conn, ids) == 1
        wait(db)
        assert db.sql("SELECT owner::regrole::text, operation FROM qdrant_internal.dead_letter") == [("asked", "delete")]
    finally:
        for role in ("asked", "stranger"):
            db.sql(f"DROP OWNED BY {role} CASCADE")
            db.sql(f"DROP ROLE {role}")


def test_dead_letter_of_a_row_is_no_operation(db):
    items = Items(db, rows=3)
    db.sql("INSERT INTO items VALUES (10, 'x', 0, '{1,2,3,4,5}')")
    wait_until(items.dead_letters, what="a dead letter of a row")
    assert retry(db.conn, dead(db)) == 0
    assert len(dead(db)) == 1
