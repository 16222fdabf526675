"""What can be a vector (dense, sparse, multi), what a collection is made of, and its payload indexes."""

import json
import re

import numpy as np
import psycopg
import pytest
from qdrant_client import models

from harness import new_extension_db, stays, wait_until
from items import Items, end_worker

faults = pytest.mark.faults


# --- what is stored, as a client reads it ---

def plain(vector):
    """Sparse vectors as {index: value}, in no order; numbers in single precision."""
    if isinstance(vector, models.SparseVector):
        assert len(set(vector.indices)) == len(vector.indices)
        return dict(zip(vector.indices, np.float32(vector.values).tolist()))
    if isinstance(vector, dict):
        return {name: plain(part) for name, part in vector.items()}
    return np.float32(vector).tolist()


def stored(items):
    """{id as text: vectors} of all points; {} where there is no collection yet."""
    if not items.db.front.client.collection_exists(items.collection):
        return {}
    return {key: plain(point.vector) for key, point in items.points().items()}


def becomes(items, expected):
    """Waits until exactly these points are stored."""
    state = {}

    def equal():
        state["found"] = stored(items)
        return state["found"] == expected
    wait_until(equal, 20, lambda: f"{expected} stored, found {state['found']}", 0.05)


def params(items):
    return items.db.front.client.get_collection(items.collection).config.params


def table(db, columns, rows=(), name="docs", **options):
    """A table (id, columns) with rows of SQL expressions, mirrored."""
    db.sql(f"CREATE TABLE {name} (id integer PRIMARY KEY, {columns})")
    for row in rows:
        db.sql(f"INSERT INTO {name} VALUES ({row})")
    docs = Items.of(db, name, **{"payload": "id", **options})
    docs.mirror()
    return docs


# --- sparse, from jsonb ---

def test_sparse_vector_of_jsonb(db):
    docs = table(db, "words jsonb", vector="words AS lex", rows=[
        """1, '{"indices": [9, 0, 4294967295], "values": [0.1, -2, 1e-30]}'""",
        """2, '{"values": [], "indices": []}'""",
        "3, NULL"])
    becomes(docs, {"1": {"lex": plain(models.SparseVector(indices=[9, 0, 4294967295], values=[0.1, -2, 1e-30]))},
                   "2": {"lex": {}}})
    db.sql("""UPDATE docs SET words = '{"indices": [1.0, 3], "values": [5, 3.4e38]}' WHERE id = 3""")
    db.sql("UPDATE docs SET words = NULL WHERE id = 1")
    becomes(docs, {"2": {"lex": {}}, "3": {"lex": plain(models.SparseVector(indices=[1, 3], values=[5, 3.4e38]))}})
    assert docs.dead_letters() == {}


def test_collection_of_a_sparse_vector_needs_no_first_row(db):
    docs = table(db, "words jsonb", vector="words AS lex")
    docs.wait_state("live")
    assert params(docs).sparse_vectors.keys() == {"lex"} and not params(docs).vectors


@pytest.mark.parametrize("value, error", [
    ('{"indices": [1], "values": [1, 2]}', "1 indices and 2 values"),
    ('{"indices": [7, 3, 7], "values": [1, 2, 3]}', "index 7 is twice"),
    ('{"indices": [-1], "values": [1]}', "no integer from 0"),
    ('{"indices": [4294967296], "values": [1]}', "no integer from 0 to 4294967295"),
    ('{"indices": [1.5], "values": [1]}', "no integer"),
    ('{"indices": [1], "values": [1e39]}', "1e\\+39, beyond a 32-bit float"),
    ('{"indices": [1], "values": ["1"]}', "element 1 of \"values\".* not a number"),
    ('{"indices": [null], "values": [1]}', "element 1 of \"indices\".* not a number"),
    ('{"indices": [[1]], "values": [1]}', "not a number"),
    ('{"indices": 1, "values": [1]}', "no array \"indices\""),
    ('{"indices": [1]}', "not an object of"),
    ('{"indices": [1], "values": [1], "more": 1}', "not an object of"),
    ('{"indices": [1], "value": [1]}', "no array \"values\""),
    ('[1, 2]', "not an object of"),
    ('null', "not an object of"),
    ('"text"', "not an object of"),
])
def test_jsonb_that_is_no_sparse_vector_is_a_dead_letter(db, value, error):
    docs = table(db, "words jsonb", vector="words AS lex",
                 rows=["1, '{\"indices\": [1], \"values\": [1]}'", f"2, '{value}'"])
    wait_until(lambda: docs.dead_letters().keys() == {"2"}, what="its dead letter")
    assert re.search(error, docs.dead_letters()["2"])
    becomes(docs, {"1": {"lex": {1: 1.0}}})


