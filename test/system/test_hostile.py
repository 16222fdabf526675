"""Answers that no Qdrant sends: an error with an SQLSTATE, or rows that hold what was said, and never a crash.

What the decoders make of any bytes is test/fuzz's; here are the same answers in a running server, where PostgreSQL's own parser
reads them, and what the sync worker does with them.
"""

import json
import os
import subprocess

import psycopg
import pytest

from harness import places, wait_until
from items import Items, workers
from test_search import RawServer, raw  # noqa: F401 - a fixture

faults = pytest.mark.faults


def points(*members):
    """An answer to a query, of points with these members as JSON text."""
    return ('{"result":{"points":[' + ",".join(members) + ']},"status":"ok","time":0.1}').encode()


def point(**members):
    """A point, but for what is given: JSON text by name."""
    said = {"id": "1", "version": "3", "score": "0.5", "payload": "{}", **members}
    return "{" + ",".join(f'"{name}":{value}' for name, value in said.items() if value is not None) + "}"


PROTOCOL, TEXT = "08P01", "22021"

# What a member is said to be: the SQLSTATE, or rows as (id, score, payload, vector).
MEMBERS = {
    "a negative id": (point(id="-1"), PROTOCOL),
    "an id with a fraction": (point(id="1.5"), PROTOCOL),
    "an id of 1e400": (point(id="1e400"), PROTOCOL),
    "an id beyond 64 bits": (point(id="18446744073709551616"), PROTOCOL),
    "the largest id": (point(id="18446744073709551615"), ("18446744073709551615", 0.5, {}, None)),
    "an id that is null": (point(id="null"), PROTOCOL),
    "an id that is true": (point(id="true"), PROTOCOL),
    "an id that is an object": (point(id='{"uuid":"x"}'), PROTOCOL),
    "an id that is an array": (point(id="[1]"), PROTOCOL),
    "an id that is text": (point(id='"one"'), PROTOCOL),
    "an id of a megabyte": (point(id='"' + "a" * 1_000_000 + '"'), PROTOCOL),
    "an id with a NUL": (point(id='"5c56c793-69f3-4fbf-87e6-c4bf54c28c2\\u0000"'), PROTOCOL),
    "a score that is text": (point(score='"high"'), PROTOCOL),
    "a score that is an object": (point(score="{}"), PROTOCOL),
    "a score beyond a double": (point(score="1e400"), PROTOCOL),
    "a score beyond a float": (point(score="-1e300"), PROTOCOL),
    "a score with 100,000 digits": (point(score="0." + "1" * 100_000), ("1", 0.11111111, {}, None)),
    "a score that is null": (point(score="null"), ("1", None, {}, None)),
    "no score": (point(score=None), ("1", None, {}, None)),
    "a version beyond 64 bits": (point(version="1e30"), PROTOCOL),
    "a version with a fraction": (point(version="1.5"), ("1", 0.5, {}, None)),
    "a version that is text": (point(version='"x"'), PROTOCOL),
    "a payload that is an array": (point(payload="[1,2]"), ("1", 0.5, [1, 2], None)),
    "a payload that is text": (point(payload='"x"'), ("1", 0.5, "x", None)),
    "a vector that is text": (point(vector='"x"'), ("1", 0.5, {}, "x")),
    "a key that is there twice": (point(payload='{"a":1,"a":2}'), ("1", 0.5, {"a": 2}, None)),
    "a member that is there twice": ('{"id":1,"score":0.5,"id":2,"payload":{}}', ("2", 0.5, {}, None)),
    "an empty key": (point(payload='{"":1}'), ("1", 0.5, {"": 1}, None)),
    "half of a surrogate pair": (point(payload='{"a":"\\ud800"}'), PROTOCOL),
    "bytes of a surrogate": ('{"id":1,"payload":{"a":"\udc80"}}', TEXT),
    "a payload of 90 levels": (point(payload='{"a":' * 90 + "1" + "}" * 90), None),
    "a string of 10 MB": (point(payload='{"a":"' + "x" * 10_000_000 + '"}'), None),
    "a number of 200,000 digits": (point(payload='{"a":' + "9" * 200_000 + "}"), PROTOCOL),
}

