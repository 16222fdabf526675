"""What the front and a real server (QDRANT_URL) have to answer alike: one table of requests for both.

Each collection has a name of its own run, and nothing else on the server is touched.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
import uuid

import pytest

from qdrant_front import Front

pytestmark = pytest.mark.timeout(60)

DOT = {"size": 2, "distance": "Dot"}
ID = "6f9619ff-8b86-d011-b42d-00c04fc964f1"


@pytest.fixture(scope="module")
def url():
    if os.environ.get("QDRANT_URL"):
        yield os.environ["QDRANT_URL"]
        return
    with Front() as front:
        yield front.url


class Server:
    """Requests in which @ stands for the beginning of the names of this test's collections and aliases."""

    def __init__(self, url):
        self.url = url
        self.prefix = f"as_{uuid.uuid4().hex[:8]}_"
        self.made = []

    def raw(self, method, path, body=None):
        text = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        data = None if text is None else text.replace(b"@", self.prefix.encode())
        headers = {"Content-Type": "application/json"}
        if os.environ.get("QDRANT_API_KEY"):
            headers["api-key"] = os.environ["QDRANT_API_KEY"]
        request = urllib.request.Request(self.url + path.replace("@", self.prefix), data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def status(self, method, path, body=None):
        return self.raw(method, path, body)[0]

    def result(self, method, path, body=None):
        status, answer = self.raw(method, path, body)
        assert status == 200, answer
        return json.loads(answer.replace(self.prefix.encode(), b"@"))["result"]

    def make(self, name="c", **config):
        self.result("PUT", f"/collections/@{name}", config or {"vectors": DOT})
        self.made.append(name)

    def points(self, name="c", count=6, **vectors):
        self.result("PUT", f"/collections/@{name}/points?wait=true", {"points": [
            {"id": n, "vector": {"": [n, 1], **vectors}, "payload": {
                "n": n, "g": "ab"[n % 2], "b": n % 2 == 0, "u": ID[:-1] + str(n)}} for n in range(count)]})

    def config(self, name="c"):
        return self.result("GET", f"/collections/@{name}")["config"]


@pytest.fixture
def server(url):
    made = Server(url)
    yield made
    for name in {*made.made, "n"}:
        made.status("DELETE", f"/collections/@{name}")


@pytest.fixture
def filled(server):
    """Collections c (a dense and a sparse vector) and d (dense), six points each."""
    server.make("c", vectors=DOT, sparse_vectors={"s": {}})
    server.points("c", s={"indices": [1], "values": [1]})
    server.make("d")
    server.points("d", 3)
    return server


def ids(points):
    return [one["id"] for one in points]


# ---------------------------------------------------------------- collections

REFUSED_CONFIGS = [
    (400, {"vectors": {"size": 0, "distance": "Dot"}}), (422, {"vectors": {"size": 65537, "distance": "Dot"}}),
    (400, {"vectors": {"size": 2, "distance": "dot"}}), (400, {"vectors": {"size": 2.0, "distance": "Dot"}}),
    (400, {"vectors": None}), (400, {"vectors": {"a/b": DOT}}), (400, {"sparse_vectors": {"": {}}}),
    (400, {"vectors": {"a": DOT}, "sparse_vectors": {"a": {}}}), (400, b"null"), (400, b""), (400, []),
    (422, {"vectors": DOT, "hnsw_config": {"ef_construct": 3}}),
    (422, {"vectors": DOT, "hnsw_config": {"full_scan_threshold": 9}}),
    (422, {"vectors": {**DOT, "hnsw_config": {"ef_construct": 3}}}),
    (422, {"vectors": {**DOT, "quantization_config": {"scalar": {"type": "int8", "quantile": 0.4}}}}),
    (422, {"vectors": DOT, "optimizers_config": {"deleted_threshold": 2}}),
    (422, {"vectors": DOT, "optimizers_config": {"vacuum_min_vector_number": 1}}),
    (422, {"vectors": DOT, "shard_number": 0}), (422, {"vectors": DOT, "replication_factor": 0}),
    (422, {"vectors": DOT, "write_consistency_factor": 0}), (422, {"vectors": DOT, "wal_config": {"wal_capacity_mb": 0}}),
    (422, {"vectors": DOT, "strict_mode_config": {"max_query_limit": 0}}), (400, {"vectors": DOT, "metadata": []}),
]


def test_configurations_that_are_refused(server):
    for status, body in REFUSED_CONFIGS:
        assert server.status("PUT", "/collections/@n", body) == status, body
    assert server.status("GET", "/collections/@n") == 404


def test_configurations_that_are_taken_and_shown(server):
    for config, shown in (
            ({}, {"params": {"vectors": {}}}), ({"vectors": {}}, {"params": {"vectors": {}}}),
            ({"vectors": {"": DOT}}, {"params": {"vectors": {"": DOT}}}),
            ({"vectors": {**DOT, "x": 1}, "x": 1}, {"params": {"vectors": DOT}}),
            ({"vectors": DOT, "hnsw_config": {"x": 1, "m": 8}}, {"hnsw_config": {"m": 8, "ef_construct": 100}}),
            ({"sparse_vectors": {"s": {"x": 1}}}, {"params": {"sparse_vectors": {"s": {}}}}),
            ({"vectors": DOT, "metadata": {}}, {"metadata": {}}),
            ({"vectors": DOT, "strict_mode_config": {"max_query_limit": 5}},
             {"strict_mode_config": {"max_query_limit": 5}}),
            ({"vectors": DOT, "optimizers_config": {"max_optimization_threads": "auto"}},
             {"optimizer_config": {"max_optimization_threads": None, "prevent_unoptimized": None}})):
        server.status("DELETE", "/collections/@n")
        server.result("PUT", "/collections/@n", config)
        seen = server.config("n")
        for part, members in shown.items():
            assert {key: seen[part].get(key) for key in members} == members, (config, seen[part])
    server.status("DELETE", "/collections/@n")
    server.result("PUT", "/collections/@n", {"vectors": DOT})
    assert not {"strict_mode_config", "metadata"} & server.config("n").keys()


def test_an_update_shows_in_the_configuration(server):
    server.make("c", vectors={"": DOT, "w": DOT}, sparse_vectors={"s": {}})
    for status, body in ((422, {"hnsw_config": {"ef_construct": 3}}), (400, {"vectors": {"x": {"on_disk": True}}}),
                         (400, {"sparse_vectors": {"x": {}}}), (400, {"params": {"replication_factor": 0}}),
                         (422, {"optimizers_config": {"deleted_threshold": 3}}), (200, {"x": 1})):
        assert server.status("PATCH", "/collections/@c", body) == status, body
    for body in ({"hnsw_config": {"m": 8, "x": 1}}, {"vectors": {"": {"on_disk": True, "hnsw_config": {"m": 4}}}},
                 {"vectors": {"w": {"quantization_config": {"scalar": {"type": "int8"}}}}},
                 {"sparse_vectors": {"s": {"index": {"on_disk": True}, "modifier": "idf"}}},
                 {"optimizer_config": {"indexing_threshold": 6}}, {"params": {"on_disk_payload": False}},
                 {"quantization_config": {"binary": {}}}, {"metadata": {"a": 1, "b": 2}}, {"metadata": {"a": None}}):
        assert server.result("PATCH", "/collections/@c", body) is True
    seen = server.config()
    assert seen["hnsw_config"]["m"] == 8 and seen["optimizer_config"]["indexing_threshold"] == 6
    assert seen["params"]["vectors"] == {"": {**DOT, "on_disk": True, "hnsw_config": {"m": 4}},
                                         "w": {**DOT, "quantization_config": {"scalar": {"type": "int8"}}}}
    assert seen["params"]["sparse_vectors"] == {"s": {"index": {"on_disk": True}, "modifier": "idf"}}
    assert seen["params"]["on_disk_payload"] is False and seen["metadata"] == {"b": 2}
    assert seen["quantization_config"] == {"binary": {}}
    server.result("PATCH", "/collections/@c", {"quantization_config": "Disabled",
                                               "vectors": {"w": {"quantization_config": "Disabled"}}})
    assert server.config()["quantization_config"] is None and server.config()["params"]["vectors"]["w"] == DOT


def test_strict_mode_bounds_the_limit(server):
    server.make("c", vectors=DOT, strict_mode_config={"enabled": True, "max_query_limit": 5})
    for path in ("/query", "/scroll"):
        for status, limit in ((200, 5), (400, 6)):
            assert server.status("POST", "/collections/@c/points" + path, {"limit": limit}) == status, (path, limit)
    assert server.status("POST", "/collections/@c/points/query", {}) == 400
    assert server.status("POST", "/collections/@c/points/scroll", {}) == 200, "the limit by default is not looked at"
    server.result("PATCH", "/collections/@c", {"strict_mode_config": {"enabled": False}})
    assert server.status("POST", "/collections/@c/points/scroll", {"limit": 6}) == 200


def test_names_of_collections(server):
    for name in ("@a%2Fb", "@a%00", "n" * 256):
        for method, path, body in (("PUT", "", {"vectors": DOT}), ("GET", "", None), ("GET", "/exists", None),
                                   ("DELETE", "", None), ("POST", "/points/count", {})):
            assert server.status(method, f"/collections/{name}{path}", body) == 422, (name, method, path)
    for name in ("@a:b", "@a*b", "@a%3Fb", "@a%5Cb", "@%22"):
        assert server.status("PUT", f"/collections/{name}", {"vectors": DOT}) == 422, name
        assert server.status("GET", f"/collections/{name}") == 404, name


def test_vector_names_that_come_and_go(server):
    server.make("c", sparse_vectors={"s": {}})
    vectors = "/collections/@c/vectors/"
    for status, name, body in (
            (200, "a", {"dense": DOT}), (200, "a", {"dense": DOT}), (400, "a", {"dense": {**DOT, "size": 3}}),
            (400, "a", {"sparse": {}}), (200, "s", {"sparse": {}}), (400, "s", {"dense": DOT}),
            (400, "s", {"sparse": {"modifier": "idf"}}), (400, "b", {}), (422, "b", {"dense": {**DOT, "size": 0}}),
            (200, "b", {"dense": {**DOT, "x": 1, "on_disk": True}, "x": 1}), (422, "b%2Fc", {"sparse": {}}),
            (422, "n" * 201, {"sparse": {}})):
        assert server.status("PUT", vectors + name + "?wait=true", body) == status, (name, body)
    assert server.config()["params"]["vectors"] == {"a": DOT, "b": DOT}
    for name in ("a", "a", "never"):
        assert server.result("DELETE", vectors + name + "?wait=true")["status"] == "completed"
    assert server.config()["params"]["vectors"] == {"b": DOT}


def test_a_collection_without_vectors_holds_points(server):
    server.make("c", vectors={})
    path = "/collections/@c/points"
    assert server.result("PUT", path + "?wait=true", {"points": [{"id": 1, "vector": {}, "payload": {"n": 1}}]})
    assert server.result("POST", path + "/scroll", {"with_vector": True})["points"] == [
        {"id": 1, "payload": {"n": 1}, "vector": {}}]
    assert server.status("PUT", path + "?wait=true", {"points": [{"id": 2, "vector": [1]}]}) == 400
    assert server.status("POST", path + "/query", {"query": [1]}) == 400


# ---------------------------------------------------------------- aliases

def create(alias, collection):
    return {"create_alias": {"alias_name": alias, "collection_name": collection}}


def test_aliases_of_aliases_and_of_nothing(server):
    server.make("c")
    server.make("d")
    change = "/collections/aliases"
    for status, *actions in ((200, create("@al", "@c")), (404, create("@al2", "@al")), (404, create("@al2", "@no")),
                             (409, create("@d", "@c")), (200,), (400, {"x": 1}),
                             (200, {**create("@al3", "@c"), "delete_alias": {"alias_name": "@al3"}})):
        assert server.status("POST", change, {"actions": actions, "x": 1}) == status, actions
    seen = server.result("GET", "/collections/@c/aliases")["aliases"]
    assert sorted(one["alias_name"] for one in seen) == ["@al", "@al3"]
    assert server.result("GET", "/collections/@al/aliases") == {"aliases": []}, "an alias has none"
    assert server.result("GET", "/collections/@no/aliases") == {"aliases": []}, "nor has what there is not"
    assert server.status("GET", "/collections/@no") == 404
    assert server.result("DELETE", "/collections/@al") is False
    rename = {"rename_alias": {"old_alias_name": "@al", "new_alias_name": "@al4"}}
    assert server.status("POST", change, {"actions": [rename, rename]}) == 404
    seen = server.result("GET", "/collections/@c/aliases")["aliases"]
    assert sorted(one["alias_name"] for one in seen) == ["@al3", "@al4"], "what came before the refused one stays"


# ---------------------------------------------------------------- writes

EMPTY = [
    ("PUT", "", {"points": []}), ("PUT", "", {"batch": {"ids": [], "vectors": []}}), ("POST", "/delete", {"points": []}),
    ("POST", "/payload", {"payload": {"x": 1}, "points": []}), ("PUT", "/payload", {"payload": {"x": 1}, "points": []}),
    ("POST", "/payload/delete", {"keys": ["x"], "points": []}), ("POST", "/payload/clear", {"points": []}),
    ("POST", "/vectors/delete", {"vector": ["s"], "points": []}), ("POST", "/batch", {"operations": [{"upsert": {"points": []}}]}),
]


def test_writes_of_nothing_are_refused(filled):
    for wait in ("true", "false"):
        for method, path, body in EMPTY:
            assert filled.status(method, f"/collections/@c/points{path}?wait={wait}", body) == 400, (path, body)
        for method, path, body in (("PUT", "/vectors", {"points": []}), ("PUT", "/vectors", {"points": [{"id": 1, "vector": {}}]}),
                                   ("POST", "/vectors/delete", {"vector": [], "points": [1]})):
            assert filled.status(method, f"/collections/@c/points{path}?wait={wait}", body) == 422, (path, body)
    assert filled.status("PUT", "/collections/@no/points", {"points": []}) == 404


def test_writes_with_members_that_nobody_knows(filled):
    one = {"id": 1, "vector": [1, 1], "payload": {"k": 1}}
    for method, path, body in (
            ("PUT", "", {"points": [{**one, "x": 1}], "x": 1}),
            ("PUT", "", {"batch": {"ids": [1], "vectors": [[1, 1]], "payloads": [None]}, "x": 1}),
            ("POST", "/payload", {"payload": {"k": 2}, "points": [1], "x": 1}),
            ("POST", "/payload/clear", {"points": [1], "filter": {}}), ("POST", "/delete", {"points": [99], "x": 1}),
            ("PUT", "/vectors", {"points": [{**one}], "x": 1}), ("POST", "/vectors/delete", {"vectors": ["s"], "points": [1]}),
            ("POST", "/batch", {"operations": [{"delete": {"points": [99]}, "x": 1}], "x": 1})):
        assert filled.status(method, f"/collections/@c/points{path}?wait=true", body) == 200, (path, body)


def test_parameters_of_requests(filled):
    points = "/collections/@c/points"
    one = {"points": [{"id": 1, "vector": [1, 1]}]}
    for status, query in ((200, "ordering=strong"), (400, "ordering=x"), (400, "wait=x"), (200, "timeout=0"), (200, "x=1")):
        assert filled.status("PUT", f"{points}?{query}", one) == status, query
    for path, body in (("", {"ids": [1]}), ("/scroll", {}), ("/query", {}), ("/count", {}), ("/query/batch", {"searches": []}),
                       ("/query/groups", {"group_by": "n"}), ("/search/matrix/pairs", {})):
        for status, query in ((400, "timeout=0"), (400, "consistency=0"), (400, "consistency=x"), (400, "consistency=-1"),
                              (200, "consistency=1"), (200, "consistency=majority"), (200, "timeout=1")):
            assert filled.status("POST", f"{points}{path}?{query}", body) == status, (path, query)
    for method, path, body in (("PATCH", "/collections/@c", {}), ("POST", "/collections/aliases", {"actions": []})):
        assert filled.status(method, f"{path}?timeout=0", body) == 422, path
    assert filled.status("GET", "/collections/@c?timeout=0") == 200


def test_a_shard_key_that_there_is_not(filled):
    points = "/collections/@c/points"
    for path, body in (("/query", {}), ("/scroll", {}), ("/count", {}), ("", {"ids": [1]}), ("/delete", {"points": [1]}),
                       ("/payload", {"payload": {"x": 1}, "points": [1]})):
        assert filled.status("POST", points + path, {**body, "shard_key": "a"}) == 400, path
        assert filled.status("POST", points + path, {**body, "shard_key": None}) == 200, path
    assert filled.status("PUT", points, {"points": [{"id": 1, "vector": [1, 1]}], "shard_key": ["a"]}) == 400


# ---------------------------------------------------------------- reads

def test_what_a_read_shows_when_nothing_is_said(filled):
    points = "/collections/@c/points"
    assert filled.result("POST", points, {"ids": [1]}) == [{"id": 1}]
    assert filled.result("POST", points, {"ids": [1], "with_vector": []}) == [{"id": 1, "vector": {}}]
    shown = filled.result("POST", points, {"ids": [1], "with_vectors": True})[0]["vector"]
    assert shown == {"": [1, 1], "s": {"indices": [1], "values": [1]}}
    assert filled.result("GET", points + "/1")["payload"]["n"] == 1
    assert filled.result("POST", points + "/scroll", {"limit": 1})["points"][0]["payload"]["n"] == 0
    for path, body in (("", {"ids": [1], "with_vector": None}), ("/scroll", {"with_vector": None}), ("/count", {"exact": None}),
                       ("", {"ids": [1], "with_payload": {"include": ["n"], "x": 1}})):
        assert filled.status("POST", points + path, body) == 400, body
    assert filled.status("GET", points + "/18446744073709551616") == 400


CONDITIONS = [
    (422, {"key": "n"}), (422, {"key": "n", "x": 1}), (400, {"key": ""}), (400, {"x": 1}), (1, {"key": "n", "match": {"value": 1, "x": 1}}),
    (4, {"key": "n", "range": {"gte": 2, "x": 1}}), (6, {"key": "n", "range": {}} | {"is_empty": False}), (1, {"has_id": [1], "x": 1}),
    (6, {"is_empty": {"key": "z"}, "x": 1}), (3, {"key": "b", "match": {"value": True}}), (400, {"must": [], "x": 1}),
    (400, {"slice": {"total": 2, "index": 0}}), (400, {"key": "g", "match": {"prefix": "a"}}),
    (400, {"key": "n", "match": {"value": None}}),
]


def test_conditions_of_filters(filled):
    for wanted, condition in CONDITIONS:
        body = {"filter": {"must": [condition]}}
        if wanted >= 400:
            assert filled.status("POST", "/collections/@c/points/count", body) == wanted, condition
        else:
            assert filled.result("POST", "/collections/@c/points/count", body)["count"] == wanted, condition


QUERIES = [
    (422, {"query": {"nearest": [1, 1], "mmr": {"diversity": 2}}}), (422, {"query": {"nearest": [1, 1], "mmr": {"diversity": -0.1}}}),
    (422, {"query": {"nearest": [1, 1], "mmr": {"candidates_limit": 16385}}}), (200, {"query": {"nearest": [1, 1], "mmr": {"x": 3}}}),
    (200, {"query": [1, 1], "params": {"hnsw_ef": 0}}), (400, {"query": [1, 1], "params": {"hnsw_ef": -1}}),
    (200, {"query": [1, 1], "params": {"x": 0, "quantization": {"x": 1}}}), (200, {"query": [1, 1], "params": {"idf": {}}}),
    (422, {"query": [1, 1], "params": {"quantization": {"oversampling": 0.5}}}),
    (422, {"query": [1, 1], "params": {"acorn": {"enable": True, "max_selectivity": 2}}}),
    (400, {"query": [1, 1], "limit": -1}), (422, {"query": [1, 1], "limit": 0}), (400, {"query": []}), (400, {"query": [1]}),
    (400, {"query": {"x": 1}}), (200, {"query": {"nearest": [1, 1], "x": 1}, "x": 1}), (404, {"query": 99}),
    (422, {"query": {"recommend": {}}}), (400, {"query": {"recommend": {"negative": [1]}}}),
    (200, {"query": {"recommend": {"positive": [1], "x": 1}}}), (200, {"query": {"recommend": {"positive": [1]}}, "using": "s"}),
    (200, {"query": {"discover": {"target": [1, 1], "context": None}}}),
    (422, {"query": {"rrf": {"k": 0}}, "prefetch": [{"query": [1, 1]}]}), (200, {"query": [1, 1], "prefetch": {"x": 1}}),
    (400, {"query": {"fusion": "rrf"}, "prefetch": {"query": [1, 1]}, "using": "s"}), (400, {"score_threshold": 1}),
    (400, {"prefetch": {"query": [1, 1]}}), (422, {"query": [1, 1], "filter": {"must": [{"key": "n"}]}}),
    (422, {"query": [[1, 1], [2, 2]]}), (400, {"query": [[1, 2], [2, 2]]}),
    (404, {"query": 1, "lookup_from": {"collection": "@no"}}), (200, {"query": [1, 1], "lookup_from": {"collection": "@no"}}),
]


def test_queries_that_are_taken_and_refused(filled):
    for status, body in QUERIES:
        assert filled.status("POST", "/collections/@c/points/query", body) == status, body


def test_ids_that_a_query_names_are_left_out_everywhere(filled):
    def found(**body):
        return sorted(ids(filled.result("POST", "/collections/@c/points/query", body)["points"]))

    everything = [0, 1, 2, 3, 4, 5]
    assert found(query=1) == found(query=1, lookup_from={"collection": "@c"}) == [0, 2, 3, 4, 5]
    assert found(query=1, lookup_from={"collection": "@d"}) == everything
    # Those of a prefetch too, from all that is found.
    prefetch = [{"query": [1, 1]}, {"query": 2}]
    assert found(query={"fusion": "rrf"}, prefetch=prefetch) == [0, 1, 3, 4, 5]
    points = filled.result("POST", "/collections/@c/points/query", {"query": {"rrf": {"k": 1}}, "prefetch": prefetch})["points"]
    assert [one["score"] for one in points] == pytest.approx([2, 1, 2 / 3, 1 / 2, 2 / 5], abs=1e-4)
    assert found(query={"nearest": [1, 1], "mmr": {"candidates_limit": 0}}) == []


def test_groups_and_their_lookups(filled):
    def groups(**body):
        return filled.result("POST", "/collections/@c/points/query/groups", {"query": [1, 1], **body})["groups"]

    for path in ("", "n.", "a b"):
        assert filled.status("POST", "/collections/@c/points/query/groups", {"query": [1, 1], "group_by": path}) == 400, path
    assert [group["id"] for group in groups(group_by="n", x=1, offset=1)] == [5, 4, 3, 2, 1, 0], "ten groups at most"
    assert [len(group["hits"]) for group in groups(group_by="g")] == [3, 3]
    assert {group["id"]: group.get("lookup", {}).get("id", "none") for group in groups(group_by="n", with_lookup="@d")} == {
        5: "none", 4: "none", 3: "none", 2: 2, 1: 1, 0: 0}
    for by in ("g", "u"):
        assert all("lookup" not in group for group in groups(group_by=by, with_lookup="@d")), by
    assert filled.status("POST", "/collections/@c/points/query/groups", {
        "query": [1, 1], "group_by": "g", "with_lookup": "@no"}) == 404


def test_two_rows_of_whole_numbers_are_a_sparse_vector_where_they_have_a_name(server):
    server.make("c", vectors={"": {**DOT, "multivector_config": {"comparator": "max_sim"}},
                              "m": {**DOT, "multivector_config": {"comparator": "max_sim"}}})
    for status, vector in ((200, [[1, 2], [3, 4]]), (400, {"m": [[1, 2], [3, 4]]}), (422, {"m": [[1, 1], [3, 4]]}),
                           (200, {"m": [[1.5, 2], [3, 4]]}), (200, {"m": [[1, 2], [3, 4], [5, 6]]})):
        body = {"points": [{"id": 1, "vector": vector}]}
        assert server.status("PUT", "/collections/@c/points?wait=true", body) == status, vector
    for status, query in ((400, [[1, 2], [3, 4]]), (200, [[1.5, 2], [3, 4]]), (400, {"nearest": [[1, 2], [3, 4]]})):
        assert server.status("POST", "/collections/@c/points/query", {"query": query}) == status, query


def test_a_matrix_of_a_vector_that_there_is_not(filled):
    assert filled.status("POST", "/collections/@c/points/search/matrix/pairs", {"using": "z"}) == 400
    assert filled.status("POST", "/collections/@c/points/search/matrix/pairs", {"x": 1}) == 200


def test_payload_indexes(filled):
    index = "/collections/@c/index?wait=true"
    for status, body in ((422, {"field_name": "n", "field_schema": {"type": "integer", "lookup": False, "range": False}}),
                         (400, {"field_name": "n", "field_schema": {"x": 1}}), (400, {"field_name": "n", "field_schema": "x"}),
                         (200, {"field_name": "n", "field_schema": {"type": "integer", "x": 1}, "x": 1}),
                         (200, {"field_name": "g", "field_type": "keyword"})):
        assert filled.status("PUT", index, body) == status, body
    schema = filled.result("GET", "/collections/@c")["payload_schema"]
    assert {name: one["data_type"] for name, one in schema.items()} == {"n": "integer", "g": "keyword"}
    assert filled.result("POST", "/collections/@c/facet", {"key": "g", "x": 1})["hits"] == [
        {"value": "a", "count": 3}, {"value": "b", "count": 3}]


# ---------------------------------------------------------------- older and other routes

def test_the_routes_from_before_query(filled):
    points = "/collections/@c/points/"
    for status, path, body in (
            (200, "search", {"vector": [1, 1], "limit": 2, "x": 1}), (422, "search", {"vector": [1, 1], "limit": 0}),
            (400, "search", {"vector": [1, 1]}), (400, "search", {"vector": {"name": "z", "vector": [1, 1]}, "limit": 2}),
            (400, "search", {"vector": [1], "limit": 2}), (400, "recommend", {"positive": [], "limit": 2}),
            (404, "recommend", {"positive": [99], "limit": 2}), (400, "discover", {"limit": 2}),
            (404, "no-such-route", {"limit": 2})):
        assert filled.status("POST", points + path, body) == status, (path, body)
    assert ids(filled.result("POST", points + "search", {"vector": [1, 1], "top": 2, "offset": 1})) == [4, 3]
    assert [ids(one) for one in filled.result("POST", points + "search/batch", {
        "searches": [{"vector": {"name": "", "vector": [1, 1]}, "limit": 1}]})] == [[5]]
    assert [(one["id"], ids(one["hits"])) for one in filled.result("POST", points + "search/groups", {
        "vector": [1, 1], "limit": 2, "group_by": "g", "group_size": 1})["groups"]] == [("b", [5]), ("a", [4])]
    assert ids(filled.result("POST", points + "recommend", {"positive": [5], "limit": 2})) == [4, 3]
    assert ids(filled.result("POST", points + "discover", {"target": [1, 1], "limit": 2})) == [5, 4]


def test_a_snapshot_brings_a_collection_back(filled):
    snapshots = "/collections/@c/snapshots"
    assert filled.result("GET", snapshots) == []
    made = filled.result("POST", snapshots)
    assert made["name"].endswith(".snapshot") and {"creation_time", "size", "checksum"} <= made.keys()
    assert [one["name"] for one in filled.result("GET", snapshots)] == [made["name"]]
    status, content = filled.raw("GET", f"{snapshots}/{made['name']}")
    assert status == 200 and b"\0" in content
    filled.result("POST", "/collections/@c/points/delete?wait=true", {"filter": {}})
    place = {"location": f"{filled.url}{snapshots}/{made['name']}"}
    for name in ("c", "n"):
        assert filled.result("PUT", f"/collections/@{name}/snapshots/recover", place) is True
        assert filled.result("POST", f"/collections/@{name}/points/count", {})["count"] == 6
    assert filled.result("DELETE", f"{snapshots}/{made['name']}") is True
    for method, path, status in (("GET", f"{snapshots}/{made['name']}", 404), ("DELETE", f"{snapshots}/{made['name']}", 404),
                                 ("GET", "/collections/@no/snapshots", 404), ("POST", "/collections/@no/snapshots", 404)):
        assert filled.status(method, path) == status, (method, path)


def test_other_routes(filled):
    for status, method, path, body in (
            (200, "GET", "/metrics", None), (200, "GET", "/telemetry", None), (200, "GET", "/issues", None),
            (200, "GET", "/collections/", None), (200, "GET", "//collections//@c/", None), (404, "GET", "/no-such-route", None),
            (200, "GET", "/collections/@c/shards", None), (400, "PUT", "/collections/@c/shards", {"shard_key": "a"}),
            (400, "POST", "/collections/@c/cluster", {"drop_replica": {"shard_id": 0, "peer_id": 1}}),
            (500, "POST", "/cluster/recover", None), (200, "GET", "/collections/@c/optimizations", None)):
        assert filled.status(method, path, body) == status, (method, path)
    assert filled.raw("GET", "/metrics")[1].startswith(b"# HELP app_info")