# --- multi-vectors, from arrays ---

@pytest.mark.parametrize("type", ["real[][]", "float8[][]"])
def test_multi_vector_of_a_declared_array(db, type):
    """Two rows of whole numbers are not taken for a sparse vector."""
    docs = table(db, f"tokens {type}", distance="Dot", rows=[
        "1, '{{1,2,3},{4,5,6}}'", "2, '{{0.5,1e-30,3.4e38}}'", "3, '[5:6][0:2]={{7,8,9},{-1,0,1}}'", "4, '{7,8,9}'",
        "5, NULL"])
    becomes(docs, {"1": [[1, 2, 3], [4, 5, 6]], "2": plain([[0.5, 1e-30, 3.4e38]]), "3": [[7, 8, 9], [-1, 0, 1]],
                   "4": [[7, 8, 9]]})
    assert params(docs).vectors.multivector_config.comparator == "max_sim" and params(docs).vectors.size == 3
    found = db.sql("SELECT id, score FROM qdrant_query(%s, %s::jsonb, 1)", (docs.collection, "[[0, -1, 0], [7, 0, 0]]"))
    assert found == [("3", 0 + 49)]
    assert docs.dead_letters() == {}


@pytest.mark.parametrize("value, error", [
    ("'{{1,2}}'", "2 elements.* have 3"), ("'{}'", "empty"), ("'{{1,2,3},{4,NaN,6}}'", "element 5 .*NaN"),
    ("'{{1,2,3},{4,5,-Infinity}}'", "element 6 .*infinite"), ("'{{1,2,3},{4,NULL,6}}'", "element 5 .*NULL"),
    ("'{{{1,2,3}}}'", "3 dimensions"), ("'{{1,2,1e300}}'", "element 3 .*1e\\+300, beyond"),
    ("array_fill(0.5, ARRAY[349526, 3])", "1048578 elements.* fewer than 1048576"),
])
def test_array_that_is_no_multi_vector_is_a_dead_letter(db, value, error):
    docs = table(db, "tokens float8[][]", distance="Dot", rows=["1, '{{1,2,3}}'", f"2, {value}"])
    wait_until(lambda: docs.dead_letters().keys() == {"2"}, what="its dead letter")
    assert re.search(error, docs.dead_letters()["2"])
    becomes(docs, {"1": [[1, 2, 3]]})


def test_multi_vector_by_vectors_config(db, front):
    multi = '{"multivector_config": {"comparator": "max_sim"}}'
    docs = table(db, "tokens real[]", vectors_config=multi, distance="Dot", rows=["1, '{{1,2},{3,4}}'"])
    becomes(docs, {"1": [[1, 2], [3, 4]]})
    named = table(db, "tokens real[]", name="named", vector="tokens AS t", vectors_config=f'{{"t": {multi}}}',
                  distance="Dot", rows=["1, '{{1,2},{3,4}}'"])
    becomes(named, {"1": {"t": [[1, 2], [3, 4]]}})
    computed = table(db, "a real[], b real[]", name="computed", vector="ARRAY[a, b] AS t", distance="Dot",
                     vectors_config=f'{{"t": {multi}}}', rows=["1, '{1,2}', '{3,4}'"])
    becomes(computed, {"1": {"t": [[1, 2], [3, 4]]}})


