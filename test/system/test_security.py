"""Servers, their secrets and qdrant_request: what must not be possible is refused, with a SQLSTATE."""

import contextlib
import json

import psycopg
import pytest
from psycopg import sql

from harness import Recorder
from items import Items

faults = pytest.mark.faults


@contextlib.contextmanager
def refused(sqlstate, text=""):
    with pytest.raises(psycopg.Error) as caught:
        yield caught
    assert caught.value.sqlstate == sqlstate, caught.value
    assert text in str(caught.value), caught.value


@pytest.fixture
def recorder():
    with Recorder() as made:
        yield made


def add_server(db, name, url, **options):
    options = sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(k), sql.Literal(v))
                                 for k, v in {"url": url, **options}.items())
    db.sql(sql.SQL("CREATE SERVER {} FOREIGN DATA WRAPPER qdrant_fdw OPTIONS ({})").format(
        sql.Identifier(name), options))
    return name


@pytest.fixture
def role(db):
    """A role without any right of its own."""
    name = f"role_{db.name}"
    db.cluster.sql(f"CREATE ROLE {name} LOGIN")
    yield name
    db.sql(f"DROP OWNED BY {name}")
    db.cluster.sql(f"DROP ROLE {name}")


def request(db, method, path, query=None, body=None, server="recorder", conn=None):
    text = "SELECT qdrant_request(%s, %s, %s, %s, server => %s)"
    parameters = (method, path, None if query is None else json.dumps(query),
                  None if body is None else json.dumps(body), server)
    return (conn or db.conn).execute(text, parameters).fetchone()[0]


# --- qdrant_request ---

@pytest.mark.versions
def test_any_request_reaches_qdrant_and_its_answer_comes_back_whole(db, front):
    collection = db.collection("raw")
    made = request(db, "PUT", f"/collections/{collection}", body={"vectors": {"size": 2, "distance": "Dot"}},
                   server="qdrant")
    assert made["result"] is True and made["status"] == "ok"
    request(db, "PUT", f"/collections/{collection}/points", {"wait": True},
            {"points": [{"id": 1, "vector": [1, 0], "payload": {"größe": "ß"}}]}, server="qdrant")
    found = request(db, "POST", f"/collections/{collection}/points/scroll", body={"limit": 5}, server="qdrant")
    assert found["result"]["points"] == [{"id": 1, "payload": {"größe": "ß"}}]
    with refused("42704"):
        request(db, "GET", f"/collections/{collection}_not", server="qdrant")


@faults
def test_what_is_sent_is_what_was_said(db, recorder):
    add_server(db, "recorder", recorder.url)
    request(db, "GET", "/")
    request(db, "GET", "/collections/a b/ä'%25(x)", {"q": "a&b=c/ä", "n": 1.5, "t": True, "none": None})
    request(db, "DELETE", "/collections/x/index/price")
    request(db, "PATCH", "/collections/x", body={"ä": [1.25, None]})
    assert [(r.method, r.path) for r in recorder.requests] == [
        ("GET", "/"),
        # jsonb orders members by the length of their names.
        ("GET", "/collections/a%20b/%C3%A4'%25(x)?n=1.5&q=a%26b%3Dc%2F%C3%A4&t=true"),
        ("DELETE", "/collections/x/index/price"),
        ("PATCH", "/collections/x")]
    assert recorder.requests[-1].body.decode() == '{"ä": [1.25, null]}'
    assert recorder.requests[-1].headers["content-type"] == "application/json"


@faults
def test_text_is_answered_as_a_json_string(db, recorder):
    add_server(db, "recorder", recorder.url)
    for text in ("healthz check passed", '# HELP app_info "quoted" \\\napp_info{name="qdrant"} 1\n', ""):
        recorder.answer(body=text.encode(), kind="text/plain; charset=utf-8")
        assert request(db, "GET", "/metrics") == text
    recorder.answer(body=b"\xff\xfe", kind="application/octet-stream")
    with refused("22021"):
        request(db, "GET", "/collections/x/snapshots/file")
    recorder.answer(body=b'{"half": ')
    with refused("22P02"):
        request(db, "GET", "/")


