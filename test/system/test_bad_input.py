"""Wrong arguments: an error that names what was wrong, with an SQLSTATE; and a bad row never fails its transaction."""

import re

import psycopg
import pytest
from qdrant_client.models import Distance, VectorParams

from harness import new_extension_db, wait_until
from items import VECTOR, Items


@pytest.fixture(scope="module")
def cases(cluster, front):
    """One database for all calls that change nothing."""
    db = new_extension_db(cluster, front)
    db.sql(f"""
        CREATE TABLE docs (id bigint PRIMARY KEY, title text, words text[], made timestamptz, embedding real[]);
        INSERT INTO docs SELECT i, 'doc', NULL, now(), {VECTOR.format('i')} FROM generate_series(1, 5) i;
        CREATE TABLE no_key (id bigint, embedding real[]);
        CREATE TABLE no_vector (id bigint PRIMARY KEY, title text);
        CREATE TABLE two_vectors (id bigint PRIMARY KEY, first real[], second float8[]);
        CREATE TABLE mirrored (id bigint PRIMARY KEY, embedding real[]);
        CREATE UNLOGGED TABLE unlogged (id bigint PRIMARY KEY, embedding real[]);
        CREATE TABLE parent (id bigint PRIMARY KEY, embedding real[]);
        CREATE TABLE child () INHERITS (parent);
        CREATE TABLE reserved_name (id bigint PRIMARY KEY, _qs_key text, embedding real[]);
        CREATE VIEW a_view AS SELECT * FROM docs;
        CREATE SEQUENCE a_sequence;
        SELECT qdrant_mirror('mirrored');
    """)
    yield db
    cluster.ensure_running()
    db.drop()


MIRROR_ERRORS = [
    # arguments, SQLSTATE, what the message, detail or hint names
    ("'no_such_table'", "42P01", "no_such_table"),
    ("'a_view'", "42809", "a_view"),
    ("'a_sequence'", "42809", "a_sequence"),
    ("'unlogged'", "0A000|42809", "unlogged"),
    ("'parent'", "0A000|42809", "parent|inherit"),
    ("'pg_class'", "42501|42809|0A000", "pg_class"),
    ("'qdrant_internal.mirror'", ".....", "mirror"),
    ("'no_key'", "42P16", "no_key.*primary key"),
    ("'no_vector'", "42703", "no_vector"),
    ("'two_vectors'", "42702", "first, second"),
    ("'docs', vector => 'no_such_column'", "42703", "no_such_column"),
    ("'docs', vector => 'title'", "42804", "title.*text"),
    ("'docs', vector => 'words'", "42804", "words.*text"),
    ("'docs', vector => 'embedding['", "42601", "syntax|end of input"),
    ("'docs', vector => ''", "22023|42601", "vector"),
    ("'docs', payload => 'titel'", "42703", "titel"),
    ("'docs', payload => 'title; DROP TABLE docs'", "42601", ";|syntax"),
    ("'docs', payload => 'now() AS sent'", "42P17|0A000|42P20|42P16|22023", "immutable|now"),
    ("'docs', payload => 'random() AS r'", "42P17|0A000|42P20|42P16|22023", "immutable|random"),
    ("'docs', payload => '(SELECT 1) AS one'", "0A000|42803|22023|42601|42P17", "subquer|SELECT"),
    ("'docs', payload => 'count(*) AS n'", "42803|0A000|22023", "aggregate"),
    ("'docs', payload => 'unnest(words) AS word'", "0A000|22023|42P13", "set"),
    ("'docs', payload => 'upper(title)'", "42601|22023", "AS|name"),
    ("'docs', payload => 'title, words AS title'", "42701|22023|42P16", "title"),
    ("'docs', payload => 'row_number() OVER () AS n'", "0A000", "window function"),
    ("'docs', payload => 'upper((SELECT max(title) FROM docs)) AS n'", "0A000", "subquery"),
    ("'docs', payload => 'coalesce(max(id), 1) AS n'", "0A000", "aggregate"),
    ("'docs', payload => 'upper(unnest(words)) AS n'", "0A000", "set-returning"),
    ("'docs', payload => 'id IN (SELECT 1) AS n'", "0A000", "subquery"),
    ("'docs', payload => 'EXISTS (SELECT 1) AS n'", "0A000", "subquery"),
    ("'docs', payload => 'made::text AS n'", "42P17", "immutable"),
    ("'docs', payload => 'current_user AS n'", "42P17", "immutable"),
    ("'docs', payload => 'ctid AS n'", "0A000", "system column"),
    ("'docs', payload => 'to_jsonb(docs) AS n'", "0A000|42P17", "whole row|immutable"),
    ("'docs', payload => '$1 AS n'", "42P02", "parameter"),
    ("'docs', payload => 'title AS m, words AS \"m.w\"'", "42701", "\"m\" and \"m.w\".*value and an object"),
    ("'docs', payload => 'words AS \"m.w.x\", id, title AS \"m.w\"'", "42701", "\"m.w\" and \"m.w.x\""),
    ("'docs', payload => 'title, id AS \"title.id\"'", "42701", "title.*title.id"),
    ("'docs', payload => 'title AS \"m.t\", words AS \"m.t\"'", "42701", "m.t.*twice"),
    ("'docs', payload => 'title AS \"a..b\"'", "42602", "empty part"),
    ("'docs', payload => 'title AS \".a\"'", "42602", "empty part"),
    ("'docs', payload => 'title AS \"a.\"'", "42602", "empty part"),
    ("'docs', payload => 'title AS \".\"'", "42602", "empty part"),
    ("'docs', payload => 'title AS _qs_key'", "42939", "_qs_key.*reserved"),
    ("'docs', payload => 'title AS \"_qs_key.x\"'", "42939", "reserved"),
    ("'reserved_name'", "42939", "_qs_key.*reserved"),
    ("'docs', distance => 'Hamming'", "22023", "Hamming.*Cosine"),
    ("'docs', collection => ''", "22023", "empty"),
    ("'docs', collection => 'a/b'", "22023", "a/b"),
    ("'docs', collection => '..'", "22023", ".."),
    ("'docs', collection => repeat('x', 300)", "22023", "long"),
    ("'docs', collection => 'docs__qs_1_x'", "22023", "reserved"),
    ("'docs', collection => 'mirrored'", "42710", "mirrored"),
    ("'mirrored'", "42710", "mirrored"),
    ("'docs', server => 'nowhere'", "42704", "nowhere"),
    ("'docs', row_filter => 'made < now()'", "42P17", "immutable"),
    ("'docs', row_filter => 'title'", "42804", "boolean"),
    ("'docs', key => 'title'", "42P16", "title.*null"),
    ("'docs', indexes => 'titel keyword'", "22023", "titel.*title"),
    ("'docs', indexes => 'title keywords'", "22023", "keywords.*keyword, integer"),
    ("'docs', indexes => '_qs_key'", "42939", "_qs_key.*reserved"),
    ("'docs', vectors_config => '[]'", "22023", "vectors_config.*object"),
    ("'docs', vectors_config => '{\"x\": {}}'", "22023", "no member \"x\".*on_disk"),
    ("'docs', vectors_config => '{\"hnsw_config\": {\"m\": 1e400}}'", "22023", "numbers.*range"),
    ("'docs', collection_config => '{\"metadata\": {\"n\": 9223372036854775808}}'", "22023", "numbers.*range"),
    ("'docs', collection_config => ('{\"metadata\": ' || repeat('{\"a\":', 200) || '1' || repeat('}', 201))::jsonb", "22023",
     "nested"),
    ("'docs', sparse_vectors_config => '{\"x\": {}}'", "22023", "no sparse vector"),
    ("'docs', collection_config => '{\"vectors\": {}}'", "22023", "vectors_config"),
]


