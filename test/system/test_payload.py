"""A row's columns as a point's payload: every type with its edges, names, NULLs, and the layouts that others read.

Values are compared as the official client reads them back, against what doc/mapping.md says.
"""

import contextlib
import json
import re
import uuid

import psycopg
import pytest
from qdrant_client import models

from harness import wait_until
from items import VECTOR, Items, end_worker, workers

faults = pytest.mark.faults

V = "'{1,2,3,4}'"


def mirrored_values(db, expressions, setup="", payload="*", extensions=(), **options):
    """The payload of one row whose columns are {name: (type, SQL of the value)}."""
    for extension in extensions:
        db.sql(f"CREATE EXTENSION IF NOT EXISTS {extension}")
    if setup:
        db.sql(setup)
    columns = "".join(f', "{name}" {kind}' for name, (kind, _) in expressions.items())
    values = "".join(f", {value}" for _, value in expressions.values())
    db.sql(f"CREATE TABLE items (id bigint PRIMARY KEY{columns}, embedding real[])")
    db.sql(f"INSERT INTO items VALUES (1{values}, {V})")
    items = Items.of(db, vector="embedding", payload=payload, **options)
    items.mirror()
    items.wait()
    assert items.dead_letters() == {}
    return items, items.point(1).payload


def check_values(db, cases, **more):
    """cases: {name: (type, SQL of the value, what is in the payload)}."""
    _, payload = mirrored_values(db, {name: case[:2] for name, case in cases.items()}, **more)
    expected = {name: case[2] for name, case in cases.items()}
    found = {name: payload[name] for name in cases}
    # By representation: 1 and 1.0 and True are the same to ==.
    differences = {name: (found[name], expected[name]) for name in cases if repr(found[name]) != repr(expected[name])}
    assert not differences, f"(found, expected): {differences}"


# --- types ---

def test_numbers_at_their_edges(db):
    check_values(db, {
        "smallest int2": ("smallint", "-32768", -32768),
        "2^53 + 1": ("bigint", "9007199254740993", 9007199254740993),
        "largest bigint": ("bigint", "9223372036854775807", 9223372036854775807),
        "smallest bigint": ("bigint", "-9223372036854775808", -9223372036854775808),
        "oid": ("oid", "4294967295", 4294967295),
        "real": ("real", "0.1", 0.1),
        "largest real": ("real", "'3.4028235e38'", 3.4028235e38),
        "double": ("float8", "0.1::float8 + 0.2::float8", 0.30000000000000004),
        "largest double": ("float8", "'1.7976931348623157e308'", 1.7976931348623157e308),
        "smallest double": ("float8", "'5e-324'", 5e-324),
        "NaN": ("float8", "'NaN'", None),
        "Infinity": ("float8", "'Infinity'", None),
        "-Infinity": ("real", "'-Infinity'", None),
        "bool": ("boolean", "true", True),
        "money": ("money", "1234567.5::numeric::money", "$1,234,567.50"),
    })


def test_numeric_is_a_number_where_nothing_is_lost_and_a_string_where_something_would_be(db):
    check_values(db, {
        "zero at the end": ("numeric", "12.50", 12.5),
        "integer": ("numeric", "42", 42),
        "with scale": ("numeric(10,2)", "42", 42.0),
        "0.1": ("numeric", "0.1", 0.1),
        "17 digits": ("numeric", "0.30000000000000004", 0.30000000000000004),
        "17 digits that no double has": ("numeric", "0.30000000000000003", "0.30000000000000003"),
        "40 digits": ("numeric", "1234567890123456789012345678901234567890",
                      "1234567890123456789012345678901234567890"),
        "40 digits behind the point": ("numeric", "0.1234567890123456789012345678901234567890",
                                       "0.1234567890123456789012345678901234567890"),
        "2^64 - 1": ("numeric", "18446744073709551615", 18446744073709551615),
        "2^64": ("numeric", "18446744073709551616", "18446744073709551616"),
        "-2^63": ("numeric", "-9223372036854775808", -9223372036854775808),
        "-2^63 - 1": ("numeric", "-9223372036854775809", "-9223372036854775809"),
        "NaN": ("numeric", "'NaN'", None),
        "Infinity": ("numeric", "'Infinity'", None),
        "-Infinity": ("numeric", "'-Infinity'", None),
    })


def test_dates_and_times_at_their_edges(db):
    check_values(db, {
        "date": ("date", "'2026-11-23'", "2026-11-23"),
        "first day": ("date", "'0001-01-01'", "0001-01-01"),
        "last day": ("date", "'9999-12-31'", "9999-12-31"),
        "year 10000": ("date", "'10000-01-01'", None),
        "BC": ("date", "'0001-12-31 BC'", None),
        "infinity": ("date", "'infinity'", None),
        "-infinity": ("date", "'-infinity'", None),
        "timestamp": ("timestamp", "'2026-11-23 04:00:00'", "2026-11-23T04:00:00"),
        "before 2000": ("timestamp", "'1969-12-31 23:59:59.999999'", "1969-12-31T23:59:59.999999"),
        "half a second": ("timestamp", "'2026-11-23 04:00:00.500'", "2026-11-23T04:00:00.5"),
        "timestamp infinity": ("timestamp", "'infinity'", None),
        "timestamp BC": ("timestamp", "'0044-03-15 12:00 BC'", None),
        "timestamptz": ("timestamptz", "'2026-11-23 04:00:00+05:30'", "2026-11-22T22:30:00Z"),
        "of its year in UTC": ("timestamptz", "'9999-12-31 23:59:59-05'", None),
        "timestamptz infinity": ("timestamptz", "'-infinity'", None),
        "time": ("time", "'04:05:06.000007'", "04:05:06.000007"),
        "end of the day": ("time", "'24:00'", "24:00:00"),
        "timetz": ("timetz", "'04:05:06+05:30'", "04:05:06+05:30"),
        "interval": ("interval", "'1 year 2 mons 3 days 04:05:06.7'", "P1Y2M3DT4H5M6.7S"),
        "negative interval": ("interval", "'-1 day 2 hours'", "P-1DT2H"),
        "daterange": ("daterange", "'[2026-01-01,2026-02-01)'", "[2026-01-01,2026-02-01)"),
        "tstzrange": ("tstzrange", "'[2026-01-01 12:00+02,)'", '["2026-01-01 10:00:00+00",)'),
        "many timestamps": ("timestamptz[]", "'{infinity,2026-01-01 00:00+00}'", [None, "2026-01-01T00:00:00Z"]),
    })


