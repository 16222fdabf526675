"""The client's functions at their edges: read-only transactions, a standby, and values as drivers send them."""

import psycopg
import pytest
from psycopg.types.json import Jsonb
from qdrant_client import models

from harness import Cluster, new_extension_db, wait_until

GREATEST = 2**64 - 1

ADMINISTRATION = {
    "create_collection": "qdrant_create_collection(%(c)s || '_new', '{\"size\": 2, \"distance\": \"Dot\"}')",
    "recreate_collection": "qdrant_recreate_collection(%(c)s, '{\"size\": 2, \"distance\": \"Dot\"}')",
    "update_collection": "qdrant_update_collection(%(c)s, metadata => '{\"by\": \"me\"}')",
    "delete_collection": "qdrant_delete_collection(%(c)s)",
    "create_payload_index": "qdrant_create_payload_index(%(c)s, 'n', 'integer')",
    "delete_payload_index": "qdrant_delete_payload_index(%(c)s, 'n')",
    "create_vector_name": "qdrant_create_vector_name(%(c)s, 'v', '{\"sparse\": {}}')",
    "delete_vector_name": "qdrant_delete_vector_name(%(c)s, 'v')",
    "update_collection_aliases": "qdrant_update_collection_aliases(jsonb_build_array(jsonb_build_object("
                                 "'create_alias', jsonb_build_object('collection_name', %(c)s::text, "
                                 "'alias_name', %(c)s || '_alias'))))",
    "request": "qdrant_request('POST', '/collections/' || %(c)s || '/points/delete', body => '{\"points\": [1]}')",
}
READS = ["qdrant_count(%(c)s)", "count(*) FROM qdrant_query(%(c)s, '[1, 1]')", "qdrant_get_collection(%(c)s)",
         "qdrant_request('GET', '/collections')",
         "qdrant_request('POST', '/collections/' || %(c)s || '/points/count', body => '{}')"]


@pytest.fixture
def name(db, front):
    """A collection of two points, one with the greatest id there is."""
    name = db.collection("edges")
    front.client.create_collection(name, models.VectorParams(size=2, distance=models.Distance.DOT))
    front.client.upsert(name, [models.PointStruct(id=1, vector=[1, 1]),
                               models.PointStruct(id=GREATEST, vector=[2, 1])], wait=True)
    return name


def untouched(front, name):
    info = front.client.get_collection(name)
    aliases = front.client.get_collection_aliases(name).aliases
    return (info.points_count == 2 and not info.payload_schema and not aliases and
            not front.client.collection_exists(name + "_new"))


# --- who may not write ---

@pytest.mark.parametrize("kind", ADMINISTRATION)
def test_a_read_only_transaction_administers_nothing(db, front, name, kind):
    with db.connect(autocommit=False) as conn:
        conn.execute("SET TRANSACTION READ ONLY")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match=f"qdrant_{kind}\\(\\)"):
            conn.execute("SELECT " + ADMINISTRATION[kind], {"c": name})
    assert untouched(front, name)


def test_a_read_only_transaction_reads(db, name):
    with db.connect(autocommit=False) as conn:
        conn.execute("SET TRANSACTION READ ONLY")
        for read in READS:
            assert conn.execute("SELECT " + read, {"c": name}).fetchone()[0]


@pytest.mark.versions
def test_a_standby_reads_and_administers_nothing(front, pgversion):
    front.clear()
    with Cluster(pgversion, name="primary") as primary:
        db = new_extension_db(primary, front)
        name = db.collection("edges")
        front.client.create_collection(name, models.VectorParams(size=2, distance=models.Distance.DOT))
        front.client.upsert(name, [models.PointStruct(id=i, vector=[i, 1]) for i in (1, 2)], wait=True)
        standby = primary.standby()
        primary.wait_replayed(standby)
        wait_until(lambda: standby.pids("qdrant_sync request worker"), what="a worker on the standby")
        for read in READS:
            assert standby.one("SELECT " + read, {"c": name}, dbname=db.name)
        for kind, call in ADMINISTRATION.items():
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match=f"qdrant_{kind}\\(\\) during recovery"):
                standby.sql("SELECT " + call, {"c": name}, dbname=db.name)
        assert untouched(front, name)
        db.conn.close()


def test_an_upload_that_is_refused_is_called_an_upload(db, name):
    with db.connect(autocommit=False) as conn:
        conn.execute("SET TRANSACTION READ ONLY")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match=r"qdrant_upload\(\)"):
            conn.execute("SELECT qdrant_upload(%s, 'SELECT 1 AS id')", [name])


# --- values as drivers send them ---

