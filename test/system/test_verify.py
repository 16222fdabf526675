"""qdrant_verify: it finds every kind of difference, takes nothing that is pending for one, and mends what it found."""

import contextlib
import re
import threading
import time
import uuid

import psycopg
import pytest
from qdrant_client import models

from harness import FrontHandle, new_extension_db, stays, wait_until
from items import VECTOR, Items, WriteLoad, points_path

faults = pytest.mark.faults

KINDS = ("equal", "missing", "stale", "left over", "refused", "unclear")


def verify(db, table="items", repair=False, conn=None, timeout="30s"):
    """{kind: count} and {kind: [example, …]}; every kind is always there."""
    cursor = (conn or db.conn).execute(
        "SELECT kind, points, examples FROM qdrant_verify(%s::regclass, %s, %s::interval)", (table, repair, timeout))
    rows = cursor.fetchall()
    assert tuple(row[0] for row in rows) == KINDS
    return {row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows}


def differences(counts):
    return {kind: n for kind, n in counts.items() if n and kind != "equal"}


def assert_equal(db, rows, table="items", **more):
    counts, examples = verify(db, table, **more)
    assert differences(counts) == {}, examples
    assert counts["equal"] == rows
    return counts


def refused(db, sqlstate, text="SELECT * FROM qdrant_verify('items')", conn=None):
    with pytest.raises(psycopg.Error) as caught:
        (conn or db.conn).execute(text)
    assert caught.value.sqlstate == sqlstate, caught.value
    return caught.value


def sabotage(client, collection, id_of):
    """One or more of every kind of difference, made from outside; returns what verify has to say of them."""
    client.delete(collection, [id_of(1), id_of(2)])
    client.set_payload(collection, {"title": "forged"}, [id_of(3)])
    client.delete_payload(collection, ["n"], [id_of(4)])
    client.set_payload(collection, {"more": 1}, [id_of(5)])
    client.update_vectors(collection, [models.PointVectors(id=id_of(6), vector=[1, 2, 3, 4.5])])
    return {"missing": 2, "stale": 4}


# --- each kind of difference, for each kind of key ---

def test_every_kind_of_difference_is_found_named_and_mended(db, front):
    items = Items(db, rows=200)
    assert_equal(db, 200)
    expected = sabotage(front.client, items.collection, lambda i: i)
    front.client.upsert(items.collection, [
        models.PointStruct(id=5000, vector=[1, 0, 0, 0], payload={"title": "no row"}),
        models.PointStruct(id=2 ** 63 + 5, vector=[1, 0, 0, 0], payload={}),
        models.PointStruct(id=str(uuid.uuid4()), vector=[1, 0, 0, 0], payload={})])
    counts, examples = verify(db)
    assert differences(counts) == {**expected, "left over": 3}, examples
    assert counts["equal"] == 200 - 6
    assert sorted(examples["missing"]) == ["1", "2"]
    assert sorted(examples["stale"]) == ['3: payload "title"', '4: payload "n"', '5: payload "more"', "6: vector"]
    assert {one.split(":")[0] for one in examples["left over"]} >= {"5000", str(2 ** 63 + 5)}
    # Nothing was mended unasked.
    assert differences(verify(db)[0]) == {**expected, "left over": 3}
    counts, _ = verify(db, repair=True)
    assert differences(counts) == {**expected, "left over": 3}
    assert db.wait("items")
    assert_equal(db, 200)
    items.converged()


def test_repair_sends_what_differs_and_nothing_else(db, front):
    items = Items(db, rows=300)
    front.client.delete(items.collection, [7])
    front.client.upsert(items.collection, [models.PointStruct(id=900, vector=[1, 0, 0, 0], payload={})])
    since = items.mark() if front.faults else None
    verify(db, repair=True)
    assert db.wait("items")
    assert_equal(db, 300)
    if since is not None:
        writes = [one for one in items.requests(since) if one["method"] == "PUT" or one["path"].endswith("/delete")]
        assert {str(i) for one in writes for i in one["ids"]} == {"7", "900"}


def test_repair_that_is_rolled_back_mends_nothing(db, front):
    items = Items(db, rows=20)
    front.client.delete(items.collection, [7])
    conn = db.connect(autocommit=False)
    assert verify(db, repair=True, conn=conn)[0]["missing"] == 1
    assert refused(db, "25001", conn=conn)
    conn.rollback()
    assert db.wait("items")
    assert items.point(7) is None
    assert verify(db)[0]["missing"] == 1
    verify(db, repair=True, conn=conn)
    conn.commit()
    items.converged()


KEYS = {
    "uuid": ("uuid", "md5(i::text)::uuid"),
    "text": ("text", "'key \"' || i || E'\\u00e9'"),
    "numeric": ("numeric", "i + 0.50"),
}