@pytest.mark.versions
def test_infinite_interval_is_null(db):
    if db.conn.info.server_version < 170000:
        pytest.skip("intervals are finite before PostgreSQL 17")
    check_values(db, {"one": ("interval", "'infinity'", None),
                      "many": ("interval[]", "'{-infinity,P1D}'", [None, "P1D"])})


@pytest.mark.versions
def test_texts_and_types_that_are_written_as_text(db):
    check_values(db, {
        "text": ("text", "E'a\"b\\\\c\\n\\t\\x01 é 漢 😀'", 'a"b\\c\n\t\x01 é 漢 😀'),
        "empty": ("text", "''", ""),
        "varchar": ("varchar(3)", "'abc'", "abc"),
        "padded": ("char(5)", "'ab'", "ab   "),
        "name": ("name", "'a_name'", "a_name"),
        "one char": ('"char"', "'x'", "x"),
        "no char": ('"char"', "''", ""),
        # What versions before 16 put out here is no UTF-8.
        "a byte": ('"char"', "(-56)::\"char\"", "\\310"),
        "uuid": ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        "bytea": ("bytea", r"'\x00ff10'", "AP8Q"),
        "bytea 1": ("bytea", r"'\x00'", "AA=="),
        "bytea 0": ("bytea", "''", ""),
        "bit": ("bit(3)", "B'101'", "101"),
        "varbit": ("varbit", "B'1'", "1"),
        "inet": ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
        "inet6": ("inet", "'::1'", "::1"),
        "cidr": ("cidr", "'10.0.0.0/8'", "10.0.0.0/8"),
        "macaddr": ("macaddr", "'08-00-2B-01-02-03'", "08:00:2b:01:02:03"),
        "regclass": ("regclass", "'pg_class'", "pg_class"),
        "own table": ("regclass", "'qdrant_mirrors'", "public.qdrant_mirrors"),
        "tsvector": ("tsvector", "'a:1 b:2'", "'a':1 'b':2"),
        "lsn": ("pg_lsn", "'16/B374D848'", "16/B374D848"),
        "box": ("box", "'(1,2),(3,4)'", "(3,4),(1,2)"),
        "int4range": ("int4range", "'[1,5]'", "[1,6)"),
        "empty range": ("numrange", "'empty'", "empty"),
        "multirange": ("int4multirange", "'{[1,2],[5,6)}'", "{[1,3),[5,6)}"),
        "enum": ("mood", "'so so'", "so so"),
        "domain": ("positive", "7", 7),
        "domain of a domain": ("small", "8", 8),
        "domain of an array": ("names", "'{a,b}'", ["a", "b"]),
        "domain of a point": ("place", "'(13.4,52.5)'", {"lon": 13.4, "lat": 52.5}),
        "domain of jsonb": ("settings", "'{\"a\": 1}'", {"a": 1}),
        "domain of a timestamptz": ("moment", "'2026-01-01 00:00+00'", "2026-01-01T00:00:00Z"),
        "point of nowhere": ("point", "'(NaN,1)'", None),
    }, setup="""CREATE TYPE mood AS ENUM ('so so', 'well');
        CREATE DOMAIN positive AS bigint CHECK (VALUE > 0);
        CREATE DOMAIN small AS positive CHECK (VALUE < 10);
        CREATE DOMAIN names AS text[];
        CREATE DOMAIN place AS point;
        CREATE DOMAIN settings AS jsonb;
        CREATE DOMAIN moment AS timestamptz""")


def has_xml(db):
    with contextlib.suppress(psycopg.errors.FeatureNotSupported):
        return db.one("SELECT '<a/>'::xml::text") == "<a/>"
    return False


def test_xml_is_text_without_its_declaration_of_an_encoding(db):
    if not has_xml(db):
        pytest.skip("THIS POSTGRESQL IS BUILT WITHOUT libxml: type xml is not tested")
    check_values(db, {
        "xml": ("xml", "'<a b=\"c\">é</a>'", '<a b="c">é</a>'),
        "declared": ("xml", "'<?xml version=\"1.0\" encoding=\"UTF-8\"?><a>é</a>'", "<a>é</a>"),
        "content": ("xml", "'a<b/>'", "a<b/>"),
    })


def test_arrays_keep_their_shape(db):
    check_values(db, {
        "empty": ("integer[]", "'{}'", []),
        "one": ("integer[]", "'{1}'", [1]),
        "with NULLs": ("text[]", "ARRAY['a', NULL, 'NULL', '']", ["a", None, "NULL", ""]),
        "only NULL": ("integer[]", "'{NULL}'", [None]),
        "of two dimensions": ("integer[]", "'{{1,2},{3,NULL}}'", [[1, 2], [3, None]]),
        "of six": ("integer[]", "'{{{{{{1,2}}}}}}'", [[[[[[1, 2]]]]]]),
        "from 0 on": ("integer[]", "'[0:1]={5,6}'", [5, 6]),
        "of numeric": ("numeric[]", "'{1.5,NaN,12345678901234567890123}'", [1.5, None, "12345678901234567890123"]),
        "of json": ("json[]", "ARRAY['{\"a\": [1]}', '2']::json[]", [{"a": [1]}, 2]),
        "of bytea": ("bytea[]", r"ARRAY['\xff'::bytea]", ["/w=="]),
        "of bool": ("boolean[]", "'{t,f}'", [True, False]),
        "of points": ("point[]", "ARRAY['(1,2)'::point]", [{"lon": 1, "lat": 2}]),
        "of enums": ("mood[]", "'{well}'", ["well"]),
        "of composites": ("pair[]", "ARRAY[(1, 'x'), NULL, (NULL, NULL)]::pair[]",
                          [{"n": 1, "t": "x"}, None, {"n": None, "t": None}]),
        "int2vector": ("int2vector", "'1 2 3'", [1, 2, 3]),
    }, setup="CREATE TYPE mood AS ENUM ('well'); CREATE TYPE pair AS (n integer, t text)")


