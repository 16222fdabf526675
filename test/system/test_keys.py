"""Keys of every kind: integers and uuids are ids themselves, of all others the id is a UUID of version 5 that any
program can compute (hazards 10 and 11)."""

import contextlib
import json
import uuid
from dataclasses import dataclass, field

import psycopg
import pytest
from qdrant_client.models import PointStruct

from harness import new_extension_db, wait_until
from items import Items, end_worker
from keyed import ODD, Keyed, key_id
from outbox import Outbox

faults = pytest.mark.faults

CLUSTER = {"conf": {"max_prepared_transactions": 10, "qdrant_sync.segment_size": "64kB"}}


# --- every type ---

@dataclass
class Case:
    columns: str
    values: list  # six keys as SQL, each a list of one or more
    key: tuple = ("k",)
    options: dict = field(default_factory=dict)
    hashed: bool = True
    before: str = ""  # SQL
    primary: bool = True
    after: str = ""  # SQL, after the table is made
    table_options: str = ""

    def sql(self, i):
        return f"({self.values[i]})"


def simple(type_name, *values, **more):
    cast = type_name.split(" COLLATE")[0]
    return Case(f"k {type_name}", [f"'{value}'::{cast}" for value in values], **more)


CASES = {
    "smallint": simple("smallint", 1, 2, 3, 4, 0, 32767, hashed=False),
    "integer": simple("integer", 1, 2, 3, 4, 0, 2147483647, hashed=False),
    "bigint": simple("bigint", 1, 2, 3, 4, 0, 9007199254740993, hashed=False),
    "uuid": simple("uuid", *(uuid.UUID(int=i << 64 | 5) for i in range(1, 7)), hashed=False),
    "text": simple("text", "a", "b ", "b", "", "ü", "x" * 2000),
    "varchar": simple("varchar(20)", "a", "b ", "b", "", "A", "z z"),
    "char": simple("char(5)", "a", "b", "b c", "", "A", "abcde"),
    "citext": simple("citext", "a", "B", "ccc", "", "ü", "Zz", before="CREATE EXTENSION citext"),
    "name": simple("name", "a", "b", "c", "", "d", "E"),
    "numeric": simple("numeric", "1.0", "2", "-3.50", "1e30", "NaN", "0.000"),
    "date": simple("date", "2026-11-23", "0044-03-15 BC", "infinity", "-infinity", "1999-12-31", "9999-01-01"),
    "timestamptz": simple("timestamptz", "2026-11-23 12:00:00+05:45", "0044-03-15 10:00+00 BC", "infinity",
                          "-infinity", "2026-03-29 01:30:00.123456+00", "1999-12-31 23:59:60+00"),
    "timestamp": simple("timestamp", "2026-11-23 12:00:00", "0044-03-15 10:00 BC", "infinity", "-infinity",
                        "2026-03-29 01:30:00.123456", "1999-12-31 23:59:59"),
    "time": simple("time", "00:00", "24:00", "12:34:56.789", "01:02:03", "23:59:59.999999", "04:00"),
    "timetz": simple("timetz", "00:00+00", "24:00-03", "12:34:56.789+05:45", "01:02:03+00", "23:59+01", "04:00+00"),
    "interval": simple("interval", "1 day", "24 hours 1 second", "-1 mon +2 days -03:00:00.5", "0", "1 year 2 mons",
                       "-1 day +1 second"),
    "float8": simple("float8", "0.1", "1e300", "-1.5", "NaN", "Infinity", "0.30000000000000004"),
    "float4": simple("float4", "0.1", "1e30", "-1.5", "NaN", "Infinity", "16777216"),
    "bytea": simple("bytea", "\\x00", "\\xff", "\\x", "\\x0001", "abc", "\\xdeadbeef"),
    "enum": simple("mood", "sad", "ok", "so \"so\"", "x", "y", "z",
                   before="CREATE TYPE mood AS ENUM ('sad', 'ok', 'so \"so\"', 'x', 'y', 'z')"),
    "inet": simple("inet", "10.0.0.1", "10.0.0.0/8", "::1", "fe80::/10", "192.168.1.5/24", "0.0.0.0"),
    "macaddr": simple("macaddr", *(f"08:00:2b:01:02:0{i}" for i in range(6))),
    "bit varying": simple("varbit", "0", "1", "", "0101", "00", "11111"),
    "oid": simple("oid", 1, 2, 3, 4, 0, 4294967295),
    "array": simple("int[]", "{1,2}", "{}", "{1,NULL}", "{{1,2},{3,4}}", "[0:1]={1,2}", "{7}"),
    "text array": simple("text[]", "{a,b}", "{}", '{"a,b"}', '{NULL}', '{"NULL"}', '{"a\\"b"}'),
    "range": simple("tstzrange", "[2026-11-23 00:00+03,2026-11-24 00:00+03)", "empty", "(,)", "[2026-01-01,)",
                    "(,2026-01-01)", "[2000-01-01 00:00+00,2000-01-02 00:00+00]"),
    "jsonb": simple("jsonb", '{"a": 1}', "[]", "null", '"x"', "1.0", '{"b": {"c": "d"}}'),
    "composite type": simple("pair", "(1,2026-11-23)", "(,)", "(3,2000-01-01)", "(4,infinity)", "(5,1999-01-01)",
                             "(6,)", before="CREATE TYPE pair AS (a int, b date)"),
    "domain over text": simple("label", "a", "b", "c", "d", "e", "f",
                               before="CREATE DOMAIN label AS text CHECK (length(VALUE) < 9)"),
    "domain over bigint": simple("number", 1, 2, 3, 4, 5, 6, hashed=False, before="CREATE DOMAIN number AS bigint"),
    "two columns": Case("a boolean, b text", ["true, 'x'", "false, 'x'", "true, ''", "true, '\"'", "false, 'a,b'",
                                              "false, 'a\",\"b'"], ("a", "b")),
    "id and created": Case("id bigint, created date", [f"{i}, '2026-11-2{i + 1}'" for i in range(-1, 2)] +
                           ["7, 'infinity'", "7, '2026-01-01'", "8, '2026-01-01'"], ("id", "created")),
    "sku beside a primary key": Case(
        "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sku text NOT NULL UNIQUE",
        [f"'s{i}'" for i in range(6)], ("sku",), {"key": "sku"}, primary=False),
    "bigint beside a primary key": Case(
        "id text DEFAULT gen_random_uuid() PRIMARY KEY, other bigint NOT NULL UNIQUE",
        [f"{i}" for i in range(6)], ("other",), {"key": "other"}, hashed=False, primary=False),
    "columns in another order than the index": Case(
        "a int, b text", [f"'b{i}', {i}" for i in range(6)], ("b", "a"), {"key": "b, a"}, primary=False,
        after="ALTER TABLE keyed ADD PRIMARY KEY (a, b)"),
    "integers as text": simple("bigint", 1, -2, 3, -4, 0, -9223372036854775808, options={"key": "k::text"}),
    "uuids as text": simple("uuid", *(uuid.UUID(int=i << 64 | 5) for i in range(1, 7)),
                            options={"key": "k::text"}),
    "names that need quotes": Case('"Key" text', [f"'{i}'" for i in range(6)], ('"Key"',)),
    "nondeterministic collation": simple("text COLLATE ci", "a", "B", "c", "", "ü", "Zz", before=(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")),
    "list of partitions": Case("k text", [f"'{i}'" for i in range(6)], table_options="PARTITION BY HASH (k)", after=(
        "CREATE TABLE keyed_0 PARTITION OF keyed FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE keyed_1 PARTITION OF keyed FOR VALUES WITH (MODULUS 2, REMAINDER 1)")),
}


def need(cluster, sql):
    name = sql.removeprefix("CREATE EXTENSION ") if sql.startswith("CREATE EXTENSION ") else None
    if name and not cluster.one("SELECT true FROM pg_available_extensions WHERE name = %s", (name,)):
        pytest.skip(f"PostgreSQL {cluster.version} has no extension {name} here")


def make(db, case):
    if case.before:
        need(db.cluster, case.before)
        try:
            db.sql(case.before)
        except psycopg.errors.FeatureNotSupported as e:
            pytest.skip(f"this server cannot: {e}")
    table = Keyed(db, case.key, case.columns, primary=case.primary, mirror=False, hashed=case.hashed,
                  options=case.table_options, **case.options)
    if case.after:
        for statement in case.after.split(";"):
            db.sql(statement)
    return table


@pytest.mark.parametrize("name", CASES)
def test_key_of_type(db, name):
    """Filled, written in all ways under a session's odd settings, compared; then repaired by a sweep."""
    case = CASES[name]
    table = make(db, case)
    names = ", ".join(case.key)
    with contextlib.closing(db.connect()) as conn:
        for setting, value in ODD.items():
            conn.execute(f"SET {setting} = '{value}'")
        insert = f"INSERT INTO keyed ({names}) VALUES "
        conn.execute(insert + f"{case.sql(0)}, {case.sql(1)}")
        table.mirror()
        table.wait_state("live")
        assert table.equal() == 2
        conn.execute(insert + case.sql(2))
        texts = conn.execute(f"INSERT INTO keyed ({names}) VALUES {case.sql(3)} RETURNING "
                             + ", ".join(f"format('%s', {column})" for column in case.key)).fetchone()
        conn.execute(f"DELETE FROM keyed WHERE ({names}) = {case.sql(3)}")
        with conn.cursor().copy(f"COPY keyed ({names}) FROM STDIN") as copy:
            copy.write_row(texts)
        conn.execute(f"UPDATE keyed SET n = n + 1 WHERE ({names}) = {case.sql(0)}")
        conn.execute(f"DELETE FROM keyed WHERE ({names}) = {case.sql(1)}")
        conn.execute(f"UPDATE keyed SET ({names}) = ROW {case.sql(4)}, n = 5 WHERE ({names}) = {case.sql(2)}")
        for value in (3, 5):
            conn.execute(insert + f"{case.sql(value)} ON CONFLICT ({names}) DO UPDATE SET n = keyed.n + 10")
    assert table.equal() == 4
    assert table.wait() is True
    # A point that is gone, one that is wrong and two that nobody knows: all mended by a sweep.
    ids = sorted(table.points())
    table.db.front.client.delete(table.collection, [int(ids[0]) if ids[0].isdigit() else ids[0]])
    table.db.front.client.upsert(table.collection, strays(ids[1], len(case.key)))
    db.sql("SELECT qdrant_resync('keyed')")
    assert table.equal() == 4
    assert table.dead_letters() == {}


def strays(known, n):
    ids = [int(known) if known.isdigit() else known, 123456, str(uuid.uuid4())]
    return [PointStruct(id=i, vector=[1.0, 1.0, 1.0, 1.0], payload={"n": -1, "_qs_key": ["x"] * n}) for i in ids]


# --- texts of all kinds ---

STRANGE = ["", " ", "a", "a ", "a  ", '"', '""', "\\", "\\\\", "\\u0041", "A", "a\nb", "a\tb", "\x01\x08\x0c\x1f\x7f",
           "é", "e\u0301", "🦀", "👩‍👩‍👧", "\u2028", "ﬀ", "[\"a\"]", "null", "1", "01", "a','b", "%s", "x" * 4000, "xy" * 2020]


@pytest.fixture(scope="module", params=["a filling", "captured"])
def when(request):
    return request.param


def test_strange_texts_as_keys(db, when):
    keys = [(key,) for key in STRANGE]
    table = Keyed(db, ("k",), "k text", mirror=when == "captured")
    with db.conn.cursor() as cursor:
        cursor.executemany("INSERT INTO keyed (k) VALUES (%s)", keys)
    if when != "captured":
        table.mirror()
    assert table.equal() == len(STRANGE)
    assert set(table.points()) == {key_id(key) for key in STRANGE}
    db.sql("UPDATE keyed SET n = 1")
    table.equal()
    with db.conn.cursor() as cursor:
        cursor.executemany("DELETE FROM keyed WHERE k = %s", keys[1::2])
    assert table.equal() == len(STRANGE[::2])


def test_strange_texts_as_columns_of_one_key(db):
    """Which column a character is in decides the id."""
    table = Keyed(db, ("a", "b"), "a text, b text")
    pairs = [("", "x"), ("x", ""), ("a,b", "c"), ("a", "b,c"), ('a","b', "c"), ("a", 'b","c'), ("\\", '"'), ('\\"', "")]
    with db.conn.cursor() as cursor:
        cursor.executemany("INSERT INTO keyed (a, b) VALUES (%s, %s)", pairs)
    assert table.equal() == len(pairs)
    assert set(table.points()) == {key_id(a, b) for a, b in pairs}


def test_key_too_long_to_be_noted_arrives_and_leaves(db):
    """Hazard 10: the transaction commits, the mirror compares everything."""
    table = Keyed(db, ("k",), "k text", "('a'), ('b')")
    db.sql("INSERT INTO keyed (k) SELECT repeat('x', 200000 + i) FROM generate_series(1, 3) i")
    assert table.equal() == 5
    assert key_id("x" * 200001) in table.points()
    db.sql("UPDATE keyed SET n = n + 1")
    table.equal()
    db.sql("UPDATE keyed SET k = k || 'y' WHERE length(k) = 200001")
    table.equal()
    db.sql("DELETE FROM keyed WHERE length(k) = 200002 AND k ~ 'y'")
    assert table.equal() == 4
    db.sql("BEGIN; INSERT INTO keyed (k) VALUES (repeat('z', 200000)); ROLLBACK")
    db.sql("DELETE FROM keyed WHERE length(k) > 2")
    assert table.equal() == 2
    assert table.dead_letters() == {}


def test_refused_row_with_a_long_key_is_a_dead_letter_and_stops_nobody(db):
    """Its key is cut in the view, as it would not fit into an index."""
    table = Keyed(db, ("k",), "k text", "('a')")
    db.sql("INSERT INTO keyed (k, embedding) SELECT string_agg(md5(i::text), ''), '{NaN,1,1,1}' "
           "FROM generate_series(1, 80) i")
    db.sql("INSERT INTO keyed (k) VALUES ('b')")
    wait_until(lambda: table.dead_letters(), what="a dead letter")
    (key, error), = table.dead_letters().items()
    text = db.one("SELECT k FROM keyed WHERE length(k) > 5")
    assert key.startswith('["' + text[:900]) and len(key) < 1100 and key_id(text) in key and "NaN" in error
    table.equal(where="length(k) < 5")
    db.sql("UPDATE keyed SET embedding = '{1,1,1,1}' WHERE length(k) > 5")
    table.equal()
    wait_until(lambda: table.dead_letters() == {}, what="no dead letter any more")


def make_database(cluster, front, encoding):
    name = f"enc_{encoding.lower()}_{uuid.uuid4().hex[:8]}"
    cluster.sql(f"CREATE DATABASE {name} ENCODING {encoding} LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    made = new_extension_db(EncodedCluster(cluster), front, dbname=name)
    return made


class EncodedCluster:
    """The cluster, for a database that is made already."""

    def __init__(self, cluster):
        self._cluster = cluster

    def __getattr__(self, name):
        return getattr(self._cluster, name)

    def createdb(self, name):
        pass


def test_keys_of_a_latin1_database_are_ids_of_their_utf8(cluster, front):
    db = make_database(cluster, front, "LATIN1")
    try:
        table = Keyed(db, ("k",), "k text", "('é'), ('ü\"'), ('a')")
        db.sql("INSERT INTO keyed (k) VALUES ('ÿ'), ('x')")
        db.sql("UPDATE keyed SET k = 'ø' WHERE k = 'é'")
        assert table.equal() == 5
        assert set(table.points()) == {key_id(key) for key in ("ø", 'ü"', "a", "ÿ", "x")}
        db.sql("DELETE FROM keyed WHERE k = 'ÿ'")
        front.client.upsert(table.collection, strays(key_id("ø"), 1))
        front.client.upsert(table.collection, [PointStruct(id=str(uuid.uuid4()), vector=[1.0] * 4,
                                                           payload={"_qs_key": ["日本"]})])
        db.sql("SELECT qdrant_resync('keyed')")
        assert table.equal() == 4
        row, = db.sql("SELECT (hit).k FROM qdrant_search(NULL::keyed, '[1,2,3,4]', filter => %s)",
                      (json.dumps({"must": [{"key": "k", "match": {"value": "ø"}}]}),))
        assert row == ("ø",)
    finally:
        db.drop()
        front.clear()


def test_bytes_of_an_unknown_encoding_in_a_key_are_that_rows_dead_letter(cluster, front):
    db = make_database(cluster, front, "SQL_ASCII")
    try:
        db.sql("SET client_encoding = 'UTF8'")
        table = Keyed(db, ("k",), "k text", "('a'), (E'bad \\xff')")
        db.sql("INSERT INTO keyed (k) VALUES ('b'), (E'worse \\xfe'), (E'ok \\xc3\\xa9')")
        with contextlib.closing(db.connect()) as conn:
            conn.execute("SET client_encoding = 'SQL_ASCII'")
            count = "SELECT count(*) FROM qdrant_dead_letters WHERE error ~ 'UTF-8'"
            wait_until(lambda: conn.execute(count).fetchone() == (2,), what="two dead letters")
            wait_until(lambda: set(table.points()) == {key_id(key) for key in ("a", "b", "ok é")}, what="the others")
            conn.execute("DELETE FROM keyed WHERE k = E'worse \\xfe'")
            conn.execute("UPDATE keyed SET k = 'mended' WHERE k = E'bad \\xff'")
            wait_until(lambda: conn.execute(count).fetchone() == (0,), what="no dead letter any more")
            wait_until(lambda: set(table.points()) == {key_id(key) for key in ("a", "b", "ok é", "mended")},
                       what="the mended one")
    finally:
        db.drop()
        front.clear()


def test_negative_key_under_the_rule_of_integers_is_a_dead_letter_with_a_hint(db):
    items = Items(db, rows=1)
    items.insert(-5)
    items.insert(2)
    wait_until(lambda: items.dead_letters(), what="a dead letter")
    assert "key => 'id::text'" in items.dead_letters()["-5"]
    items.converged(where="id > 0")
    items.unmirror()
    items.mirror(key="id::text", take_over=True)
    wait_until(lambda: {key_id("-5"), key_id("1"), key_id("2")} == set(items.points()), what="ids that are UUIDs")


# --- changes of keys ---

@pytest.mark.parametrize("columns, old, new", [
    ("k numeric", "1.0", "1.00"), ("k float8", "0", "-0"), ("k citext", "A", "a"), ("k text COLLATE ci", "A", "a"),
    ("k jsonb", '{"a": 1.0}', '{"a": 1.00}'), ("k interval", "24:00", "1 day"), ("k numeric[]", "{1.0}", "{1.00}")])
def test_key_that_changes_into_an_equal_one_leaves_no_old_point(db, columns, old, new):
    """Hazard 10."""
    for statement in (["CREATE EXTENSION citext"] if "citext" in columns else
                      ["CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"]
                      if "ci" in columns else []):
        need(db.cluster, statement)
        db.sql(statement)
    table = Keyed(db, ("k",), columns, f"('{old}')")
    before, = table.points()
    db.sql(f"UPDATE keyed SET k = '{new}'")
    table.equal()
    after, = table.points()
    assert before != after
    # And as a difference that only a sweep can find.
    db.front.client.upsert(table.collection, [PointStruct(
        id=before, vector=[1.0] * 4, payload={"_qs_key": [old]})])
    db.sql("SELECT qdrant_resync('keyed')")
    table.equal()
    db.sql(f"DELETE FROM keyed WHERE k = '{old}'")
    assert table.equal() == 0


@pytest.mark.parametrize("type_name", ["text", "bigint", "uuid"])
def test_keys_swapped_in_one_statement(db, type_name):
    cast = {"text": "i::text", "bigint": "i", "uuid": "lpad(i::text, 32, '0')::uuid"}[type_name]
    table = Keyed(db, ("k",), f"k {type_name}", primary=False, mirror=False, hashed=type_name == "text", key="k")
    db.sql("ALTER TABLE keyed ADD PRIMARY KEY (k) DEFERRABLE INITIALLY DEFERRED")
    db.sql(f"INSERT INTO keyed SELECT {cast}, i, '{{1,2,3,4}}' FROM generate_series(1, 6) i")
    table.mirror()
    table.equal()
    db.sql(f"UPDATE keyed SET k = (SELECT {cast} FROM (SELECT 7 - n AS i) x)")
    table.equal()
    db.sql(f"UPDATE keyed SET k = (SELECT {cast} FROM (SELECT CASE n WHEN 1 THEN 5 ELSE 6 END AS i) x) WHERE n < 3")
    assert table.equal() == 6
    with contextlib.suppress(psycopg.errors.UniqueViolation):
        db.sql("UPDATE keyed SET k = (SELECT min(k) FROM keyed)" if type_name != "uuid" else
               "UPDATE keyed SET k = (SELECT k FROM keyed LIMIT 1)")
    db.sql("UPDATE keyed SET n = n + 1")
    assert table.equal() == 6


# --- crashes ---

@faults
@pytest.mark.parametrize("key", [("k",), ("k", "i")])
def test_backlog_of_texts_survives_the_worker_and_the_postmaster(db, cluster, front, key):
    table = Keyed(db, key, "k text, i int DEFAULT 7", "('first')" if len(key) == 1 else "('first', 1)")
    front.faults.down()
    db.sql("INSERT INTO keyed (k, i) SELECT 'k' || i, i FROM generate_series(1, 3000) i")
    db.sql("DELETE FROM keyed WHERE k = 'first'")
    end_worker(cluster, db)
    db.sql("UPDATE keyed SET k = k || 'x', n = n + 1 WHERE i % 3 = 0")
    cluster.kill9()
    cluster.start()
    db.sql("DELETE FROM keyed WHERE i % 5 = 0")
    front.faults.up()
    assert table.equal(60) == 2400
    assert table.wait() is True


# --- definitions that do not fit any more ---

@faults
@pytest.mark.parametrize("columns, alter", [
    ("k bigint", "ALTER k TYPE text"), ("k text", "ALTER k TYPE bytea USING k::bytea"),
    ("k text", "ALTER k TYPE bigint USING k::bigint"), ("k uuid", "ALTER k TYPE text"),
    ("k date", "ALTER k TYPE timestamptz")])
def test_key_of_another_type_with_a_backlog_stops_the_mirror_which_says_what_to_do(db, front, columns, alter):
    """Hazard 11."""
    first, second, third = {"k bigint": (1, 2, 3), "k text": ("1", "2", "3"), "k date": ("2026-01-01", "2026-01-02", "2026-01-03"),
                            "k uuid": tuple(str(uuid.UUID(int=i)) for i in (1, 2, 3))}[columns]
    hashed = columns in ("k text", "k date")
    table = Keyed(db, ("k",), columns, f"('{first}')", hashed=hashed)
    front.faults.down()
    db.sql(f"INSERT INTO keyed (k) VALUES ('{second}')")
    db.sql(f"ALTER TABLE keyed {alter}")
    db.sql(f"INSERT INTO keyed (k) VALUES ('{third}')")
    front.faults.up()
    row = table.wait_state("failed")
    assert "makes other ids" in row["last_error"] and "qdrant_unmirror" in row["last_error"]
    db.sql(f"DELETE FROM keyed WHERE k = '{first}'")
    table.unmirror()
    table.hashed = alter != "ALTER k TYPE bigint USING k::bigint"
    table.mirror(take_over=True)
    assert table.equal() == 2
    table.wait_state("live")


@faults
@pytest.mark.parametrize("columns, alter, key", [
    ("k int", "ALTER k TYPE bigint", ("k",)), ("k smallint", "ALTER k TYPE int", ("k",)),
    ("k varchar(20)", "ALTER k TYPE text", ("k",)), ("k text", "ALTER k TYPE varchar(30)", ("k",)),
    ("k int, t varchar(9) DEFAULT 'x'", "ALTER k TYPE bigint, ALTER t TYPE text", ("k", "t"))])
def test_key_of_a_wider_type_goes_on_by_itself(db, front, columns, alter, key):
    table = Keyed(db, key, columns, f"(1{', DEFAULT' * (len(key) - 1)})", hashed="int" not in columns or len(key) > 1)
    front.faults.down()
    db.sql("INSERT INTO keyed (k) VALUES (2)")
    db.sql(f"ALTER TABLE keyed {alter}")
    value = 3_000_000_000 if alter == "ALTER k TYPE bigint" else 3
    db.sql(f"INSERT INTO keyed (k) VALUES ({value})")
    front.faults.up()
    assert table.equal() == 3
    db.sql("UPDATE keyed SET n = n + 1")
    table.equal()
    assert table.state() == "live"
    # The front was away: a connection that was kept may have ended.
    found = wait_until(lambda: quietly(db, "SELECT (hit).k FROM qdrant_search(NULL::keyed, '[1,2,3,4]')"), what="hits")
    assert {str(row[0]) for row in found} == {"1", "2", str(value)}


def quietly(db, query):
    with contextlib.suppress(psycopg.errors.ConnectionFailure):
        return db.sql(query)


@pytest.mark.parametrize("what", ["index", "constraint", "not null", "primary key"])
def test_key_that_is_none_any_more_stops_the_mirror_in_a_clear_state(db, what):
    primary = what == "primary key"
    table = Keyed(db, ("k",), "id bigserial, k text NOT NULL", primary=primary, mirror=False,
                  **({} if primary else {"key": "k"}))
    if not primary:
        db.sql("CREATE UNIQUE INDEX keyed_k ON keyed (k)" if what == "index" else
               "ALTER TABLE keyed ADD CONSTRAINT keyed_k UNIQUE (k)")
    db.sql("INSERT INTO keyed (k) VALUES ('a')")
    table.mirror()
    table.equal()
    db.sql({"index": "DROP INDEX keyed_k", "constraint": "ALTER TABLE keyed DROP CONSTRAINT keyed_k",
            "not null": "ALTER TABLE keyed ALTER k DROP NOT NULL",
            "primary key": "ALTER TABLE keyed DROP CONSTRAINT keyed_pkey"}[what])
    db.sql("INSERT INTO keyed (k) VALUES ('b')")
    row = table.wait_state("failed")
    assert ("may be null" if what == "not null" else "no unique index is over its key") in row["last_error"]
    db.sql("ALTER TABLE keyed ALTER k SET NOT NULL")
    if what != "not null":
        db.sql("CREATE UNIQUE INDEX ON keyed (k)")
    table.resume()
    assert table.equal() == 2
    table.wait_state("live")


# --- transactions ---

@pytest.fixture
def texts(db):
    return Keyed(db, ("k",), "k text", "('row')")


def test_rolled_back_texts_are_not_sent(db, texts):
    db.sql("BEGIN; INSERT INTO keyed (k) VALUES ('never'); UPDATE keyed SET n = 7; ROLLBACK")
    db.sql("BEGIN; INSERT INTO keyed (k) VALUES ('kept'); SAVEPOINT a; INSERT INTO keyed (k) VALUES ('x1'); "
           "SAVEPOINT b; INSERT INTO keyed (k) VALUES ('x2'); RELEASE b; ROLLBACK TO a; "
           "INSERT INTO keyed (k) VALUES ('kept too'); SAVEPOINT c; UPDATE keyed SET n = 1 WHERE k = 'row'; RELEASE c; "
           "COMMIT")
    assert texts.equal() == 3


@faults
def test_texts_of_undone_savepoints_are_not_in_the_outbox(db, front, texts):
    front.faults.down()
    outbox = Outbox(db, "keyed")
    with db.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO keyed (k) VALUES ('a')")
        conn.execute("SAVEPOINT one")
        conn.execute("INSERT INTO keyed (k) VALUES ('b'), ('a2')")
        conn.execute("SAVEPOINT two")
        conn.execute("INSERT INTO keyed (k) VALUES ('c')")
        conn.execute("RELEASE two")
        conn.execute("ROLLBACK TO one")
        # What was logged last is cut off, so it is noted again.
        conn.execute("INSERT INTO keyed (k) VALUES ('a2')")
        conn.execute("SAVEPOINT three")
        conn.execute("UPDATE keyed SET n = n + 1 WHERE k = 'a2'")
        conn.execute("ROLLBACK TO three")
        conn.commit()
    assert outbox.keys() == ['["a"]', '["a2"]']
    front.faults.up()
    assert texts.equal() == 3


@faults
def test_texts_of_a_loop_whose_blocks_fail_are_those_that_stayed(db, front, texts):
    front.faults.down()
    outbox = Outbox(db, "keyed")
    db.sql("""DO $$ BEGIN FOR i IN 1..3000 LOOP BEGIN
        INSERT INTO keyed (k) VALUES ('k' || i);
        IF i % 2 = 0 THEN RAISE 'undone'; END IF;
        EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$""")
    assert outbox.keys() == sorted(f'["k{i}"]' for i in range(1, 3001, 2))
    assert outbox.rows() < 20
    front.faults.up()
    assert texts.equal() == 1501


@faults
def test_row_updated_a_thousand_times_is_one_text(db, front, texts):
    front.faults.down()
    outbox = Outbox(db, "keyed")
    db.sql("DO $$ BEGIN FOR i IN 1..1000 LOOP UPDATE keyed SET n = i; END LOOP; END $$")
    assert outbox.chunks() == [['["row"]']]
    db.sql("INSERT INTO keyed (k) VALUES ('other')")
    outbox.chunks()
    db.sql("DO $$ BEGIN FOR i IN 1..500 LOOP UPDATE keyed SET n = i; UPDATE keyed SET n = -i WHERE k = 'row'; END LOOP; "
           "END $$")
    assert len(outbox.keys()) <= 4
    front.faults.up()
    texts.equal()


def test_prepared_texts_are_sent_when_they_commit(db, texts):
    with db.connect(autocommit=False) as conn:
        conn.execute("INSERT INTO keyed (k) VALUES ('prepared')")
        conn.execute(f"PREPARE TRANSACTION '{db.name}'")
        conn.rollback()
    db.sql("INSERT INTO keyed (k) VALUES ('beside')")
    assert texts.equal() == 2
    db.sql(f"COMMIT PREPARED '{db.name}'")
    assert texts.equal() == 3
    with db.connect(autocommit=False) as conn:
        conn.execute("DELETE FROM keyed WHERE k = 'row'")
        conn.execute(f"PREPARE TRANSACTION '{db.name}'")
        conn.rollback()
    db.sql(f"ROLLBACK PREPARED '{db.name}'")
    assert texts.wait() and texts.equal() == 3


KEY_LOGS = """
WITH RECURSIVE mine AS (
    SELECT name, total_bytes FROM pg_backend_memory_contexts
    WHERE name IN ('qdrant_sync changed keys', 'qdrant_sync texts of keys')
    UNION ALL
    SELECT c.name, c.total_bytes FROM pg_backend_memory_contexts c JOIN mine ON c.parent = mine.name)
SELECT coalesce(sum(total_bytes), 0)::bigint FROM mine"""


@faults
def test_many_texts_in_one_transaction_take_bounded_memory_and_all_arrive(db, front, texts):
    front.faults.down()
    outbox = Outbox(db, "keyed")
    largest = 0
    with db.connect(autocommit=False) as conn:
        for step in range(4):
            conn.execute("INSERT INTO keyed (k) SELECT md5(i::text) || md5((-i)::text) "
                         f"FROM generate_series({step} * 50000 + 1, {step} * 50000 + 50000) i")
            largest = max(largest, conn.execute(KEY_LOGS).fetchone()[0])
            conn.execute(f"SAVEPOINT s{step}")
            conn.execute("INSERT INTO keyed (k) SELECT 'undone ' || i FROM generate_series(1, 5000) i")
            conn.execute(f"ROLLBACK TO s{step}")
        assert 0 < largest <= 1 << 20
        conn.commit()
    keys = outbox.keys()
    assert len(keys) == 200_000 and len(set(keys)) == 200_000 and not any("undone" in key for key in keys)
    db.sql("DELETE FROM keyed WHERE k > '1'")
    front.faults.up()
    texts.equal(120)


@faults
def test_mirrors_of_texts_and_of_integers_in_one_transaction(db, front, texts):
    """All in one log that spills, with savepoints across the end of the window."""
    items = Items(db, rows=1)
    pairs = Keyed(db, ("a", "b"), "a int, b text", "(0, '')", table="pairs")
    front.faults.down()
    with db.connect(autocommit=False) as conn:
        for i in range(40):
            conn.execute(f"INSERT INTO keyed (k) SELECT 'k{i} ' || j FROM generate_series(1, 500) j")
            items.insert(i * 1000 + 10, i * 1000 + 510, conn=conn)
            conn.execute("SAVEPOINT s")
            conn.execute(f"INSERT INTO pairs (a, b) SELECT {i}, 'b' || j FROM generate_series(1, 200) j")
            conn.execute("DELETE FROM keyed WHERE random() < 0.1")
            items.delete("random() < 0.1", conn=conn)
            conn.execute("RELEASE s" if i % 3 else "ROLLBACK TO s")
        conn.commit()
    front.faults.up()
    texts.equal(60)
    pairs.equal(60)
    items.converged(60)


# --- searching ---

@pytest.mark.parametrize("columns, keys, hashed", [
    ("k text", ("k",), True), ("a int, b date", ("a", "b"), True), ("k uuid", ("k",), False),
    ("k timestamptz", ("k",), True), ("k numeric", ("k",), True), ("k char(8)", ("k",), True)])
def test_search_gives_rows_in_order_and_hides_those_of_others(db, columns, keys, hashed):
    table = Keyed(db, keys, columns, mirror=False, hashed=hashed)
    value = {"k text": "'k' || i", "a int, b date": "i, date '2026-01-01' + i", "k uuid": "lpad(i::text, 32, '0')::uuid",
             "k timestamptz": "timestamptz '2026-01-01 12:00+01' + i * interval '1 hour'", "k numeric": "i + 0.50",
             "k char(8)": "'c' || i"}[columns]
    db.sql(f"INSERT INTO keyed SELECT {value}, i, ARRAY[1, i, 0, 0] FROM generate_series(1, 20) i")
    table.mirror()
    table.equal()
    role = f"reader_{db.name}"
    db.sql(f"CREATE ROLE {role} LOGIN")
    db.sql(f"GRANT SELECT ON keyed TO {role}; GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
    db.sql("ALTER TABLE keyed ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON keyed USING (n % 2 = 0)")
    search = "SELECT (hit).n, rank FROM qdrant_search(NULL::keyed, '[1,0,0,0]', k => 5) ORDER BY rank"
    try:
        for setting in ({}, ODD):
            with contextlib.closing(db.connect()) as conn, contextlib.closing(db.connect(role)) as other:
                for name, odd in setting.items():
                    conn.execute(f"SET {name} = '{odd}'")
                    other.execute(f"SET {name} = '{odd}'")
                assert [row[0] for row in conn.execute(search)] == [1, 2, 3, 4, 5]
                assert [row[0] for row in other.execute(search)] == [2, 4, 6, 8, 10]
    finally:
        db.sql(f"DROP OWNED BY {role}")
        db.sql(f"DROP ROLE {role}")
