"""Rows of a table by qdrant_search: whose they are, in which order, by which example, from which kind of table."""

import contextlib
import json
import os
import re
import threading
import uuid

import psycopg
import pytest
from psycopg.types.json import Jsonb
from qdrant_client import models

from harness import Cluster, new_extension_db, wait_until
from items import Items

pytestmark = pytest.mark.versions

# Nearest to [1, 0, 0, 0] first, in the order of i; no two scores are the same.
ANGLE = "ARRAY[cos({0} * 0.01), sin({0} * 0.01), 0, 0]::real[]"
FIRST = "'[1, 0, 0, 0]'"


def texts(db, call, params=None, columns="(hit).n"):
    return [row[0] for row in db.sql(f"SELECT {columns} FROM {call} ORDER BY rank", params)]


def rows_of(db, keys, columns, values, table="things", extra="", **arguments):
    """A mirrored table (key columns, n, embedding): values are rows of the key's, n counts them from 1."""
    db.sql(f"CREATE TABLE {table} ({columns}, n int NOT NULL, embedding real[]{extra})")
    for n, value in enumerate(values, 1):
        db.sql(f"INSERT INTO {table} ({keys}, n, embedding) SELECT {value}, {n}, {ANGLE.format(n)}")
    items = Items.of(db, table, **arguments)
    items.mirror()
    items.wait_state("live")
    return items


# --- keys ---

KEYS = {
    "text": ("id text PRIMARY KEY", ["'A-1'", "'[\"no array\"]'", "'ä \" \\ [x]'", "''"], {}),
    "varchar": ("id varchar(20) PRIMARY KEY", ["'a'", "'b'", "'B'"], {}),
    "char": ("id char(5) PRIMARY KEY", ["'a'", "'bc'", "'d'"], {}),
    "negative": ("id int PRIMARY KEY", ["-1", "0", "-5"], {"key": "id::text"}),
    "date": ("id date PRIMARY KEY", ["'2026-11-23'::date", "'1999-01-02'::date", "'infinity'::date"], {}),
    "timestamptz": ("id timestamptz PRIMARY KEY", ["'2026-11-23 12:00+02'::timestamptz", "'1999-01-02 0:00Z'::timestamptz"],
                    {}),
    "numeric": ("id numeric PRIMARY KEY", ["1.50", "1e30", "-0.001"], {}),
    "boolean": ("id boolean PRIMARY KEY", ["true", "false"], {}),
    "bytea": ("id bytea PRIMARY KEY", [r"'\xdead'::bytea", r"'\x00'::bytea"], {}),
    "uuid": ("id uuid PRIMARY KEY", ["'00000000-0000-0000-0000-00000000000a'::uuid",
                                     "'5c56c793-69f3-4fbf-87e6-c4bf54c28c26'::uuid"], {}),
    "bigint": ("id bigint PRIMARY KEY", ["7", "9223372036854775807"], {}),
    "sku": ("pk int PRIMARY KEY DEFAULT (random() * 1e9)::int, id text NOT NULL UNIQUE", ["'S-1'", "'S-2'"],
            {"key": "id"}),
}


@pytest.mark.parametrize("kind", KEYS)
def test_rows_of_every_kind_of_key_are_found_and_are_examples(db, kind):
    columns, values, options = KEYS[kind]
    rows_of(db, "id", columns, values, **options)
    every = list(range(1, len(values) + 1))
    for setting in ("DateStyle = 'SQL, DMY'", "TimeZone = 'Asia/Kathmandu'", "bytea_output = 'escape'"):
        db.sql(f"SET {setting}")
    assert texts(db, f"qdrant_search(NULL::things, {FIRST})") == every
    for n in every:
        key = db.one("SELECT id::text FROM things WHERE n = %s", (n,))
        found = texts(db, "qdrant_search(NULL::things, like_key => %s)", (key,))
        assert sorted(found) == [i for i in every if i != n], key
    with db.conn.transaction(force_rollback=True):
        key = db.one("DELETE FROM things WHERE n = 1 RETURNING id::text")
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="has no row with key"):
            db.sql("SELECT * FROM qdrant_search(NULL::things, like_key => %s)", (key,))


def test_rows_of_a_key_of_several_columns(db):
    rows_of(db, "host, page, day", "host text, page int, day date, PRIMARY KEY (host, page, day)",
            ["'example.org', 1, date '2026-01-05'", "'example.org', -2, date '2026-01-05'",
             "'a \"b\" \\ c', 1, date '2026-01-06'"])
    assert texts(db, f"qdrant_search(NULL::things, {FIRST})") == [1, 2, 3]
    for key in ('["example.org", 1, "2026-01-05"]', ' [ "example.org" , "1" , "2026-1-5" ]',
                json.dumps(["example.org", 1, "2026-01-05"])):
        assert texts(db, "qdrant_search(NULL::things, like_key => %s)", (key,)) == [2, 3], key
    assert db.sql("""SELECT t.n, (s.hit).n FROM things t, LATERAL qdrant_search(NULL::things, k => 1,
                     like_key => json_build_array(host, page, day)::text) s ORDER BY 1""") in (
        [(1, 2), (2, 1), (3, 2)], [(1, 2), (2, 3), (3, 2)])
    for key in ("example.org", "{}", '["example.org", 1]', '["example.org", null, "2026-01-05"]',
                '["example.org", [1], "2026-01-05"]', '"x"'):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="not a JSON array of the 3 columns") as caught:
            db.sql("SELECT * FROM qdrant_search(NULL::things, like_key => %s)", (key,))
        assert "json_build_array(host, page, day)" in caught.value.diag.message_hint
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        db.sql("""SELECT * FROM qdrant_search(NULL::things, like_key => '["example.org", 1')""")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation, match="integer"):
        db.sql("""SELECT * FROM qdrant_search(NULL::things, like_key => '["example.org", "one", "2026-01-05"]')""")
    with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
        db.sql("SELECT * FROM qdrant_search(NULL::things, 1)")
    assert "like_key => json_build_array(host, page, day)::text" in caught.value.diag.message_hint