@pytest.mark.parametrize("kind", KEYS)
def test_every_kind_of_difference_with_keys_that_are_no_integers(db, front, kind):
    key, value = KEYS[kind]
    items = Items(db, key=key, mirror=False)
    db.sql(f"INSERT INTO items SELECT {value}, 'x', i, {VECTOR.format('i')} FROM generate_series(1, 120) i")
    items.mirror()
    items.wait_state("live")
    ids = {point.payload["n"]: int(point.id) if point.id.isdigit() else point.id for point in items.points().values()}
    assert len(ids) == 120
    assert_equal(db, 120)
    expected = sabotage(front.client, items.collection, lambda i: ids[i])
    stranger = str(uuid.uuid4())
    front.client.upsert(items.collection, [models.PointStruct(id=stranger, vector=[1, 0, 0, 0], payload={}),
                                           models.PointStruct(id=77, vector=[1, 0, 0, 0], payload={})])
    counts, examples = verify(db)
    assert differences(counts) == {**expected, "left over": 2}, examples
    assert {one.split(":")[0] for one in examples["left over"]} == {stranger, "77"}
    verify(db, repair=True)
    assert db.wait("items")
    assert_equal(db, 120)
    assert len(items.points()) == 120


def text_items(db, rows=60):
    items = Items(db, key="text", mirror=False)
    db.sql(f"INSERT INTO items SELECT 'k' || i, 'x', i, {VECTOR.format('i')} FROM generate_series(1, {rows}) i")
    items.mirror()
    items.wait_state("live")
    return items, {point.payload["n"]: point.id for point in items.points().values()}


def strip_and_forge(items, ids, client):
    """Points that do not say their key, or another one; with a row and without."""
    client.delete_payload(items.collection, ["_qs_key"], [ids[1]])
    client.clear_payload(items.collection, [ids[2]])
    client.set_payload(items.collection, {"_qs_key": ["k4"]}, [ids[3]])
    client.set_payload(items.collection, {"_qs_key": {"not": "a key\u0000"}}, [ids[5]])
    client.upsert(items.collection, [
        models.PointStruct(id=str(uuid.uuid4()), vector=[1, 0, 0, 0], payload={"_qs_key": ["k6"]}),
        models.PointStruct(id=str(uuid.uuid4()), vector=[1, 0, 0, 0], payload={})])


def test_point_whose_key_was_stripped_is_stale_where_it_has_a_row_and_left_over_where_not(db, front):
    items, ids = text_items(db)
    strip_and_forge(items, ids, front.client)
    counts, examples = verify(db)
    assert differences(counts) == {"stale": 4, "left over": 2}, examples
    assert all("_qs_key" in one or "payload" in one for one in examples["stale"])
    assert counts["equal"] == 56
    verify(db, repair=True)
    assert db.wait("items")
    assert_equal(db, 60)


def test_resync_mends_points_whose_key_was_stripped_or_forged(db, front):
    items, ids = text_items(db)
    strip_and_forge(items, ids, front.client)
    db.sql("SELECT qdrant_resync('items')")
    assert db.wait("items")
    points = items.points()
    assert set(points) == set(ids.values())
    assert all(point.payload["_qs_key"] == [point.payload["id"]] for point in points.values())
    assert_equal(db, 60)


def test_row_that_left_with_its_stripped_point(db, front):
    items, ids = text_items(db, 10)
    items.pause()
    db.sql("DELETE FROM items WHERE id = 'k3'")
    front.client.clear_payload(items.collection, [ids[3]])
    items.resume()
    assert db.wait("items")
    assert_equal(db, 9)
    # The row is gone, and its point comes back without a key.
    front.client.upsert(items.collection, [models.PointStruct(id=ids[3], vector=[1, 0, 0, 0], payload={})])
    counts, examples = verify(db, repair=True)
    assert differences(counts) == {"left over": 1}, examples
    assert db.wait("items")
    assert_equal(db, 9)


def test_composite_key(db, front):
    db.sql("CREATE TABLE docs (a integer, b date, t text, e real[], PRIMARY KEY (a, b))")
    db.sql(f"INSERT INTO docs SELECT i % 10, date '2026-01-01' + i, 'x', {VECTOR.format('i')} "
           "FROM generate_series(1, 100) i")
    docs = Items.of(db, "docs")
    docs.mirror()
    docs.wait_state("live")
    assert_equal(db, 100, "docs")
    some = sorted(docs.points())[:3]
    front.client.delete(docs.collection, some[:1])
    front.client.set_payload(docs.collection, {"t": "y"}, some[1:])
    counts, examples = verify(db, "docs", repair=True)
    assert differences(counts) == {"missing": 1, "stale": 2}
    assert re.fullmatch(r'\["\d","2026-\d\d-\d\d"\] \([0-9a-f-]{36}\)', examples["missing"][0])
    assert db.wait("docs")
    assert_equal(db, 100, "docs")