# Whole bodies, and what is said of them.
BODIES = {
    "an array": b"[]",
    "a number": b"1e5",
    "null": b"null",
    "a string": b'"ok"',
    "an object in place of the points": b'{"result":{"points":{"id":1}},"status":"ok","time":0}',
    "null in place of the points": b'{"result":{"points":null},"status":"ok","time":0}',
    "an array in place of a point": points("[]"),
    "null in place of a point": points("null"),
    "an array in place of the result": b'{"result":[{"id":1}],"status":"ok","time":0}',
    "more behind the document": points(point()) + b"{}",
    "a comma too much": points(point(), ""),
    "a mark of byte order": b"\xef\xbb\xbf" + points(point()),
    "UTF-16": points(point()).decode().encode("utf-16"),
    "NaN": points(point(score="NaN")),
    "100,000 levels of objects": b'{"a":' * 100_000,
    "cut in an escape": points(point(payload='{"a":"\\u12'))[:60],
    "a NUL byte": b"\0",
}


def bytes_of(text):
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


@pytest.fixture
def unharmed(db, cluster):
    """The session and the workers at the end are those of the beginning, and nobody was told of an internal error."""
    started = db.one("SELECT pg_postmaster_start_time()")
    pid = db.one("SELECT pg_backend_pid()")
    request_worker = db.one("SELECT pid FROM qdrant_workers WHERE kind = 'request'")
    mark = cluster.log_mark()
    yield
    assert db.one("SELECT pg_backend_pid()") == pid
    assert db.one("SELECT pg_postmaster_start_time()") == started
    assert db.one("SELECT pid FROM qdrant_workers WHERE kind = 'request'") == request_worker
    wait_until(lambda: db.sql("SELECT * FROM qdrant_requests") == [], what="no request is left")
    text = cluster.log_text(mark)
    assert "was terminated by signal" not in text and "PANIC" not in text and "TRAP" not in text


def outcome_of(db, query):
    """Rows, or the SQLSTATE."""
    try:
        return db.sql(query)
    except psycopg.Error as e:
        assert e.sqlstate[:2] != "XX", e
        return e.sqlstate


QUERY = "SELECT id, score, payload, vector FROM qdrant_query('x', '[1]', server => 'raw')"


@pytest.mark.parametrize("what", MEMBERS)
def test_member_of_a_point_that_is(db, raw, unharmed, what):  # noqa: F811
    text, expected = MEMBERS[what]
    raw(bytes_of(points("@")).replace(b"@", bytes_of(text)))
    found = outcome_of(db, QUERY)
    if expected is None:
        assert isinstance(found, list) and len(found) == 1
    else:
        assert found == (expected if isinstance(expected, str) else [expected])


@pytest.mark.parametrize("what", BODIES)
def test_body_that_is(db, raw, unharmed, what):  # noqa: F811
    raw(BODIES[what])
    assert outcome_of(db, QUERY) in (PROTOCOL, TEXT, "54001")


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
WHOLE = points(point())
HEADS = {
    "a length that is too long": HEAD + b"Content-Length: 9999\r\n\r\n" + WHOLE,
    "a length that is too short": HEAD + b"Content-Length: 9\r\n\r\n" + WHOLE,
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\n" + WHOLE,
    "a length of many digits": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + WHOLE,
    "two lengths": HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n" + WHOLE,
    "a chunk without a length": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + WHOLE,
    "a chunk of 2^72 bytes": HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n" + WHOLE,
    "chunks that end early": HEAD + b"Transfer-Encoding: chunked\r\n\r\n500\r\n" + WHOLE,
    "an endless head": HEAD + b"X-Padding: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n" * 100_000,
    "an endless header": HEAD + b"X-Padding: " + b"x" * 5_000_000,
    "a compressed body": HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(WHOLE) + WHOLE,
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"",
    "a status of one digit": b"HTTP/1.1 2 OK\r\nContent-Length: 2\r\n\r\n{}",
    "a first header that begins with a space": b"HTTP/1.1 200 OK\r\n fold: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
}


