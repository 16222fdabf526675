"""Every kind of query reaches Qdrant as the official client would send it: the same points come back, in the same order."""

import json

import psycopg
import pytest
from psycopg.types.json import Jsonb
from qdrant_client import models

KINDS = {
    "nearest": {"query": [1, 0.5], "using": "d"},
    "nearest, named": {"query": {"nearest": [1, 0.5]}, "using": "d"},
    "id": {"query": 3, "using": "d"},
    "recommend": {"query": {"recommend": {"positive": [1], "negative": [4], "strategy": "best_score"}}, "using": "d"},
    "recommend, average": {"query": {"recommend": {"positive": [1, [0.2, 1]]}}, "using": "d"},
    "recommend, sum": {"query": {"recommend": {"positive": [1, 2], "strategy": "sum_scores"}}, "using": "d"},
    "discover": {"query": {"discover": {"target": [1, 1], "context": [{"positive": 1, "negative": 6}]}}, "using": "d"},
    "context": {"query": {"context": [{"positive": 1, "negative": 6}]}, "using": "d"},
    "order_by": {"query": {"order_by": {"key": "n", "direction": "desc"}}},
    "order_by, name": {"query": {"order_by": "n"}},
    "fusion rrf": {"query": {"fusion": "rrf"}, "prefetch": [{"query": [1, 0], "using": "d", "limit": 4},
                                                            {"query": {"indices": [1], "values": [1]}, "using": "s"}]},
    "fusion dbsf": {"query": {"fusion": "dbsf"}, "prefetch": [{"query": [1, 0], "using": "d", "limit": 4},
                                                              {"query": [0.3, 1], "using": "m"}]},
    "rrf with k and weights": {"query": {"rrf": {"k": 7, "weights": [3.0, 1.0]}},
                               "prefetch": [{"query": [1, 0], "using": "d"}, {"query": [0, 1], "using": "d"}]},
    "formula": {"query": {"formula": {"sum": ["$score", {"mult": [0.5, "n"]}]}, "defaults": {"n": 0}},
                "prefetch": {"query": [1, 0], "using": "d"}},
    "mmr": {"query": {"nearest": [1, 0.5], "mmr": {"diversity": 0.7, "candidates_limit": 6}}, "using": "d", "limit": 3},
    "relevance_feedback": {"query": {"relevance_feedback": {
        "target": [1, 1], "feedback": [{"example": 1, "score": 0.9}, {"example": 6, "score": 0.1}],
        "strategy": {"naive": {"a": 1.0, "b": 1.0, "c": 1.0}}}}, "using": "d"},
    "prefetch, nested": {"query": [0, 1], "using": "d", "prefetch": {
        "query": [1, 1], "using": "d", "limit": 4, "prefetch": {"query": [1, 0], "using": "d", "limit": 5,
                                                               "filter": {"must_not": [{"has_id": [6]}]}}}},
    "sparse": {"query": {"indices": [1, 2], "values": [1, 0.5]}, "using": "s"},
    # A first row of whole numbers would be a sparse vector to Qdrant.
    "multi": {"query": [[0.5, 1], [1, 0]], "using": "m"},
    "lookup_from": {"query": 100, "using": "d", "lookup_from": {"collection": "OTHER", "vector": "v"}},
    "bm25": {"query": {"text": "red shoe", "model": "qdrant/bm25"}, "using": "t"},
    "filter, limit and offset": {"query": [1, 0], "using": "d", "limit": 2, "offset": 1,
                                 "filter": {"must": [{"key": "n", "range": {"lt": 6}}]}},
    "threshold and params": {"query": [1, 0], "using": "d", "score_threshold": 2.5, "params": {"exact": True}},
    "vectors": {"query": [1, 0], "using": "d", "limit": 1, "with_vector": ["d"], "with_payload": ["n"]},
}

# What REST calls each argument of qdrant_query_points.
ARGUMENTS = {"query": "query", "using": '"using"', "prefetch": "prefetch", "filter": "query_filter",
             "params": "search_params", "limit": '"limit"', "offset": '"offset"', "score_threshold": "score_threshold",
             "lookup_from": "lookup_from", "with_vector": "vector_names", "with_payload": "payload_fields",
             "group_by": "group_by", "group_size": "group_size"}
TYPES = {"query": "jsonb", "using": "text", "prefetch": "jsonb", "filter": "jsonb", "params": "jsonb", "limit": "int",
         "offset": "int", "score_threshold": "real", "lookup_from": "jsonb", "with_vector": "text[]",
         "with_payload": "text[]", "group_by": "text", "group_size": "int"}


def rest_of(kind, other):
    return json.loads(json.dumps(KINDS[kind]).replace("OTHER", other))