def shown(error):
    diag = error.diag
    return "\n".join(filter(None, (diag.message_primary, diag.message_detail, diag.message_hint, diag.context)))


def check(db, statement, sqlstate, names, params=None):
    with pytest.raises(psycopg.Error) as caught:
        db.sql(statement, params)
    error = caught.value
    assert error.sqlstate != "XX000", f"an internal error: {error}"
    assert re.fullmatch(sqlstate, error.sqlstate), f"{error.sqlstate}: {error}"
    assert re.search(names, shown(error), re.S | re.I), shown(error)


@pytest.mark.parametrize("arguments, sqlstate, names", MIRROR_ERRORS, ids=[case[0] for case in MIRROR_ERRORS])
def test_mirror_refuses(cases, arguments, sqlstate, names):
    check(cases, f"SELECT qdrant_mirror({arguments})", sqlstate, names)
    assert cases.sql("SELECT source::text FROM qdrant_mirrors") == [("mirrored",)]


OTHER_ERRORS = [
    ("SELECT qdrant_unmirror('docs')", "42704", "docs"),
    ("SELECT qdrant_pause('docs')", "42704", "docs"),
    ("SELECT qdrant_resume('docs')", "42704", "docs"),
    ("SELECT qdrant_resync('docs')", "42704", "docs"),
    ("SELECT qdrant_wait('1s', 'docs')", "42704", "docs"),
    ("SELECT qdrant_wait('-1s')", "22023|22015|22008", "timeout|-|negative"),
    ("SELECT * FROM qdrant_query('none', '[1,2,3]', 3, server => 'nowhere')", "42704", "nowhere"),
    ("SELECT * FROM qdrant_query('no_such_collection', '[1,2,3,4]', 3)", "42704", "no_such_collection"),
    ("SELECT * FROM qdrant_query('mirrored', '[1,2', 3)", "22P02|22023", "json|\\[1,2|vector"),
    ("SELECT * FROM qdrant_query('mirrored', 'no vector', 3)", "22P02|22023", "no vector|json"),
    ("SELECT * FROM qdrant_query('mirrored', '[1,2,3,4]', -1)", "22023|2201W", "k"),
    ("SELECT * FROM qdrant_query('mirrored', ARRAY['NaN']::real[], 3)", "22...", "NaN|finite"),
    ("SELECT * FROM qdrant_query('mirrored', '[1,2,3,4]', 3, filter => '{\"must\": 3}')", "22...", "must|filter|Qdrant"),
    ("SELECT * FROM qdrant_query('mirrored', '[1,2,3,4]', 3, filter => '{')", "22P02", "json"),
    ("SELECT * FROM qdrant_query('a/b', '[1]', 3)", "22023|42704", "a/b"),
    ("SELECT * FROM qdrant_search(NULL::docs, '[1,2,3,4]')", "42704|55000", "docs"),
    ("SELECT * FROM qdrant_search(NULL::integer, '[1,2,3,4]')", "42804|42809|22023", "row type of a table"),
    ("SELECT qdrant_create_collection('x', '{\"size\": \"four\"}')", "22...", "size|Qdrant|vectors"),
    ("SELECT qdrant_upsert('written', '3')", "22...", "points|array"),
    ("SELECT qdrant_upsert('written', '[{\"id\": -1, \"vector\": [1]}]')", "22023", "-1|id"),
    ("SELECT qdrant_upsert('written', '[{\"id\": 1}]')", "22023", "vector"),
    ("SELECT qdrant_upsert('mirrored', '[{\"id\": 1, \"vector\": [1]}]')", "55006", "mirrored"),
    ("SELECT qdrant_point('no id', '[1,2]')", ".....", "."),
    ("BEGIN; CREATE SERVER s FOREIGN DATA WRAPPER qdrant_fdw; SELECT qdrant_mirror('docs', server => 's')", "HV...", "url"),
    ("CREATE SERVER s FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'http://x', host 'y')", "HV00D|42601|22023", "host.*url"),
    ("CREATE SERVER s FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'file:///etc/passwd')", "HV0..|22023|42601", "file|http"),
    ("CREATE SERVER s FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'localhost:6333')", "HV0..|22023|42601", "localhost|http"),
    ("CREATE SERVER s FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'http://u:p@x')", "HV0..|22023|42601", "user|password|url"),
    ("CREATE SERVER s FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'http://x', timeout 'soon')", "HV0..|22023|42601", "timeout.*not a time"),
    ("CREATE SERVER s FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'http://x', api_key 'k')", "HV00D|42601|22023", "api_key"),
    ("CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (password 'k')", "HV00D|42601|22023", "password.*api_key"),
    ("CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key E'a\\nb')", "HV0..|22023|42601", "api_key"),
    ("CREATE FOREIGN TABLE f (x int) SERVER qdrant; SELECT * FROM f", "HV00.|0A000|55000", "qdrant_fdw|handler"),
]


