"""What a search may tell of rows and columns that its caller may not read: nothing (hazard R9)."""

import uuid

import psycopg
import pytest
from psycopg.types.json import Jsonb

from items import Items

pytestmark = pytest.mark.versions

VECTOR, OTHER = [1, 0, 0, 0], [0.5, 1, 0, 0]
ANGLE = "ARRAY[cos(i * 0.01), sin(i * 0.01), 0, 0]::real[]"


@pytest.fixture
def reader(db):
    """A connection of a role that may use the server, and its name."""
    name = f"reader_{uuid.uuid4().hex[:8]}"
    db.sql(f"CREATE ROLE {name} LOGIN; GRANT USAGE ON FOREIGN SERVER qdrant TO {name}")
    with db.connect() as conn:
        conn.execute(f"SET ROLE {name}")
        conn.reader = name
        yield conn
    db.sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


def table(db, reader, key="i", type="int", **options):
    """Rows 1 to 40 by their distance to VECTOR; the reader sees the even ones."""
    db.sql(f"CREATE TABLE things (id {type} PRIMARY KEY, n int NOT NULL, secret int NOT NULL, embedding real[])")
    db.sql(f"INSERT INTO things SELECT {key}, i, 100 - i, {ANGLE} FROM generate_series(1, 40) i")
    items = Items.of(db, "things", indexes="n integer, secret integer", **options)
    items.mirror()
    items.wait_state("live")
    db.sql(f"GRANT SELECT ON things TO {reader.reader}; ALTER TABLE things ENABLE ROW LEVEL SECURITY; "
           "CREATE POLICY even ON things USING (n % 2 = 0)")
    return items


def search(conn, query, k=5, **arguments):
    """Column n of the rows."""
    texts = "".join(f", {name} => %s" for name in arguments)
    values = [Jsonb(value) if isinstance(value, (dict, list)) else value for value in (query, *arguments.values())]
    return [row[0] for row in conn.execute(
        f"SELECT (hit).n FROM qdrant_search(NULL::things, %s, {k}{texts}) ORDER BY rank", values)]


# --- row security ---

# {0}: the id of a row. Each is a query that names it.
EXAMPLES = {
    "nearest": '{"nearest": {0}}',
    "recommend": '{"recommend": {"positive": [[1, 0, 0, 0], {0}]}}',
    "recommend, negative": '{"recommend": {"positive": [[1, 0, 0, 0]], "negative": [{0}], "strategy": "best_score"}}',
    "discover": '{"discover": {"target": {0}, "context": [{"positive": [1, 0, 0, 0], "negative": [0, 1, 0, 0]}]}}',
    "discover, positive": '{"discover": {"target": [1, 0, 0, 0], "context": [{"positive": {0}, "negative": [0, 1, 0, 0]}]}}',
    "discover, one pair": '{"discover": {"target": [1, 0, 0, 0], "context": {"positive": [1, 0, 0, 0], "negative": {0}}}}',
    "context": '{"context": [{"positive": [1, 0, 0, 0], "negative": {0}}]}',
    "context, one pair": '{"context": {"positive": {0}, "negative": [1, 0, 0, 0]}}',
    "feedback, target": '{"relevance_feedback": {"target": {0}, "feedback": [{"example": [1, 0, 0, 0], "score": 0.9}, '
                        '{"example": [0, 1, 0, 0], "score": 0.1}], "strategy": {"naive": {"a": 1, "b": 1, "c": 1}}}}',
    "feedback": '{"relevance_feedback": {"target": [1, 0, 0, 0], "feedback": [{"example": {0}, "score": 0.9}, '
                '{"example": [0, 1, 0, 0], "score": 0.1}], "strategy": {"naive": {"a": 1, "b": 1, "c": 1}}}}',
}

KEYS = {"integer": ("i", "int", lambda n: str(n)),
        "uuid": ("lpad(i::text, 32, '0')::uuid", "uuid", lambda n: f'"{uuid.UUID(int=int(str(n), 16))}"')}