def test_a_key_equal_by_its_type_is_the_row_itself(db):
    """The row's own text makes the id: 1.5 is 1.50."""
    rows_of(db, "id", "id numeric PRIMARY KEY", ["1.50", "2"])
    assert texts(db, "qdrant_search(NULL::things, like_key => '1.5')") == [2]
    assert texts(db, "qdrant_search(NULL::things, like_key => '01.500')") == [2]
    assert texts(db, "qdrant_search(NULL::things, 2)") == [1]


def test_a_key_in_another_case_is_the_row_itself(db):
    if not db.one("SELECT true FROM pg_available_extensions WHERE name = 'citext'"):
        pytest.skip("the extension citext is not installed here")
    db.sql("CREATE EXTENSION citext")
    rows_of(db, "id", "id citext PRIMARY KEY", ["'A-1'", "'B-1'"])
    assert texts(db, "qdrant_search(NULL::things, like_key => 'a-1')") == [2]


def test_an_integer_or_uuid_is_the_key_also_of_hashed_keys(db):
    key = uuid.uuid4()
    rows_of(db, "id", "id int PRIMARY KEY", ["-1", "5", "6"], key="id::text")
    rows_of(db, "id", "id text PRIMARY KEY", ["'5'", f"'{key}'"], table="named")
    assert texts(db, "qdrant_search(NULL::things, 5)")[0] in (1, 3)
    assert texts(db, "qdrant_search(NULL::named, 5)") == [2]
    assert texts(db, "qdrant_search(NULL::named, %s)", (key,)) == [1]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="has no row with key 7"):
        db.sql("SELECT * FROM qdrant_search(NULL::things, 7)")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="query -1 is not the id") as caught:
        db.sql("SELECT * FROM qdrant_search(NULL::things, -1)")
    assert "like_key => '-1'" in caught.value.diag.message_hint


def test_like_key_stands_in_the_place_of_a_query(db):
    rows_of(db, "id", "id int PRIMARY KEY", ["1", "2"])
    assert db.sql("SELECT * FROM qdrant_search(NULL::things, like_key => NULL)") == []
    assert texts(db, "qdrant_search(NULL::things, NULL, like_key => '1')") == [2]
    for arguments in ("'[1,0,0,0]', like_key => '1'", "2, like_key => '1'",
                      """like_key => '1', lookup_from => '{"collection": "x"}'"""):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="in the place of"):
            db.sql(f"SELECT * FROM qdrant_search(NULL::things, {arguments})")
    for key in ("-1", "3"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="has no row with key"):
            db.sql("SELECT * FROM qdrant_search(NULL::things, like_key => %s)", (key,))
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        db.sql("SELECT * FROM qdrant_search(NULL::things, like_key => 'one')")


def test_example_without_a_vector_says_so(db):
    items = rows_of(db, "id", "id int PRIMARY KEY", ["1", "2"])
    db.sql("INSERT INTO things VALUES (3, 3, NULL)")
    assert items.wait()
    for query in ("3", """'{"recommend": {"positive": [3]}}'"""):
        with pytest.raises(psycopg.errors.UndefinedObject) as caught:
            db.sql(f"SELECT * FROM qdrant_search(NULL::things, {query})")
        assert "row without a vector has no point" in caught.value.diag.message_hint, query


def test_mirror_that_has_no_collection_yet_has_no_rows(db, front):
    """Only a row tells how long its vectors are, so that an empty table has no collection."""
    db.sql("CREATE TABLE things (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, embedding real[])")
    items = Items.of(db, "things")
    items.mirror()
    assert items.wait()
    assert not front.client.collection_exists(items.collection)
    for arguments in (FIRST, f"{FIRST}, skip => 3, filter => '{{}}'", """'{"recommend": {"positive": [7]}}'"""):
        assert db.sql(f"SELECT * FROM qdrant_search(NULL::things, {arguments})") == []
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="has no row"):
        db.sql("SELECT * FROM qdrant_search(NULL::things, 7)")
    # Who asks for the collection itself is told why it is not there.
    for call in (f"qdrant_query('{items.collection}', {FIRST})", f"qdrant_count('{items.collection}')",
                 f"qdrant_await(qdrant_scroll_async('{items.collection}'))"):
        with pytest.raises(psycopg.errors.UndefinedObject, match=items.collection) as caught:
            db.sql(f"SELECT * FROM {call}")
        assert "first row" in caught.value.diag.message_hint
    with pytest.raises(psycopg.errors.UndefinedObject) as caught:
        db.sql(f"SELECT * FROM qdrant_query('no_such_collection', {FIRST})")
    assert caught.value.diag.message_hint is None
    db.sql(f"INSERT INTO things VALUES (7, 7, '{{1, 0, 0, 0}}')")
    assert items.wait()
    assert texts(db, f"qdrant_search(NULL::things, {FIRST})") == [7]
    with pytest.raises(psycopg.errors.UndefinedObject) as caught:
        db.sql(f"SELECT * FROM qdrant_query('{items.collection}', 9)")
    assert caught.value.diag.message_hint is None
    # Only now it is one that somebody has deleted.
    items.pause()
    front.client.delete_collection(items.collection)
    for arguments in (FIRST, "7"):
        with pytest.raises(psycopg.errors.UndefinedObject, match=items.collection) as caught:
            db.sql(f"SELECT * FROM qdrant_search(NULL::things, {arguments})")
        assert "qdrant_" in caught.value.diag.message_hint