def test_restored_multi_vector_is_one_though_a_dump_forgets_its_dimensions(db, cluster, front):
    docs = table(db, "tokens real[][]", distance="Dot", rows=["1, '{{1,2},{3,4}}'"])
    becomes(docs, {"1": [[1, 2], [3, 4]]})
    dump = cluster.dump(db.name)
    docs.unmirror(drop_collection=True)
    wait_until(lambda: not front.client.collection_exists(docs.collection), what="the collection is gone")
    name = f"{db.name}_restored"
    cluster.sql(f"CREATE DATABASE {name}")
    try:
        cluster.restore_sql(dump, name)
        restored = Items.of(type(db)(cluster, front, name), "docs", collection=docs.collection)
        assert restored.db.one("SELECT attndims FROM pg_attribute WHERE attrelid = 'docs'::regclass "
                               "AND attname = 'tokens'") == 1
        restored.resume(take_over=True)
        restored.wait_state("live")
        becomes(restored, {"1": [[1, 2], [3, 4]]})
        restored.unmirror()
        restored.db.conn.close()
    finally:
        cluster.sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_array_of_two_dimensions_without_multivector_config_is_a_dead_letter(db):
    docs = table(db, "tokens real[]", distance="Dot", rows=["1, '{1,2}'", "2, '{{1,2},{3,4}}'"])
    wait_until(lambda: docs.dead_letters().keys() == {"2"}, what="its dead letter")
    assert "2 dimensions" in docs.dead_letters()["2"]


# --- several, and NULL ---

def test_point_without_the_vectors_that_are_null(db):
    """Several vectors: those that are there; none: no point."""
    docs = table(db, "a real[], tokens float8[][], words jsonb", vector="a, tokens AS t, words AS lex", distance="Dot",
                 rows=["1, '{1,2}', '{{3},{4}}', '{\"indices\": [5], \"values\": [6]}'", "2, '{1,2}', NULL, NULL",
                       "3, NULL, '{{3}}', NULL", "4, NULL, NULL, '{\"indices\": [5], \"values\": [6]}'",
                       "5, NULL, NULL, NULL"])
    whole = {"a": [1, 2], "t": [[3], [4]], "lex": {5: 6}}
    becomes(docs, {"1": whole, "2": {"a": [1, 2]}, "3": {"t": [[3]]}, "4": {"lex": {5: 6}}})
    db.sql("UPDATE docs SET a = NULL WHERE id < 3")
    db.sql("UPDATE docs SET tokens = '{{9}}' WHERE id = 5")
    becomes(docs, {"1": {"t": [[3], [4]], "lex": {5: 6}}, "3": {"t": [[3]]}, "4": {"lex": {5: 6}}, "5": {"t": [[9]]}})
    # The sweep agrees with the way of single rows about which rows are points.
    db.sql("SELECT qdrant_resync('docs')")
    assert docs.wait() is True
    becomes(docs, {"1": {"t": [[3], [4]], "lex": {5: 6}}, "3": {"t": [[3]]}, "4": {"lex": {5: 6}}, "5": {"t": [[9]]}})
    assert docs.dead_letters() == {}


def test_zero_vector_under_cosine_is_kept_as_it_is(db):
    docs = table(db, "a real[]", rows=["1, '{0,0,0}'", "2, '{0,3,4}'"])
    becomes(docs, {"1": [0, 0, 0], "2": plain([0, 0.6, 0.8])})
    assert docs.dead_letters() == {}


def test_star_is_every_column_that_is_no_vector_of_any_mirror(db):
    db.sql("CREATE TABLE docs (id integer PRIMARY KEY, a real[], b float8[], words jsonb, extra jsonb)")
    db.sql("""INSERT INTO docs VALUES (1, '{1}', '{2}', '{"indices": [1], "values": [2]}', '{"x": 1}')""")
    docs = Items.of(db, "docs", vector="a, words AS lex", payload="*")
    notices = []
    db.conn.add_notice_handler(lambda d: notices.append(d.message_primary))
    docs.mirror()
    assert any(n.endswith(": id, extra") for n in notices), notices
    wait_until(lambda: stored(docs), what="the point")
    assert docs.point(1).payload == {"id": 1, "extra": {"x": 1}}


# --- what the collection is made of ---