@pytest.mark.parametrize("kind", KEYS)
def test_an_example_in_a_query_object_is_a_row_that_the_caller_sees(db, reader, kind):
    """A hidden row is the same error as one that is not there."""
    key, type, id_of = KEYS[kind]
    table(db, reader, key, type)
    for name, text in EXAMPLES.items():
        found = search(reader, text.replace("{0}", id_of(20)))
        assert len(found) == 5 and all(n % 2 == 0 for n in found), name
        errors = []
        for n in (21, 77):
            with pytest.raises(psycopg.errors.InvalidParameterValue, match="has no row with key") as caught:
                search(reader, text.replace("{0}", id_of(n)))
            errors.append(str(caught.value).replace(id_of(n), ""))
        assert errors[0] == errors[1], name
        # The owner of the table names what he likes.
        assert len(search(db.conn, text.replace("{0}", id_of(21)))) == 5, name


def test_where_ids_are_hashed_none_is_taken_in_an_object(db, reader):
    table(db, reader, "'k' || i", "text")
    some = db.one("SELECT id FROM qdrant_scroll((SELECT collection FROM qdrant_mirrors), \"limit\" => 1)")
    for name, text in EXAMPLES.items():
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="the id of a point may tell"):
            search(reader, text.replace("{0}", f'"{some}"'))
        found = search(reader, text.replace("{0}", "[0.5, 1, 0, 0]"))
        assert len(found) == 5 and all(n % 2 == 0 for n in found), name