def arguments(name, rest):
    """Arguments of a function in SQL and their values."""
    texts = [f"{ARGUMENTS[key]} => %s::{TYPES[key]}" for key in rest]
    values = [Jsonb(value) if TYPES[key] == "jsonb" else value for key, value in rest.items()]
    return ", ".join(["%s", *texts]), [name, *values]


@pytest.fixture
def name(db, front):
    name = db.collection("kinds")
    dot = models.Distance.DOT
    front.client.create_collection(
        name,
        {"d": models.VectorParams(size=2, distance=dot),
         "m": models.VectorParams(size=2, distance=dot, multivector_config=models.MultiVectorConfig(
             comparator=models.MultiVectorComparator.MAX_SIM))},
        sparse_vectors_config={"s": models.SparseVectorParams(),
                               "t": models.SparseVectorParams(modifier=models.Modifier.IDF)})
    front.client.create_payload_index(name, "n", models.PayloadSchemaType.INTEGER, wait=True)
    texts = ["red shoe", "blue shoe", "green hat", "black hat", "umbrella", "red hat"]
    front.client.http.points_api.upsert_points(name, wait=True, point_insert_operations=models.PointsList(points=[
        models.PointStruct(id=i, payload={"n": i}, vector={
            "d": [i, 7 - i * 0.9], "m": [[i, 1], [1, i]], "s": models.SparseVector(indices=[1, i + 1], values=[i, 1]),
            "t": models.Document(text=text, model="qdrant/bm25")}) for i, text in enumerate(texts, 1)]))
    return name


@pytest.fixture
def other(db, front):
    name = db.collection("other")
    front.client.create_collection(name, {"v": models.VectorParams(size=2, distance=models.Distance.DOT)})
    front.client.upsert(name, [models.PointStruct(id=100, vector={"v": [0.3, 1]})], wait=True)
    return name


def shown(point):
    return (str(point.id), pytest.approx(point.score, rel=1e-5, abs=1e-6), point.payload, point.vector)


@pytest.mark.versions
@pytest.mark.parametrize("kind", KINDS)
def test_kind_of_query_gives_what_the_official_client_gets(db, front, name, other, kind):
    rest = rest_of(kind, other)
    request = models.QueryRequest.model_validate({"with_payload": True, **rest})
    expected = front.client.query_batch_points(name, [request])[0].points
    assert expected
    text, values = arguments(name, rest)
    rows = db.sql(f"SELECT id, score, payload, vector FROM qdrant_query_points({text})", values)
    assert rows == [shown(point) for point in expected]
    # In a batch, too.
    rows = db.sql("SELECT id, score, payload, vector FROM qdrant_query_batch_points(%s, %s)",
                  [name, Jsonb([{"with_payload": True, **rest}])])
    assert rows == [shown(point) for point in expected]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "offset" not in KINDS[kind]
                                  and "order_by" not in kind and kind != "vectors"])
def test_kind_of_query_gives_the_official_clients_groups(db, front, name, other, kind):
    rest = {"group_by": "n", "limit": 10, **rest_of(kind, other)}
    request = models.QueryGroupsRequest.model_validate({"with_payload": True, **rest})
    expected = front.client.http.search_api.query_points_groups(name, query_groups_request=request).result.groups
    assert expected
    text, values = arguments(name, {"group_by": "n", "query": rest["query"], **rest})
    rows = db.sql(f"SELECT group_id, id, score FROM qdrant_query_points_groups({text})", values)
    if kind == "mmr":
        # Which of the groups are the most different ones, Qdrant says otherwise each time.
        assert len(rows) == sum(len(group.hits) for group in expected)
        return
    # Groups with the same score come in any order.
    assert sorted(rows) == [(group.id, *shown(hit)[:2]) for group in sorted(expected, key=lambda group: group.id)
                            for hit in sorted(group.hits, key=lambda hit: str(hit.id))]


def test_sample_gives_any_points(db, name):
    rows = db.sql("SELECT id FROM qdrant_query_points(%s, '{\"sample\": \"random\"}'::jsonb, \"limit\" => 4)", [name])
    assert len({id for id, in rows}) == 4