def test_json_is_sent_as_it_is(db):
    check_values(db, {
        "object": ("jsonb", "'{\"b\": [1, null, true], \"a\": {}}'", {"a": {}, "b": [1, None, True]}),
        "null": ("jsonb", "'null'", None),
        "scalar": ("json", "' 7 '", 7),
        "key twice": ("json", "'{\"a\": 1, \"a\": 2}'", {"a": 2}),
        "zero byte": ("json", r"""'{"a": "x\u0000y"}'""", {"a": "x\0y"}),
        "surrogates": ("json", r"""'"\ud83d\ude00"'""", "😀"),
        "2^64 - 1": ("jsonb", "'18446744073709551615'", 18446744073709551615),
        "beyond": ("jsonb", "'123456789012345678901234567890'", 1.2345678901234568e29),
        "many digits": ("jsonb", "'0.1234567890123456789012345'", 0.12345678901234568),
        "exponent": ("json", "'1e300'", 1e300),
    })


BAD_JSON = {
    "a number that no double holds": ("1e400", "double"),
    "the same in digits": ("1" + "0" * 400, "double"),
    "half of a surrogate pair": (r'"\ud83d"', "surrogate"),
    "the other half": (r'["a", "\ude00"]', "surrogate"),
    "124 levels": ("[" * 124 + "]" * 124, "deeper"),
}


def test_json_that_qdrant_refuses_is_the_rows_own_dead_letter(db):
    items = Items(db, rows=1, columns=", data json, plain jsonb")
    rows = list(BAD_JSON.items())
    for key, (_, (text, _)) in enumerate(rows, 100):
        db.sql(f"INSERT INTO items (id, embedding, data) VALUES (%s, {V}, %s)", (key, text))
    db.sql("UPDATE items SET data = %s WHERE id = 1", ("[" * 123 + "]" * 123,))
    db.sql(f"INSERT INTO items (id, embedding, plain) VALUES (2, {V}, %s)", ('{"a":' * 123 + "1" + "}" * 123,))
    assert items.wait()
    assert set(items.points()) == {"1", "2"}
    letters = items.dead_letters()
    assert letters.keys() == {str(key) for key, _ in enumerate(rows, 100)}
    for key, (_, (_, word)) in enumerate(rows, 100):
        assert "data" in letters[str(key)] and word in letters[str(key)], letters[str(key)]


def test_json_in_a_nested_field_may_nest_less_deep_by_that(db):
    items = Items(db, rows=0, mirror=False, columns=", data json", payload='data AS "a.b.c"')
    for key, levels in ((1, 121), (2, 122)):
        db.sql(f"INSERT INTO items (id, embedding, data) VALUES (%s, {V}, %s)", (key, "[" * levels + "]" * levels))
    items.mirror()
    assert items.wait()
    assert set(items.points()) == {"1"}
    assert "deeper" in items.dead_letters()["2"]


def test_composite_value_is_an_object(db):
    check_values(db, {
        "address": ("address", "ROW('Main \"Street\"', 7, ROW(1.5, 2.5), '2026-01-01 00:00+00', ARRAY['a'], "
                               "'{\"k\": 1}')",
                    {"street": 'Main "Street"', "no": 7, "where it is": {"x": 1.5, "y": 2.5},
                     "since": "2026-01-01T00:00:00Z", "tags": ["a"], "more": {"k": 1}}),
        "all NULL": ("address", "ROW(NULL, NULL, NULL, NULL, NULL, NULL)",
                     {"street": None, "no": None, "where it is": None, "since": None, "tags": None, "more": None}),
        "row of a table": ("old_table", "ROW(1, 'kept')", {"a": 1, "c": "kept"}),
        "domain": ("corner", "ROW(0, 'NaN')", {"x": 0, "y": None}),
        "no attributes": ("nothing", "ROW()", {}),
    }, setup="""CREATE TYPE spot AS (x float8, y float8);
        CREATE DOMAIN corner AS spot;
        CREATE TYPE nothing AS ();
        CREATE TYPE address AS (street text, no integer, "where it is" spot, since timestamptz, tags text[],
                                more jsonb);
        CREATE TABLE old_table (a integer, b text, c text); ALTER TABLE old_table DROP COLUMN b""")


def test_composite_type_that_is_altered_is_followed(db):
    """The worker keeps its plans: the type's OID stays."""
    db.sql("CREATE TYPE pair AS (a integer, b text)")
    items = Items(db, rows=1, columns=", value pair")
    db.sql("UPDATE items SET value = ROW(1, 'x')")
    assert items.wait()
    assert items.point(1).payload["value"] == {"a": 1, "b": "x"}
    db.sql("ALTER TYPE pair ADD ATTRIBUTE c boolean, DROP ATTRIBUTE a; ALTER TYPE pair RENAME ATTRIBUTE b TO other")
    db.sql(f"INSERT INTO items VALUES (2, 't', 0, {V}, ROW('y', true)); UPDATE items SET n = 1 WHERE id = 1")
    assert items.wait()
    assert items.point(2).payload["value"] == {"other": "y", "c": True}
    assert items.point(1).payload["value"] == {"other": "x", "c": None}


