"""Every method of the client before answers that no Qdrant sends: an error that says so, and all goes on as before.

What is decoded of each method's answer is replaced, member by member, by each of the values below; and each answer as a whole.
"""

import copy
import json

import psycopg
import pytest

from harness import Recorder
from test_hostile import PROTOCOL, TEXT, fuzz_module, unharmed  # noqa: F401 - fixtures
from test_search import raw  # noqa: F401 - a fixture

DEEP, LARGE = "54001", "54000"
DOUBT = "It is not known whether Qdrant carries the request out."
UUID = '"5c56c793-69f3-4fbf-87e6-c4bf54c28c26"'

# What stands in the place of a member, as JSON text; None: the member is not there.
VALUES = {
    "absent": None, "null": "null", "true": "true", "false": "false", "zero": "0", "negative": "-1", "fraction": "1.5",
    "2^64": "18446744073709551616", "1e30": "1e30", "1e400": "1e400", "200,000 digits": "9" * 200_000, "NaN": "NaN",
    "Infinity": "-Infinity", "text": '"x"', "empty text": '""', "NUL": '"x\\u0000y"', "uuid": UUID,
    "half a surrogate pair": '"\\ud800"', "empty array": "[]", "array": "[1]", "array of null": "[null]", "object": "{}",
    "3,000 levels": '{"a":' * 3000 + "1" + "}" * 3000, "100,000 levels": "[" * 100_000 + "]" * 100_000,
}
NO_JSON = {"200,000 digits": PROTOCOL, "NaN": PROTOCOL, "Infinity": PROTOCOL, "half a surrogate pair": PROTOCOL,
           "100,000 levels": DEEP}

# Which of them a member may be, by what it is; whatever is not here is refused.
FIT = {
    "name": {"text", "empty text", "NUL", "uuid"},
    "id": {"zero", "uuid"},
    "id or null": {"zero", "uuid", "null"},
    "count": {"zero"},
    "score": {"absent", "null", "zero", "negative", "fraction", "2^64", "1e30"},
    "version": {"absent", "null", "zero", "negative", "fraction"},
    "boolean": {"true", "false"},
    "anything": VALUES.keys() - NO_JSON.keys(),
    "list": {"empty array"},
    "object with members": set(),
    "object": {"object", "3,000 levels"},
}

POINT = {"id": 7, "version": 3, "score": 0.5, "payload": {"a": 1}, "vector": [1.0], "shard_key": "s", "order_value": 2}
POINT_MEMBERS = [("id", "id"), ("version", "version"), ("score", "score"), ("payload", "anything"), ("vector", "anything"),
                 ("shard_key", "anything"), ("order_value", "anything")]


def in_list(*path):
    """The members of a list's only point, and the list itself."""
    return [(path, "list"), ((*path, 0), "object with members"),
            *(((*path, 0, name), kind) for name, kind in POINT_MEMBERS)]