def test_collection_is_made_as_the_config_arguments_say(db, front):
    docs = table(
        db, "a real[], b real[], words jsonb", vector="a, b, words AS lex", distance="Euclid",
        vectors_config=json.dumps({
            "a": {"size": 3, "distance": "Dot", "on_disk": True, "datatype": "float16",
                  "hnsw_config": {"m": 24, "ef_construct": 99},
                  "quantization_config": {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}}},
            "b": {"size": 2, "multivector_config": None}}),
        sparse_vectors_config='{"lex": {"modifier": "idf", "index": {"on_disk": true, "full_scan_threshold": 77}}}',
        collection_config=json.dumps({
            "shard_number": 1, "replication_factor": 1, "on_disk_payload": True, "hnsw_config": {"payload_m": 8},
            "optimizers_config": {"indexing_threshold": 5000}, "metadata": {"team": {"name": "sëarch"}}}))
    # Sizes are given, so that an empty table has its collection.
    docs.wait_state("live")
    config = front.client.get_collection(docs.collection).config
    a, b = config.params.vectors["a"], config.params.vectors["b"]
    assert (a.size, a.distance, a.on_disk, a.datatype) == (3, "Dot", True, "float16")
    assert (a.hnsw_config.m, a.hnsw_config.ef_construct) == (24, 99)
    assert a.quantization_config.scalar.quantile == pytest.approx(0.99)
    assert (b.size, b.distance, b.multivector_config) == (2, "Euclid", None)
    lex = config.params.sparse_vectors["lex"]
    assert (lex.modifier, lex.index.on_disk, lex.index.full_scan_threshold) == ("idf", True, 77)
    assert config.hnsw_config.payload_m == 8 and config.optimizer_config.indexing_threshold == 5000
    assert config.metadata["team"] == {"name": "sëarch"}
    db.sql("INSERT INTO docs VALUES (1, '{0.1,0.2,0.3}', '{0.1,0.2}', NULL)")
    becomes(docs, {"1": {"a": np.float16([0.1, 0.2, 0.3]).astype(np.float32).tolist(), "b": plain([0.1, 0.2])}})


def test_what_a_mirror_says_of_itself_leaves_other_metadata(db, front):
    """The worker's beat is merged into the metadata."""
    docs = table(db, "a real[]", rows=["1, '{1}'"], collection_config='{"metadata": {"team": "search"}}')
    docs.wait_state("live")

    def metadata():
        return front.client.get_collection(docs.collection).config.metadata or {}
    wait_until(lambda: "qdrant_sync" in metadata(), what="the worker's own metadata")
    assert metadata()["team"] == "search"


@pytest.mark.parametrize("made_by", ["mirror", "somebody"])
def test_number_beyond_a_half_float_is_a_dead_letter_where_qdrant_would_store_infinity(db, front, made_by):
    name = db.collection("docs")
    config = {"vectors_config": '{"datatype": "float16"}'} if made_by == "mirror" else {}
    if made_by == "somebody":
        front.client.create_collection(name, vectors_config=models.VectorParams(size=2, distance="Dot", datatype="float16"))
    docs = table(db, "a real[]", distance="Dot", collection=name, **config,
                 rows=["1, '{65504,-65519}'", "2, '{1,65520}'", "3, '{-1e5,1}'"])
    wait_until(lambda: docs.dead_letters().keys() == {"2", "3"}, what="their dead letters")
    assert "element 2 of the vector is 65520, beyond the collection's datatype float16" in docs.dead_letters()["2"]
    becomes(docs, {"1": [65504, -65504]})


def test_half_floats_under_cosine_are_normalised_before_they_are_stored(db):
    docs = table(db, "a real[]", vectors_config='{"datatype": "float16"}', rows=["1, '{3e5,4e5}'"])
    becomes(docs, {"1": np.float16([0.6, 0.8]).astype(np.float32).tolist()})
    assert docs.dead_letters() == {}


def test_bytes_as_a_datatype(db):
    docs = table(db, "a real[]", rows=["1, '{1,0,255}'"], distance="Dot", vectors_config='{"datatype": "uint8"}')
    becomes(docs, {"1": [1, 0, 255]})