@pytest.mark.parametrize("statement, sqlstate, names", OTHER_ERRORS, ids=[case[0] for case in OTHER_ERRORS])
def test_refused(cases, statement, sqlstate, names):
    cases.sql("ROLLBACK")
    check(cases, statement, sqlstate, names)


def test_null_arguments_are_no_crash(cases):
    for call in ("qdrant_unmirror(NULL)", "qdrant_pause(NULL)", "qdrant_resume(NULL)", "qdrant_resync(NULL)"):
        assert cases.one(f"SELECT {call}") in (None, "")
    check(cases, "SELECT qdrant_mirror(NULL)", "22004|42P01|22023", "null|table|source")
    check(cases, "SELECT qdrant_upsert(NULL, '[]')", "22004|22023", "collection")
    assert cases.sql("SELECT * FROM qdrant_query('mirrored', NULL::real[], 3)") == []
    assert cases.sql("SELECT * FROM qdrant_search(NULL::mirrored, NULL::real[])") == []


def test_several_servers_and_none_named(cases):
    cases.sql("CREATE SERVER another FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'http://127.0.0.1:9')")
    try:
        check(cases, "SELECT qdrant_mirror('docs')", "42704|42702|42725|22023", "another.*qdrant|qdrant.*another")
        cases.sql("SET qdrant_sync.server = 'qdrant'")
        cases.sql("BEGIN; SELECT qdrant_mirror('docs'); ROLLBACK")
        check(cases, "SET qdrant_sync.server = 'gone'; SELECT qdrant_mirror('docs')", "42704", "gone")
    finally:
        cases.sql("RESET qdrant_sync.server; DROP SERVER another")