@pytest.mark.faults
def test_search_says_where_to_look_for_a_collection_that_could_not_be_made(db, front):
    db.sql("CREATE TABLE things (id int PRIMARY KEY, embedding real[])")
    items = Items.of(db, "things", vectors_config='{"size": 3}')
    front.faults.fault("early_400", method="PUT", path_regex=f"^/collections/{items.collection}$", times=None)
    items.mirror()
    items.wait_state("failed")
    with pytest.raises(psycopg.errors.UndefinedObject) as caught:
        db.sql("SELECT * FROM qdrant_search(NULL::things, '[1,0,0]')")
    assert "qdrant_mirrors" in caught.value.diag.message_hint


# --- privileges ---

def test_reader_of_a_mirror_without_a_collection_needs_no_right_on_our_tables(db, reader):
    db.sql("CREATE TABLE things (id int PRIMARY KEY, embedding real[])")
    Items.of(db, "things").mirror()
    search = f"SELECT * FROM qdrant_search(NULL::things, {FIRST})"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute(search)
    db.sql(f"GRANT SELECT ON things TO {reader.reader}")
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    assert reader.execute(search).fetchall() == reader.execute(search).fetchall() == []
    reader.execute("COMMIT")


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


def test_the_whole_row_needs_every_column(db, reader):
    """Columns granted one by one are enough where they are all; one that came later is missing."""
    rows_of(db, "id", "id int PRIMARY KEY", ["1", "2"], extra=", note text")
    search = f"SELECT (hit).n FROM qdrant_search(NULL::things, {FIRST}, 1)"
    for granted in ((), ("id",), ("id", "n", "embedding")):
        for column in granted:
            db.sql(f"GRANT SELECT ({column}) ON things TO {reader.reader}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute(search)
        # Not even the id of the row, nor whether there is one.
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("SELECT (hit).id FROM qdrant_search(NULL::things, like_key => '1')")
    db.sql(f"GRANT SELECT (note) ON things TO {reader.reader}")
    assert reader.execute(search).fetchall() == [(1,)]
    db.sql("ALTER TABLE things ADD COLUMN secret int")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute(search)
    db.sql("ALTER TABLE things DROP COLUMN secret")
    assert reader.execute(search).fetchall() == [(1,)]
    db.sql(f"REVOKE USAGE ON FOREIGN SERVER qdrant FROM {reader.reader}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="may not use server"):
        reader.execute(search)


def test_rows_that_a_policy_hides_are_no_examples_and_count_nowhere(db, reader):
    """Hazard R9: neither an example nor a rank tells of a hidden row."""
    rows_of(db, "id", "id text PRIMARY KEY", [f"'k{i}'" for i in range(1, 41)])
    db.sql(f"GRANT SELECT ON things TO {reader.reader}; ALTER TABLE things ENABLE ROW LEVEL SECURITY; "
           "CREATE POLICY even ON things USING (n % 2 = 0)")
    assert reader.execute(f"SELECT (hit).n, rank FROM qdrant_search(NULL::things, {FIRST}, 4)").fetchall() == [
        (2, 1), (4, 2), (6, 3), (8, 4)]
    assert reader.execute(f"SELECT (hit).n, rank FROM qdrant_search(NULL::things, {FIRST}, 2, skip => 3)").fetchall() == [
        (8, 4), (10, 5)]
    assert reader.execute("SELECT (hit).n FROM qdrant_search(NULL::things, like_key => 'k2', k => 1)").fetchall() == [(4,)]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="that you can see"):
        reader.execute("SELECT * FROM qdrant_search(NULL::things, like_key => 'k1')")
    # A document that may name points is refused, wherever it stands.
    for arguments in ("""'{"nearest": 1}'""", f"""{FIRST}, prefetch => '{{"query": 1}}'"""):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row security"):
            reader.execute(f"SELECT * FROM qdrant_search(NULL::things, {arguments})")


@pytest.mark.parametrize("document", ["null", "[]", '"x"', "1"])
def test_lookup_from_nowhere_does_not_go_round_row_security(db, reader, document):
    """An id with a lookup that is none would be that of a hidden row."""
    rows_of(db, "id", "id int PRIMARY KEY", ["1", "2"])
    db.sql(f"GRANT SELECT ON things TO {reader.reader}; ALTER TABLE things ENABLE ROW LEVEL SECURITY; "
           "CREATE POLICY even ON things USING (n % 2 = 0)")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="not a JSON object"):
        reader.execute("SELECT * FROM qdrant_search(NULL::things, 1, lookup_from => %s)", (document,))
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row security"):
        reader.execute("SELECT * FROM qdrant_search(NULL::things, 1, lookup_from => %s)",
                       (Jsonb({"collection": db.one("SELECT collection FROM qdrant_mirrors")}),))


# --- kinds of tables ---