@pytest.mark.parametrize("made, error", [
    ({"vectors_config": {}, "sparse_vectors_config": {"v": models.SparseVectorParams()}}, "is sparse, .* dense"),
    ({"vectors_config": {"v": models.VectorParams(size=2, distance="Cosine", multivector_config=models.MultiVectorConfig(
        comparator="max_sim"))}}, "is a multi-vector, .* dense"),
    ({"vectors_config": {"v": models.VectorParams(size=2, distance="Dot")}}, "distance .* Dot, .* Cosine"),
    ({"vectors_config": {"w": models.VectorParams(size=2, distance="Cosine")}}, "no vector named \"v\""),
    ({"vectors_config": models.VectorParams(size=2, distance="Cosine")}, "no vector named \"v\""),
])
def test_collection_made_anew_in_another_shape_stops_the_mirror(db, front, made, error):
    docs = table(db, "a real[]", vector="a AS v", rows=[f"{i}, '{{1,2}}'" for i in range(1, 30)])
    docs.wait_state("live")
    docs.pause()
    db.sql("UPDATE docs SET a = '{2,1}'")
    front.client.delete_collection(docs.collection)
    front.client.create_collection(docs.collection, **made)
    docs.resume()
    row = docs.wait_state("failed")
    assert re.search(error, row["last_error"]) and "qdrant_resume" in row["last_error"]
    assert docs.dead_letters() == {}
    # Mended as it says, nothing is lost.
    front.client.delete_collection(docs.collection)
    docs.resume()
    docs.converged(vector={"v": "a"}, payload=("id",))


# --- payload indexes ---

def schema(items):
    return {name: str(index.data_type.value)
            for name, index in items.db.front.client.get_collection(items.collection).payload_schema.items()}


COLUMNS = """ "Section" varchar(9), body text, n bigint, price numeric, ok boolean, day date, made timestamptz,
    ref uuid, place point, tags text[], extra jsonb, a real[] """
INDEXES = '"Section", body text, n, price, ok, day, made, ref, place, tags, extra.color keyword'
SCHEMA = {"Section": "keyword", "body": "text", "n": "integer", "price": "float", "ok": "bool", "day": "datetime",
          "made": "datetime", "ref": "uuid", "place": "geo", "tags": "keyword", "extra.color": "keyword"}


@faults
def test_indexes_are_made_before_the_first_point(db, front):
    db.sql(f"CREATE TABLE docs (id integer PRIMARY KEY, {COLUMNS})")
    db.sql("INSERT INTO docs (id, \"Section\", n, extra, a) SELECT i, 's' || i % 3, i, '{\"color\": \"red\"}', "
           "ARRAY[i, 1] FROM generate_series(1, 50) i")
    docs = Items.of(db, "docs", vector="a", indexes=INDEXES)
    docs.mirror()
    wait_until(lambda: len(stored(docs)) == 50, what="all points")
    assert schema(docs) == SCHEMA
    log = [(entry["method"], entry["path"].partition("?")[0]) for entry in front.faults.log()]
    index = [n for n, entry in enumerate(log) if entry == ("PUT", f"/collections/{docs.collection}/index")]
    points = [n for n, (method, path) in enumerate(log) if method == "PUT" and path.endswith("/points")]
    assert len(index) == len(SCHEMA) and max(index) < min(points)
    found = db.sql("SELECT count(*) FROM qdrant_query(%s, '{1,1}'::real[], 100, filter => %s)",
                   (docs.collection, '{"must": [{"key": "Section", "match": {"value": "s1"}}]}'))
    assert found == [(17,)]


@faults
def test_indexes_that_are_there_are_not_made_again(db, cluster, front):
    docs = table(db, "a real[], n integer, s text", rows=["1, '{1,2}', 3, 'x'"], payload="n, s", indexes="n, s")
    docs.wait_state("live")
    since = docs.mark()
    end_worker(cluster, db)
    db.sql("UPDATE docs SET n = 4")
    wait_until(lambda: docs.point(1).payload["n"] == 4, what="the update")
    assert not [entry for entry in front.faults.log(since=since) if "/index" in entry["path"]]


def test_missing_index_of_an_existing_collection_is_made(db, front):
    name = db.collection("docs")
    front.client.create_collection(name, vectors_config=models.VectorParams(size=2, distance="Cosine"))
    front.client.create_payload_index(name, "n", "integer")
    docs = table(db, "a real[], n integer, s text", rows=["1, '{1,2}', 3, 'x'"], payload="n, s", indexes="s, n",
                 collection=name)
    docs.wait_state("live")
    assert schema(docs) == {"n": "integer", "s": "keyword"}


def test_indexes_of_a_collection_made_anew(db, front):
    docs = table(db, "a real[], n integer, s text", rows=["1, '{1,2}', 3, 'x'"], payload="n, s", indexes="s, n float")
    docs.wait_state("live")
    front.client.delete_collection(docs.collection)
    db.sql("INSERT INTO docs VALUES (2, '{1,2}', 3, 'x')")
    wait_until(lambda: stored(docs).keys() == {"1", "2"}, what="the collection made anew")
    assert schema(docs) == {"n": "float", "s": "keyword"}