# {method: (arguments, whether a set, the answer's result, [(where in it, what)])}
READS = {
    "get_collections": ("", True, {"collections": [{"name": "one"}]},
                        [(("collections",), "list"), (("collections", 0), "object with members"),
                         (("collections", 0, "name"), "name")]),
    "get_collection": ("'c'", False, {"status": "green"}, [((), "object")]),
    "collection_exists": ("'c'", False, {"exists": True}, [((), "object with members"), (("exists",), "boolean")]),
    "get_aliases": ("", True, {"aliases": [{"alias_name": "a", "collection_name": "c"}]},
                    [(("aliases",), "list"), (("aliases", 0), "object with members"), (("aliases", 0, "alias_name"), "name"),
                     (("aliases", 0, "collection_name"), "name")]),
    "get_collection_aliases": ("'c'", True, {"aliases": [{"alias_name": "a", "collection_name": "c"}]},
                               [(("aliases",), "list"), (("aliases", 0, "alias_name"), "name"),
                                (("aliases", 0, "collection_name"), "name")]),
    "retrieve": ("'c', '{7}'::int[]", True, [POINT], in_list()),
    "scroll": ("'c'", True, {"points": [POINT], "next_page_offset": 8},
               [((), "object with members"), (("next_page_offset",), "id or null"), *in_list("points")]),
    "count": ("'c'", False, {"count": 5}, [((), "object with members"), (("count",), "count")]),
    "facet": ("'c', 'k'", True, {"hits": [{"value": "v", "count": 5}]},
              [(("hits",), "list"), (("hits", 0), "object with members"), (("hits", 0, "value"), "anything"),
               (("hits", 0, "count"), "count")]),
    "query": ("'c', '[1]'", True, {"points": [POINT]}, [((), "object with members"), *in_list("points")]),
    "query_points": ("'c', '[1]'", True, {"points": [POINT]}, [((), "object with members"), *in_list("points")]),
    "query_batch_points": ("'c', '[{}]'", True, [{"points": [POINT]}],
                           [((), "list"), ((0,), "object with members"), *in_list(0, "points")]),
    "query_points_groups": ("'c', 'k', '[1]'", True, {"groups": [{"id": "g", "hits": [POINT], "lookup": {"id": 1}}]},
                            [(("groups",), "list"), (("groups", 0), "object with members"), (("groups", 0, "id"), "anything"),
                             (("groups", 0, "lookup"), "anything"), *in_list("groups", 0, "hits")]),
    "search_matrix_pairs": ("'c'", True, {"pairs": [{"a": 1, "b": 2, "score": 0.5}]},
                            [(("pairs",), "list"), (("pairs", 0), "object with members"), (("pairs", 0, "a"), "id"),
                             (("pairs", 0, "b"), "id"), (("pairs", 0, "score"), "score")]),
    "search_matrix_offsets": ("'c'", False, {"ids": [1, 2]}, [((), "object")]),
}
DONE = {"operation_id": 1, "status": "completed"}
CHANGES = {
    "create_collection": ("'c', '{\"size\":1,\"distance\":\"Dot\"}'", False, True, [((), "boolean")]),
    "recreate_collection": ("'c', '{\"size\":1,\"distance\":\"Dot\"}'", False, True, [((), "boolean")]),
    "update_collection": ("'c'", False, True, [((), "boolean")]),
    "delete_collection": ("'c'", False, True, [((), "boolean")]),
    "update_collection_aliases": ("'[]'", False, True, [((), "boolean")]),
    "create_payload_index": ("'c', 'f', 'keyword'", False, DONE, [((), "object")]),
    "delete_payload_index": ("'c', 'f'", False, DONE, [((), "object")]),
    "create_vector_name": ("'c', 'v', '{}'", False, DONE, [((), "object")]),
    "delete_vector_name": ("'c', 'v'", False, DONE, [((), "object")]),
}
METHODS = {**READS, **CHANGES}


def call_of(method, twin=""):
    arguments = METHODS[method][0]
    return f"qdrant_{method}{twin}({arguments}{', ' if arguments else ''}server => 'raw')"


def statements(method):
    """The ways to the method's answer, each with whether its members are decoded; text, as Python's own reader has its limits."""
    yield (f"SELECT r::text FROM {call_of(method)} r" if METHODS[method][1] else f"SELECT {call_of(method)}::text"), True
    if method in READS:
        yield f"SELECT qdrant_await({call_of(method, '_async')})::text", False
    if method in ("query", "query_points", "scroll", "retrieve"):
        yield (f"SELECT (a.id, a.score, a.payload, a.vector, a.version, a.order_value, a.shard_key)::text"
               f" FROM qdrant_await_points(ARRAY[{call_of(method, '_async')}]) a"), True


def body_of(result, path=None, value=None):
    """An answer with this result, in which the member at the path is the value."""
    document = {"result": copy.deepcopy(result), "status": "ok", "time": 0.1}
    if path is not None:
        *way, last = ("result", *path)
        place = document
        for step in way:
            place = place[step]
        if value is None:
            del place[last]
        else:
            place[last] = "@"
    return json.dumps(document).replace('"@"', value or "").encode()


def outcome_of(db, statement):
    """Rows, or the SQLSTATE of an error that says whose answer it was."""
    try:
        return db.sql(statement)
    except psycopg.Error as e:
        assert 'Qdrant server "raw"' in str(e) or e.sqlstate == DEEP, e
        assert e.sqlstate == TEXT or e.diag.message_hint, e
        # A read is only asked again; a change may have been made.
        doubt = any(f"qdrant_{method}(" in statement for method in CHANGES)
        assert e.diag.message_detail == (DOUBT if doubt else None), (statement, e)
        return e.sqlstate


@pytest.fixture
def say(db, raw):  # noqa: F811
    server = raw(b"{}")
    db.sql("SET client_min_messages = error")
    return server.say


def honest(db, say, method):
    say(body_of(METHODS[method][2]))
    return [db.sql(statement) for statement, _ in statements(method)]


def expected_of(kind, value, decoded, path):
    if value in NO_JSON:
        return NO_JSON[value]
    if decoded:
        return None if value in FIT[kind] else PROTOCOL
    # A ticket's answer is a document, handed on as it is; but some result there must be.
    return PROTOCOL if path == () and value in ("absent", "null") else None


