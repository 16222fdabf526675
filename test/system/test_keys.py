"""Keys of every kind: integers and uuids are ids themselves, of all others the id is a UUID of version 5 that any
program can compute (hazards 10 and 11)."""

import contextlib
import json
import uuid
from dataclasses import dataclass, field

import psycopg
import pytest
from qdrant_client.models import PointStruct

from harness import collection_points, new_extension_db, stays, wait_until
from items import Items, end_worker, points_path, workers
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
        "a int, b text", [f"{i}, 'b{i}'" for i in range(6)], ("b", "a"), {"key": "b, a"}, primary=False,
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