@pytest.mark.parametrize("threshold", [1.5, "1.5::real", "1.5::float8", "1.5", "1"])
@pytest.mark.parametrize("call", [
    "qdrant_query(%s, '[1, 1]', score_threshold => {})", "qdrant_query_points(%s, '[1, 1]', score_threshold => {})",
    "qdrant_await_points(ARRAY[qdrant_query_async(%s, '[1, 1]', score_threshold => {})])",
    "qdrant_await_points(ARRAY[qdrant_query_points_async(%s, '[1, 1]', score_threshold => {})])"])
def test_a_threshold_may_be_a_number_of_any_type(db, name, call, threshold):
    """Drivers send a float as double precision, which is no real without a cast."""
    typed = isinstance(threshold, str)
    found = db.sql("SELECT id FROM " + call.format(threshold if typed else "%s"), [name] if typed else [name, threshold])
    assert [row[0] for row in found] == [str(GREATEST), "1"]
    assert db.sql("SELECT id FROM " + call.format("2.5"), [name]) == [(str(GREATEST),)]


COUNTS = {
    "qdrant_query(%s, '[1, 1]', k => {})": ("k", 1), "qdrant_query(%s, '[1, 1]', {})": ("k", 1),
    "qdrant_query_points(%s, '[1, 1]', \"limit\" => {})": ("limit", 1),
    "qdrant_query_points(%s, '[1, 1]', \"offset\" => {})": ("offset", 0),
    "qdrant_scroll(%s, \"limit\" => {})": ("limit", 1),
    "qdrant_await_points(ARRAY[qdrant_query_async(%s, '[1, 1]', k => {})])": ("k", 1),
    "qdrant_await_points(ARRAY[qdrant_scroll_async(%s, \"limit\" => {})])": ("limit", 1),
    "qdrant_query_points_groups(%s, 'n', '[1, 1]', group_size => {})": ("group_size", 1),
    "qdrant_search_matrix_pairs(%s, \"limit\" => {})": ("limit", 1)}


@pytest.mark.versions
@pytest.mark.parametrize("call", COUNTS)
def test_a_count_may_be_an_integer_of_any_size(db, name, call):
    """Drivers bind int8; what is no count of this earth is refused by name."""
    argument, least = COUNTS[call]
    expected = db.sql("SELECT * FROM " + call.format("1"), [name])
    for typed in ("1::bigint", "1::smallint", "'1'", "(SELECT count(*) FROM (SELECT) s)", "NULLIF(1, 2)"):
        found = db.sql("SELECT * FROM " + call.format(typed), [name])
        assert len(found) == len(expected) and [row[0] for row in found] == [row[0] for row in expected], typed
    for value in (1, "1"):
        assert len(db.sql("SELECT * FROM " + call.format("%s"), [name, value])) == len(expected)
    for value in (least - 1, 2**31, 2**63 - 1, -2**63):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=f'"{argument}" is {value}, and must be at'):
            db.sql("SELECT * FROM " + call.format("%s"), [name, value])


def test_no_argument_is_narrower_than_what_a_driver_binds(db):
    """bigint as LIMIT has it, double precision: what else is a number is cast to them without being asked."""
    narrow = db.sql("""SELECT p.oid::regprocedure FROM pg_proc p, unnest(p.proargtypes) t(type)
        WHERE p.proname LIKE 'qdrant\\_%%' AND p.pronamespace = 'public'::regnamespace
          AND type IN ('integer'::regtype, 'smallint'::regtype, 'real'::regtype)""", [])
    assert narrow == []


def test_a_search_takes_counts_of_any_size_and_the_planner_knows_them(db):
    db.sql("CREATE TABLE things (id int PRIMARY KEY, v real[])")
    db.sql("INSERT INTO things SELECT i, ARRAY[1, i] FROM generate_series(1, 5) i")
    db.sql("SELECT qdrant_mirror('things', collection => %s, distance => 'Dot')", [db.collection("things")])
    assert db.wait("things")
    for typed in ("2", "2::bigint", "2::smallint", "'2'"):
        search = f"SELECT (hit).id FROM qdrant_search(NULL::things, '[0, 1]', k => {typed}, skip => {typed})"
        assert db.sql(search) == [(3,), (2,)]
        plan = db.sql("EXPLAIN (FORMAT JSON) " + search)[0][0]
        assert '"Plan Rows": 2' in str(plan).replace("'", '"')
    for name in ("k", "skip"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=f'"{name}" is 2147483648, and must be at most'):
            db.sql(f"SELECT * FROM qdrant_search(NULL::things, '[0, 1]', {name} => 2147483648)")