def test_a_partitioned_table_is_searched_as_a_whole(db, reader):
    db.sql("CREATE TABLE things (gone int, id int, kind text, n int, embedding real[], PRIMARY KEY (kind, id)) "
           "PARTITION BY LIST (kind)")
    db.sql("ALTER TABLE things DROP COLUMN gone")
    db.sql("CREATE TABLE a PARTITION OF things FOR VALUES IN ('a')")
    db.sql("CREATE TABLE b (embedding real[], n int, kind text NOT NULL, id int NOT NULL)")
    db.sql("ALTER TABLE things ATTACH PARTITION b FOR VALUES IN ('b')")
    for n in range(1, 7):
        db.sql(f"INSERT INTO things VALUES ({n}, %s, {n}, {ANGLE.format(n)})", ("ab"[n % 2],))
    items = Items.of(db, "things")
    items.mirror()
    items.wait_state("live")
    assert texts(db, f"qdrant_search(NULL::things, {FIRST})") == [1, 2, 3, 4, 5, 6]
    assert texts(db, """qdrant_search(NULL::things, like_key => '["a", 2]', k => 2)""", columns="(hit).kind") == ["b", "b"]
    assert sorted(texts(db, "qdrant_search(NULL::things, like_key => '[\"b\", 1]')")) == [2, 3, 4, 5, 6]
    filter = Jsonb({"must": [{"key": "kind", "match": {"value": "a"}}]})
    assert texts(db, f"qdrant_search(NULL::things, {FIRST}, filter => %s)", (filter,)) == [2, 4, 6]
    for leaf in ("a", "b"):
        with pytest.raises(psycopg.errors.WrongObjectType, match="is a partition") as caught:
            db.sql(f"SELECT * FROM qdrant_search(NULL::{leaf}, {FIRST})")
        assert "NULL::things" in caught.value.diag.message_hint
    # A policy of the parent, and the rights on it, count; those of leaves do not matter, as in any query.
    db.sql(f"GRANT SELECT ON things TO {reader.reader}")
    assert reader.execute(f"SELECT (hit).n FROM qdrant_search(NULL::things, {FIRST}, 2)").fetchall() == [(1,), (2,)]
    db.sql("DROP TABLE b")
    assert texts(db, f"qdrant_search(NULL::things, {FIRST})") == [2, 4, 6]


def test_views_are_refused_with_the_way_out(db):
    rows_of(db, "id", "id int PRIMARY KEY", ["1"])
    db.sql("CREATE VIEW v AS SELECT * FROM things; CREATE MATERIALIZED VIEW m AS SELECT * FROM things")
    for name in ("v", "m"):
        with pytest.raises(psycopg.errors.WrongObjectType, match="is a view") as caught:
            db.sql(f"SELECT * FROM qdrant_search(NULL::{name}, {FIRST})")
        assert "join the view" in caught.value.diag.message_hint


def test_what_is_no_table_of_users_is_not_to_be_mirrored(db):
    db.sql("CREATE TYPE pair AS (a int, b int); CREATE TABLE plain (id int PRIMARY KEY)")
    db.sql("CREATE TEMP TABLE passing (id int PRIMARY KEY)")
    for name in ("pg_class", "information_schema.sql_features", "pair", "passing"):
        with pytest.raises(psycopg.errors.WrongObjectType, match="is no table that can be mirrored") as caught:
            db.sql(f"SELECT * FROM qdrant_search(NULL::{name}, {FIRST})")
        assert "qdrant_mirror(" not in caught.value.diag.message_hint
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
        db.sql(f"SELECT * FROM qdrant_search(NULL::plain, {FIRST})")
    assert "qdrant_mirror('plain')" in caught.value.diag.message_hint


def test_rows_of_an_inheriting_table_are_no_rows_of_a_search(db):
    """The mirror has none of them, and their keys may be those of its own rows."""
    rows_of(db, "id", "id int PRIMARY KEY", ["1", "2"])
    db.sql("CREATE TABLE heirs () INHERITS (things); INSERT INTO heirs SELECT * FROM things")
    assert texts(db, f"qdrant_search(NULL::things, {FIRST})") == [1, 2]
    assert texts(db, "qdrant_search(NULL::things, 1)") == [2]
    db.sql("DELETE FROM ONLY things WHERE id = 1")
    assert texts(db, f"qdrant_search(NULL::things, {FIRST})") == [2]


def test_arguments_may_be_named_where_source_is_the_first(db):
    rows_of(db, "id", "id int PRIMARY KEY", ["1", "2"])
    assert texts(db, f"qdrant_search(source => NULL::things, k => 2, query => {FIRST})") == [1, 2]
    assert texts(db, f"qdrant_search(NULL::things, k => 1, query => {FIRST})") == [1]


# --- vectors ---

def test_the_only_named_vector_is_meant(db):
    rows_of(db, "id", "id int PRIMARY KEY", ["1", "2"], vector='embedding AS "My vector"')
    assert texts(db, f"qdrant_search(NULL::things, {FIRST})") == [1, 2]
    assert texts(db, f"qdrant_search(NULL::things, {FIRST}, vector_name => 'My vector')") == [1, 2]
    assert texts(db, "qdrant_search(NULL::things, 1)") == [2]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no_such"):
        db.sql(f"SELECT * FROM qdrant_search(NULL::things, {FIRST}, vector_name => 'no_such')")


VECTOR_CALLS = [
    "qdrant_search(NULL::things, '[1, 0, 0, 0]'{})", "qdrant_query('{c}', '[1, 0, 0, 0]'{})",
    "qdrant_query_points('{c}', '[1, 0, 0, 0]'{using})", "qdrant_query_points_groups('{c}', 'n', '[1, 0, 0, 0]'{using})",
    "qdrant_await(qdrant_query_async('{c}', '[1, 0, 0, 0]'{}))",
    "qdrant_await_points(ARRAY[qdrant_query_points_async('{c}', '[1, 0, 0, 0]'{using})])"]


def vector_hint(db, call, collection, name=None):
    """The hint of the error of Qdrant's that the call gets, with this vector or none."""
    using = f", vector_name => '{name}'" if name else "", f", \"using\" => '{name}'" if name else ""
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="Qdrant server") as caught:
        db.sql(f"SELECT * FROM {call.format(using[0], using=using[1], c=collection)}")
    return caught.value.diag.message_hint