HARMLESS = {
    "order by": ({"order_by": {"key": "secret"}}, [40, 38, 36, 34, 32]),
    "order by a name": ({"order_by": "n"}, [2, 4, 6, 8, 10]),
    "nearest": ({"nearest": VECTOR}, [2, 4, 6, 8, 10]),
    "recommend": ({"recommend": {"positive": [VECTOR]}}, [2, 4, 6, 8, 10]),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_query_without_examples_is_not_refused_by_row_security(db, reader, name):
    table(db, reader)
    query, expected = HARMLESS[name]
    assert search(reader, query) == expected
    assert search(reader, query, filter={"must": [{"key": "secret", "range": {"lt": 70}}]}) == [
        n for n in search(reader, query, k=20) if 100 - n < 70][:5]


def test_a_sample_under_row_security_is_of_the_callers_rows(db, reader):
    table(db, reader)
    assert sorted(search(reader, {"sample": "random"}, k=40)) == list(range(2, 41, 2))
    found = search(reader, {"sample": "random"}, k=7)
    assert len(set(found)) == 7 and all(n % 2 == 0 for n in found)


REFUSED = {
    "prefetch": (VECTOR, {"prefetch": {"query": VECTOR, "limit": 3}}),
    "prefetch by id": (VECTOR, {"prefetch": [{"query": 1}]}),
    "fusion": ({"fusion": "rrf"}, {"prefetch": [{"query": VECTOR, "limit": 3}, {"query": OTHER, "limit": 3}]}),
    "formula": ({"formula": {"sum": ["$score", "secret"]}}, {"prefetch": {"query": VECTOR, "limit": 3}}),
    "formula alone": ({"formula": {"sum": ["$score", "secret"]}}, {}),
    "fusion alone": ({"fusion": "rrf"}, {}),
    "mmr": ({"nearest": VECTOR, "mmr": {"diversity": 0.5}}, {}),
    "mmr of a row": ({"nearest": 20, "mmr": {"diversity": 0.5}}, {}),
    "two kinds": ({"nearest": VECTOR, "recommend": {"positive": [1]}}, {}),
    "idf": (VECTOR, {"params": {"idf": {"corpus": {"must": [{"has_id": [1]}]}}}}),
    "an unknown kind": ({"nearest_of": 1}, {}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_hidden_rows_would_change_in_the_answer_is_refused(db, reader, name):
    table(db, reader)
    query, arguments = REFUSED[name]
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row security .* may tell"):
        search(reader, query, **arguments)


def test_a_filter_by_id_tells_nothing_of_a_hidden_row(db, reader):
    """No rows, as of an id that is nobody's; and among others it changes nothing."""
    table(db, reader)
    for ids in ([1], [77], [1, 77]):
        assert search(reader, VECTOR, filter={"must": [{"has_id": ids}]}) == []
        assert search(reader, VECTOR, filter={"must": [{"has_id": [*ids, 8, 6]}]}) == [6, 8]
        assert search(reader, VECTOR, filter={"must_not": [{"has_id": ids}]}) == [2, 4, 6, 8, 10]
        assert search(reader, VECTOR, filter={"min_should": {
            "conditions": [{"has_id": ids}, {"key": "n", "range": {"gte": 10}}], "min_count": 1}}) == [10, 12, 14, 16, 18]


def test_examples_of_another_collection_are_not_looked_for_among_the_rows(db, reader):
    table(db, reader)
    other = db.collection("other")
    db.sql("SELECT qdrant_create_collection(%s, '{\"size\": 4, \"distance\": \"Cosine\"}')", (other,))
    db.sql("SELECT qdrant_upsert(%s, jsonb_build_array(qdrant_point(77, '[1, 0, 0, 0]')))", (other,))
    assert db.one("SELECT qdrant_wait('30s')")
    query = {"recommend": {"positive": [77]}}
    assert search(reader, query, lookup_from={"collection": other}) == [2, 4, 6, 8, 10]
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row security"):
        search(reader, query, lookup_from={"collection": db.one("SELECT collection FROM qdrant_mirrors")})


# --- columns ---

BY_SECRET = {
    "search": "SELECT (hit).n FROM qdrant_search(NULL::things, '[1, 0, 0, 0]')",
    "filter": "SELECT score FROM qdrant_search(NULL::things, '[1, 0, 0, 0]', filter => qdrant_filter(qdrant_range('secret', gt => 70)))",
    # That nothing is found is an answer, too.
    "filter without a hit": "SELECT count(*) FROM qdrant_search(NULL::things, '[1, 0, 0, 0]', "
                            "filter => qdrant_filter(qdrant_range('secret', gt => 1000)))",
    "order by": """SELECT rank FROM qdrant_search(NULL::things, '{"order_by": "secret"}')""",
    "formula": """SELECT score FROM qdrant_search(NULL::things, '{"formula": {"sum": ["$score", "secret"]}}',
                  prefetch => '{"query": [1, 0, 0, 0]}')""",
    "by example": "SELECT rank FROM qdrant_search(NULL::things, 1)",
    "query": "SELECT id FROM qdrant_query(COLLECTION, '[1, 0, 0, 0]', with_payload => false)",
    "query points": """SELECT id FROM qdrant_query_points(COLLECTION, '{"order_by": "secret"}', with_payload => false)""",
    "query points, lookup": """SELECT id FROM qdrant_query_points('no_such', 1, lookup_from => jsonb_build_object('collection', COLLECTION))""",
    "count": "SELECT qdrant_count(COLLECTION, qdrant_filter(qdrant_range('secret', gt => 70)))",
    "scroll": "SELECT id FROM qdrant_scroll(COLLECTION, with_payload => false)",
    "facet": "SELECT value FROM qdrant_facet(COLLECTION, 'secret')",
    "async": "SELECT qdrant_query_async(COLLECTION, '[1, 0, 0, 0]')",
}


def asks(front):
    """How many reads there were that are no mirror's; a real server is not asked."""
    return len(front.faults.log(path_regex="/(query|count|facet)")) if front.faults else 0


@pytest.mark.parametrize("name", BY_SECRET)
def test_a_column_that_the_caller_may_not_read_is_no_way_to_rows(db, front, reader, name):
    """All columns but one are granted; it could be found out by what it filters, orders or adds to. Qdrant is not asked."""
    items = table(db, reader)
    db.sql(f"ALTER TABLE things DISABLE ROW LEVEL SECURITY; REVOKE SELECT ON things FROM {reader.reader}; "
           f"GRANT SELECT (id, n, embedding) ON things TO {reader.reader}")
    statement = BY_SECRET[name].replace("COLLECTION", f"'{items.collection}'")
    asked = asks(front)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute(statement)
    assert asks(front) == asked
    if "no_such" not in statement:
        db.sql(f"GRANT SELECT (secret) ON things TO {reader.reader}")
        assert reader.execute(statement).fetchall()
