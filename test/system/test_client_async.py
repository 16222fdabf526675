"""Every read of the client that waits has a twin that returns a ticket: with the same arguments, rights and answers."""

import psycopg
import pytest
from qdrant_client import models

from items import Items

CLUSTER = {"conf": {"max_connections": 50}}

# What each gives, as a jsonb made of the waiting form's rows and as one made of the ticket's answer.
READS = {
    "info": ("", "{0}", "{0}"),
    "get_collections": ("", "(SELECT jsonb_agg(r.name ORDER BY r.name) FROM {0} AS r(name))",
                        "(SELECT jsonb_agg(c->>'name' ORDER BY c->>'name') FROM jsonb_array_elements({0} -> 'collections') c)"),
    "get_collection": ("%(name)s", "{0} -> 'points_count'", "{0} -> 'points_count'"),
    "collection_exists": ("%(name)s", "to_jsonb({0})", "{0} -> 'exists'"),
    "get_aliases": ("", "(SELECT jsonb_agg(r) FROM {0} r)", "{0} -> 'aliases'"),
    "get_collection_aliases": ("%(name)s", "(SELECT jsonb_agg(r) FROM {0} r)", "{0} -> 'aliases'"),
    "retrieve": ("%(name)s, '{{1,2}}'::int[]", "(SELECT jsonb_agg(payload ORDER BY id) FROM {0})",
                 "jsonb_path_query_array({0}, '$[*].payload')"),
    "scroll": ("%(name)s, \"limit\" => 3", "(SELECT jsonb_agg(payload ORDER BY id) FROM {0})",
               "jsonb_path_query_array({0}, '$.points[*].payload')"),
    "count": ("%(name)s", "to_jsonb({0})", "{0} -> 'count'"),
    "facet": ("%(name)s, 'kind'", "(SELECT jsonb_agg(r ORDER BY value) FROM {0} r)",
              "(SELECT jsonb_agg(h ORDER BY h->'value') FROM jsonb_array_elements({0} -> 'hits') h)"),
    "query_batch_points": ("%(name)s, '[{{\"query\": [1, 0], \"limit\": 2}}, {{\"query\": 3, \"limit\": 1}}]'",
                           "(SELECT jsonb_agg(id::int ORDER BY n, score DESC) FROM {0})",
                           "jsonb_path_query_array({0}, '$[*].points[*].id')"),
    "query_points_groups": ("%(name)s, 'kind', '[1, 0]'", "(SELECT jsonb_agg(id::int) FROM {0})",
                            "jsonb_path_query_array({0}, '$.groups[*].hits[*].id')"),
    "search_matrix_pairs": ("%(name)s, sample => 5, \"limit\" => 4", "(SELECT to_jsonb(count(*)) FROM {0})",
                            "to_jsonb(jsonb_array_length({0} -> 'pairs'))"),
    "search_matrix_offsets": ("%(name)s, sample => 5, \"limit\" => 4", "to_jsonb(jsonb_array_length({0} -> 'ids'))",
                              "to_jsonb(jsonb_array_length({0} -> 'ids'))"),
}


@pytest.fixture
def name(db, front):
    name = db.collection("docs")
    front.client.create_collection(name, models.VectorParams(size=2, distance=models.Distance.DOT))
    front.client.create_payload_index(name, "kind", models.PayloadSchemaType.KEYWORD, wait=True)
    front.client.upsert(name, [models.PointStruct(id=i, vector=[i, 1], payload={"n": i, "kind": "ab"[i % 2]})
                               for i in range(1, 6)], wait=True)
    front.client.update_collection_aliases([models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=name, alias_name=f"{name}_alias"))])
    return name


def test_every_read_has_a_twin_with_its_arguments(db):
    """What the client has as a method that changes nothing; other columns of rows are no arguments."""
    arguments = dict(db.sql("SELECT proname, pg_get_function_arguments(p.oid) FROM pg_proc p "
                            "WHERE proname LIKE 'qdrant\\_%%' AND prolang = (SELECT oid FROM pg_language WHERE lanname = 'c')"))
    for read in [*READS, "query", "query_points"]:
        assert arguments[f"qdrant_{read}_async"] == arguments[f"qdrant_{read}"].split(", OUT ")[0], read