@pytest.mark.parametrize("call", VECTOR_CALLS)
def test_names_of_vectors_are_in_the_hint_of_who_named_none(db, front, call):
    db.sql("CREATE TABLE things (id int PRIMARY KEY, n int, near real[], far real[])")
    db.sql("INSERT INTO things VALUES (1, 1, '{1,0,0,0}', '{0,1,0,0}')")
    items = Items.of(db, "things", vector='near, far AS "Far off"')
    items.mirror()
    assert items.wait()
    for name in (None, "no_such"):
        hint = vector_hint(db, call, items.collection, name)
        assert '"near", "Far off"' in hint and 'table "things"' in hint
    # An error about something else has no such hint.
    with pytest.raises(psycopg.errors.InvalidParameterValue) as caught:
        db.sql(f"SELECT * FROM qdrant_query('{items.collection}', '[1]', vector_name => 'near')")
    assert caught.value.diag.message_hint is None
    # Nor do we know what is in a collection that is no mirror's.
    if "things" not in call:
        plain = db.collection("plain")
        front.client.create_collection(plain, {"a": models.VectorParams(size=4, distance=models.Distance.DOT)})
        assert vector_hint(db, call, plain) is None


def test_vector_without_a_name_is_in_the_hint_of_who_named_one(db):
    items = rows_of(db, "id", "id int PRIMARY KEY", ["1", "2"])
    for call in VECTOR_CALLS[:3]:
        assert "leave out" in vector_hint(db, call, items.collection, "no_such")


def test_hint_with_names_of_vectors_waits_for_no_lock(db, front):
    items = rows_of(db, "id", "id int PRIMARY KEY", ["1"], vector="embedding AS a")
    with contextlib.closing(db.connect(autocommit=False)) as other:
        other.execute("LOCK TABLE things")
        db.sql("SET lock_timeout = '10s'")
        assert vector_hint(db, VECTOR_CALLS[1], items.collection) is None
        other.rollback()
    assert '"a"' in vector_hint(db, VECTOR_CALLS[1], items.collection)


def test_several_vectors_are_searched_by_name(db):
    db.sql("CREATE TABLE things (id int PRIMARY KEY, n int, near real[], far real[], words jsonb)")
    for n in range(1, 5):
        db.sql(f"INSERT INTO things VALUES ({n}, {n}, {ANGLE.format(n)}, {ANGLE.format(100 - n)}, %s)",
               (Jsonb({"indices": [n, 50], "values": [1, n]}),))
    items = Items.of(db, "things", vector="near, far, words AS words")
    items.mirror()
    items.wait_state("live")
    assert texts(db, f"qdrant_search(NULL::things, {FIRST}, vector_name => 'near')") == [1, 2, 3, 4]
    assert texts(db, f"qdrant_search(NULL::things, {FIRST}, vector_name => 'far')") == [4, 3, 2, 1]
    assert texts(db, "qdrant_search(NULL::things, 4, 1, vector_name => 'far')") == [3]
    assert texts(db, """qdrant_search(NULL::things, '{"indices": [50], "values": [1]}', 2, vector_name => 'words')""") \
        == [4, 3]
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        db.sql(f"SELECT * FROM qdrant_search(NULL::things, {FIRST})")
    # Hybrid: both lists say 1 before 2.
    prefetch = Jsonb([{"query": [1, 0, 0, 0], "using": "near", "limit": 4},
                      {"query": {"indices": [1], "values": [1]}, "using": "words", "limit": 4}])
    assert texts(db, """qdrant_search(NULL::things, '{"fusion": "rrf"}', prefetch => %s)""", (prefetch,))[0] == 1


def test_smoke_searches_beside_rebuilds_that_name_the_vector(db):
    """Of the collection of this moment, the name of this moment: also in a transaction that searched before.

    The moment in between is short, and nothing here hits it for certain: it may pass without find_mirror()'s second look.
    """
    rows_of(db, "id", "id int PRIMARY KEY", [str(i) for i in range(1, 6)])
    search = f"SELECT count(*) FROM qdrant_search(NULL::things, {FIRST}, 5)"
    stop, errors, done = threading.Event(), [], []

    def all_the_time(whole):
        with db.connect() as conn, conn.transaction() if whole else contextlib.nullcontext():
            while not stop.is_set() and not errors:
                try:
                    assert conn.execute(search).fetchone() == (5,)
                    done.append(whole)
                except Exception as e:  # noqa: BLE001 - reported below
                    errors.append(e)

    threads = [threading.Thread(target=all_the_time, args=(whole,)) for whole in (False, True)]
    for thread in threads:
        thread.start()
    try:
        for i in range(3):
            db.sql("SELECT qdrant_rebuild('things', vector => %s)", (f"embedding AS v{i}" if i != 1 else "embedding",))
            wait_until(lambda: db.one("SELECT count(rebuilds) FROM qdrant_internal.mirror") == 0 or errors, 30,
                       "the rebuild takes its place")
            seen = len(done)
            wait_until(lambda: {*done[seen:]} == {False, True} or errors, 30, "searches after it")
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not errors, errors


# --- kinds of queries ---

QUERIES = {
    "nearest": {"nearest": [1, 0, 0, 0]},
    "recommend": {"recommend": {"positive": [1], "negative": [30]}},
    "recommend, best score": {"recommend": {"positive": [1, [1, 0, 0, 0]], "strategy": "best_score"}},
    "discover": {"discover": {"target": [1, 0, 0, 0], "context": [{"positive": 1, "negative": 30}]}},
    "context": {"context": [{"positive": 1, "negative": 30}]},
    "order by": {"order_by": {"key": "n", "direction": "desc"}},
    "mmr": {"nearest": [1, 0, 0, 0], "mmr": {"diversity": 0.5, "candidates_limit": 30}},
    "sample": {"sample": "random"},
    "rrf": {"fusion": "rrf"},
    "dbsf": {"fusion": "dbsf"},
    "formula": {"formula": {"sum": ["$score", {"mult": [0.5, "n"]}]}},
    "rescore": [1, 0, 0, 0],
}
PREFETCH = [{"query": [1, 0, 0, 0], "limit": 12}, {"query": [0, 1, 0, 0], "limit": 12}]