@pytest.mark.parametrize("method", METHODS)
def test_each_member_of_an_answer_to(db, say, unharmed, method):  # noqa: F811
    _, _, result, members = METHODS[method]
    before = honest(db, say, method)
    assert all(before)
    for path, kind in members:
        # A ticket's points are rows without the page's offset.
        skipped = "await_points" if path == ("next_page_offset",) else "nothing"
        for value, text in VALUES.items():
            if text is None and path and isinstance(path[-1], int):
                continue
            say(body_of(result, path, text))
            for statement, decoded in statements(method):
                if skipped in statement:
                    continue
                found = outcome_of(db, statement)
                expected = expected_of(kind, value, decoded, path)
                # Too deep where no array may stand: which of the two is noticed first is the parser's matter.
                if expected == DEEP and decoded and kind != "anything":
                    expected = found if found == PROTOCOL else DEEP
                assert found == expected if expected else isinstance(found, list), (path, value, statement, str(found)[:200])
    assert honest(db, say, method) == before


@pytest.mark.parametrize("method", METHODS)
def test_status_that_leaves_it_open_whether_the_change_is_made_by(db, method):
    with Recorder() as recorder:
        db.sql(f"CREATE SERVER raw FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{recorder.url}')")
        for status in (400, 401, 408, 409, 429, 500, 502, 503, 504):
            recorder.answer(status, {"status": {"error": "no"}, "time": 0})
            with pytest.raises(psycopg.Error) as caught:
                db.sql(f"SELECT {call_of(method)}")
            detail = caught.value.diag.message_detail
            assert f"HTTP status {status}." in detail
            assert (DOUBT in detail) == (method in CHANGES and status in (408, 500, 502, 503, 504)), (status, detail)


def test_numbers_that_fit_arrive_as_they_are(db, say):
    """Accepted is not enough: what a member may be is what the row has."""
    for path, value, column, expected in (
            (("points", 0, "id"), "18446744073709551615", "id", "18446744073709551615"),
            (("points", 0, "id"), UUID, "id", UUID.strip('"')), (("points", 0, "score"), "-0.25", "score", -0.25),
            (("points", 0, "score"), "null", "score", None), (("points", 0, "version"), "9007199254740993", "version",
                                                              9007199254740993),
            (("next_page_offset",), UUID, "next_page_offset", UUID.strip('"')), (("next_page_offset",), "null",
                                                                                "next_page_offset", None)):
        say(body_of(READS["scroll"][2], path, value))
        assert db.one(f'SELECT "{column}" FROM {call_of("scroll")}') == expected
    say(body_of({"count": 9223372036854775807}))
    assert db.one(f"SELECT {call_of('count')}") == 9223372036854775807
    say(body_of(False))
    assert db.one(f"SELECT {call_of('delete_collection')}") is False


# --- whole answers ---

def wholes(result):
    """{what: (body, SQLSTATE)}"""
    good = body_of(result)
    return {
        "nothing": (b"", PROTOCOL), "an array": (b"[]", PROTOCOL), "a number": (b"1e5", PROTOCOL), "null": (b"null", PROTOCOL),
        "a string": (b'"ok"', PROTOCOL), "an empty object": (b"{}", PROTOCOL), "HTML": (b"<html><body>Welcome!</body></html>", PROTOCOL),
        "result null": (b'{"result":null,"status":"ok","time":0}', PROTOCOL),
        "no result": (b'{"status":"ok","time":0}', PROTOCOL),
        "an error in an answer of 200": (b'{"status":{"error":"no"},"time":0}', PROTOCOL),
        "result twice, the last is null": (good[:-1] + b',"result":null}', PROTOCOL),
        "result within another object": (b'{"answer":' + good + b"}", PROTOCOL),
        "more behind the document": (good + b"{}", PROTOCOL), "a comma too much": (good[:-1] + b",}", PROTOCOL),
        "a mark of byte order": (b"\xef\xbb\xbf" + good, PROTOCOL), "UTF-16": (good.decode().encode("utf-16"), TEXT),
        "NaN": (good[:-1] + b',"x":NaN}', PROTOCOL), "a comment": (b"/* */" + good, PROTOCOL),
        "a byte that is no UTF-8": (good[:-1] + b',"x":"\xff"}', TEXT), "a NUL": (b"\0", TEXT), "a NUL behind": (good + b"\0", TEXT),
        "100,000 levels": (b'{"a":' * 100_000, DEEP), "100,000 levels beside": (good[:-1] + b',"x":' + b"[" * 100_000, DEEP),
        "larger than the limit": (good[:-1] + b',"x":"' + b"y" * (13 << 20) + b'"}', LARGE),
    }