def test_index_of_another_type_is_refused_at_once(db, front):
    name = db.collection("docs")
    front.client.create_collection(name, vectors_config=models.VectorParams(size=2, distance="Cosine"))
    front.client.create_payload_index(name, "n", "keyword")
    with pytest.raises(psycopg.Error, match='its index on "n" is of type keyword, and the mirror\'s of type integer') as e:
        table(db, "a real[], n integer", payload="n", indexes="n", collection=name)
    assert e.value.sqlstate == "22023"


def test_index_of_another_type_stops_a_mirror(db, front):
    """Exchanged while nobody looked."""
    docs = table(db, "a real[], n integer", rows=["1, '{1,2}', 3"], payload="n", indexes="n")
    docs.wait_state("live")
    docs.pause()
    db.sql("UPDATE docs SET n = 4")
    front.client.delete_collection(docs.collection)
    front.client.create_collection(docs.collection, vectors_config=models.VectorParams(size=2, distance="Cosine"))
    front.client.create_payload_index(docs.collection, "n", "keyword")
    docs.resume()
    assert re.search('index on "n" is of type keyword', docs.wait_state("failed")["last_error"])
    front.client.delete_payload_index(docs.collection, "n")
    docs.resume()
    wait_until(lambda: docs.point(1) and docs.point(1).payload == {"n": 4}, what="the row")
    assert schema(docs) == {"n": "integer"}


@faults
def test_index_that_qdrant_refuses_stops_the_mirror_before_its_points(db, front):
    front.faults.fault("answer", path_regex="/index$", status=400, body={"status": {"error": "Wrong input"}, "time": 0})
    docs = table(db, "a real[], n integer", rows=["1, '{1,2}', 3"], payload="n", indexes="n")
    assert re.search('index on "n"', docs.wait_state("failed")["last_error"])
    stays(lambda: stored(docs) == {} and docs.requests() == [], 0.5)
    front.faults.clear_faults()
    docs.resume()
    wait_until(lambda: schema(docs) == {"n": "integer"} and stored(docs), what="index and point")


@faults
def test_index_is_asked_for_again_after_a_failure(db, front):
    front.faults.fault("500", path_regex="/index$", times=1)
    docs = table(db, "a real[], n integer", rows=["1, '{1,2}', 3"], payload="n", indexes="n")
    docs.wait_state("live")
    assert schema(docs) == {"n": "integer"}


def test_index_on_a_field_with_a_space_in_its_name(db, front):
    docs = table(db, 'a real[], "Full Name" text', rows=["1, '{1,2}', 'x'"], payload='"Full Name"', indexes='"Full Name"')
    docs.wait_state("live")
    assert list(schema(docs).values()) == ["keyword"]
    assert db.sql("SELECT id FROM qdrant_query(%s, '{1,1}'::real[], 9, filter => %s)",
                  (docs.collection, json.dumps({"must": [{"key": '"Full Name"', "match": {"value": "x"}}]}))) == [("1",)]


def test_index_follows_its_renamed_column(db):
    """Where the payload is all columns the field is renamed, else it keeps its name."""
    docs = table(db, "a real[], n integer, extra jsonb", rows=["1, '{1,2}', 3, '{\"x\": 4}'"], payload="*",
                 indexes="n, extra.x integer")
    docs.wait_state("live")
    named = table(db, "a real[], n integer", rows=["1, '{1,2}', 3"], name="named", payload="n", indexes="n")
    named.wait_state("live")
    db.sql("ALTER TABLE docs RENAME n TO number")
    db.sql("ALTER TABLE docs RENAME extra TO more")
    db.sql("ALTER TABLE named RENAME n TO number")
    wait_until(lambda: {"number", "more.x"} <= schema(docs).keys(), what="indexes of the new names")
    wait_until(lambda: docs.point(1).payload == {"id": 1, "number": 3, "more": {"x": 4}}, what="fields of the new names")
    db.sql("UPDATE named SET number = 5")
    wait_until(lambda: named.point(1).payload == {"n": 5}, what="the update")
    assert schema(named) == {"n": "integer"}