@pytest.mark.parametrize("name", QUERIES)
def test_every_kind_of_query_gives_the_rows_that_the_client_gets(db, front, name):
    """The same ids in the same order; and without the rows that are gone, as if their points were."""
    items = rows_of(db, "id", "id int PRIMARY KEY", [str(i) for i in range(1, 31)], indexes="n integer")
    prefetch = PREFETCH if name in ("rrf", "dbsf", "formula", "rescore") else None
    call = "qdrant_search(NULL::things, %s, 5, prefetch => %s)"
    parameters = (Jsonb(QUERIES[name]), Jsonb(prefetch) if prefetch else None)

    def client(limit, missing=()):
        # From the request as the client would send it; the client's own models have no shape for some of it.
        exclude = f", query_filter => '{json.dumps({'must_not': [{'has_id': list(missing)}]})}'" if missing else ""
        return [(row[0], row[1]) for row in db.sql(
            f'SELECT id::int, score FROM qdrant_query_points(%s, %s, prefetch => %s, "limit" => {limit}{exclude})',
            (items.collection, *parameters))]

    got = db.sql(f"SELECT (hit).id, score FROM {call} ORDER BY rank", parameters)
    assert len(got) == 5
    if name == "sample":
        assert len({row[0] for row in got}) == 5
    else:
        assert sorted(score or 0 for _, score in got) == pytest.approx(sorted(score or 0 for _, score in client(5)))
    gone = [row[0] for row in got][:4] if name not in ("recommend", "recommend, best score", "discover", "context") \
        else [row[0] for row in got if row[0] not in (1, 30)][:4]
    with db.conn.transaction(force_rollback=True):
        db.sql("DELETE FROM things WHERE id = ANY(%s)", (gone,))
        left = db.sql(f"SELECT (hit).id, score FROM {call} ORDER BY rank", parameters)
        assert len(left) == 5 and not {row[0] for row in left} & set(gone)
        if name in ("nearest", "order by", "mmr", "rescore"):
            assert left == [(i, pytest.approx(score) if score is not None else None)
                            for i, score in client(5, gone)], name


def test_an_example_of_another_collection(db, front):
    """lookup_from: the id is that collection's, and no row of the table is looked for or left out."""
    rows_of(db, "id", "id text PRIMARY KEY", ["'a'", "'b'", "'c'"])
    other = db.collection("other")
    front.client.create_collection(other, models.VectorParams(size=4, distance=models.Distance.COSINE))
    front.client.upsert(other, [models.PointStruct(id=77, vector=[0, 1, 0, 0])], wait=True)
    lookup = Jsonb({"collection": other})
    assert texts(db, "qdrant_search(NULL::things, 77, lookup_from => %s)", (lookup,)) == [3, 2, 1]
    with pytest.raises(psycopg.errors.UndefinedObject):
        db.sql("SELECT * FROM qdrant_search(NULL::things, 78, lookup_from => %s)", (lookup,))


def test_threshold_filter_and_skip_count_rows(db):
    rows_of(db, "id", "id int PRIMARY KEY", [str(i) for i in range(1, 21)])
    everything = db.sql(f"SELECT (hit).n, score FROM qdrant_search(NULL::things, {FIRST}, 20)")
    limit = (everything[4][1] + everything[5][1]) / 2
    assert texts(db, f"qdrant_search(NULL::things, {FIRST}, 20, score_threshold => {limit}::real)") == [1, 2, 3, 4, 5]
    with db.conn.transaction(force_rollback=True):
        db.sql("DELETE FROM things WHERE n IN (1, 3, 4)")
        assert texts(db, f"qdrant_search(NULL::things, {FIRST}, 20, score_threshold => {limit}::real)") == [2, 5]
        assert texts(db, f"qdrant_search(NULL::things, {FIRST}, 3, skip => 1)") == [5, 6, 7]
        pages = [texts(db, f"qdrant_search(NULL::things, {FIRST}, 5, skip => {skip})") for skip in range(0, 25, 5)]
        assert sum(pages, []) == [2, *range(5, 21)]
    assert db.sql(f"SELECT rank FROM qdrant_search(NULL::things, {FIRST}, 2, skip => 3)") == [(4,), (5,)]
    assert db.sql(f"SELECT rank FROM qdrant_search(NULL::things, {FIRST}, 2, skip => 20)") == []
    assert texts(db, f"qdrant_search(NULL::things, {FIRST}, 2, skip => NULL, params => %s)",
                 (Jsonb({"exact": True}),)) == [1, 2]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match='"skip"'):
        db.sql(f"SELECT * FROM qdrant_search(NULL::things, {FIRST}, skip => -1)")


def test_an_order_by_several_values_gives_a_row_for_each(db, front):
    """As Qdrant does, which gives such a point several times, if not just before."""
    db.sql("CREATE TABLE things (id int PRIMARY KEY, n int NOT NULL, tags int[], embedding real[])")
    for n in (1, 2, 3):
        db.sql(f"INSERT INTO things SELECT {n}, {n}, ARRAY[{n}, 10 - {n}], {ANGLE.format(n)}")
    items = Items.of(db, "things", indexes="tags integer")
    items.mirror()
    items.wait_state("live")
    found = db.sql("""SELECT (hit).n, score FROM qdrant_search(NULL::things, '{"order_by": "tags"}') ORDER BY rank""")
    order = models.OrderByQuery(order_by="tags")
    ids = [point.id for point in front.client.query_points(items.collection, order, limit=10).points]
    assert found == [(id, 1) for id in ids] and ids[:3] == [1, 2, 3] and ids[-2:] == [2, 1]