@pytest.mark.parametrize("what", HEADS)
def test_head_with(db, unharmed, what):
    """Three times: what one answer leaves behind may harm the next."""
    server = RawServer(HEADS[what])
    try:
        db.sql(f"CREATE SERVER raw FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{server.url}')")
        for _ in range(3):
            found = outcome_of(db, QUERY)
            if what in ("a compressed body", "a length of many digits"):
                assert found == [("1", 0.5, {}, None)]
            else:
                assert found in (PROTOCOL, "08006", "08000", "58000", "08001", "54000"), found
    finally:
        server.close()


@faults
@pytest.mark.parametrize("what", MEMBERS)
def test_search_joined_to_rows_with(db, front, shared_items, unharmed, what):
    text, expected = MEMBERS[what]
    body = bytes_of(points("@")).replace(b"@", bytes_of(text))
    front.faults.fault("answer", path_regex="/points/query$", status=200, body=body.decode("utf-8", "replace"), times=1)
    found = outcome_of(db, "SELECT (hit).id FROM qdrant_search(NULL::items, '[1,2,3,4]', k => 1)")
    assert found in ([], [(1,)], [(2,)], expected), found
    front.faults.clear_faults()
    assert len(db.sql("SELECT score FROM qdrant_search(NULL::items, '[1,2,3,4]', k => 2)")) == 2


@pytest.fixture
def shared_items(db):
    return Items(db, rows=3)


# --- changed at random ---

FUZZ = places.ROOT / "test" / "fuzz"

# An answer with everything that hits.c reads, and one that it cuts into points, because of a character.
FULL = points(
    point(vector='[0.5,-1e-3]', shard_key='"a"', order_value="7", payload='{"a":{"b":[1,"\\u00e9",null]},"c":"d"}'),
    point(id='"5c56c793-69f3-4fbf-87e6-c4bf54c28c26"', vector='{"s":{"indices":[1],"values":[2]}}')).decode()


@pytest.fixture(scope="module")
def fuzz_module(pgversion):
    """The library of test/fuzz/hits_module.c, where the server can read it."""
    config = places.bindir(pgversion) / "pg_config"
    include = subprocess.run([config, "--includedir-server"], capture_output=True, text=True, check=True).stdout.strip()
    library = places.HOME / f"fuzz_hits_{pgversion}_{os.getpid()}.so"
    sources = [FUZZ / "hits_module.c", FUZZ / "change.c", *(places.ROOT / "src" / source for source in (
        "capture/point_id.c", "client/call_arguments.c", "client/hits.c", "client/points_reader.c", "client/reads.c",
        "client/collection.c"))]
    # The extension's functions of the same names are in this process, too.
    subprocess.run(["cc", "-shared", "-fPIC", "-fvisibility=hidden", "-Wl,-Bsymbolic", "-g", "-O1", "-D_GNU_SOURCE",
                    "-fwrapv", "-fno-strict-aliasing", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error", f"-I{places.ROOT / 'src'}", f"-I{FUZZ}",
                    f"-I{include}", "-o", library, *sources], check=True)
    library.chmod(0o755)
    yield library
    library.unlink()