def test_existing_collection_of_another_shape(db, front):
    name = db.collection()
    items = Items(db, rows=5, mirror=False)
    for config, words in ((VectorParams(size=7, distance=Distance.COSINE), "7"),
                          (VectorParams(size=4, distance=Distance.DOT), "Dot"),
                          ({"named": VectorParams(size=4, distance=Distance.COSINE)}, "named|vector")):
        front.client.create_collection(name, vectors_config=config)
        with pytest.raises(psycopg.Error) as caught:
            items.mirror()
        assert caught.value.sqlstate == "22023", caught.value
        assert name in shown(caught.value) and re.search(words, shown(caught.value)), shown(caught.value)
        front.client.delete_collection(name)
    items.mirror()
    items.converged()


def test_alias_as_a_collection_is_refused(db, front):
    """Hazard 30: an alias of an alias is 404."""
    from qdrant_client import models
    front.client.create_collection(db.collection("real"), vectors_config=VectorParams(size=4, distance=Distance.COSINE))
    front.client.update_collection_aliases([models.CreateAliasOperation(create_alias=models.CreateAlias(
        collection_name=db.collection("real"), alias_name=db.collection("alias")))])
    items = Items(db, rows=5, mirror=False, collection=db.collection("alias"))
    with pytest.raises(psycopg.Error, match="alias"):
        items.mirror()


BAD_ROWS = {
    "another dimension": ("'{1,2,3}'", "3.*4"),
    "no elements": ("'{}'", "."),
    "NaN": ("'{1,2,NaN,4}'", "(?i)nan|finite"),
    "infinity": ("'{1,2,-Infinity,4}'", "(?i)infinit|finite"),
    "a NULL element": ("'{1,NULL,3,4}'", "(?i)null"),
    "two dimensions": ("'{{1,2},{3,4}}'", "dimension"),
}


def test_bad_rows_are_their_own_dead_letters_and_their_transaction_commits(db):
    items = Items(db, rows=10)
    with db.connect(autocommit=False) as conn:
        for key, (value, _) in enumerate(BAD_ROWS.values(), 100):
            conn.execute(f"INSERT INTO items VALUES ({key}, 'bad', 0, {value})")
        items.insert(200, 210, conn=conn)
        conn.execute("INSERT INTO items VALUES (-5, 'negative', 0, '{1,2,3,4}')")
        conn.commit()
    items.converged(where="id NOT BETWEEN 100 AND 110 AND id >= 0")
    letters = wait_until(lambda: (found := items.dead_letters()) and len(found) == len(BAD_ROWS) + 1 and found,
                         what=lambda: f"a dead letter each: {items.dead_letters()}")
    for key, (_, names) in enumerate(BAD_ROWS.values(), 100):
        assert "embedding" in letters[str(key)] and re.search(names, letters[str(key)]), letters[str(key)]
    assert "-5" in letters["-5"] and "negative" in letters["-5"]
    assert items.wait() is True and items.state() == "live"
    items.delete("id BETWEEN 100 AND 110 OR id < 0")
    items.converged()
    wait_until(lambda: not items.dead_letters(), what="the rows went, and their dead letters")


def test_values_beyond_float32_are_the_rows_fault(db):
    items = Items(db, mirror=False)
    db.sql("ALTER TABLE items ALTER embedding TYPE float8[] USING embedding::float8[]")
    items.insert(1, 3)
    items.mirror()
    items.converged()
    db.sql("INSERT INTO items VALUES (5, 'large', 0, '{1e300,1,1,1}'), (6, 'small', 0, '{1e-300,1,1,1}')")
    point = wait_until(lambda: items.point(6), what="the small one")
    assert point.vector[0] == 0
    assert wait_until(items.dead_letters, what="a dead letter").keys() == {"5"}


def test_row_with_a_huge_value_goes_alone_or_is_said(db):
    """40 MB in one row: more than Qdrant takes in one request."""
    items = Items(db, rows=3)
    db.sql("INSERT INTO items VALUES (10, repeat('x', 40000000), 0, '{1,2,3,4}')")
    items.insert(11, 13)
    items.converged(where="id <> 10")
    letters = wait_until(items.dead_letters, what="a dead letter")
    assert letters.keys() == {"10"} and re.search("bytes|large", letters["10"])
    db.sql("UPDATE items SET title = repeat('y', 5000000) WHERE id = 10")
    items.converged()


def test_column_that_the_definition_names_is_dropped(db):
    items = Items(db, rows=5, payload="id, title, n")
    db.sql("ALTER TABLE items DROP COLUMN title")
    db.sql("UPDATE items SET n = 1")
    row = items.wait_state("failed")
    assert re.search("title", row["last_error"])
    db.sql("ALTER TABLE items ADD COLUMN title text DEFAULT 'again'")
    items.resume()
    items.converged()