def test_asking_on_leaves_a_filter_of_the_callers_in_force(db):
    """A filter with must_not and should of its own, and rows that are gone."""
    rows_of(db, "id", "id text PRIMARY KEY", [f"'k{i}'" for i in range(1, 31)])
    filter = Jsonb({"should": [{"key": "n", "range": {"lte": 20}}], "must_not": [{"key": "n", "match": {"value": 12}}]})
    with db.conn.transaction(force_rollback=True):
        db.sql("DELETE FROM things WHERE n <= 10")
        assert texts(db, f"qdrant_search(NULL::things, {FIRST}, 5, filter => %s)", (filter,)) == [11, 13, 14, 15, 16]


# --- filters ---

FILTERS = {
    "must => qdrant_match('kind', 'a')": "kind = 'a'",
    "must => qdrant_match('kind', ARRAY['a', 'c'])": "kind IN ('a', 'c')",
    "must => qdrant_match('kind', '{}'::text[])": "false",
    "must_not => qdrant_match('kind', 'a')": "kind IS DISTINCT FROM 'a'",
    "must => qdrant_match('n', 7)": "n = 7",
    "must => qdrant_match('n', ARRAY[7, 8]::bigint[])": "n IN (7, 8)",
    "must => qdrant_match('even', true)": "n % 2 = 0",
    "must => qdrant_match('even', false)": "n % 2 <> 0",
    "must => qdrant_match('ref', '00000000-0000-0000-0000-000000000003'::uuid)": "n = 3",
    "must => qdrant_match_text('kind', 'a')": "kind = 'a'",
    "must => qdrant_range('n', gte => 3, lt => 9)": "n >= 3 AND n < 9",
    "must => qdrant_range('n', gt => 3.5, lte => 9::numeric)": "n > 3.5 AND n <= 9",
    "must => qdrant_range('weight', gte => 0.3::real)": "weight >= 0.3::real",
    "must => qdrant_range('at', gte => timestamptz '2026-01-05 01:00+01')": "at >= timestamptz '2026-01-05 01:00+01'",
    "must => qdrant_range('at', lt => date '2026-01-05')": "at < timestamptz '2026-01-05 00:00Z'",
    "must => qdrant_range('at', lt => '2026-01-05T00:00:00Z')": "at < timestamptz '2026-01-05 00:00Z'",
    "must => qdrant_has_id(ARRAY[1, 2, 99])": "n IN (1, 2)",
    "must => qdrant_has_id('2')": "n = 2",
    "must => qdrant_is_null('kind')": "kind IS NULL",
    "must_not => qdrant_is_empty('kind')": "kind IS NOT NULL",
    "must => ARRAY[qdrant_match('kind', 'a'), qdrant_range('n', gt => 5)]": "kind = 'a' AND n > 5",
    "should => ARRAY[qdrant_match('kind', 'a'), qdrant_match('n', 2)]": "kind = 'a' OR n = 2",
    "min_should => ARRAY[qdrant_match('kind', 'a'), qdrant_range('n', gt => 5), qdrant_match('n', ARRAY[1, 9])], "
    "min_count => 2": "coalesce(kind = 'a', false)::int + (n > 5)::int + (n IN (1, 9))::int >= 2",
    "must => qdrant_filter(should => ARRAY[qdrant_match('n', 1), qdrant_filter(must => qdrant_match('n', 2))])":
        "n IN (1, 2)",
    # None of no alternatives holds, and all of no conditions do.
    "should => '{}'::jsonb[]": "false",
    "should => '[]', must => qdrant_match('kind', 'a')": "false",
    "must => qdrant_filter(should => ARRAY(SELECT qdrant_match('n', i) FROM generate_series(1, 0) i))": "false",
    "must_not => qdrant_filter(should => '[]')": "true",
    "min_should => '{}'::jsonb[], min_count => 1": "false",
    "min_should => '[]', min_count => 0": "true",
    "must => '{}'::jsonb[], must_not => '[]'": "true",
    """must => '{"key": "n", "match": {"except": [1, 2]}}', must_not => '[{"has_id": [3]}]'::jsonb""": "n NOT IN (1, 2, 3)",
    "": "true",
}


def test_filters_are_the_official_models_and_mean_what_sql_means(db):
    db.sql("CREATE TABLE things (id int PRIMARY KEY, n int, kind text, even boolean, ref uuid, weight real, "
           "at timestamptz, embedding real[])")
    for n in range(1, 13):
        db.sql(f"INSERT INTO things SELECT {n}, {n}, %s, mod({n}, 2) = 0, lpad('{n}', 32, '0')::uuid, {n} / 10.0, "
               f"timestamptz '2026-01-01 00:00Z' + interval '{n} days', {ANGLE.format(n)}", ((None, "a", "b", "c")[n % 4],))
    items = Items.of(db, "things")
    items.mirror()
    items.wait_state("live")
    db.sql("SET TimeZone = 'Asia/Kathmandu'")
    for arguments, condition in FILTERS.items():
        made = db.one(f"SELECT qdrant_filter({arguments})")
        model = models.Filter.model_validate(made)
        # Nothing of it was taken for something else and lost.
        assert json.loads(model.model_dump_json(exclude_unset=True)).keys() == made.keys(), arguments
        if "even" in arguments and not os.environ.get("QDRANT_URL"):
            continue                # the engine's Python binding takes a boolean for an integer
        expected = [row[0] for row in db.sql(f"SELECT n FROM things WHERE {condition} ORDER BY n")]
        assert texts(db, f"qdrant_search(NULL::things, {FIRST}, 20, filter => qdrant_filter({arguments}))") == expected, \
            arguments