PATHS = [
    "", "collections", "http://localhost:1/collections", "//localhost/collections", "/collections//x", "/collections/",
    "/collections/../aliases", "/collections/.", "/..", "/collections/%2e%2e/aliases", "/collections/.%2E/aliases",
    "/collections/%252e%252e/aliases", "/collections/x%2f..%2faliases", "/collections/x%2Fy", "/collections/%252Fy",
    "/collections?x=1", "/collections%3Fx=1", "/collections#x", "/collections%23x", "/collections\\x", "/collections%5cx",
    "/collections/x\r\nX-Header: 1", "/collections/x%0d%0aX-Header:%201", "/collections/x%250a", "/x%00y", "/x\x7fy",
    "/x%7Fy", "/x%", "/x%4", "/x%zz", "/" + "x" * 5000,
]


@faults
@pytest.mark.parametrize("path", PATHS, ids=lambda path: repr(path)[:40])
def test_a_path_that_could_mean_another_one_is_refused(db, recorder, path):
    add_server(db, "recorder", recorder.url)
    with refused("22023", "path cannot be used"):
        request(db, "GET", path)
    assert recorder.requests == []


@faults
def test_arguments_that_cannot_be_sent_are_refused(db, recorder):
    add_server(db, "recorder", recorder.url)
    for method in ("HEAD", "get", "CONNECT", "GET / HTTP/1.1\r\nX: 1\r\n\r\nGET", ""):
        with refused("22023", "method"):
            request(db, method, "/")
    for query in ([1], "x", {"a": [1]}, {"a": {"b": 1}}):
        with refused("22023", "query"):
            request(db, "GET", "/", query)
    with refused("22023", "no body"):
        request(db, "GET", "/", body={})
    for method, path in ((None, "/"), ("GET", None)):
        with refused("22004"):
            request(db, method, path)
    assert recorder.requests == []


def test_execute_is_nobodys_until_it_is_granted(db, role):
    with contextlib.closing(db.connect(role)) as conn:
        db.sql(f"GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
        with refused("42501", "permission denied for function qdrant_request"):
            request(db, "GET", "/collections", server="qdrant", conn=conn)
        db.sql(f"GRANT EXECUTE ON FUNCTION qdrant_request TO {role}")
        if not db.front.api_key:
            assert request(db, "GET", "/collections", server="qdrant", conn=conn)["status"] == "ok"
        db.sql(f"REVOKE USAGE ON FOREIGN SERVER qdrant FROM {role}")
        with refused("42501", f'role "{role}" may not use server "qdrant"'):
            request(db, "GET", "/collections", server="qdrant", conn=conn)


def test_a_mirrors_collection_is_not_changed_and_not_read_past_its_table(db, role):
    items = Items(db, rows=3)
    path = f"/collections/{items.collection}"
    alias = db.one("SELECT %s || '__qs_' || epoch || '_' || nonce FROM qdrant_internal.progress", (items.collection,))
    changes = [("DELETE", path), ("PATCH", path), ("PUT", f"{path}/points"), ("POST", f"{path}/points/delete"),
               ("POST", f"{path}/points/payload"), ("PUT", f"{path}/index"), ("DELETE", f"/collections/{alias}"),
               ("POST", f"{path}/points/search/unheard-of")]
    for method, changed in changes:
        with refused("42809", "belongs to the mirror"):
            request(db, method, changed, body=None if method == "DELETE" else {}, server="qdrant")
    for name in (items.collection, alias):
        for action in ({"delete_alias": {"alias_name": name}}, {"create_alias": {"collection_name": name, "alias_name": "x"}}):
            with refused("42809", "belongs to the mirror"):
                request(db, "POST", "/collections/alias%65s", body={"actions": [action]}, server="qdrant")
    reads = [("GET", path, None), ("POST", f"{path}/points/scroll", {}),
             ("POST", "/collections/x/points/query", {"query": 1, "lookup_from": {"collection": items.collection}})]
    assert request(db, *reads[1][:2], body={}, server="qdrant")["result"]["points"]
    db.sql(f"GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
    db.sql(f"GRANT EXECUTE ON FUNCTION qdrant_request TO {role}")
    with contextlib.closing(db.connect(role)) as conn:
        for method, read, body in reads:
            with refused("42501", "permission denied for table"):
                request(db, method, read, body=body, server="qdrant", conn=conn)
        db.sql(f"ALTER TABLE {items.table} ENABLE ROW LEVEL SECURITY")
        db.sql(f"GRANT SELECT ON {items.table} TO {role}")
        for method, read, body in reads:
            with refused("42501", "row security"):
                request(db, method, read, body=body, server="qdrant", conn=conn)
    items.converged()