PARTITIONS = """
    CREATE TABLE items (id bigint PRIMARY KEY, title text, n integer NOT NULL DEFAULT 0, embedding real[])
        PARTITION BY RANGE (id);
    CREATE TABLE items_low PARTITION OF items FOR VALUES FROM (0) TO (100);
    CREATE TABLE items_mid (embedding real[], n integer NOT NULL DEFAULT 0, gone text, id bigint NOT NULL, title text);
    ALTER TABLE items_mid DROP COLUMN gone;
    ALTER TABLE items ATTACH PARTITION items_mid FOR VALUES FROM (100) TO (1000);
    CREATE TABLE items_high PARTITION OF items FOR VALUES FROM (1000) TO (100000) PARTITION BY RANGE (id);
    CREATE TABLE items_high_1 PARTITION OF items_high FOR VALUES FROM (1000) TO (100000);
"""


def partitioned_items(db):
    db.sql(PARTITIONS)
    items = Items.of(db)
    items.insert(50, 149)
    items.insert(1000, 1099)
    items.mirror()
    items.wait_state("live")
    return items


def test_partitioned_table(db, front):
    items = partitioned_items(db)
    assert_equal(db, 200)
    front.client.delete(items.collection, [60, 140, 1050])
    front.client.set_payload(items.collection, {"n": 7}, [61, 141, 1051])
    front.client.upsert(items.collection, [models.PointStruct(id=5, vector=[1, 0, 0, 0], payload={})])
    counts, examples = verify(db, repair=True)
    assert differences(counts) == {"missing": 3, "stale": 3, "left over": 1}, examples
    assert db.wait("items")
    assert_equal(db, 200)
    items.converged()


def test_resync_of_a_partitioned_table(db, front):
    items = partitioned_items(db)
    front.client.delete(items.collection, [60, 140, 1050])
    front.client.set_payload(items.collection, {"n": 7}, [61, 141, 1051])
    front.client.upsert(items.collection, [models.PointStruct(id=5, vector=[1, 0, 0, 0], payload={})])
    db.sql("SELECT qdrant_resync('items')")
    assert db.wait("items")
    items.converged()
    assert_equal(db, 200)


# --- pages ---

def test_many_rows_in_pages(db, front):
    items = Items(db, rows=12000)
    assert_equal(db, 12000)
    front.client.delete(items.collection, list(range(1, 12000, 3)))
    front.client.upsert(items.collection, [models.PointStruct(id=i, vector=[1, 0, 0, 0], payload={})
                                           for i in range(20001, 20001 + 700)])
    counts, examples = verify(db)
    assert differences(counts) == {"missing": 4000, "left over": 700}
    assert counts["equal"] == 8000
    assert len(examples["missing"]) == len(examples["left over"]) == 10
    verify(db, repair=True)
    assert db.wait("items")
    assert_equal(db, 12000)
    items.converged()


def test_empty_table_and_empty_collection(db, front):
    items = Items(db, rows=3)
    db.sql("DELETE FROM items")
    assert_equal(db, 0)
    front.client.upsert(items.collection, [models.PointStruct(id=1, vector=[1, 0, 0, 0], payload={})])
    assert differences(verify(db, repair=True)[0]) == {"left over": 1}
    assert db.wait("items")
    assert_equal(db, 0)


def test_rows_larger_than_a_page(db, front):
    items = Items(db, mirror=False)
    db.sql(f"INSERT INTO items SELECT i, repeat(md5(i::text), 10000 + 200 * i), i, {VECTOR.format('i')} "
           "FROM generate_series(1, 40) i")
    items.mirror()
    items.wait_state("live")
    assert_equal(db, 40)
    front.client.set_payload(items.collection, {"n": -1}, [11, 12])
    counts, _ = verify(db, repair=True)
    assert differences(counts) == {"stale": 2}
    assert db.wait("items")
    assert_equal(db, 40)


@pytest.fixture(scope="module")
def narrow(pgversion, front):
    """A cluster whose memory for answers is the least that can be set."""
    from harness import Cluster
    with Cluster(pgversion, conf={"qdrant_sync.answer_memory": "4MB"}) as cluster:
        yield cluster


def test_answers_larger_than_one_may_be_are_asked_for_in_parts(narrow, front):
    front.clear()
    db = new_extension_db(narrow, front)
    items = Items(db, mirror=False)
    # Half a megabyte of a row becomes three in Qdrant's answer, whatever it escapes.
    db.sql(f"INSERT INTO items SELECT i, repeat('\u00e9\u00e8', 100000), i, {VECTOR.format('i')} "
           "FROM generate_series(1, 12) i")
    items.mirror()
    items.wait_state("live")
    assert_equal(db, 12)
    front.client.set_payload(items.collection, {"n": -1}, [3])
    assert differences(verify(db)[0]) == {"stale": 1}
    db.drop()