def test_large_value_in_a_composite_is_found_again(db):
    """Compressed and out of line in the table."""
    db.sql("CREATE TYPE pair AS (a text, b text)")
    items = Items(db, rows=1, columns=", value pair")
    db.sql("UPDATE items SET value = ROW(repeat('x', 200000), "
           "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 5000) i))::pair")
    assert items.wait()
    value = items.point(1).payload["value"]
    assert value == {"a": "x" * 200000, "b": db.one("SELECT (value).b FROM items")}


def has_extension(cluster, name):
    return cluster.one("SELECT count(*) FROM pg_available_extensions WHERE name = %s", (name,)) == 1


def need_extension(cluster, name):
    if not has_extension(cluster, name):
        pytest.skip(f"THE EXTENSION {name} IS NOT INSTALLED HERE: its type is not tested")


def test_hstore_is_an_object_of_strings(db, cluster):
    need_extension(cluster, "hstore")
    check_values(db, {
        "h": ("hstore", "'a=>1, b=>NULL, \"x y\"=>\"é \\\" 漢\"'", {"a": "1", "b": None, "x y": 'é " 漢'}),
        "empty": ("hstore", "''", {}),
        "many": ("hstore[]", "ARRAY['a=>1'::hstore]", [{"a": "1"}]),
        "domain": ("attributes", "'a=>true'", {"a": "true"}),
    }, extensions=["hstore"], setup="CREATE DOMAIN attributes AS hstore")


def test_citext_is_text(db, cluster):
    need_extension(cluster, "citext")
    check_values(db, {"c": ("citext", "'Straße'", "Straße"), "many": ("citext[]", "'{A,b}'", ["A", "b"])},
                 extensions=["citext"])


def test_types_of_other_extensions_are_text(db, cluster):
    for name in ("ltree", "cube"):
        need_extension(cluster, name)
    check_values(db, {"tree": ("ltree", "'a.b'", "a.b"), "cube": ("cube", "'(1,2)'", "(1, 2)")},
                 extensions=["ltree", "cube"])


def test_points_of_postgis_are_what_a_geo_filter_finds(db, cluster, front):
    need_extension(cluster, "postgis")
    items, payload = mirrored_values(db, {
        "geom": ("geometry(Point, 4326)", "'POINT(13.4 52.5)'"),
        "geog": ("geography(Point)", "'POINT(-13.25 -52.5)'"),
        "any": ("geometry", "'POINT(1 2)'"),
        "line": ("geography", "'LINESTRING(1 2,3 4)'"),
        "metres": ("geometry(Point, 3857)", "ST_SetSRID('POINT(1000 2000)'::geometry, 3857)"),
        "height": ("geometry(PointZ, 4326)", "'POINTZ(1 2 3)'"),
        "empty": ("geometry", "'POINT EMPTY'"),
        "many": ("geometry[]", "ARRAY['POINT(1 2)'::geometry]"),
    }, extensions=["postgis"])
    # PostGIS names the reference system or not, by its version.
    for name in ("metres", "line", "height"):
        payload[name].pop("crs", None)
    assert payload == {
        "id": 1, "geom": {"lon": 13.4, "lat": 52.5}, "geog": {"lon": -13.25, "lat": -52.5}, "any": {"lon": 1, "lat": 2},
        "metres": {"type": "Point", "coordinates": [1000, 2000]},
        "line": {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}, "many": [{"lon": 1, "lat": 2}],
        "height": {"type": "Point", "coordinates": [1, 2, 3]}, "empty": {"type": "Point", "coordinates": []}}
    near = models.FieldCondition(key="geom", geo_radius=models.GeoRadius(
        center=models.GeoPoint(lon=13.4, lat=52.4), radius=20_000))
    assert filtered(items, near) == {1}


def test_cast_to_json_of_a_type_that_a_user_made_is_not_run(db):
    """The worker would run it as whoever owns the table; only casts in C are run, which superusers install."""
    db.sql("""CREATE TYPE pair AS (a text, b text);
        CREATE FUNCTION pair_json(pair) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT '"run"'::json $$;
        CREATE CAST (pair AS json) WITH FUNCTION pair_json(pair)""")
    check_values(db, {"p": ("pair", "ROW('x', 'y')", {"a": "x", "b": "y"})})


# --- the same row gives the same bytes ---

SETTINGS = {
    "DateStyle": "SQL, DMY", "IntervalStyle": "sql_standard", "TimeZone": "Asia/Kathmandu", "extra_float_digits": "-15",
    "bytea_output": "escape", "xmlbinary": "hex", "quote_all_identifiers": "on", "search_path": "odd, public",
    "default_text_search_config": "german", "lc_monetary": "C.utf8", "lc_numeric": "C.utf8", "lc_time": "C.utf8",
    "array_nulls": "off", "standard_conforming_strings": "off", "transform_null_equals": "on",
    "client_encoding": "LATIN1", "xmloption": "document", "timezone_abbreviations": "Australia", "row_security": "off",
}

EVERY_KIND = """
    CREATE SCHEMA odd;
    CREATE TYPE pair AS (at timestamptz, f real);
    CREATE TABLE items (id bigint PRIMARY KEY, at timestamptz, d date, i interval, f float8, r real, b bytea, x box,
        t text, c regclass, m money, n numeric, span tstzrange, p pair, many timestamptz[], j jsonb, floats float8[], tz timetz,
        embedding real[])
"""

ONE_ROW = """
    SELECT {}, to_timestamp(1234567890.123456), date '2026-02-03', interval '1 day 3 hours', 0.1::float8 + 0.2::float8,
        0.1::real, decode('00ff27', 'hex'),
        box(point(0.1::float8 + 0.2::float8, 1), point(0, 0)), U&'caf\\00E9', 'public.items'::regclass, 12.5::numeric::money, 12.50,
        tstzrange(to_timestamp(0), NULL), ROW(to_timestamp(0), 0.3)::pair, ARRAY[to_timestamp(0)], '{{"a": 1.50}}'::jsonb,
        ARRAY[0.1, 1e-7]::float8[], timetz '04:05:06+02', ARRAY[1, 2, 3, 4]::real[]
"""