def test_dropped_column_of_an_index_stops_the_mirror_and_says_so(db):
    docs = table(db, "a real[], n integer", rows=["1, '{1,2}', 3"], payload="*", indexes="n")
    docs.wait_state("live")
    db.sql("ALTER TABLE docs DROP COLUMN n")
    db.sql("UPDATE docs SET a = '{2,1}'")
    docs.wait_error('no field "n" to be indexed')


def test_names_in_a_database_of_another_encoding(db, cluster, front):
    """Qdrant's names are UTF-8: those of vectors, of indexed fields, and what is in a configuration."""
    name = f"{db.name}_latin1"
    cluster.sql(f"CREATE DATABASE {name} ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    try:
        latin = type(db)(cluster, front, name)
        latin.sql("SET client_encoding = 'UTF8'")
        latin.sql("CREATE EXTENSION qdrant_sync")
        latin.sql(f"CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{front.url}')")
        docs = table(latin, 'a real[], w jsonb, "größe" text', vector='a AS "länge", w AS "wörter"', distance="Dot",
                     payload='"größe"', indexes='"größe"', collection_config='{"metadata": {"für": "Suche"}}',
                     vectors_config='{"länge": {"on_disk": true}}',
                     rows=["1, '{1,2}', '{\"indices\": [1], \"values\": [2]}', 'groß'"])
        becomes(docs, {"1": {"länge": [1, 2], "wörter": {1: 2}}})
        assert docs.point(1).payload == {"größe": "groß"}
        assert params(docs).vectors["länge"].on_disk is True and list(schema(docs).values()) == ["keyword"]
        assert front.client.get_collection(docs.collection).config.metadata["für"] == "Suche"
        end_worker(cluster, latin)
        latin.sql("UPDATE docs SET a = '{3,4}'")
        becomes(docs, {"1": {"länge": [3, 4], "wörter": {1: 2}}})
        docs.unmirror()
        latin.conn.close()
    finally:
        cluster.sql(f"DROP DATABASE {name} WITH (FORCE)")


# --- pgvector ---

@pytest.fixture
def vectors(cluster, front):
    cluster.ensure_running()
    front.clear()
    made = new_extension_db(cluster, front, extensions=("vector",))
    yield made
    cluster.ensure_running()
    made.drop()


@pytest.mark.versions
@pytest.mark.pgvector
def test_every_half_float_arrives_bit_for_bit(vectors):
    """All finite ones: normal and subnormal, of both signs (whether a zero keeps its sign is Qdrant's matter)."""
    db = vectors
    halves = np.arange(65536, dtype=np.uint32).astype(np.uint16).view(np.float16)
    rows = halves[np.isfinite(halves)].reshape(-1, 248).astype(np.float32)
    db.sql("CREATE TABLE docs (id integer PRIMARY KEY, embedding halfvec(248))")
    with db.conn.cursor().copy("COPY docs FROM STDIN") as copy:
        for i, row in enumerate(rows):
            copy.write_row((i, "[" + ",".join(repr(float(x)) for x in row) + "]"))
    docs = Items.of(db, "docs", distance="Euclid", payload="id")
    docs.mirror()
    wait_until(lambda: len(stored(docs)) == len(rows), what="all rows")
    found = {int(key): np.float32(vector) for key, vector in stored(docs).items()}
    for i, row in enumerate(rows):
        assert np.array_equal(found[i], row), f"row {i}"
    assert docs.dead_letters() == {}


@pytest.mark.versions
@pytest.mark.pgvector
def test_typed_dimension_of_halfvec_is_the_collections(vectors):
    docs = table(vectors, "embedding halfvec(4)")
    docs.wait_state("live")
    assert params(docs).vectors.size == 4
    assert vectors.sql("SELECT id FROM qdrant_query(%s, '[1,2,3,4]'::halfvec, 3)", (docs.collection,)) == []


@pytest.mark.versions
@pytest.mark.pgvector
def test_sparsevec_counts_from_one_and_qdrant_from_zero(vectors):
    db = vectors
    with pytest.raises(psycopg.Error, match="sparse vector lex has no name") as caught:
        table(db, "lex sparsevec(1000000000)", rows=[
            "1, '{1:0.5,3:-2,1000000000:7}/1000000000'", "2, '{}/1000000000'", "3, NULL"])
    assert "vector => 'lex AS name'" in caught.value.diag.message_hint
    docs = Items.of(db, "docs", vector="lex AS lex", payload="id")
    docs.mirror()
    becomes(docs, {"1": {"lex": {0: 0.5, 2: -2, 999999999: 7}}, "2": {"lex": {}}})
    db.sql("UPDATE docs SET lex = '{2:1}/1000000000' WHERE id = 3")
    assert docs.wait() is True
    assert db.sql("SELECT id, score FROM qdrant_query(%s, '{2:3}/1000000000'::sparsevec, 3, vector_name => 'lex')",
                  (docs.collection,)) == [("3", 3)]
    assert docs.dead_letters() == {}


@pytest.mark.versions
@pytest.mark.pgvector
@pytest.mark.parametrize("type", ["vector", "halfvec"])
def test_array_of_vectors_is_a_multi_vector(vectors, type):
    db = vectors
    docs = table(db, f"tokens {type}(2)[]", distance="Dot", rows=[
        f"1, ARRAY['[1,2]','[3,4]']::{type}[]", f"2, ARRAY['[0.5,0.25]']::{type}[]", "3, '{}'",
        f"4, ARRAY['[1,2]',NULL]::{type}[]"])
    becomes(docs, {"1": [[1, 2], [3, 4]], "2": [[0.5, 0.25]]})
    assert params(docs).vectors.multivector_config is not None
    assert docs.dead_letters().keys() == {"3", "4"}


@pytest.mark.versions
@pytest.mark.pgvector
def test_array_of_vectors_of_several_widths_is_a_dead_letter(vectors):
    docs = table(vectors, "tokens vector[]", distance="Dot", rows=[
        "1, ARRAY['[1,2]']::vector[]", "2, ARRAY['[1,2]','[1,2,3]']::vector[]", "3, ARRAY['[1,2,3]','[1,2,3]']::vector[]"])
    wait_until(lambda: docs.dead_letters().keys() == {"2", "3"}, what="their dead letters")
    becomes(docs, {"1": [[1, 2]]})


@pytest.mark.versions
@pytest.mark.pgvector
def test_every_kind_of_vector_in_one_point(vectors):
    db = vectors
    docs = table(db, "a vector(2), b halfvec(2), c sparsevec(9), d vector(1)[], e jsonb", vector="a, b, c, d, e",
                 distance="Dot", rows=["1, '[1,2]', '[3,4]', '{1:5}/9', ARRAY['[6]','[7]']::vector[], "
                                       "'{\"indices\": [8], \"values\": [9]}'"])
    becomes(docs, {"1": {"a": [1, 2], "b": [3, 4], "c": {0: 5}, "d": [[6], [7]], "e": {8: 9}}})


@pytest.mark.versions
@pytest.mark.pgvector
def test_size_that_contradicts_the_type_is_refused(vectors):
    with pytest.raises(psycopg.Error, match="size 3 .* 2 by its type") as caught:
        table(vectors, "a vector(2)", vectors_config='{"size": 3}')
    assert caught.value.sqlstate == "22023"
    docs = Items.of(vectors, "docs", vectors_config='{"multivector_config": {"comparator": "max_sim"}}')
    with pytest.raises(psycopg.Error, match="cannot be a multi-vector"):
        docs.mirror()


@pytest.mark.versions
@pytest.mark.pgvector
@pytest.mark.parametrize("type, using, error, after", [
    ("sparsevec(2)", "a::sparsevec(2)", "is dense, and the mirror's is sparse", {"v": {0: 1, 1: 2}}),
    ("vector(3)", "'[1,2,3]'", "2 elements, and the mirror's have 3", {"v": [1, 2, 3]})])
def test_column_that_became_another_vector_stops_the_mirror(vectors, front, type, using, error, after):
    db = vectors
    docs = table(db, "a vector(2)", vector="a AS v", distance="Dot", rows=["1, '[1,2]'"])
    docs.wait_state("live")
    db.sql(f"ALTER TABLE docs ALTER a TYPE {type} USING {using}")
    db.sql("UPDATE docs SET id = id")
    row = docs.wait_state("failed")
    assert error in row["last_error"] and "qdrant_resume" in row["last_error"]
    assert stored(docs) == {"1": {"v": [1, 2]}} and docs.dead_letters() == {}
    front.client.delete_collection(docs.collection)
    docs.resume()
    becomes(docs, {"1": after})