def backend_kb(conn):
    with open(f"/proc/{conn.info.backend_pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("Private_Dirty", "Private_Clean")))


def test_memory_of_the_session_does_not_grow_with_the_table(db, front):
    items = Items(db, mirror=False)
    wide = "(SELECT array_agg(sin(i * g)) FROM generate_series(1, 256) g)::real[]"
    db.sql(f"INSERT INTO items SELECT i, repeat('x', 300), i, {wide} FROM generate_series(1, 500) i")
    items.mirror()
    items.wait_state("live")
    conn = db.connect()
    verify(db, conn=conn)
    small = backend_kb(conn)
    db.sql(f"INSERT INTO items SELECT i, repeat('x', 300), i, {wide} FROM generate_series(501, 8000) i")
    assert db.wait("items", timeout=120)
    counts, examples = verify(db, conn=conn, timeout="120s")
    assert counts["equal"] == 8000 and differences(counts) == {}, examples
    assert backend_kb(conn) - small < 24 * 1024


# --- vectors as Qdrant stores them ---

@pytest.mark.parametrize("distance", ["Cosine", "Dot", "Euclid", "Manhattan"])
def test_vectors_of_every_distance(db, front, rng, distance):
    db.sql("CREATE TABLE items (id bigint PRIMARY KEY, title text, n integer NOT NULL DEFAULT 0, embedding real[])")
    for i in range(1, 60):
        scale = 10.0 ** rng.randint(-12, 12)
        db.sql("INSERT INTO items VALUES (%s, 'x', 0, %s)", (i, [rng.gauss(0, scale) for _ in range(200)]))
    items = Items.of(db, distance=distance)
    items.mirror()
    items.wait_state("live")
    assert_equal(db, 59)
    # A change of one number among 200, by a few units in its last places.
    vector = items.point(7).vector
    vector[13] *= 1 + 2e-6
    front.client.update_vectors(items.collection, [models.PointVectors(id=7, vector=vector)])
    counts, examples = verify(db)
    assert differences(counts) == {"stale": 1}, examples
    assert examples["stale"] == ["7: vector"]
    verify(db, repair=True)
    assert db.wait("items")
    assert_equal(db, 59)


EDGES = [
    [0.0, 0.0, 0.0, 0.0], [-0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.6, 0.8, 0.0, 0.0],
    [3.4028235e38, 0.0, 0.0, 0.0], [-3.4028235e38, 1.0, 2.0, 3.0], [1e-45, 0.0, 0.0, 0.0], [1e-45, 1e-45, 1e-45, 1e-45],
    [1.1754944e-38, 1.0, 0.0, 0.0], [1e-4, 1e-4, 1e-4, 1e-4], [3e-4, 1.7e-4, 0.0, 0.0], [3.4e-4, 6e-5, 0.0, 0.0],
    [16777217.0, 0.1, 0.2, 0.3], [1.0000001, 0.0, 0.0, 0.0], [0.99999994, 0.0, 0.0, 0.0], [1e19, 1e19, 1e19, 1e19],
    [1e-30, 1e30, 1.0, 0.0],
]


@pytest.mark.parametrize("distance", ["Cosine", "Dot"])
def test_floats_at_the_edges(db, distance):
    db.sql("CREATE TABLE items (id bigint PRIMARY KEY, title text, n integer NOT NULL DEFAULT 0, embedding real[])")
    for i, vector in enumerate(EDGES):
        db.sql("INSERT INTO items VALUES (%s, 'x', 0, %s)", (i, vector))
    items = Items.of(db, distance=distance)
    items.mirror()
    items.wait_state("live")
    assert_equal(db, len(EDGES))


def test_named_vectors(db, front):
    db.sql("CREATE TABLE items (id bigint PRIMARY KEY, title text, a real[], b float8[])")
    db.sql(f"INSERT INTO items SELECT i, 'x', {VECTOR.format('i')}, CASE WHEN i % 3 > 0 THEN ARRAY[i, 0.5, -1] END "
           "FROM generate_series(1, 90) i")
    items = Items.of(db, vector="a, b AS body", payload="title")
    items.mirror()
    items.wait_state("live")
    assert_equal(db, 90)
    front.client.update_vectors(items.collection, [models.PointVectors(id=4, vector={"body": [1, 1, 1]})])
    front.client.delete_vectors(items.collection, ["body"], [5])
    front.client.update_vectors(items.collection, [models.PointVectors(id=6, vector={"body": [1, 1, 1]})])
    counts, examples = verify(db, repair=True)
    assert sorted(examples["stale"]) == ['4: vector "body"', '5: vector "body"', '6: vector "body"']
    assert db.wait("items")
    assert_equal(db, 90)


@pytest.mark.parametrize("datatype", ["float16", "uint8"])
@pytest.mark.parametrize("distance", ["Cosine", "Dot"])
def test_vectors_that_the_collection_keeps_with_fewer_bits(db, front, rng, datatype, distance):
    items = Items(db, mirror=False, distance=distance)
    front.client.create_collection(items.collection, models.VectorParams(
        size=8, distance=models.Distance(distance.upper().capitalize()), datatype=models.Datatype(datatype)))
    for i in range(1, 50):
        low, high = (0, 255.9) if datatype == "uint8" else (-3, 3)
        db.sql("INSERT INTO items VALUES (%s, 'x', 0, %s)", (i, [rng.uniform(low, high) for _ in range(8)]))
    items.mirror()
    items.wait_state("live")
    stored = items.point(1).vector
    if datatype == "uint8" and all(x == int(x) for x in stored):
        assert max(stored) > 2
    assert_equal(db, 49)
    front.client.update_vectors(items.collection, [models.PointVectors(id=7, vector=[9, 8, 7, 6, 5, 4, 3, 2])])
    assert differences(verify(db)[0]) == {"stale": 1}


# --- payload ---

def test_payload_of_every_type_is_equal_to_itself(db, front):
    db.sql("""
        CREATE TABLE items (id bigint PRIMARY KEY, embedding real[], b boolean, i8 bigint, f4 real, f8 float8,
            num numeric, t text, d date, ts timestamptz, iv interval, u uuid, by bytea, j json, jb jsonb, a int[][], r int4range)
        """)
    insert = "INSERT INTO items (id, embedding, {}) VALUES (%s, '{{1,2,3}}', {})"
    values = {
        "b": ["true", "false", "NULL"],
        "i8": ["9007199254740993", "-9223372036854775808", "9223372036854775807"],
        "f4": ["'0.1'", "'3.4028235e38'", "'NaN'", "'-Infinity'", "'-0'"],
        "f8": ["'0.1'", "'1.7976931348623157e308'", "'5e-324'", "'0.30000000000000004'", "'123456789012345680'"],
        "num": ["18446744073709551615", "18446744073709551616", "1.50", "0.1", "1e22", "'NaN'",
                "1234567890123456789012345678901234567890", "0.1234567890123456789"],
        "t": ["''", "'null'", "E'\\u00e9\\u20ac\\U0001F600 \\\\ \\\" \\t'", "repeat('x', 100000)"],
        "d": ["'2026-11-23'", "'infinity'"],
        "ts": ["'2026-11-23 04:00:00.123456+00'", "'0044-03-15 BC'"],
        "iv": ["'1 year 2 mons 3 days 4:05:06.7'"],
        "u": ["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"],
        "by": [r"'\x00ff'"],
        "j": ["'{\"a\": 1, \"a\": 2.50, \"b\": [1e2, 100.0, {\"c\": null}]}'", "'\"\\u0000 and \\u00e9\"'", "'null'",
              "'{\"big\": 12345678901234567890, \"bigger\": 123456789012345678901234567890}'", "'[]'", "'{}'",
              "'[0.1000000000000000055511151231257827, -0.0, 1E400]'"],
        "jb": ["'{\"x\": {\"y\": [1, 2, {\"z\": \"\\u00e9\"}]}}'", "'[[], [[]], {}]'", "'9007199254740993'"],
        "a": ["'{{1,2},{3,4}}'", "'{}'"],
        "r": ["'[1,5)'"],
    }
    rows = 0
    for column, texts in values.items():
        for text in texts:
            rows += 1
            db.sql(insert.format(column, text), (rows,))
    items = Items.of(db)
    items.mirror()
    items.wait_state("live")
    assert db.wait("items")
    counts, examples = verify(db)
    dead = items.dead_letters()
    assert differences(counts) == ({"refused": len(dead)} if dead else {}), examples
    # 1E400 is all that Qdrant may refuse.
    assert len(dead) <= 1
    assert counts["equal"] == rows - len(dead)


@pytest.mark.parametrize("stored, seen", [
    ({"i": 9007199254740992}, "i"), ({"i": 9007199254740993.0}, "i"), ({"i": "9007199254740993"}, "i"),
    ({"f": 0.25}, "f"), ({"t": None}, "t"), ({"j": {"a": [1, {"b": 2}], "c": None}}, "j"),
    ({"j": {"a": [1, {"b": 2}], "c": False, "d": 1}}, "j"), ({"j": {"a": [{"b": 2}, 1], "c": False}}, "j"),
    ({"null": False}, "null")])
def test_payload_that_differs_a_little(db, front, stored, seen):
    db.sql('CREATE TABLE items (id bigint PRIMARY KEY, embedding real[], i bigint, f float8, t text, j jsonb, "null" text)')
    db.sql("""INSERT INTO items SELECT g, '{1,2,3}', 9007199254740993, 0.1, 'x', '{"c": false, "a": [1, {"b": 2}]}', NULL
        FROM generate_series(1, 5) g""")
    items = Items.of(db)
    items.mirror()
    items.wait_state("live")
    front.client.set_payload(items.collection, stored, [3])
    counts, examples = verify(db)
    assert examples["stale"] == [f'3: payload "{seen}"']
    assert counts["equal"] == 4


def test_null_and_an_absent_field_are_not_the_same(db, front):
    items = Items(db, rows=5)
    db.sql("UPDATE items SET title = NULL")
    assert_equal(db, 5)
    front.client.delete_payload(items.collection, ["title"], [2])
    assert verify(db)[1]["stale"] == ['2: payload "title"']


def test_database_in_another_encoding(cluster, front):
    cluster.ensure_running()
    front.clear()
    name = "verify_latin1"
    cluster.sql(f"DROP DATABASE IF EXISTS {name}")
    cluster.sql(f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    from harness import Db
    db = Db(cluster, front, name)
    db.sql("CREATE EXTENSION qdrant_sync")
    db.sql(f"CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{front.url}')")
    items = Items(db, key="text", mirror=False)
    db.sql(f"INSERT INTO items SELECT 'cl\u00e9 ' || i, E'caf\u00e9 \\\\ \"' || i, i, {VECTOR.format('i')} "
           "FROM generate_series(1, 30) i")
    items.mirror()
    items.wait_state("live")
    assert_equal(db, 30)
    ids = {point.payload["n"]: point.id for point in items.points().values()}
    front.client.set_payload(items.collection, {"title": "\u20ac \u0000"}, [ids[4]])
    front.client.delete(items.collection, [ids[5]])
    counts, examples = verify(db, repair=True)
    assert differences(counts) == {"missing": 1, "stale": 1}
    assert examples["missing"][0].startswith('["cl\u00e9 5"]')
    assert db.wait("items")
    assert_equal(db, 30)
    db.drop()


# --- what is pending is no difference ---

@pytest.mark.parametrize("key", ["bigint", "text"])
def test_no_false_difference_under_concurrent_writes(db, front, key):
    items = Items(db, rows=3000, key=key, mirror=False)
    items.mirror()
    items.wait_state("live")
    conn = db.connect()
    stop = threading.Event()
    errors = []

    def toggle(number):
        """The same rows change and change back, leave and come again."""
        with contextlib.closing(db.connect()) as mine:
            i = 0
            try:
                while not stop.is_set():
                    i += 1
                    mine.execute("UPDATE items SET title = CASE title WHEN 'a' THEN 'b' ELSE 'a' END WHERE id = %s",
                                 (str(10 + number) if key == "text" else 10 + number,))
                    if i % 5 == 0:
                        mine.execute(f"DELETE FROM items WHERE id = '{500 + number}'")
                        mine.execute(f"INSERT INTO items SELECT '{500 + number}', 'x', 0, {VECTOR.format(7)}")
            except psycopg.Error as e:
                errors.append(e)
    load = WriteLoad(db, sessions=2, first=1000) if key == "bigint" else contextlib.nullcontext()
    togglers = [threading.Thread(target=toggle, args=(n,)) for n in range(3)]
    with load:
        for thread in togglers:
            thread.start()
        try:
            for _ in range(6):
                counts, examples = verify(db, conn=conn)
                assert not {kind for kind in ("missing", "stale", "left over", "refused") if counts[kind]}, examples
        finally:
            stop.set()
            for thread in togglers:
                thread.join(30)
    assert not errors
    assert db.wait("items")
    assert differences(verify(db)[0]) == {}


def test_real_difference_is_found_among_writes(db, front):
    items = Items(db, rows=1500)
    front.client.set_payload(items.collection, {"title": "forged"}, [7])
    front.client.delete(items.collection, [8])
    front.client.upsert(items.collection, [models.PointStruct(id=70000, vector=[1, 0, 0, 0], payload={})])
    with WriteLoad(db, sessions=2, first=1000) as load:
        load.wait_more(20)
        counts, examples = verify(db, repair=True)
        assert (counts["missing"], counts["stale"], counts["left over"]) == (1, 1, 1), examples
    assert db.wait("items")
    items.converged()
    assert differences(verify(db)[0]) == {}


@faults
def test_change_that_qdrant_has_not_answered_is_waited_for(db, front):
    items = Items(db, rows=50)
    front.faults.fault("hold", path_regex=points_path(items))
    items.update("id <= 20")
    items.delete("id = 30")
    items.insert(60)
    front.faults.wait_held(1)
    answers = []
    conn = db.connect()
    thread = threading.Thread(target=lambda: answers.append(verify(db, conn=conn)))
    thread.start()
    stays(lambda: not answers, 1.0, "it waits")
    front.faults.clear_faults()
    front.faults.release()
    thread.join(60)
    assert differences(answers[0][0]) == {} and answers[0][0]["equal"] == 50, answers


@faults
def test_backlog_that_does_not_arrive_in_time_is_an_error_that_says_so(db, front):
    items = Items(db, rows=50)
    front.faults.fault("hold", path_regex=points_path(items))
    items.update("id <= 20")
    front.faults.wait_held(1)
    error = refused(db, "55000", "SELECT * FROM qdrant_verify('items', false, '300 ms')")
    assert "did not reach Qdrant in time" in str(error)
    front.faults.clear_faults()
    front.faults.release()
    items.converged()
    assert_equal(db, 50)


def test_column_added_meanwhile_is_followed(db):
    items = Items(db, rows=20)
    assert_equal(db, 20)
    db.sql("ALTER TABLE items ADD COLUMN colour text DEFAULT 'red'")
    db.sql("UPDATE items SET n = n + 1")
    db.sql("SELECT qdrant_resync('items')")
    assert_equal(db, 20)


# --- when it cannot be done ---

@faults
def test_qdrant_that_is_down_is_an_error_at_once(db, front):
    Items(db, rows=10)
    front.faults.stop()
    try:
        start = time.monotonic()
        error = refused(db, "08006")
        assert "did not answer" in str(error)
        assert time.monotonic() - start < 30
    finally:
        front.faults.start()
    wait_until(lambda: db.one("SELECT count(*) FROM qdrant_verifications") == 0)


def test_paused_mirror_is_an_error_that_says_so(db):
    items = Items(db, rows=10)
    items.pause()
    error = refused(db, "55000")
    assert "paused" in str(error) and "qdrant_resume" in error.diag.message_hint
    items.resume()
    items.wait_state("live")
    assert_equal(db, 10)


def test_mirror_that_has_failed_is_an_error_that_says_so(db, front):
    items = Items(db, rows=10)
    db.sql("ALTER TABLE items DISABLE TRIGGER qdrant_sync")
    error = refused(db, "55000")
    assert "qdrant_resume" in (error.diag.message_hint or "")
    assert db.conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    db.sql("ALTER TABLE items ENABLE ALWAYS TRIGGER qdrant_sync; ALTER TABLE items DROP embedding")
    refused(db, "42703")
    assert db.conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_who_may_verify_and_when(db, cluster):
    items = Items(db, rows=10)
    role = f"reader_{db.name}"
    db.sql(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON items TO {role}; GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
    with contextlib.closing(db.connect(user=role)) as conn:
        refused(db, "42501", conn=conn)
    db.sql("CREATE TABLE bare (id int PRIMARY KEY)")
    refused(db, "42704", "SELECT * FROM qdrant_verify('bare')")
    conn = db.connect(autocommit=False)
    items.update("id = 1", conn=conn)
    error = refused(db, "25001", conn=conn)
    assert "COMMIT" in error.diag.message_hint
    conn.rollback()
    conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    refused(db, "25001", conn=conn)
    conn.rollback()
    assert db.sql("SELECT * FROM qdrant_verify(NULL)") == []
    refused(db, "22023", "SELECT * FROM qdrant_verify('items', false, '-1 s')")
    assert_equal(db, 10)


def test_ordinary_owner_verifies_under_row_security_of_others(db, cluster):
    role = f"owner_{db.name}"
    db.sql(f"CREATE ROLE {role} LOGIN; GRANT CREATE, USAGE ON SCHEMA public TO {role}; "
           f"GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
    with contextlib.closing(db.connect(user=role)) as conn:
        conn.execute("CREATE TABLE items (id bigint PRIMARY KEY, title text, n integer NOT NULL DEFAULT 0, embedding real[])")
        items = Items.of(db)
        items.insert(1, 20, conn=conn)
        conn.execute("ALTER TABLE items ENABLE ROW LEVEL SECURITY; CREATE POLICY none ON items USING (id < 5)")
        items.mirror(conn=conn)
        items.wait_state("live")
        conn.execute("SET row_security = off")
        assert verify(db, conn=conn)[0]["equal"] == 20
        conn.execute("ALTER TABLE items FORCE ROW LEVEL SECURITY")
        assert "ROW LEVEL SECURITY" in str(refused(db, "0A000", conn=conn))


def test_row_with_a_dead_letter_is_refused_and_not_missing(db):
    items = Items(db, rows=10)
    db.sql("UPDATE items SET embedding = '{1,2}' WHERE id = 3")
    db.sql("INSERT INTO items VALUES (-5, 'x', 0, '{1,2,3,4}')")
    wait_until(lambda: len(items.dead_letters()) == 2)
    counts, examples = verify(db, repair=True)
    assert differences(counts) == {"refused": 2}, examples
    assert {one.split(":")[0] for one in examples["refused"]} == {"3", "-5"}
    assert counts["equal"] == 9


def test_row_whose_expression_fails_is_refused_and_stops_nothing(db):
    items = Items(db, mirror=False, payload="id, title, n, 100 / (n - 5) AS share")
    db.sql(f"INSERT INTO items SELECT i, 'x', CASE i WHEN 7 THEN 5 ELSE 3 END, {VECTOR.format('i')} "
           "FROM generate_series(1, 50) i")
    items.mirror()
    wait_until(items.dead_letters, what="a dead letter")
    counts, examples = verify(db)
    assert differences(counts) == {"refused": 1} and examples["refused"][0].startswith("7: division by zero")
    assert counts["equal"] == 49


# --- interruption, progress, locks ---

def running(db):
    return db.sql("SELECT source::text, pid, phase, done, total, started FROM qdrant_verifications")


@faults
@pytest.mark.parametrize("how", ["cancel", "timeout", "terminate"])
@pytest.mark.parametrize("where", ["/points/scroll$", "/points$"])
def test_interrupted_at_once_while_qdrant_is_waited_for(db, front, how, where):
    items = Items(db, rows=50)
    front.faults.fault("hold", path_regex=f"^/collections/{items.collection}{where}", method="POST")
    conn = db.connect()
    if how == "timeout":
        conn.execute("SET statement_timeout = '1s'")
    errors = []

    def run():
        try:
            verify(db, conn=conn)
        except psycopg.Error as e:
            errors.append(e)
    thread = threading.Thread(target=run)
    thread.start()
    front.faults.wait_held(1)
    if how != "timeout":
        assert [row[1] for row in running(db)] == [conn.info.backend_pid]
        db.sql(f"SELECT pg_{how}_backend(%s)", (conn.info.backend_pid,))
    thread.join(8)
    assert not thread.is_alive()
    assert errors[0].sqlstate == ("57P01" if how == "terminate" else "57014"), errors
    wait_until(lambda: running(db) == [], what="nothing is shown")
    front.faults.clear_faults()
    front.faults.release()
    assert_equal(db, 50)


def test_statement_timeout_holds_for_the_whole_of_it(db):
    items = Items(db, mirror=False, payload="id, title, n, slow(n) AS s")
    db.sql("CREATE FUNCTION slow(n integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS "
           "$$ BEGIN PERFORM pg_sleep(0.02); RETURN n; END $$")
    items.insert(1, 60)
    items.mirror()
    items.wait_state("live", timeout=60)
    conn = db.connect()
    conn.execute("SET statement_timeout = '400 ms'")
    error = refused(db, "57014", conn=conn)
    assert "statement timeout" in str(error)
    conn.execute("SET statement_timeout = '60s'")
    assert verify(db, conn=conn)[0]["equal"] == 60
    # The timeout of the next statement is not disturbed either.
    conn.execute("SET statement_timeout = '200 ms'")
    refused(db, "57014", "SELECT pg_sleep(5)", conn=conn)


@faults
def test_progress_can_be_watched(db, front):
    items = Items(db, rows=2000)
    db.sql("ANALYZE items")
    front.faults.fault("hold", path_regex=f"^/collections/{items.collection}/points$", method="POST", nth=[4])
    conn = db.connect()
    thread = threading.Thread(target=lambda: verify(db, conn=conn))
    thread.start()
    front.faults.wait_held(1)
    rows = running(db)
    assert len(rows) == 1
    source, pid, phase, done, total, started = rows[0]
    assert (source, pid, phase) == ("items", conn.info.backend_pid, "comparing rows with their points")
    assert 0 < done < 2000 and total == 2000 and started is not None
    front.faults.clear_faults()
    front.faults.release()
    thread.join(60)
    assert running(db) == []


@faults
def test_nobody_waits_for_a_lock_of_it_while_qdrant_is_waited_for(db, front):
    items = Items(db, rows=500)
    front.faults.fault("hold", path_regex=f"^/collections/{items.collection}/points$", method="POST", nth=[1])
    conn = db.connect()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(verify(db, conn=conn)))
    thread.start()
    front.faults.wait_held(1)
    other = db.connect()
    other.execute("SET lock_timeout = '2s'")
    other.execute("ALTER TABLE items ADD COLUMN more integer")
    other.execute("TRUNCATE items")
    front.faults.clear_faults()
    front.faults.release()
    thread.join(60)
    assert differences(answers[0][0]) == {}, answers


def test_in_a_function_and_in_a_block(db, front):
    items = Items(db, rows=20)
    front.client.delete(items.collection, [3])
    db.sql("""DO $$ DECLARE n bigint; BEGIN
        SELECT points INTO STRICT n FROM qdrant_verify('items', true) WHERE kind = 'missing';
        IF n <> 1 THEN RAISE 'found %', n; END IF;
        END $$""")
    assert db.wait("items")
    assert_equal(db, 20)


def test_two_sessions_verify_at_once(db):
    Items(db, rows=3000)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(verify(db, conn=db.connect()))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [differences(counts) for counts, _ in answers] == [{}] * 3
    assert running(db) == []