def sent_points(items):
    """{id: what was sent of the point, each time} of the bodies that the front has recorded."""
    found = {}
    for entry in items.requests():
        # Points are written one behind the other, so that the text is the body's own.
        pieces = re.split(r'{"id":(\d+),"vector":', entry.get("body") or "")
        for key, rest in zip(pieces[1::2], pieces[2::2]):
            found.setdefault(key, []).append(rest.rstrip("]},"))
    return found


@faults
def test_same_row_gives_the_same_bytes_whatever_sessions_roles_and_databases_set(db, cluster, front):
    front.faults.configure(bodies=100_000)
    cluster.sql("DROP ROLE IF EXISTS painter")
    cluster.sql("CREATE ROLE painter LOGIN")
    try:
        db.sql(EVERY_KIND + "; ALTER TABLE items OWNER TO painter; GRANT USAGE ON FOREIGN SERVER qdrant TO painter")
        items = Items.of(db, vector="embedding")
        items.mirror()
        db.sql("INSERT INTO items" + ONE_ROW.format(1))
        assert items.wait()
        # A session's own, then a role's (of the owner, and of who runs the worker) and the database's.
        with db.connect() as conn:
            for name, value in SETTINGS.items():
                conn.execute(f"SET {name} = {value if name == 'search_path' else repr(value)}")
            conn.execute("SET standard_conforming_strings = on")
            conn.execute("INSERT INTO public.items" + ONE_ROW.format(2))
        for name, value in SETTINGS.items():
            value = value if name == "search_path" else f"'{value}'"
            for where in ("ROLE painter", "ROLE postgres", f'DATABASE "{db.name}"'):
                db.sql(f"ALTER {where} SET {name} = {value}")
        end_worker(cluster, db)
        wait_until(lambda: workers(cluster, db), what="a new worker, with these settings")
        with contextlib.closing(cluster.connect(db.name)) as conn:
            conn.execute("SET standard_conforming_strings = on")
            conn.execute("INSERT INTO public.items" + ONE_ROW.format(3))
            assert conn.execute("SHOW IntervalStyle").fetchone()[0] == "sql_standard"
        assert items.wait()
        # The worker with these settings sends the first row once more.
        db.sql("UPDATE public.items SET id = id")
        assert items.wait()
        texts = {text.replace(f'"id":{key},', "") for key, sent in sent_points(items).items() for text in sent}
        assert len(texts) == 1, texts
        text, = texts
        assert '"at":"2009-02-13T23:31:30.123456Z"' in text and '"i":"P1DT3H"' in text
        assert {key: len(sent) > 1 for key, sent in sent_points(items).items()} == dict.fromkeys("123", True)
    finally:
        front.faults.configure(bodies=0)
        for name in SETTINGS:
            cluster.sql(f"ALTER ROLE postgres RESET {name}")
        db.sql("ALTER TABLE public.items OWNER TO postgres; DROP OWNED BY painter")
        cluster.sql("DROP ROLE painter")


# --- other encodings ---