@pytest.mark.parametrize("read", READS)
def test_twin_gives_what_the_waiting_form_gives(db, name, read):
    arguments, waited, awaited = READS[read]
    arguments = arguments.format()
    expected = db.one("SELECT " + waited.format(f"qdrant_{read}({arguments})"), {"name": name})
    ticket = db.one(f"SELECT qdrant_{read}_async({arguments})", {"name": name})
    found = db.one("SELECT " + awaited.format("a.answer") + " FROM (SELECT qdrant_await(%(ticket)s) AS answer OFFSET 0) a",
                   {"ticket": ticket})
    assert found == expected and found not in (None, [], 0)
    assert db.sql("SELECT * FROM qdrant_requests") == []


def test_points_of_retrieve_are_rows_beside_those_of_a_query(db, name):
    fields = "id, payload, vector, version, order_value, shard_key"
    expected = db.sql(f"SELECT score, {fields} FROM qdrant_retrieve(%s, ARRAY[4, 2, 99], with_vectors => true)", (name,))
    retrieved = db.one("SELECT qdrant_retrieve_async(%s, ARRAY[4, 2, 99], with_vectors => true)", (name,))
    none = db.one("SELECT qdrant_retrieve_async(%s, 99)", (name,))
    queried = db.one("SELECT qdrant_query_async(%s, '[1, 1]', 1)", (name,))
    found = db.sql(f"SELECT n, score, {fields} FROM qdrant_await_points(%s)", ([none, retrieved, queried],))
    assert [row[1:] for row in found if row[0] == 2] == expected and len(expected) == 2
    assert expected[0][0] is None
    assert [row[0] for row in found] == [2, 2, 3] and found[-1][1] is not None


@pytest.mark.parametrize("call", [
    "qdrant_query_batch_points_async(%s, '[{\"query\": [1, 1]}]')", "qdrant_query_points_groups_async(%s, 'n', '[1, 1]')"])
def test_several_lists_of_points_are_no_list(db, name, call):
    ticket = db.one(f"SELECT {call}", (name,))
    with pytest.raises(psycopg.errors.WrongObjectType) as caught:
        db.sql("SELECT * FROM qdrant_await_points(ARRAY[%s]::bigint[])", (ticket,))
    assert "qdrant_await" in caught.value.diag.message_hint
    assert db.one("SELECT qdrant_await(%s)", (ticket,))


@pytest.mark.parametrize("requests, state", [("NULL", "22004"), ("'{}'", "22023"), ("'null'", "22023")])
def test_batch_that_is_no_array_is_refused_before_there_is_a_ticket(db, name, requests, state):
    for call in ("qdrant_query_batch_points", "qdrant_query_batch_points_async"):
        with pytest.raises(psycopg.Error, match='argument "requests"') as caught:
            db.sql(f"SELECT {call}(%s, {requests})", (name,))
        assert caught.value.sqlstate == state


def test_points_of_a_scroll_are_rows_and_of_a_count_none(db, name):
    ticket = db.one("SELECT qdrant_scroll_async(%s, \"limit\" => 3)", (name,))
    assert db.sql("SELECT n, id FROM qdrant_await_points(ARRAY[%s]::bigint[])", (ticket,)) == [(1, "1"), (1, "2"), (1, "3")]
    ticket = db.one("SELECT qdrant_count_async(%s)", (name,))
    with pytest.raises(psycopg.errors.WrongObjectType):
        db.sql("SELECT * FROM qdrant_await_points(ARRAY[%s]::bigint[])", (ticket,))
    assert db.one("SELECT qdrant_await(%s)", (ticket,)) == {"count": 5}


def test_null_query_is_a_null_ticket(db, name):
    assert db.one("SELECT qdrant_query_points_groups_async(%s, 'kind', NULL::real[])", (name,)) is None


@pytest.mark.parametrize("read", [read for read in READS if "name" in READS[read][0]])
def test_collection_of_a_mirror_asks_for_its_tables_privileges(db, read):
    items = Items(db, rows=3)
    role = f"stranger_{db.name}"
    db.sql(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
    try:
        with db.connect(user=role) as conn:
            call = f"SELECT qdrant_{read}_async({READS[read][0].format()})"
            if read in ("collection_exists", "get_collection_aliases"):
                assert conn.execute(call, {"name": items.collection}).fetchone()[0] > 0
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(call, {"name": items.collection})
    finally:
        db.sql(f"DROP OWNED BY {role}")
        db.sql(f"DROP ROLE {role}")


def test_error_of_qdrant_comes_with_the_answer(db):
    ticket = db.one("SELECT qdrant_count_async('no_such_collection')")
    with pytest.raises(psycopg.errors.UndefinedObject):
        db.sql("SELECT qdrant_await(%s)", (ticket,))
    assert db.sql("SELECT * FROM qdrant_requests") == []