@pytest.mark.parametrize("method", METHODS)
def test_whole_answers_to(db, say, unharmed, method):  # noqa: F811
    result = METHODS[method][2]
    before = honest(db, say, method)
    for what, (body, expected) in wholes(result).items():
        say(body)
        for statement, _ in statements(method):
            assert outcome_of(db, statement) == expected, (what, statement)
    good = body_of(result)
    for length in range(0, len(good), 3):
        say(good[:length])
        for statement, _ in statements(method):
            assert outcome_of(db, statement) == PROTOCOL, (length, statement)
    assert honest(db, say, method) == before


@pytest.mark.parametrize("twin", ["", "_async"])
def test_whole_answers_to_the_one_without_an_envelope(db, say, unharmed, twin):  # noqa: F811
    statement = "SELECT qdrant_info(server => 'raw')" if not twin else "SELECT qdrant_await(qdrant_info_async(server => 'raw'))"
    good = b'{"title":"qdrant","version":"1.18.3"}'
    say(good)
    assert db.one(statement) == {"title": "qdrant", "version": "1.18.3"}
    for what, (body, expected) in wholes({"a": 1}).items():
        if "result" in what or "error" in what or "empty object" in what:
            continue
        say(body)
        assert outcome_of(db, statement) == expected, what
    for length in range(len(good)):
        say(good[:length])
        assert outcome_of(db, statement) == PROTOCOL, length
    say(good)
    assert db.one(statement) == {"title": "qdrant", "version": "1.18.3"}


STATUSES = {"400 Bad Request": "22023", "404 Not Found": "42704", "500 Error": "58000", "502 Bad Gateway": "58000"}


@pytest.mark.parametrize("status", STATUSES)
def test_errors_with_any_body(db, say, unharmed, status):  # noqa: F811
    """A proxy's page in whatever encoding, too: what counts is the status."""
    bodies = {what: body for what, (body, _) in wholes({"a": 1}).items() if what != "larger than the limit"}
    bodies |= {"a page in Latin-1": "<html>Größe</html>".encode("latin-1"), "text in Latin-1": "Größe".encode("latin-1"),
               "an error that is a number": b'{"status":{"error":7},"time":0}',
               "an error with a NUL": b'{"status":{"error":"a\\u0000b"},"time":0}',
               "an error of a megabyte": b'{"status":{"error":"' + b"x" * 1_000_000 + b'"},"time":0}',
               "control characters": b"\x01\x02\x1b[2J\r\n" * 20, "a character that is cut": "ü".encode() * 500}
    for method in ("count", "scroll", "create_collection"):
        for what, body in bodies.items():
            say(body, status, "text/html")
            for statement, _ in statements(method):
                with pytest.raises(psycopg.Error) as caught:
                    db.sql(statement)
                diag = caught.value.diag
                assert diag.sqlstate == STATUSES[status], (what, statement, str(caught.value)[:300])
                assert diag.message_primary.startswith('Qdrant server "raw": '), what
                assert f"HTTP status {status[:3]}" in diag.message_detail, what
                assert len(diag.message_primary) < 5000 and not set(diag.message_primary) & set("\x01\x1b\r\n"), what
        assert honest(db, say, method)


BESIDE = {
    "an array of objects before the result": '{"usage":{"a":[{"id":1},{"id":2}]},"result":{"points":[%s]},"status":"ok"}',
    "an array of objects behind the points": '{"result":{"points":[%s],"more":[{"id":9}]},"status":"ok"}',
    "points twice": '{"result":{"points":[{"id":1}],"points":[%s]},"status":"ok"}',
}


@pytest.mark.parametrize("what", BESIDE)
@pytest.mark.parametrize("letter", ["y", "\\u0000"])
def test_points_beside(db, say, unharmed, what, letter):  # noqa: F811
    """Where a character cannot be held, too, nothing else is taken for a point."""
    say((BESIDE[what] % ('{"id":7,"payload":"x%s"},{"id":8}' % letter)).encode())
    assert db.sql(f"SELECT id, payload FROM {call_of('query')}") == [("7", "x" + letter.replace("\\u0000", "\ufffd")), ("8", None)]


# --- changed at random ---

@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("query", "query_points") and (m in READS or m in (
    "create_collection", "create_payload_index"))])
def test_answer_changed_in_many_ways_to(db, unharmed, fuzz_module, method):  # noqa: F811
    """The decoder alone, in a library that traps undefined behaviour; the same changes in every run."""
    db.sql(f"CREATE FUNCTION fuzz_method(text, text, int) RETURNS int[] LANGUAGE c AS '{fuzz_module}'")
    db.sql("SET client_min_messages = error")
    db.sql("SET log_min_messages = error")
    decoded, refused, no_text = db.one("SELECT fuzz_method(%s, %s, 5000)", (method, body_of(METHODS[method][2]).decode()))
    assert decoded > 250 and refused > 250 and decoded + refused + no_text == 5000