@pytest.mark.parametrize("id", ["5c56c793-69f3-4fbf-87e6-c4bf54c28c26", "42", str(GREATEST)])
def test_the_id_of_a_point_may_be_a_literal_without_a_type(db, front, name, id):
    for call, params in ((f"qdrant_point('{id}', '[1, 2]')", []), ("qdrant_point(%s, %s)", [id, [1, 2]]),
                         ("qdrant_point(%s::varchar, ARRAY[1, 2]::real[], '{}')", [id])):
        db.sql(f"SELECT qdrant_upsert('{name}', jsonb_build_array({call}))", params)
        assert db.wait()
        point, = front.client.retrieve(name, [id if "-" in id else int(id)], with_vectors=True)
        assert str(point.id) == id and point.vector == [1, 2]
        front.client.delete(name, [point.id])


@pytest.mark.parametrize("function", [
    "qdrant_query(%s, '[1, 1]', score_threshold => %s)",
    "qdrant_query_points(%s, '[1, 1]', score_threshold => %s)",
    "qdrant_query_points_groups(%s, 'n', '[1, 1]', score_threshold => %s)"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_threshold_that_json_cannot_have_is_named(db, name, function, value):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='argument "score_threshold" is NaN or infinite'):
        db.sql("SELECT * FROM " + function, [name, value])


def test_an_empty_list_of_a_driver_retrieves_nothing(db, name):
    """psycopg sends [] as the text {}, which has no type of elements."""
    assert db.sql("SELECT * FROM qdrant_retrieve(%s, %s)", [name, []]) == []
    assert db.sql("SELECT * FROM qdrant_retrieve(%s, '{}'::jsonb)", [name]) == []
    for filter in ('{"must": []}', '{"filter": {}}', '{"x": 1}'):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="ids: a JSON object is no id") as caught:
            db.sql("SELECT * FROM qdrant_retrieve(%s, %s)", [name, filter])
        assert "filter" not in caught.value.diag.message_hint
    with pytest.raises(psycopg.errors.DatatypeMismatch) as caught:
        db.sql("SELECT * FROM qdrant_retrieve(%s, true)", [name])
    assert "filter" not in caught.value.diag.message_hint


def test_an_id_beyond_bigint_is_an_id_everywhere(db, name):
    """A literal or a driver's integer of that size is numeric."""
    assert db.sql(f"SELECT id FROM qdrant_query(%s, {GREATEST})", [name]) == [("1",)]
    assert db.sql("SELECT id FROM qdrant_query(%s, %s)", [name, GREATEST]) == [("1",)]
    assert db.sql("SELECT id FROM qdrant_query(%s, %s)", [name, Jsonb(GREATEST)]) == [("1",)]
    assert db.sql("SELECT id FROM qdrant_retrieve(%s, %s)", [name, GREATEST]) == [(str(GREATEST),)]
    assert db.sql('SELECT id FROM qdrant_scroll(%s, "offset" => %s)', [name, GREATEST]) == [(str(GREATEST),)]
    assert db.one("SELECT qdrant_count(%s, qdrant_filter(must => qdrant_has_id(%s)))", [name, GREATEST]) == 1
    assert db.one("SELECT qdrant_has_id(ARRAY[1, %s])", [GREATEST]) == {"has_id": [1, GREATEST]}


@pytest.mark.parametrize("value", ["1.5", "1.0", "-1::numeric", f"{GREATEST + 1}", "'NaN'::numeric"])
def test_a_number_that_is_no_id_is_still_no_query(db, name, value):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="query .* is not the id of a point") as caught:
        db.sql(f"SELECT * FROM qdrant_query('{name}', {value})")
    assert "A vector is an array" in caught.value.diag.message_hint
    with pytest.raises(psycopg.errors.DatatypeMismatch, match="type numeric cannot be"):
        db.sql(f"SELECT qdrant_has_id({value})")


def test_a_batch_size_that_is_null_is_the_default(db, front, name):
    assert db.one("""SELECT qdrant_upload(%s, 'SELECT i AS id, ARRAY[i, 1]::real[] AS vector
        FROM generate_series(10, 139) i', batch_size => NULL)""", [name]) == 130
    assert db.wait()
    assert front.client.count(name).count == 132


# --- what the planner is told ---

def test_limits_are_estimates(db):
    for call in ("qdrant_scroll('c', \"limit\" => 70)", "qdrant_facet('c', 'k', \"limit\" => 70)"):
        assert "rows=70 " in db.one("EXPLAIN SELECT * FROM " + call)


# --- hints ---

def test_a_hint_names_a_table_as_it_is_found(db):
    """One that can be copied: with its schema where search_path does not lead to it."""
    db.sql('CREATE SCHEMA s; CREATE TABLE s.t (a int); CREATE TABLE "T 1" (a int)')
    for table in ("s.t", '"T 1"'):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
            db.sql(f"SELECT * FROM qdrant_search(NULL::{table}, '[1, 2]')")
        assert caught.value.diag.message_hint == f"SELECT qdrant_mirror('{table}') mirrors it."
