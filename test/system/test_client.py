"""The client's methods from SQL: what they send, the rows they give, and whose collections they leave alone."""

import psycopg
import pytest
from psycopg.types.json import Jsonb
from qdrant_client import models

from items import Items

CLUSTER = {"conf": {"max_connections": 50}}


@pytest.fixture
def name(db, front):
    """A collection of five points on a line, two kinds."""
    name = db.collection("docs")
    front.client.create_collection(name, models.VectorParams(size=2, distance=models.Distance.DOT))
    front.client.create_payload_index(name, "kind", models.PayloadSchemaType.KEYWORD, wait=True)
    front.client.create_payload_index(name, "n", models.PayloadSchemaType.INTEGER, wait=True)
    front.client.upsert(name, [models.PointStruct(id=i, vector=[i, 1], payload={"n": i, "kind": "ab"[i % 2]})
                               for i in range(1, 6)], wait=True)
    return name


@pytest.fixture
def stranger(db):
    """A role that has nothing but USAGE on the server."""
    role = f"stranger_{db.name}"
    db.sql(f"CREATE ROLE {role} LOGIN")
    db.sql(f"GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
    with db.connect(user=role) as conn:
        yield conn
    db.sql(f"DROP OWNED BY {role}")
    db.sql(f"DROP ROLE {role}")


@pytest.fixture
def mirrored(db):
    items = Items(db, rows=3)
    items.converged()
    return items


def refused(conn, text, params, error):
    with pytest.raises(error):
        conn.execute(text, params)


# --- reads ---

@pytest.mark.versions
def test_info_is_the_version(db):
    assert set(db.one("SELECT qdrant_info()")) >= {"title", "version"}


def test_collections_and_aliases_are_rows(db, name):
    alias = f"{name}_alias"
    assert (name,) in db.sql("SELECT c.name FROM qdrant_get_collections() c")
    assert db.one("SELECT qdrant_update_collection_aliases(%s)",
                  [Jsonb([{"create_alias": {"collection_name": name, "alias_name": alias}}])]) is True
    assert (alias, name) in db.sql("SELECT alias_name, collection_name FROM qdrant_get_aliases()")
    assert db.sql("SELECT * FROM qdrant_get_collection_aliases(%s)", [name]) == [(alias, name)]
    assert db.one("SELECT qdrant_collection_exists(%s)", [name]) is True
    assert db.one("SELECT qdrant_count(%s)", [alias]) == 5
    assert db.one("SELECT qdrant_update_collection_aliases(%s)",
                  [Jsonb([{"delete_alias": {"alias_name": alias}}])]) is True
    assert db.sql("SELECT * FROM qdrant_get_collection_aliases(%s)", [name]) == []
    assert db.one("SELECT qdrant_collection_exists(%s)", [name + "_none"]) is False


def test_collection_is_a_document(db, name):
    assert db.one("SELECT qdrant_get_collection(%s)", [name])["points_count"] == 5
    with pytest.raises(psycopg.errors.UndefinedObject):
        db.one("SELECT qdrant_get_collection(%s)", [name + "_none"])


@pytest.mark.versions
@pytest.mark.parametrize("ids", ["4", "'4'", "ARRAY[4]", "'[4]'", "'[4]'::jsonb", "ARRAY['4']", "4::bigint"])
def test_retrieve_takes_ids_of_each_kind(db, name, ids):
    assert db.sql(f"SELECT id, score, payload, vector FROM qdrant_retrieve(%s, {ids})", [name]) == [
        ("4", None, {"n": 4, "kind": "a"}, None)]


def test_retrieve_selects_payload_and_vectors(db, name):
    assert db.sql("SELECT id, payload, vector FROM qdrant_retrieve(%s, ARRAY[3, 99], with_payload => false, "
                  "with_vectors => true)", [name]) == [("3", None, [3, 1])]
    assert db.sql("SELECT payload FROM qdrant_retrieve(%s, 3, payload_fields => '{n}')", [name]) == [({"n": 3},)]
    assert db.sql("SELECT id FROM qdrant_retrieve(%s, '{}'::int[])", [name]) == []
    refused(db.conn, "SELECT * FROM qdrant_retrieve(%s, '{\"must\": []}'::jsonb)", [name],
            psycopg.errors.InvalidParameterValue)
    refused(db.conn, "SELECT * FROM qdrant_retrieve(%s, NULL::int)", [name], psycopg.errors.NullValueNotAllowed)


@pytest.mark.versions
def test_scroll_goes_through_all_pages(db, name):
    seen, offset, pages = [], None, 0
    while True:
        rows = db.sql('SELECT id, next_page_offset FROM qdrant_scroll(%s, "limit" => 2, "offset" => %s::text)',
                      [name, offset])
        pages += 1
        seen += [id for id, _ in rows]
        offset = rows[-1][1]
        if offset is None:
            break
    assert (seen, pages) == (["1", "2", "3", "4", "5"], 3)
    assert db.sql("SELECT * FROM qdrant_scroll(%s, '{\"must\": [{\"key\": \"n\", \"range\": {\"gt\": 9}}]}')",
                  [name]) == []


def test_scroll_orders_by_a_field(db, name):
    assert db.sql("SELECT id, order_value FROM qdrant_scroll(%s, order_by => 'n', \"limit\" => 2)", [name]) == [
        ("1", 1), ("2", 2)]
    assert db.sql("SELECT id FROM qdrant_scroll(%s, order_by => '{\"key\": \"n\", \"direction\": \"desc\"}', "
                  "\"limit\" => 2)", [name]) == [("5",), ("4",)]


def test_count_and_facet(db, name):
    kind = Jsonb({"must": [{"key": "kind", "match": {"value": "b"}}]})
    assert db.one("SELECT qdrant_count(%s, %s)", [name, kind]) == 3
    assert db.sql("SELECT * FROM qdrant_facet(%s, 'kind', exact => true)", [name]) == [("b", 3), ("a", 2)]
    assert db.sql("SELECT value FROM qdrant_facet(%s, 'kind', \"limit\" => 1, exact => true)", [name]) == [("b",)]
    refused(db.conn, "SELECT * FROM qdrant_facet(%s, 'kind', \"limit\" => 0)", [name],
            psycopg.errors.InvalidParameterValue)


def test_batch_numbers_its_queries(db, name):
    requests = [{"query": [1, 0], "limit": 2}, {"query": [0, 1], "limit": 1, "filter": {"must": [{"has_id": [99]}]}},
                {"query": [-1, 0], "limit": 1, "with_payload": True}]
    assert db.sql("SELECT n, id, score, payload FROM qdrant_query_batch_points(%s, %s)", [name, Jsonb(requests)]) == [
        (1, "5", 5, None), (1, "4", 4, None), (3, "1", -1, {"n": 1, "kind": "b"})]
    refused(db.conn, "SELECT * FROM qdrant_query_batch_points(%s, '{}')", [name],
            psycopg.errors.InvalidParameterValue)


def test_groups_are_rows_with_their_lookup(db, front, name):
    kinds = db.collection("kinds")
    front.client.create_collection(kinds, models.VectorParams(size=1, distance=models.Distance.DOT))
    front.client.upsert(kinds, [models.PointStruct(id=1, vector=[1], payload={"name": "one"})], wait=True)
    rows = db.sql("SELECT group_id, id, score, lookup FROM qdrant_query_points_groups(%s, 'n', '[1,0]', "
                  "\"limit\" => 5, group_size => 1, with_lookup => %s)", [name, kinds])
    assert [row[:3] for row in rows] == [(n, str(n), n) for n in (5, 4, 3, 2, 1)]
    assert [row[3] for row in rows[:4]] == [None] * 4
    assert rows[4][3]["payload"] == {"name": "one"}
    assert db.sql("SELECT group_id, id FROM qdrant_query_points_groups(%s, 'kind', '[1,0]', group_size => 2)",
                  [name]) == [("b", "5"), ("b", "3"), ("a", "4"), ("a", "2")]
    assert db.sql("SELECT * FROM qdrant_query_points_groups(%s, 'kind', NULL::real[])", [name]) == []


def test_matrix_pairs_and_offsets(db, name):
    pairs = db.sql("SELECT a, b, score FROM qdrant_search_matrix_pairs(%s, \"limit\" => 1)", [name])
    assert len(pairs) == 5
    assert all(score == int(a) * int(b) + 1 and a != b for a, b, score in pairs)
    matrix = db.one("SELECT qdrant_search_matrix_offsets(%s, sample => 3, \"limit\" => 1)", [name])
    assert len(matrix["ids"]) == len(matrix["scores"]) == 3


# --- administration ---

@pytest.mark.versions
def test_a_collection_comes_changes_and_goes(db, front):
    name = db.collection("made")
    assert db.one("SELECT qdrant_create_collection(%s, '{\"size\": 2, \"distance\": \"Dot\"}')", [name]) is True
    assert db.one("SELECT qdrant_update_collection(%s, metadata => '{\"by\": \"test\"}')", [name]) is True
    front.client.upsert(name, [models.PointStruct(id=1, vector=[1, 2])], wait=True)
    assert db.one("SELECT qdrant_recreate_collection(%s, '{\"size\": 3, \"distance\": \"Dot\"}')", [name]) is True
    config = front.client.get_collection(name)
    assert (config.points_count, config.config.params.vectors.size) == (0, 3)
    assert db.one("SELECT qdrant_delete_collection(%s)", [name]) is True
    assert not front.client.collection_exists(name)
    assert db.one("SELECT qdrant_delete_collection(%s)", [name]) is False


def test_recreate_with_a_wrong_argument_deletes_nothing(db, name):
    refused(db.conn, "SELECT qdrant_recreate_collection(%s, shard_number => 0)", [name],
            psycopg.errors.InvalidParameterValue)
    assert db.one("SELECT qdrant_count(%s)", [name]) == 5


@pytest.mark.parametrize("argument, value", [("field_schema", "keyword"), ("field_type", "keyword"),
                                             ("field_schema", '{"type": "keyword", "is_tenant": true}')])
def test_payload_index_comes_and_goes(db, front, name, argument, value):
    field = '"b c?#%ü"'
    made = db.one(f"SELECT qdrant_create_payload_index(%s, %s, {argument} => %s)", [name, field, value])
    assert made["status"] == "completed"
    assert front.client.get_collection(name).payload_schema[field].data_type == "keyword"
    assert db.one("SELECT qdrant_delete_payload_index(%s, %s)", [name, field])["status"] == "completed"
    assert field not in front.client.get_collection(name).payload_schema


@pytest.mark.parametrize("field", ["..", ".", ""])
def test_field_that_would_be_another_path_is_refused(db, name, field):
    refused(db.conn, "SELECT qdrant_delete_payload_index(%s, %s)", [name, field], psycopg.errors.InvalidParameterValue)
    refused(db.conn, "SELECT qdrant_delete_vector_name(%s, %s)", [name, field], psycopg.errors.InvalidParameterValue)
    assert db.one("SELECT qdrant_count(%s)", [name]) == 5


def test_ordering_and_consistency_are_checked_before_sending(db, name):
    refused(db.conn, "SELECT qdrant_delete_payload_index(%s, 'n', ordering => 'weak&wait=false')", [name],
            psycopg.errors.InvalidParameterValue)
    for consistency in ("1&timeout=9", "", "0", "00", "-1"):
        refused(db.conn, "SELECT * FROM qdrant_scroll(%s, consistency => %s)", [name, consistency],
                psycopg.errors.InvalidParameterValue)
        refused(db.conn, "SELECT * FROM qdrant_query_points(%s, '[1, 1]', consistency => %s)", [name, consistency],
                psycopg.errors.InvalidParameterValue)
    assert "n" in db.one("SELECT qdrant_get_collection(%s)", [name])["payload_schema"]


def test_vector_name_comes_and_goes(db, front):
    name = db.collection("named")
    front.client.create_collection(name, {"a": models.VectorParams(size=2, distance=models.Distance.DOT)})
    db.one("SELECT qdrant_create_vector_name(%s, 'b', '{\"dense\": {\"size\": 3, \"distance\": \"Cosine\"}}')", [name])
    assert set(front.client.get_collection(name).config.params.vectors) == {"a", "b"}
    db.one("SELECT qdrant_delete_vector_name(%s, 'b')", [name])
    assert set(front.client.get_collection(name).config.params.vectors) == {"a"}


# --- whose collections ---

READS = [
    "SELECT qdrant_get_collection(%s)", "SELECT * FROM qdrant_retrieve(%s, 1)", "SELECT * FROM qdrant_scroll(%s)",
    "SELECT qdrant_count(%s)", "SELECT * FROM qdrant_facet(%s, 'n')",
    "SELECT * FROM qdrant_query_batch_points(%s, '[]')",
    "SELECT * FROM qdrant_query_points_groups(%s, 'n', '[1,0,0,0]')",
    "SELECT * FROM qdrant_search_matrix_pairs(%s)", "SELECT qdrant_search_matrix_offsets(%s)",
]


@pytest.mark.parametrize("read", READS)
def test_reading_a_mirrors_collection_needs_the_table(db, mirrored, stranger, read):
    refused(stranger, read, [mirrored.collection], psycopg.errors.InsufficientPrivilege)


@pytest.mark.parametrize("read", [
    "SELECT * FROM qdrant_query_points_groups(%(c)s, 'n', 1, with_lookup => %(m)s)",
    "SELECT * FROM qdrant_query_points_groups(%(c)s, 'n', 1, with_lookup => "
    "jsonb_build_object('collection', %(m)s::text)::text)",
    "SELECT * FROM qdrant_query_points_groups(%(c)s, 'n', 1, "
    "lookup_from => jsonb_build_object('collection', %(m)s::text))",
    "SELECT * FROM qdrant_query_points_groups(%(c)s, 'n', 1, prefetch => jsonb_build_object('query', 1, "
    "'lookup_from', jsonb_build_object('collection', %(m)s::text)))",
    "SELECT * FROM qdrant_query_batch_points(%(c)s, jsonb_build_array(jsonb_build_object('query', 1, "
    "'lookup_from', jsonb_build_object('collection', %(m)s::text))))",
])
def test_looking_up_in_a_mirrors_collection_needs_the_table(mirrored, stranger, name, read):
    refused(stranger, read, {"c": name, "m": mirrored.collection}, psycopg.errors.InsufficientPrivilege)


def test_a_reader_of_the_table_reads_its_collection(db, mirrored, stranger):
    db.sql(f"GRANT SELECT ON items TO stranger_{db.name}")
    assert stranger.execute("SELECT qdrant_count(%s)", [mirrored.collection]).fetchone() == (3,)
    db.sql("ALTER TABLE items ENABLE ROW LEVEL SECURITY")
    refused(stranger, "SELECT qdrant_count(%s)", [mirrored.collection], psycopg.errors.InsufficientPrivilege)


def test_every_method_needs_usage_on_the_server(db, stranger, name):
    db.sql(f"REVOKE USAGE ON FOREIGN SERVER qdrant FROM stranger_{db.name}")
    for text in ("SELECT qdrant_info('qdrant')", "SELECT * FROM qdrant_get_collections('qdrant')",
                 "SELECT qdrant_collection_exists('x', 'qdrant')", "SELECT qdrant_count('x', server => 'qdrant')",
                 "SELECT qdrant_delete_collection('x', server => 'qdrant')"):
        refused(stranger, text, None, psycopg.errors.InsufficientPrivilege)


@pytest.mark.parametrize("change", [
    "qdrant_update_collection(%(m)s, metadata => '{}')", "qdrant_delete_collection(%(m)s)",
    "qdrant_recreate_collection(%(m)s)", "qdrant_create_payload_index(%(m)s, 'n', 'integer')",
    "qdrant_delete_payload_index(%(m)s, 'n')", "qdrant_create_vector_name(%(m)s, 'v', '{\"sparse\": {}}')",
    "qdrant_delete_vector_name(%(m)s, 'v')",
    "qdrant_update_collection_aliases(jsonb_build_array(jsonb_build_object('create_alias', "
    "jsonb_build_object('collection_name', %(m)s::text, 'alias_name', 'way_round'))))",
    "qdrant_update_collection_aliases(jsonb_build_array(jsonb_build_object('create_alias', "
    "jsonb_build_object('alias_name', %(m)s::text, 'collection_name', 'other'))))",
    "qdrant_update_collection_aliases(jsonb_build_array(jsonb_build_object('rename_alias', "
    "jsonb_build_object('old_alias_name', 'x', 'new_alias_name', %(m)s::text))))",
])
def test_a_mirrors_collection_is_not_changed(db, front, mirrored, change):
    refused(db.conn, f"SELECT {change}", {"m": mirrored.collection}, psycopg.errors.WrongObjectType)
    mirrored.converged()