@pytest.mark.parametrize("seed_text", [FULL, FULL.replace("\\u00e9", "\\u0000")], ids=["as a whole", "point by point"])
def test_answer_that_was_changed_in_many_ways(db, unharmed, fuzz_module, seed_text):
    """In a function of its own, so that there are 20,000 of them in seconds; the same ones in every run."""
    db.sql(f"CREATE FUNCTION fuzz_hits(text, int) RETURNS int[] LANGUAGE c AS '{fuzz_module}'")
    db.sql("SET client_min_messages = error")
    db.sql("SET log_min_messages = error")
    decoded, refused, no_text = db.one("SELECT fuzz_hits(%s, 20000)", (seed_text,))
    assert decoded > 1000 and refused > 1000 and decoded + refused + no_text == 20_000


# --- the sync worker ---

WRITES = {
    "a status that is a number": '{"result":{"operation_id":1,"status":7},"status":"ok","time":0}',
    "a status of a megabyte": json.dumps({"result": {"operation_id": 1, "status": "x" * 1_000_000}, "status": "ok", "time": 0}),
    "an operation_id of 1e300": '{"result":{"operation_id":1e300,"status":"postponed"},"status":"ok","time":0}',
    "100,000 levels": "[" * 100_000,
    "a NUL": '{"result":{"operation_id":1,"status":"compl\\u0000eted"},"status":"ok","time":0}',
    "an error that is an object": '{"status":{"error":{"a":1}},"time":0}',
    "nothing": "",
    "HTML": "<html>" + "x" * 10_000,
}


@faults
@pytest.mark.parametrize("what", WRITES)
def test_write_that_is_answered_by(db, front, cluster, shared_items, what):
    """It is not taken for done: the rows arrive, by another request."""
    pid = workers(cluster, db)
    front.faults.fault("answer", path_regex="/points(/delete)?$", status=200, body=WRITES[what], times=2)
    shared_items.update()
    shared_items.delete("id = 3")
    shared_items.converged(60)
    assert workers(cluster, db) == pid
    assert shared_items.dead_letters() == {}


DOCUMENTS = {
    "wrong types": '{"result":{"points":7,"aliases":{},"config":[],"points_count":"x","payload_schema":[],"status":1,"peers":3},'
                   '"status":"ok","time":0}',
    "null": "null",
    "deep": '{"result":' * 100_000,
    "half": '{"result":{"config":{"params":{"vectors":{"size":4,"dist',
    "numbers out of range": '{"result":{"config":{"params":{"vectors":{"size":1e99,"distance":"Cosine"},"replication_factor":-1,'
                            '"shard_number":99999999999999999999}},"points_count":-5},"status":"ok","time":0}',
    "an id that is no id": '{"result":{"points":[{"id":"x\\"],\\"filter\\":{"}],"next_page_offset":null},"status":"ok","time":0}',
    "a next page that is no id": '{"result":{"points":[{"id":1}],"next_page_offset":"1,\\"filter\\":{}"},"status":"ok","time":0}',
}


@faults
@pytest.mark.parametrize("what", DOCUMENTS)
def test_worker_that_reads(db, front, cluster, shared_items, what):
    """From the first look at the collection through a sweep: it waits, or stops and says so, and removes nothing that is right."""
    pid = workers(cluster, db)
    since = shared_items.mark()
    front.faults.configure(bodies=10_000)
    front.faults.fault("answer", path_regex="(/collections/[^/]*|/aliases|/scroll|/cluster)$", method=["GET", "POST"], status=200,
                       body=DOCUMENTS[what], times=4)
    db.sql("SELECT qdrant_resync('items')")
    shared_items.update()
    wait_until(lambda: all(rule["fired"] == 4 for rule in front.faults.faults()) or shared_items.state() == "failed", 60,
               what=lambda: f"the answers are taken: {shared_items.row()}")
    front.faults.clear_faults()
    if shared_items.state() == "failed":
        shared_items.resume()
    shared_items.converged(60)
    assert workers(cluster, db) == pid
    bodies = [entry["body"] for entry in shared_items.requests(since)]
    front.faults.configure(bodies=0)
    assert bodies and not any("filter" in body for body in bodies), bodies