MISSPELT = {
    "a filter": ({"query_filter": {}}, "query_filter", '"filter"'),
    "parameters": ({"search_params": {}}, "search_params", '"params"'),
    "a vector": ({"vector_name": "d"}, "vector_name", "using"),
    "in parameters": ({"params": {"ef": 1}}, "ef", "hnsw_ef"),
    "in quantization": ({"params": {"quantization": {"rescored": True}}}, "rescored", "rescore"),
    "in acorn": ({"params": {"acorn": {"enabled": True}}}, "enabled", "enable"),
    "in lookup_from": ({"lookup_from": {"collection": "c", "using": "v"}}, "using", "vector"),
    "in a prefetch": ({"prefetch": {"query": [1, 0], "query_filter": {}}}, "query_filter", '"filter"'),
    "in one of several": ({"prefetch": [{"query": [1, 0]}, {"query": [1, 0], "k": 3}]}, "k", "limit"),
    "in a nested one": ({"prefetch": [{"prefetch": {"prefetch": [{"with_payload": True}]}}]}, "with_payload", "using"),
}


@pytest.mark.parametrize("kind", MISSPELT)
def test_a_misspelt_member_is_refused_as_by_the_official_client(db, name, kind):
    """Qdrant ignores it, and gives unfiltered points."""
    member, misspelt, known = MISSPELT[kind]
    db.sql("CREATE TABLE things (id int PRIMARY KEY, v real[]); INSERT INTO things VALUES (1, '{1,0}')")
    db.sql("SELECT qdrant_mirror('things', collection => %s)", [db.collection("things")])
    assert db.wait("things")
    request = {"query": [1, 0], "using": "d", **member}
    with pytest.raises(ValueError):
        models.QueryRequest.model_validate(request)
    calls = [(f"qdrant_query_batch_points{twin}(%s, %s)", [name, Jsonb([{"query": 1, "using": "d"}, request])])
             for twin in ("", "_async")]
    (rest, value), = member.items()
    if rest in ARGUMENTS:
        calls += [(f"qdrant_query_points{twin}(%s, '[1,0]', {ARGUMENTS[rest]} => %s)", [name, Jsonb(value)])
                  for twin in ("", "_async")]
        calls += [(f"qdrant_query_points_groups{twin}(%s, 'n', '[1,0]', {ARGUMENTS[rest]} => %s)", [name, Jsonb(value)])
                  for twin in ("", "_async")]
        calls.append((f"qdrant_search(NULL::things, '[1,0]', {rest} => %s)", [Jsonb(value)]))
    if rest == "params":
        calls += [(f"qdrant_query{twin}(%s, '[1,0]', params => %s)", [name, Jsonb(value)]) for twin in ("", "_async")]
    for call, params in calls:
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=f'has no member "{misspelt}"') as caught:
            db.sql("SELECT * FROM " + call, params)
        assert known in caught.value.diag.message_hint


def test_every_member_that_the_official_client_knows_is_sent(db, front, name):
    params = {"hnsw_ef": 1, "exact": False, "indexed_only": False, "idf": "global", "acorn": {"enable": True, "max_selectivity": 0.4},
              "quantization": {"ignore": False, "rescore": True, "oversampling": 2.0}}
    assert set(params) == set(models.SearchParams.model_fields)
    prefetch = {"prefetch": None, "query": [1, 0], "using": "d", "filter": {}, "params": params, "score_threshold": 0,
                "limit": 3, "lookup_from": {"collection": name, "vector": "d", "shard_key": None}}
    assert set(prefetch) == set(models.Prefetch.model_fields)
    request = {**prefetch, "prefetch": {**prefetch, "prefetch": [prefetch]}, "offset": 0, "with_payload": True,
               "with_vector": False, "shard_key": None}
    assert set(request) == set(models.QueryRequest.model_fields)
    assert len(db.sql("SELECT * FROM qdrant_query_batch_points(%s, %s)", [name, Jsonb([request])])) == 3


def test_a_lookup_that_is_null_is_refused(db, name):
    for function in ("qdrant_query_points(%s, 1, 'd'", "qdrant_query_points_groups(%s, 'n', 1, 'd'"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match='"lookup_from" is not a JSON object'):
            db.sql(f"SELECT * FROM {function}, lookup_from => 'null')", [name])


@pytest.mark.faults
@pytest.mark.parametrize("query", [{"text": "shoe", "model": "openai/text-embedding-3-small", "options": {"k": 1}},
                                   {"image": "https://example.com/a.png", "model": "jinaai/jina-clip-v2"},
                                   {"object": {"a": 1}, "model": "m"}])
def test_inference_objects_are_sent_as_they_are(db, front, name, query):
    front.faults.configure(bodies=10_000)
    front.faults.clear_log()
    with pytest.raises(psycopg.Error):
        db.sql("SELECT * FROM qdrant_query_points(%s, %s, 'd')", [name, Jsonb(query)])
    entry, = front.faults.log(path_regex="/points/query$")
    body = json.loads(entry["body"])
    models.QueryRequest.model_validate(body)
    assert body == {"query": query, "using": "d", "limit": 10, "with_payload": True, "with_vector": False}