def test_a_filter_with_parameters_of_drivers(db):
    assert db.one("SELECT qdrant_filter(must => ARRAY[qdrant_match('t', %s), qdrant_match('n', %s), qdrant_match('l', %s::text[]), "
                  "qdrant_range('p', gte => %s, lt => %s)], must_not => %s)",
                  ("shoes", 3, ["a", "b"], 1, 2.5, Jsonb({"has_id": [1]}))) == {
        "must": [{"key": "t", "match": {"value": "shoes"}}, {"key": "n", "match": {"value": 3}},
                 {"key": "l", "match": {"any": ["a", "b"]}}, {"key": "p", "range": {"gte": 1, "lt": 2.5}}],
        "must_not": [{"has_id": [1]}]}


# --- the planner ---

def test_explain_shows_as_many_rows_as_are_asked_for(db):
    rows_of(db, "id", "id int PRIMARY KEY", ["1"])

    def estimate(statement):
        plan = db.one(f"EXPLAIN (FORMAT json) {statement}")[0]["Plan"]
        return plan["Plan Rows"]

    assert estimate(f"SELECT * FROM qdrant_search(NULL::things, {FIRST})") == 10
    assert estimate(f"SELECT * FROM qdrant_search(NULL::things, {FIRST}, k => 250)") == 250
    assert estimate(f"SELECT * FROM qdrant_search(NULL::things, {FIRST}, k => 2 * 3)") == 6
    assert estimate(f"SELECT * FROM qdrant_query('x', {FIRST}, 33)") == 33
    assert estimate(f"SELECT * FROM qdrant_query_points('x', {FIRST}, \"limit\" => 44)") == 44
    assert estimate(f"SELECT * FROM qdrant_search(NULL::things, {FIRST}, k => NULL)") == 10
    db.sql(f"PREPARE p(int) AS SELECT * FROM qdrant_search(NULL::things, {FIRST}, k => $1)")
    assert estimate("EXECUTE p(77)") == 77
    db.sql("SET plan_cache_mode = force_generic_plan")
    assert estimate("EXECUTE p(77)") == 10


def test_searches_are_volatile_and_stay_with_the_leader(db):
    """A STABLE function would run while planning; a parallel worker has no ticket of its session."""
    assert db.sql("SELECT DISTINCT provolatile, proparallel FROM pg_proc WHERE proname IN "
                  "('qdrant_search', 'qdrant_query', 'qdrant_query_points')") == [("v", "r")]


def test_a_prepared_search_of_a_table_made_anew(db):
    """One clear error, then the new table's rows."""
    items = rows_of(db, "id", "id int PRIMARY KEY", ["1"])
    db.sql(f"PREPARE p AS SELECT (hit).n, score FROM qdrant_search(NULL::things, {FIRST}, 1)")
    assert len(db.sql("EXECUTE p")) == 1
    items.unmirror(drop_collection=True)
    db.sql("DROP TABLE things")
    with pytest.raises(psycopg.Error, match='type "things" does not exist|was dropped') as caught:
        db.sql("EXECUTE p")
    assert re.match("42", caught.value.sqlstate)
    rows_of(db, "id", "id int PRIMARY KEY", ["1", "2"], collection=db.collection("anew"))
    assert wait_until(lambda: executed(db) == [(1,)], what="the new table's row")


def executed(db):
    try:
        return [row[:1] for row in db.sql("EXECUTE p")]
    except psycopg.errors.UndefinedTable:
        return None


# --- a standby ---

def test_standby_reads_and_says_why_it_does_not_write(front, pgversion):
    front.clear()
    front.client.create_collection("free", models.VectorParams(size=4, distance=models.Distance.DOT))
    front.client.upsert("free", [models.PointStruct(id=1, vector=[1, 0, 0, 0])], wait=True)
    with Cluster(pgversion, name="reads") as primary:
        db = new_extension_db(primary, front)
        rows_of(db, "id", "id text PRIMARY KEY", ["'a'", "'b'"])
        db.sql("CREATE TABLE other (id int PRIMARY KEY, embedding real[])")
        standby = primary.standby()
        primary.wait_replayed(standby)
        wait_until(lambda: standby.pids("qdrant_sync request worker"), what="a worker on the standby")
        for read, expected in {
            f"SELECT (hit).n FROM qdrant_search(NULL::things, {FIRST})": [(1,), (2,)],
            "SELECT (hit).n FROM qdrant_search(NULL::things, like_key => 'a')": [(2,)],
            "SELECT id FROM qdrant_query('free', '[1, 0, 0, 0]')": [("1",)],
            "SELECT id FROM qdrant_query_points('free', '[1, 0, 0, 0]')": [("1",)],
            "SELECT source::text FROM qdrant_mirrors": [("things",)],
            "SELECT count(*) FROM qdrant_requests": [(0,)],
        }.items():
            assert standby.sql(read, dbname=db.name) == expected, read
        db.sql("CREATE TABLE still_empty (id int PRIMARY KEY, embedding real[])")
        Items.of(db, "still_empty").mirror()
        primary.wait_replayed(standby)
        assert standby.sql(f"SELECT * FROM qdrant_search(NULL::still_empty, {FIRST})", dbname=db.name) == []
        for write in ("qdrant_mirror('other')", "qdrant_unmirror('things')", "qdrant_resync('things')",
                      "qdrant_rebuild('things')", "qdrant_retry('things')",
                      "qdrant_upsert('free', '[{\"id\": 2, \"vector\": [1, 0, 0, 0]}]')",
                      "qdrant_delete('free', 1)", "qdrant_set_payload('free', '{}', 1)"):
            with pytest.raises(psycopg.Error) as caught:
                standby.sql(f"SELECT {write}", dbname=db.name)
            assert caught.value.sqlstate in ("25006", "55000"), (write, caught.value)
            assert re.search("during recovery|standby", str(caught.value)), (write, caught.value)
        db.conn.close()