@contextlib.contextmanager
def database_with_encoding(cluster, front, encoding):
    name = f"enc_{encoding.lower()}"
    cluster.sql(f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    cluster.sql(f"ALTER DATABASE {name} SET client_encoding = 'UTF8'")
    from harness.database import Db, option_list
    from psycopg import sql
    db = Db(cluster, front, name)
    try:
        db.sql("CREATE EXTENSION qdrant_sync")
        db.sql(sql.SQL("CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS ({})").format(
            option_list({"url": front.url})))
        if front.api_key:
            db.sql(sql.SQL("CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS ({})").format(
                option_list({"api_key": front.api_key})))
        yield db
    finally:
        cluster.ensure_running()
        db.drop()


@pytest.fixture
def latin1(cluster, front):
    front.clear()
    with database_with_encoding(cluster, front, "LATIN1") as db:
        yield db
    front.clear()


@pytest.fixture
def sql_ascii(cluster, front):
    front.clear()
    with database_with_encoding(cluster, front, "SQL_ASCII") as db:
        yield db
    front.clear()


def test_texts_and_names_of_a_latin1_database_are_utf8_in_the_payload(latin1):
    db = latin1
    db.sql("CREATE TYPE paar AS (schlüssel text)")
    db.sql("""CREATE TABLE items (id bigint PRIMARY KEY, größe text, list text[], j json, jb jsonb, p paar,
                                  embedding real[])""")
    items = Items.of(db, payload='größe, list, j, jb, p, größe AS "maß.größe"')
    items.mirror()
    db.sql(f"""INSERT INTO items VALUES (1, 'größer', '{{ä,"ö \\" "}}', '{{"ü": "ß"}}', '{{"ü": "ß"}}', ROW('é'),
                                         {V})""")
    assert items.wait()
    assert items.point(1).payload == {
        "größe": "größer", "list": ["ä", 'ö " '], "j": {"ü": "ß"}, "jb": {"ü": "ß"}, "p": {"schlüssel": "é"},
        "maß": {"größe": "größer"}}
    # The name in a filter is the same.
    found, _ = db.front.client.scroll(items.collection, models.Filter(must=[
        models.FieldCondition(key="maß.größe", match=models.MatchValue(value="größer"))]))
    assert [point.id for point in found] == [1]


def as_bytes(db):
    """A connection that sends its statements' bytes as they are given."""
    conn = db.connect()
    conn.execute("SET client_encoding = 'SQL_ASCII'")
    return conn


def test_byte_that_is_no_utf8_in_an_sql_ascii_database_is_its_rows_dead_letter(sql_ascii):
    db = sql_ascii
    db.sql("CREATE TYPE pair AS (a text)")
    items = Items(db, rows=1, columns=", tags text[], j json, p pair, d text")
    db.sql("UPDATE items SET title = 'é 漢'")
    with as_bytes(db) as conn:
        for key, column, value in ((10, "title", b"'\xff bad'"), (11, "tags", b"ARRAY['ok', '\xe9']"),
                                   (12, "j", b"'{\"a\": \"\xe9\"}'"), (13, "p", b"ROW('\xe9')"), (14, "d", b"'\xc3'")):
            conn.execute(f"INSERT INTO items (id, embedding, {column}) VALUES ({key}, {V}, ".encode() + value + b")")
    items.insert(20, 22)
    assert items.wait()
    assert set(items.points()) == {"1", "20", "21", "22"}
    assert items.point(1).payload["title"] == "é 漢"
    letters = items.dead_letters()
    assert letters.keys() == {"10", "11", "12", "13", "14"}
    for key, column in (("10", "title"), ("11", "tags"), ("12", "j"), ("13", "p"), ("14", "d")):
        assert f'"{column}"' in letters[key] and "UTF-8" in letters[key], letters[key]
    db.sql("UPDATE items SET title = 'mended' WHERE id = 10")
    wait_until(lambda: items.dead_letters().keys() == {"11", "12", "13", "14"}, what="no dead letter of the mended row")


def test_column_name_that_is_no_utf8_is_refused_when_the_mirror_is_made(sql_ascii):
    db = sql_ascii
    with as_bytes(db) as conn:
        conn.execute(b'CREATE TABLE items (id bigint PRIMARY KEY, "gr\xf6sse" text, embedding real[])')
        for arguments in (b"'items'", b"'items', payload => '\"gr\xf6sse\"'", b"'items', payload => 'id AS \"a.\xf6\"'"):
            with pytest.raises(psycopg.errors.CharacterNotInRepertoire, match=r"xf6.* cannot be sent"):
                conn.execute(b"SELECT qdrant_mirror(" + arguments + b")")
        conn.execute(b"SELECT qdrant_mirror('items', payload => '\"gr\xf6sse\" AS groesse')")
        conn.execute(f"INSERT INTO items VALUES (1, 'x', {V})")
    items = Items.of(db, collection="items")
    assert items.wait()
    assert items.point(1).payload == {"groesse": "x"}


def test_column_that_comes_later_with_a_name_that_is_no_utf8_stops_the_mirror_and_says_so(sql_ascii):
    db = sql_ascii
    items = Items(db, rows=3)
    with as_bytes(db) as conn:
        conn.execute(b'ALTER TABLE items ADD COLUMN "\xf6" text')
        conn.execute("UPDATE items SET n = 1")
        items.wait_state("failed")
        # The view can be read by a client that wants UTF-8.
        assert re.search(r'"\\xf6" cannot be sent', items.row()["last_error"])
        conn.execute(b'ALTER TABLE items DROP COLUMN "\xf6"')
    items.resume()
    items.converged()


# --- names ---

def payload_of(db, payload, columns="", row="", **options):
    """The payload's text as the worker writes it, key for key."""
    items = Items(db, rows=1, mirror=False, columns=columns, payload=payload, **options)
    if row:
        db.sql(f"UPDATE items SET {row}")
    items.mirror()
    assert items.wait()
    return items, items.point(1).payload


def test_names_with_dots_make_objects(db):
    _, payload = payload_of(db, 'title AS page_content, n AS "metadata.n", id AS "metadata.source.id", '
                                'upper(title) AS "metadata.source.title", id')
    assert payload == {"page_content": "title 1",
                       "metadata": {"n": 0, "source": {"id": 1, "title": "TITLE 1"}}, "id": 1}


def test_fields_of_an_object_that_are_apart_in_the_list_come_together(db):
    _, payload = payload_of(db, 'id AS "m.a.x", n, title AS "m.b", id AS "z.z", id AS "m.a.y", n AS "m.c", '
                                '1 AS "a.b.c.d.e.f"')
    assert payload == {"m": {"a": {"x": 1, "y": 1}, "b": "title 1", "c": 0}, "n": 0, "z": {"z": 1},
                       "a": {"b": {"c": {"d": {"e": {"f": 1}}}}}}


@faults
def test_order_of_fields_is_the_lists(db, front):
    front.faults.configure(bodies=100_000)
    try:
        items, _ = payload_of(db, 'n, id AS "m.z", title, n AS "m.a.q", id AS "m.b", 7 AS "m.a.p", 1 AS last')
        text = wait_until(lambda: sent_points(items).get("1"), what="the point")[-1]
        assert text.partition('"payload":')[2] == (
            '{"n":0,"m":{"z":1,"a":{"q":0,"p":7},"b":1},"title":"title 1","last":1')
    finally:
        front.faults.configure(bodies=0)


DOTTED = ', "metadata.x" integer DEFAULT 5, ".odd." integer DEFAULT 6'


@pytest.mark.parametrize("payload, expected", [
    ("*", {"id": 1, "title": "title 1", "n": 0, "metadata.x": 5, ".odd.": 6}),
    ('"metadata.x", ".odd.", "metadata.x" AS "metadata.y"', {"metadata.x": 5, ".odd.": 6, "metadata": {"y": 5}}),
    ('"metadata.x" AS "metadata.x", id', {"metadata": {"x": 5}, "id": 1}),
])
def test_columns_own_name_with_a_dot_is_one_key_and_a_name_given_with_as_a_path(db, payload, expected):
    assert payload_of(db, payload, DOTTED)[1] == expected


def test_renamed_column_keeps_its_flat_field(db):
    items, payload = payload_of(db, '"metadata.x", n, 1 AS "m.""a.b"""', DOTTED)
    assert payload == {"metadata.x": 5, "n": 0, "m": {"a.b": 1}}
    db.sql('ALTER TABLE items RENAME "metadata.x" TO "other.y"')
    db.sql("ALTER TABLE items RENAME n TO number")
    db.sql('UPDATE items SET number = 8, "other.y" = 9 WHERE id = 1')
    assert items.wait()
    assert items.point(1).payload == {"metadata.x": 9, "n": 8, "m": {"a.b": 1}}


def test_flat_and_nested_names_survive_dump_and_restore(db, cluster, front):
    items, before = payload_of(db, '"metadata.x", "metadata.x" AS "metadata.x y", "metadata.y" AS "metadata.y", '
                                   'title AS t, id AS "metadata.deep.id"', ', "metadata.x" integer DEFAULT 5, "metadata.y" integer')
    assert before == {"metadata.x": 5, "metadata": {"x y": 5, "y": None, "deep": {"id": 1}}, "t": "title 1"}
    copy_name = f"{db.name}_restored"
    cluster.createdb(copy_name)
    copy = type(db)(cluster, front, copy_name)
    try:
        cluster.restore_sql(cluster.dump(db.name), copy_name)
        definition = "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'qdrant_sync'"
        assert copy.one(definition) == db.one(definition)
        items.unmirror()
        wait_until(lambda: not items.aliases(), what="the original has let go")
        copy.sql("SELECT qdrant_resume('items', true)")
        copy.sql("UPDATE items SET title = 'restored'")
        assert copy.one("SELECT qdrant_wait('30s')")
        assert items.point(1).payload == {**before, "t": "restored"}
    finally:
        copy.drop()


ODD_NAMES = ["😀 smile", 'quo"te', "back\\slash", "new\nline", "tab\t", "a[b]", "sp ace", "漢字", "x" * 63, "é" * 31,
             "$", "NULL"]


@pytest.mark.parametrize("how", ["columns", "names"])
def test_odd_names_arrive_as_they_are(db, how):
    def quoted(name):
        return '"' + name.replace('"', '""') + '"'
    if how == "columns":
        items, payload = payload_of(db, "*", "".join(f", {quoted(name)} integer DEFAULT {i}"
                                                     for i, name in enumerate(ODD_NAMES)))
        assert {name: payload[name] for name in ODD_NAMES} == {name: i for i, name in enumerate(ODD_NAMES)}
    else:
        _, payload = payload_of(db, ", ".join([f"{i} AS {quoted(name)}" for i, name in enumerate(ODD_NAMES)] +
                                              [f"{i} AS {quoted('o.' + name)}" for i, name in enumerate(ODD_NAMES)
                                               if len(name) < 30]))
        nested = payload.pop("o")
        assert payload == {name: i for i, name in enumerate(ODD_NAMES)}
        assert nested == {name: i for i, name in enumerate(ODD_NAMES) if len(name) < 30}


def test_name_that_postgresql_cuts_off_says_so(db):
    """Identifiers have 63 bytes: a longer name would be another one."""
    notices = []
    items = Items(db, rows=1, mirror=False)
    with db.connect() as conn:
        conn.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
        items.mirror(conn=conn, payload=f'id AS "{"y" * 70}"')
    assert any("truncated" in notice for notice in notices), notices
    assert items.wait()
    assert items.point(1).payload == {"y" * 63: 1}


# --- NULL ---

def filtered(items, condition):
    found, _ = items.db.front.client.scroll(items.collection, models.Filter(must=[condition]), limit=100)
    return {point.id for point in found}


def null_rows(db, **options):
    items = Items(db, mirror=False, columns=", j jsonb, tags text[], f float8", **options)
    db.sql(f"""INSERT INTO items (id, title, embedding, j, tags, f) VALUES
        (1, 'here', {V}, '{{}}', '{{a}}', 1), (2, NULL, {V}, NULL, NULL, NULL), (3, '', {V}, 'null', '{{}}', 'NaN')""")
    items.mirror()
    assert items.wait()
    return items


def test_null_is_null_by_default(db):
    items = null_rows(db)
    assert items.point(2).payload == {"id": 2, "title": None, "n": 0, "j": None, "tags": None, "f": None}
    for key, is_null, is_empty in (("title", {2}, {2}), ("j", {2, 3}, {2, 3}), ("tags", {2}, {2, 3}),
                                   ("f", {2, 3}, {2, 3})):
        assert filtered(items, models.IsNullCondition(is_null=models.PayloadField(key=key))) == is_null, key
        assert filtered(items, models.IsEmptyCondition(is_empty=models.PayloadField(key=key))) == is_empty, key


def test_null_is_no_field_with_omit_nulls(db):
    items = null_rows(db, omit_nulls=True)
    assert items.point(2).payload == {"id": 2, "n": 0}
    # What is not NULL in PostgreSQL is there, also where JSON has no better value for it.
    assert items.point(3).payload == {"id": 3, "title": "", "n": 0, "j": None, "tags": [], "f": None}
    for key, is_null, is_empty in (("title", set(), {2}), ("j", {3}, {2, 3}), ("tags", set(), {2, 3}),
                                   ("f", {3}, {2, 3})):
        assert filtered(items, models.IsNullCondition(is_null=models.PayloadField(key=key))) == is_null, key
        assert filtered(items, models.IsEmptyCondition(is_empty=models.PayloadField(key=key))) == is_empty, key
    # Nothing is left of a value that goes.
    db.sql("UPDATE items SET title = NULL, tags = ARRAY[NULL] WHERE id = 1")
    assert items.wait()
    assert items.point(1).payload == {"id": 1, "n": 0, "j": {}, "tags": [None], "f": 1.0}


NESTED = 'a AS "m.a", b AS "m.n.b", c AS "m.n.c", d AS "m.d", e AS "k.l.e", f'


@pytest.mark.parametrize("omit", [False, True])
def test_nested_objects_of_all_combinations_of_nulls(db, omit):
    """64 rows, one for each set of columns that are NULL."""
    db.sql("CREATE TABLE items (id bigint PRIMARY KEY, a int, b int, c int, d int, e int, f int, embedding real[])")
    db.sql(f"""INSERT INTO items SELECT i, {", ".join(f"CASE WHEN i & {1 << n} > 0 THEN {n} END" for n in range(6))}, {V}
               FROM generate_series(0, 63) i""")
    items = Items.of(db, payload=NESTED, omit_nulls=omit)
    items.mirror()
    assert items.wait()
    points = items.points()
    paths = (("m", "a"), ("m", "n", "b"), ("m", "n", "c"), ("m", "d"), ("k", "l", "e"), ("f",))
    for i in range(64):
        expected = {}
        for n, path in enumerate(paths):
            value = n if i & (1 << n) else None
            if value is None and omit:
                continue
            inner = expected
            for part in path[:-1]:
                inner = inner.setdefault(part, {})
            inner[path[-1]] = value
        assert points[str(i)].payload == expected, i


def test_omit_nulls_is_part_of_the_definition(db):
    null_rows(db, omit_nulls=True)
    assert '"omit_nulls": true' in db.one("SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'qdrant_sync'")


def test_omit_nulls_that_is_null_is_the_default(db):
    items = null_rows(db, omit_nulls=None)
    assert "title" in items.point(2).payload


# --- expressions ---

def test_expression_that_fails_for_one_row_is_that_rows_dead_letter(db):
    items = Items(db, rows=5, mirror=False, payload="id, 10 / (n - 3) AS share")
    items.mirror()
    assert items.wait()
    db.sql("UPDATE items SET n = 3 WHERE id = 4; UPDATE items SET n = 5 WHERE id < 4")
    assert items.wait()
    assert items.dead_letters() == {"4": "division by zero"}
    assert {key: point.payload["share"] for key, point in items.points().items() if key != "4"} == {
        "1": 5, "2": 5, "3": 5, "5": -3}
    db.sql("UPDATE items SET n = 4 WHERE id = 4")
    items.converged(payload={"id": "id", "share": "10 / (n - 3)"})
    wait_until(lambda: not items.dead_letters(), what="no dead letter")


# --- layouts of others ---

def test_langchain_reads_a_mirrored_collection(db, front):
    """QdrantVectorStore: page_content and metadata, scores, a filter on metadata.x, and documents by id."""
    from langchain_core.embeddings import Embeddings
    from langchain_qdrant import QdrantVectorStore

    db.sql(f"""CREATE TABLE articles (id bigint PRIMARY KEY, body text, category text, year integer, author text,
                                       embedding real[]);
        INSERT INTO articles SELECT i, 'body ' || i, CASE i % 2 WHEN 0 THEN 'even' ELSE 'odd' END, 2000 + i,
            NULLIF('author ' || i, 'author 3'), {VECTOR.format('i')} FROM generate_series(1, 10) i""")
    articles = Items.of(db, "articles", payload="""body AS page_content, category AS "metadata.category",
        year AS "metadata.published.year", author AS "metadata.author" """)
    articles.mirror()
    assert articles.wait()

    class Stored(Embeddings):
        """The vector that the table has for a text."""

        def embed_query(self, text):
            found = db.one("SELECT embedding FROM articles WHERE body = %s", (text,))
            return found or [0.0, 0.0, 0.0, 1.0]

        def embed_documents(self, texts):
            return [self.embed_query(text) for text in texts]

    store = QdrantVectorStore(client=front.client, collection_name=articles.collection, embedding=Stored())
    document, = store.similarity_search("body 4", k=1)
    assert document.page_content == "body 4"
    assert {key: value for key, value in document.metadata.items() if not key.startswith("_")} == {
        "category": "even", "published": {"year": 2004}, "author": "author 4"}
    assert document.metadata["_id"] == 4
    even = models.Filter(must=[
        models.FieldCondition(key="metadata.category", match=models.MatchValue(value="even")),
        models.FieldCondition(key="metadata.published.year", range=models.Range(gt=2004))])
    found = store.similarity_search_with_score("body 3", k=10, filter=even)
    assert {document.metadata["_id"] for document, _ in found} == {6, 8, 10}
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert store.get_by_ids([3])[0].metadata["author"] is None
    # What changes in the table is what is read next.
    db.sql("UPDATE articles SET category = 'none' WHERE id = 4")
    assert articles.wait()
    assert store.similarity_search("body 4", k=1)[0].metadata["category"] == "none"


def recipe(title):
    """The SQL of an example of doc/mapping.md."""
    from harness import places
    text = (places.ROOT / "doc" / "mapping.md").read_text()
    return text.partition(f"### {title}")[2].partition("```sql\n")[2].partition("```")[0]


def test_recipe_for_langchain_runs_as_it_is_written(db):
    db.sql("""CREATE TABLE articles (id bigint PRIMARY KEY, body text, category text, source text, year int,
                                     embedding real[])""")
    db.sql(f"INSERT INTO articles VALUES (1, 'b', 'c', 's', 2026, {V})")
    db.sql(recipe("LangChain"))
    articles = Items.of(db, "articles", collection="articles")
    assert articles.wait()
    assert articles.point(1).payload == {"page_content": "b",
                                         "metadata": {"category": "c", "source": "s", "year": 2026}}


def test_recipe_for_llamaindex_gives_the_nodes_that_it_writes_itself(db):
    """Its package is large and not installed here: its layout is a node as JSON text, beside its metadata."""
    key = str(uuid.uuid4())
    db.sql("CREATE TABLE nodes (id uuid PRIMARY KEY, body text, category text, year integer, embedding real[])")
    db.sql(f"INSERT INTO nodes VALUES ('{key}', 'text \"of\" it', 'c', 2026, {V})")
    db.sql(f"INSERT INTO nodes VALUES ('{uuid.uuid4()}', NULL, NULL, NULL, {V})")
    db.sql(recipe("LlamaIndex"))
    nodes = Items.of(db, "nodes", collection="nodes")
    assert nodes.wait() and nodes.dead_letters() == {}
    payload = nodes.point(key).payload
    node = json.loads(payload.pop("_node_content"))
    assert node["id_"] == key and node["text"] == 'text "of" it' and node["class_name"] == "TextNode"
    assert node["metadata"] == {"category": "c", "year": 2026}
    assert payload == {"_node_type": "TextNode", "document_id": "None", "doc_id": "None", "ref_doc_id": "None",
                       "category": "c", "year": 2026}
