"""Servers, their secrets and qdrant_request: what must not be possible is refused, with a SQLSTATE."""

import contextlib
import ctypes
import functools
import json
import os
import re
import tempfile
import threading
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from harness import (Authority, Cluster, Forward, FrontHandle, Recorder, TlsFront, new_extension_db, server_file,
                     tls_context, wait_until)
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
    # Of a real server, to which the tests that are no `faults` come by another way.
    if db.front.api_key:
        db.sql(sql.SQL("CREATE USER MAPPING FOR CURRENT_USER SERVER {} OPTIONS (api_key {})").format(
            sql.Identifier(name), sql.Literal(db.front.api_key)))
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


def test_snapshots_of_a_mirrors_collection_are_for_who_may_read_its_table(db, role):
    items = Items(db, rows=3)
    copy = db.collection("copy")
    path = f"/collections/{items.collection}/snapshots"
    owner = functools.partial(request, db, server="qdrant")
    name = owner("POST", path)["result"]["name"]
    assert [one["name"] for one in owner("GET", path)["result"]] == [name]
    place = {"location": f"{db.front.url}{path}/{name}"}
    # Nothing from outside comes into the collection.
    for method, changed in (("PUT", f"{path}/recover"), ("POST", f"{path}/upload"), ("POST", f"{path}/recover"),
                            ("PUT", f"/collections/{items.collection}/shards/0/snapshots/recover")):
        with refused("42809", "belongs to the mirror"):
            owner(method, changed, body=place)
    reads = [("POST", path, None), ("GET", path, None), ("GET", f"{path}/{name}", None),
             ("POST", f"/collections/{items.collection}/shards/0/snapshots", None),
             ("PUT", f"/collections/{copy}/snapshots/recover", place),
             ("PUT", f"/collections/{copy}/snapshots/recover", {"location": f"file:///snapshots/{items.collection}/{name}"}),
             ("PUT", f"/collections/{copy}/snapshots/recover", {"location": place["location"].replace(
                 items.collection, f"%{ord(items.collection[0]):x}{items.collection[1:]}")}),
             ("POST", f"/collections/{copy}/points/query/groups",
              {"query": [1], "group_by": "n", "with_lookup": items.collection})]
    db.sql(f"GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
    db.sql(f"GRANT EXECUTE ON FUNCTION qdrant_request TO {role}")
    with contextlib.closing(db.connect(role)) as conn:
        for why, change in (("permission denied for table", "SELECT 1"),
                            ("row security", f"ALTER TABLE {items.table} ENABLE ROW LEVEL SECURITY; "
                                             f"GRANT SELECT ON {items.table} TO {role}")):
            db.sql(change)
            for method, read, body in reads:
                with refused("42501", why):
                    request(db, method, read, body=body, server="qdrant", conn=conn)
        db.sql(f"ALTER TABLE {items.table} DISABLE ROW LEVEL SECURITY")
        if not db.front.api_key:
            assert request(db, "GET", path, server="qdrant", conn=conn)["status"] == "ok"
        with refused("42501", "must be owner of table"):
            request(db, "DELETE", f"{path}/{name}", server="qdrant", conn=conn)
    if not db.front.api_key:
        assert owner("PUT", f"/collections/{copy}/snapshots/recover", body=place)["result"] is True
        assert owner("POST", f"/collections/{copy}/points/count", body={})["result"] == {"count": 3}
    assert owner("DELETE", f"{path}/{name}")["result"] is True
    items.converged()


# --- TLS ---

@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.fixture
def files(cluster):
    """A directory in which the server's user can read what server_file makes."""
    with tempfile.TemporaryDirectory(prefix="files-", dir=cluster.base) as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.fixture
def https(front, authority, tmp_path):
    """TLS in front of the run's Qdrant."""
    with TlsFront(front.url, tls_context(tmp_path, *authority.issue("localhost"))) as made:
        yield made


def alter(db, options, server="recorder", conn=None):
    (conn or db.conn).execute(f"ALTER SERVER {server} OPTIONS ({options})")


@pytest.mark.versions
def test_tls_needs_an_authority_that_is_trusted(db, https, authority, stranger, files):
    add_server(db, "recorder", https.url)
    with refused("08006", "certificate"):
        request(db, "GET", "/collections")
    server_file(files / "ca.pem", stranger.certificate)
    alter(db, f"ADD ca_file '{files}/ca.pem'")
    with refused("08006", "certificate"):
        request(db, "GET", "/collections")
    # The file of that name has other contents now: what libcurl has kept of it does not count.
    server_file(files / "ca.pem", authority.certificate)
    assert request(db, "GET", "/collections")["status"] == "ok"
    server_file(files / "ca.pem", stranger.certificate)
    with refused("08006", "certificate"):
        request(db, "GET", "/collections")
    server_file(files / "ca.pem", "nothing")
    with refused("08006", "the file of option ca_file holds no certificate"):
        request(db, "GET", "/collections")
    (files / "ca.pem").unlink()
    with refused("08006", "the file of option ca_file cannot be read"):
        request(db, "GET", "/collections")
    alter(db, "DROP ca_file")
    with refused("08006", "certificate"):
        request(db, "GET", "/collections")


def test_a_certificate_for_another_host_is_refused(db, front, authority, files, tmp_path):
    server_file(files / "ca.pem", authority.certificate)
    issued = authority.issue("elsewhere", "DNS:elsewhere.example")
    with TlsFront(front.url, tls_context(tmp_path, *issued)) as https:
        add_server(db, "recorder", https.url, ca_file=f"{files}/ca.pem")
        with refused("08006", "localhost"):
            request(db, "GET", "/collections")
        alter(db, "ADD verify 'off'")
        assert request(db, "GET", "/collections")["status"] == "ok"
        alter(db, "SET verify 'on'")
        with refused("08006", "localhost"):
            request(db, "GET", "/collections")
        alter(db, "DROP verify")
        with refused("08006", "localhost"):
            request(db, "GET", "/collections")


def test_a_client_certificate_is_shown_and_one_that_is_replaced_is_used_at_once(db, front, authority, stranger, files,
                                                                                tmp_path):
    """Hazard R16: kept connections, and sessions that TLS would resume, belong to the old one."""
    server_file(files / "ca.pem", authority.certificate)
    context = tls_context(tmp_path, *authority.issue("localhost"), client_authority=authority)
    with TlsFront(front.url, context) as https:
        add_server(db, "recorder", https.url, ca_file=f"{files}/ca.pem")
        with refused("08006"):
            request(db, "GET", "/collections")
        one = authority.issue("client one")
        server_file(files / "client.crt", one[0], 0o644)
        server_file(files / "client.key", one[1])
        alter(db, f"ADD cert_file '{files}/client.crt', ADD key_file '{files}/client.key'")
        for _ in range(3):
            assert request(db, "GET", "/collections")["status"] == "ok"
        assert https.clients == ["client one"]
        # Both in one file, which then has to be as well hidden as the key.
        both = "".join(authority.issue("client two"))
        server_file(files / "client.crt", both, 0o644)
        alter(db, "DROP key_file")
        with refused("08006", "the file of option cert_file, which has the key"):
            request(db, "GET", "/collections")
        server_file(files / "client.crt", both)
        assert request(db, "GET", "/collections")["status"] == "ok"
        assert https.clients == ["client one", "client two"]
        server_file(files / "client.crt", "".join(authority.issue("client three")))
        assert request(db, "GET", "/collections")["status"] == "ok"
        assert https.clients == ["client one", "client two", "client three"]
        server_file(files / "client.crt", "".join(stranger.issue("a stranger")))
        with refused("08006"):
            request(db, "GET", "/collections")
        # A key of another certificate.
        server_file(files / "client.crt", one[0] + stranger.issue("a stranger")[1])
        with refused("08006", "no certificate and key that belong together"):
            request(db, "GET", "/collections")


@pytest.mark.parametrize("mode, good", [(0o600, True), (0o400, True), (0o640, False), (0o604, False), (0o660, False)])
def test_a_key_that_others_could_read_is_not_used(db, https, authority, files, mode, good):
    server_file(files / "ca.pem", authority.certificate, 0o644)
    certificate, key = authority.issue("client")
    server_file(files / "client.crt", certificate, 0o644)
    server_file(files / "client.key", key, mode)
    add_server(db, "recorder", https.url, ca_file=f"{files}/ca.pem", cert_file=f"{files}/client.crt",
               key_file=f"{files}/client.key")
    with contextlib.nullcontext() if good else refused("08006", "the file of option key_file must be readable by"):
        assert request(db, "GET", "/collections")["status"] == "ok"


@pytest.mark.versions
def test_a_mirror_goes_by_the_same_options(db, front, authority, files, tmp_path):
    """The sync worker: authority, client certificate, one that is replaced, and an address that changes."""
    server_file(files / "ca.pem", authority.certificate)
    server_file(files / "client.pem", "".join(authority.issue("client one")))
    context = tls_context(tmp_path, *authority.issue("localhost"), client_authority=authority)
    with TlsFront(front.url, context) as https, TlsFront(front.url, context) as second:
        alter(db, f"SET url '{https.url}', ADD ca_file '{files}/ca.pem', ADD cert_file '{files}/client.pem'", "qdrant")
        items = Items(db, rows=20)
        items.converged()
        assert set(https.clients) == {"client one"}
        server_file(files / "client.pem", "".join(authority.issue("client two")))
        seen = len(https.clients)
        items.insert(100, 119)
        items.converged()
        assert set(https.clients[seen:]) == {"client two"}
        alter(db, f"SET url '{second.url}'", "qdrant")
        items.insert(200, 219)
        items.converged()
        assert set(second.clients) == {"client two"}
        alter(db, "DROP ca_file", "qdrant")
        items.insert(300, 301)
        items.wait_error("certificate")
        alter(db, f"ADD ca_file '{files}/ca.pem'", "qdrant")
        items.converged(60)


def curl_version():
    curl = ctypes.CDLL("libcurl.so.4")
    curl.curl_version.restype = ctypes.c_char_p
    return tuple(int(n) for n in re.match(rb"libcurl/(\d+)\.(\d+)", curl.curl_version()).groups())


def test_http2_is_spoken_only_where_libcurl_is_fit_for_it(db, front, authority, files, tmp_path):
    server_file(files / "ca.pem", authority.certificate)
    context = tls_context(tmp_path, *authority.issue("localhost"), alpn=("h2", "http/1.1"))
    with TlsFront(front.url, context) as https:
        add_server(db, "recorder", https.url, ca_file=f"{files}/ca.pem")
        if curl_version() < (8, 10):
            assert request(db, "GET", "/collections")["status"] == "ok"
            assert https.alpn == ["http/1.1"]
        else:
            # The front behind speaks HTTP/1.1 alone.
            with refused("08006"):
                request(db, "GET", "/collections")
            assert set(https.alpn) == {"h2"}
        seen = len(https.alpn)
        alter(db, "ADD http2 'off'")
        assert request(db, "GET", "/collections")["status"] == "ok"
        assert https.alpn[seen:] == ["http/1.1"]


# --- the proxy ---

@pytest.fixture
def proxied(pgversion, front):
    """A cluster in whose environment there are proxies that do not answer, and a database with the server."""
    dead = "http://localhost:1"
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    cluster = Cluster(pgversion, name="proxied")
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in names:
                patch.setenv(name, dead)
            cluster.start()
        yield new_extension_db(cluster, front)
    finally:
        cluster.remove()


def test_a_proxy_is_used_by_option_only(front, authority, tmp_path, proxied):
    db = proxied
    with TlsFront(front.url, tls_context(tmp_path, *authority.issue("localhost"))) as https, Forward() as proxy:
        ca_file = server_file(db.cluster.base / "ca.pem", authority.certificate)
        add_server(db, "recorder", front.url)
        add_server(db, "tls", https.url, ca_file=ca_file)
        assert request(db, "GET", "/collections")["status"] == "ok"
        assert request(db, "GET", "/collections", server="tls")["status"] == "ok"
        assert proxy.heads == []
        db.sql("CREATE USER MAPPING FOR PUBLIC SERVER tls OPTIONS (api_key 'not-for-the-proxy')")
        for server in ("recorder", "tls"):
            alter(db, f"ADD proxy '{proxy.url}'", server)
            assert request(db, "GET", "/collections", server=server)["status"] == "ok"
        assert len(proxy.heads) == 2
        assert proxy.heads[0].startswith(f"GET {front.url}/collections ")
        assert proxy.heads[1].startswith(f"CONNECT localhost:{https.port} ")
        assert "not-for-the-proxy" not in proxy.heads[1]
        items = Items(db, rows=5, server="tls")
        items.converged()
        assert len(proxy.heads) > 2
        for server in ("recorder", "tls"):
            alter(db, "DROP proxy", server)
        seen = len(proxy.heads)
        assert request(db, "GET", "/collections")["status"] == "ok"
        assert request(db, "GET", "/collections", server="tls")["status"] == "ok"
        assert len(proxy.heads) == seen


# --- who may set what ---

@pytest.fixture
def owner(db, role):
    """A role that owns a server, and a connection of its own."""
    db.sql(f"GRANT USAGE ON FOREIGN DATA WRAPPER qdrant_fdw TO {role}")
    with contextlib.closing(db.connect(role)) as conn:
        conn.execute("CREATE SERVER recorder FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'http://localhost:1')")
        yield role, conn


def test_only_a_superuser_names_files_and_switches_verification_off(db, owner):
    role, conn = owner
    for option in ("ca_file '/x'", "cert_file '/x'", "cert_file '/x', ADD key_file '/y'", "verify 'off'"):
        with refused("42501", option.split()[0]):
            alter(db, f"ADD {option}", conn=conn)
        alter(db, f"ADD {option}")
        # Nor may its owner then lead elsewhere what the superuser allowed; to drop it is no right.
        with refused("42501"):
            alter(db, "SET url 'http://localhost:2'", conn=conn)
        alter(db, ", ".join(f"DROP {name}" for name in re.findall(r"\w+_file|verify", option)), conn=conn)
        alter(db, "SET url 'http://localhost:2'", conn=conn)
    alter(db, "ADD verify 'on', ADD proxy 'http://localhost:3', ADD http2 'off'", conn=conn)
    with refused("42501", "api_key_file"):
        conn.execute(f"CREATE USER MAPPING FOR {role} SERVER recorder OPTIONS (api_key_file '/etc/passwd')")
    db.sql(f"CREATE USER MAPPING FOR {role} SERVER recorder OPTIONS (api_key_file '/x')")
    with refused("42501", "api_key_file"):
        conn.execute(f"ALTER USER MAPPING FOR {role} SERVER recorder OPTIONS (SET api_key_file '/etc/passwd')")
    conn.execute(f"ALTER USER MAPPING FOR {role} SERVER recorder OPTIONS (DROP api_key_file, ADD api_key 'own')")


def test_options_that_mean_nothing_are_refused(db):
    add_server(db, "recorder", "http://localhost:1")
    for option in ("ca_file 'relative.pem'", r"cert_file E'/x\ny'", "key_file ''", "verify 'maybe'", "http2 '2'",
                   "proxy 'socks5://localhost'", "proxy 'http://user:secret@localhost'", "proxy 'http://localhost/x'",
                   "proxy 'file:///etc/passwd'"):
        with refused("HV024", "cannot be used"):
            alter(db, f"ADD {option}")
    with refused("HV00J", "needs option \"cert_file\""):
        alter(db, "ADD key_file '/x'")
    with refused("HV00D", "exclude each other"):
        db.sql("CREATE USER MAPPING FOR PUBLIC SERVER recorder OPTIONS (api_key 'k', api_key_file '/x')")
    for url in ("file:///etc/passwd", "gopher://localhost", "ftp://localhost/x", "unix:///tmp/socket"):
        with refused("HV024", "http"):
            alter(db, f"SET url '{url}'")


# --- keys ---

def keys(recorder):
    return [noted.headers.get("api-key") for noted in recorder.requests]


@faults
def test_a_role_never_uses_anothers_mapping(db, role, recorder):
    add_server(db, "recorder", recorder.url)
    db.sql("CREATE USER MAPPING FOR CURRENT_USER SERVER recorder OPTIONS (api_key 'the-superusers')")
    db.sql(f"GRANT USAGE ON FOREIGN SERVER recorder TO {role}")
    db.sql(f"GRANT EXECUTE ON FUNCTION qdrant_request TO {role}")
    with contextlib.closing(db.connect(role)) as conn:
        request(db, "GET", "/", conn=conn)
        request(db, "GET", "/")
        assert keys(recorder) == [None, "the-superusers"]
        with refused("42501"):
            conn.execute("SET ROLE postgres")
        with refused("42501"):
            conn.execute("SELECT umoptions FROM pg_user_mapping")
        assert conn.execute("SELECT count(*) FROM pg_user_mappings WHERE umoptions IS NOT NULL").fetchone() == (0,)
        # With USAGE it may make a mapping of its own, and of nobody else.
        with refused("42501"):
            conn.execute("CREATE USER MAPPING FOR PUBLIC SERVER recorder OPTIONS (api_key 'x')")
        conn.execute(f"CREATE USER MAPPING FOR {role} SERVER recorder OPTIONS (api_key 'its-own')")
        request(db, "GET", "/", conn=conn)
        conn.execute(f"ALTER USER MAPPING FOR {role} SERVER recorder OPTIONS (SET api_key 'its-new')")
        request(db, "GET", "/", conn=conn)
        conn.execute(f"DROP USER MAPPING FOR {role} SERVER recorder")
        db.sql("CREATE USER MAPPING FOR PUBLIC SERVER recorder OPTIONS (api_key 'of-all')")
        request(db, "GET", "/", conn=conn)
    assert keys(recorder)[2:] == ["its-own", "its-new", "of-all"]


@faults
def test_a_key_in_a_file_is_read_again_when_it_changes(db, recorder, files):
    add_server(db, "recorder", recorder.url)
    server_file(files / "key", "the-first\n")
    db.sql(f"CREATE USER MAPPING FOR PUBLIC SERVER recorder OPTIONS (api_key_file '{files}/key')")
    request(db, "GET", "/")
    server_file(files / "key", "the-second")
    request(db, "GET", "/")
    assert keys(recorder) == ["the-first", "the-second"]
    for content in ("", "\n", "two\nlines\n", "with space", "ä", "x" * 9000, "nul\0byte", "two\r\nlines"):
        server_file(files / "key", content)
        with refused("58030", 'the api_key_file for server "recorder" cannot be used') as caught:
            request(db, "GET", "/")
        assert str(files) not in str(caught.value)
    for mode in (0o640, 0o604, 0o620):
        server_file(files / "key", "hidden", mode)
        with refused("58030", "its mode must be"):
            request(db, "GET", "/")
    (files / "key").unlink()
    with refused("58030", "cannot be read"):
        request(db, "GET", "/")
    os.mkfifo(files / "key", 0o600)
    with refused("58030"):
        request(db, "GET", "/")
    assert len(recorder.requests) == 2


@faults
@pytest.mark.versions
def test_a_mirror_goes_on_with_the_key_that_was_put_into_the_file(db, files):
    """Qdrant's key changes: the mirror stops with 401, and starts by itself with the new one."""
    with FrontHandle(api_key="old-key") as front:
        add_server(db, "locked", front.url)
        server_file(files / "key", "old-key")
        db.sql(f"CREATE USER MAPPING FOR PUBLIC SERVER locked OPTIONS (api_key_file '{files}/key')")
        items = Items(db, rows=10, server="locked")
        assert db.wait() is True
        front.faults.stop()
        front.faults.api_key = "new-key"
        front.faults.start()
        items.insert(20, 29)
        items.wait_error("401|denied|api_key")
        server_file(files / "key", "new-key")
        wait_until(lambda: db.wait(timeout=2), 60, lambda: f"the mirror goes on: {items.row()}")


@faults
def test_mirrors_and_writes_wait_for_a_key_file_that_is_not_there_for_the_moment(db, front, files):
    db.sql(f"CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key_file '{files}/key')")
    collection = db.collection("written")
    server_file(files / "key", "a-key")
    request(db, "PUT", f"/collections/{collection}", body={"vectors": {"size": 2, "distance": "Dot"}}, server="qdrant")
    items = Items(db, rows=10)
    front.faults.fault("hold", path_regex=f"/{collection}/points")
    for i in (1, 2):
        db.sql("SELECT qdrant_upsert(%s, %s)", (collection, json.dumps([{"id": i, "vector": [1, 0]}])))
        front.faults.wait_held(1)
    (files / "key").rename(files / "gone")
    # A server that changes is looked up again, with its mappings' files.
    alter(db, "ADD timeout '50s'", "qdrant")
    items.insert(20, 29)
    items.wait_error("the api_key_file for server .* cannot be used")
    # The first write ends, and the second one finds no key.
    front.faults.clear_faults()
    front.faults.release()
    wait_until(lambda: front.client.count(collection).count == 1, 30, "the first write is done")
    assert db.wait(timeout=3) is False
    (files / "gone").rename(files / "key")
    items.converged(60)
    assert db.wait() is True
    assert front.client.count(collection).count == 2
    assert db.sql("SELECT * FROM qdrant_dead_letters") == []


def is_in_memory(pid, kind, text):
    """Whether a process has this text in its memory of that kind."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            if not re.search(kind, line):
                continue
            at, end = (int(part, 16) for part in line.split()[0].split("-"))
            memory.seek(at)
            if text.encode() in memory.read(end - at):
                return True
    return False


def is_in_shared_memory(cluster, text):
    return is_in_memory(cluster.pid, r" rw-s .*(/dev/zero|/SYSV)", text)


@faults
def test_a_session_forgets_a_key_whatever_way_its_call_ends(db, front, files):
    key = "Key-That-Is-Looked-For-" + os.urandom(8).hex()
    server_file(files / "key", key)
    db.sql(f"CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key_file '{files}/key')")
    front.faults.fault("hold", path_regex="/collections/slow")
    conn = db.connect()
    pid = conn.info.backend_pid

    def ask():
        with contextlib.suppress(psycopg.Error):
            request(db, "GET", "/collections/slow", server="qdrant", conn=conn)
    thread = threading.Thread(target=ask)
    thread.start()
    front.faults.wait_held(1)
    assert is_in_memory(pid, " rw-p ", key)
    conn.cancel()
    thread.join(30)
    assert not is_in_memory(pid, " rw-p ", key)
    request(db, "GET", "/collections", server="qdrant", conn=conn)
    with refused("42704"):
        request(db, "GET", "/collections/nowhere", server="qdrant", conn=conn)
    with refused("22023"):
        conn.execute("SELECT qdrant_query('x', '[]', server => 'qdrant')")
    server_file(files / "key", key + " ")
    with refused("58030"):
        request(db, "GET", "/collections", server="qdrant", conn=conn)
    assert not is_in_memory(pid, " rw-p ", key)
    conn.close()


@faults
def test_shared_memory_holds_a_key_no_longer_than_its_request_waits(db, front, files):
    """A key from a file is in no catalog, so that all of shared memory can be searched for it."""
    key = "Key-That-Is-Looked-For-" + os.urandom(8).hex()
    server_file(files / "key", key)
    db.sql(f"CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key_file '{files}/key')")
    path = "/collections/secret-path"

    def ask(conn):
        with contextlib.suppress(psycopg.Error):
            request(db, "GET", path, server="qdrant", conn=conn)
    front.faults.fault("hold", path_regex=path)
    conns = [db.connect() for _ in range(20)]
    threads = [threading.Thread(target=ask, args=(conn,)) for conn in conns]
    states = "SELECT count(*) FILTER (WHERE state = 'running'), count(*) FROM qdrant_requests"
    for thread in threads[:16]:
        thread.start()
    wait_until(lambda: db.sql(states) == [(16, 16)], 10, lambda: f"16 are sent: {db.sql(states)}")
    front.faults.wait_held(16)
    # What is on its way is still there, but for the key.
    assert is_in_shared_memory(db.cluster, path) and not is_in_shared_memory(db.cluster, key)
    for thread in threads[16:]:
        thread.start()
    wait_until(lambda: db.sql(states) == [(16, 20)], 10, lambda: f"16 of 20 are sent: {db.sql(states)}")
    # Four wait for a connection: this is what the search finds.
    assert is_in_shared_memory(db.cluster, key)
    for conn in (conns[0], conns[17]):
        conn.cancel()
    for conn in (conns[1], conns[18]):
        db.sql("SELECT pg_terminate_backend(%s)", (conn.info.backend_pid,))
    front.faults.clear_faults()
    front.faults.release()
    for thread in threads:
        thread.join(30)
    wait_until(lambda: not db.sql("SELECT 1 FROM qdrant_requests"), 10, "no request is left")
    items = Items(db, rows=5)
    items.converged()
    for conn in conns:
        conn.close()
    assert not is_in_shared_memory(db.cluster, key)
    assert key not in db.cluster.log_text()


def tickets(conn, path, n):
    return [conn.execute("SELECT qdrant_scroll_async(%s, server => 'qdrant')", (path,)).fetchone()[0] for _ in range(n)]


@faults
def test_no_key_is_left_in_shared_memory_after_it_was_exchanged(db, front, files):
    """Of tickets that were awaited, cancelled, and never awaited, by sessions that live on; sent and queued at that moment."""
    old, new = ("Key-That-Is-Looked-For-" + os.urandom(8).hex() for _ in range(2))
    server_file(files / "old", old)
    server_file(files / "new", new)
    db.sql(f"CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key_file '{files}/old')")
    front.faults.fault("hold", path_regex="/collections/slow/")
    by_state = "SELECT count(*) FILTER (WHERE state = 'running'), count(*) FILTER (WHERE state = 'queued') FROM qdrant_requests"
    with contextlib.closing(db.connect()) as first, contextlib.closing(db.connect()) as second:
        sent = tickets(first, "slow", 16)
        wait_until(lambda: db.sql(by_state) == [(16, 0)], 10, lambda: f"16 are sent: {db.sql(by_state)}")
        front.faults.wait_held(16)
        assert not is_in_shared_memory(db.cluster, old)
        queued = tickets(first, "slow", 4)
        db.sql(f"ALTER USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (SET api_key_file '{files}/new')")
        later = tickets(second, "slow", 4)
        # What waits for a connection has the key of when it was asked for: this is what the search finds.
        assert is_in_shared_memory(db.cluster, old) and is_in_shared_memory(db.cluster, new)
        # Those that wait first: one that is sent leaves its connection to the next.
        for conn, ticket in ((first, queued[0]), (second, later[0]), (first, sent[0])):
            conn.execute("SELECT qdrant_cancel(%s)", (ticket,))
        front.faults.clear_faults()
        front.faults.release()
        for conn, ticket in ((first, sent[1]), (first, queued[1]), (second, later[1])):
            with pytest.raises(psycopg.errors.UndefinedObject):
                conn.execute("SELECT qdrant_await(%s)", (ticket,))
        # Fourteen, two and two are never awaited: their answers stay as long as the sessions do.
        states = "SELECT state, count(*) FROM qdrant_requests GROUP BY state"
        wait_until(lambda: db.sql(states) == [("done", 18)], 10, lambda: f"all have an answer: {db.sql(states)}")
        assert not is_in_shared_memory(db.cluster, old) and not is_in_shared_memory(db.cluster, new)
        tickets(first, "fast", 1)
        wait_until(lambda: db.sql(states) == [("done", 19)], 10, lambda: f"the last has an answer: {db.sql(states)}")
        assert not is_in_shared_memory(db.cluster, old) and not is_in_shared_memory(db.cluster, new)
    wait_until(lambda: not db.sql("SELECT 1 FROM qdrant_requests"), 10, "no request is left")
    assert not is_in_shared_memory(db.cluster, old) and not is_in_shared_memory(db.cluster, new)
    assert old not in db.cluster.log_text() and new not in db.cluster.log_text()


def test_a_server_needs_a_url(db):
    with refused("HV00J", 'option "url" is missing'):
        db.sql("CREATE SERVER nowhere FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (timeout '5s')")
    with refused("HV00J", 'option "url" is missing'):
        db.sql("ALTER SERVER qdrant OPTIONS (DROP url)")
    db.sql("ALTER SERVER qdrant OPTIONS (ADD timeout '5s')")
    db.sql("ALTER SERVER qdrant VERSION '2'")


# --- what the views show ---

VIEWS = ("mirrors", "backfills", "outboxes", "verifications", "dead_letters", "workers", "requests", "request_usage",
         "uploads", "operations")

FORGED = [
    "no JSON", "", "{", '"x"', "7", "null", "[]", "{}", '{"version":1,"rebuild":"{bad"}', '{"version":1,"rebuild":"7"}',
    '{"rebuild":{"server":7,"collection":[]}}', '{"rebuild":[{"server":"s"}]}', '{"rebuild":{"server":{"server":"s"}}}',
    '{"server":7,"collection":{}}', '{"server":"\\u0000","collection":"c"}', '{"server":"a\\000b"}', '{"version":1e999999}',
    '{"server":"\\ud800"}', "[" * 100_000, '{"rebuild":' * 50_000, '{"rebuild":{"server":"' + "s" * 900_000 + '"}}',
    "[" + "1," * 3_000_000 + "1]", '{"server":"' + "s" * 3_000_000 + '"}',
]


def test_a_forged_trigger_hides_nothing_from_the_views(db, role):
    """EXECUTE on the trigger's function is everybody's, and so is what its arguments say."""
    db.sql("CREATE TABLE good (id int PRIMARY KEY, v real[]); INSERT INTO good VALUES (1, '{1}')")
    db.sql("SELECT qdrant_mirror('good', collection => %s)", [db.collection("good")])
    db.sql(f"GRANT CREATE ON SCHEMA public TO {role}")
    with contextlib.closing(db.connect(user=role)) as conn:
        for n, text in enumerate(FORGED):
            conn.execute(f"CREATE TABLE forged_{n} (id int PRIMARY KEY, v real[])")
            conn.execute(sql.SQL("CREATE TRIGGER q AFTER INSERT ON {} FOR EACH ROW EXECUTE FUNCTION qdrant_internal.capture({})")
                         .format(sql.Identifier(f"forged_{n}"), sql.Literal(text)))
        conn.execute("CREATE TABLE bare (id int PRIMARY KEY, v real[])")
        conn.execute("CREATE TRIGGER q AFTER INSERT ON bare FOR EACH ROW EXECUTE FUNCTION qdrant_internal.capture()")
        for reader in (db.conn, conn):
            for view in VIEWS:
                reader.execute(f"SELECT * FROM qdrant_{view}").fetchall()
    assert db.sql("SELECT source::text FROM qdrant_mirrors WHERE state <> 'restored'") == [("good",)]
    assert db.one("SELECT count(*) FROM qdrant_mirrors WHERE state = 'restored'") >= len(FORGED)


def test_views_show_no_value_of_a_row_that_row_security_hides(db, role):
    """An error may quote one, and so may the key of a dead letter."""
    db.sql("CREATE TABLE secrets (id int PRIMARY KEY, pin text, v real[])")
    db.sql("CREATE FUNCTION number(text) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT $1::integer'")
    db.sql("SELECT qdrant_mirror('secrets', payload => 'number(pin) AS pin', collection => %s)", [db.collection("secrets")])
    db.sql("INSERT INTO secrets VALUES (1, '7', '{1}'), (2, 'PINCODE1234', '{1}')")
    assert db.wait("secrets")
    db.sql("UPDATE qdrant_internal.progress SET error = 'PINCODE1234 is no number', error_at = now()")
    db.sql(f"GRANT SELECT ON secrets TO {role}")

    def shown(conn):
        return (conn.execute("SELECT key FROM qdrant_dead_letters").fetchall(),
                conn.execute("SELECT last_error FROM qdrant_mirrors").fetchone()[0],
                any("PINCODE" in str(conn.execute(f"SELECT * FROM qdrant_{view}").fetchall()) for view in VIEWS))
    with contextlib.closing(db.connect(user=role)) as conn:
        everything = ([("2",)], "PINCODE1234 is no number", True)
        assert shown(conn) == everything
        db.sql("ALTER TABLE secrets ENABLE ROW LEVEL SECURITY; CREATE POLICY one ON secrets USING (id = 1)")
        assert shown(conn) == ([], None, False)
        conn.execute("SET row_security = off")
        assert shown(conn) == ([], None, False)
        assert shown(db.conn) == everything


@faults
def test_a_key_is_in_no_log_and_no_view(db, recorder):
    """What PostgreSQL itself logs of a statement is another matter: see doc/security.md."""
    key = "Key-That-Is-Looked-For-" + os.urandom(8).hex()
    add_server(db, "recorder", recorder.url)
    mark = db.cluster.log_mark()
    for bad in (f"api_key '{key} '", f"apikey '{key}'", f"api_key E'{key}\\r\\nX-Header: 1'", f"api_key '{key}ä'",
                f"api_key '{key}', api_key_file '/x'", f"api_key_file '{key}'"):
        with pytest.raises(psycopg.Error) as caught:
            db.sql(f"CREATE USER MAPPING FOR CURRENT_USER SERVER recorder OPTIONS ({bad})")
        assert key not in str(caught.value)
    assert key not in db.cluster.log_text(mark)
    db.sql(f"CREATE USER MAPPING FOR CURRENT_USER SERVER recorder OPTIONS (api_key '{key}')")
    db.sql("SELECT 1")
    with contextlib.closing(db.connect()) as conn:
        for status in (400, 401, 403, 500):
            recorder.answer(status, {"status": {"error": "no"}, "time": 0})
            with pytest.raises(psycopg.Error) as caught:
                request(db, "GET", "/", conn=conn)
            diag = caught.value.diag
            assert key not in " ".join(filter(None, (str(caught.value), diag.message_detail, diag.context)))
    assert set(keys(recorder)) == {key}
    for view in ("qdrant_requests", "qdrant_mirrors", "qdrant_workers", "qdrant_dead_letters", "pg_stat_activity"):
        assert key not in str(db.sql(f"SELECT * FROM {view}"))
    assert key not in db.cluster.log_text(mark)


@faults
def test_a_key_or_an_address_that_goes_round_the_validator_is_refused_at_its_use(db, recorder):
    """Hazard R8: a superuser can write into catalogs what no validator has seen."""
    add_server(db, "recorder", recorder.url)
    db.sql("CREATE USER MAPPING FOR PUBLIC SERVER recorder OPTIONS (api_key 'x')")
    db.sql("UPDATE pg_user_mapping SET umoptions = ARRAY[E'api_key=secret\\r\\nX-Header: 1']")
    with refused("HV024", "the api_key for server") as caught:
        request(db, "GET", "/")
    assert "secret" not in str(caught.value)
    db.sql("DROP USER MAPPING FOR PUBLIC SERVER recorder")
    for url in ("file:///etc/passwd", r"http://localhost\r\nX-Header: 1", "http://user:pass@localhost", "ftp://localhost"):
        db.sql("UPDATE pg_foreign_server SET srvoptions = ARRAY['url=' || E'" + url + "'] WHERE srvname = 'recorder'")
        with refused("HV024", "the url of server"):
            request(db, "GET", "/")
    assert recorder.requests == []


# --- answers ---

@faults
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_and_its_goal_gets_nothing(db, recorder, status):
    add_server(db, "recorder", recorder.url)
    db.sql("CREATE USER MAPPING FOR PUBLIC SERVER recorder OPTIONS (api_key 'not-for-others')")
    with Recorder() as other:
        recorder.answer(status, b"moved", "text/plain", {"Location": f"{other.url}/collections"})
        for method, body in (("GET", None), ("POST", {}), ("DELETE", None)):
            with refused("58000") as caught:
                request(db, method, "/collections", body=body)
            assert "Redirects are not followed" in caught.value.diag.message_hint
        assert len(recorder.requests) == 3 and other.requests == []


DEEP = {"arrays": b"[" * 100_000 + b"]" * 100_000, "objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "endless": b"[" * 100_000}


@faults
@pytest.mark.versions
@pytest.mark.parametrize("kind", DEEP)
def test_an_answer_nested_100000_deep_is_an_error_and_no_crash(db, recorder, kind):
    add_server(db, "recorder", recorder.url)
    workers = db.cluster.pids("^qdrant_sync request worker")
    for body in (DEEP[kind], b'{"result": ' + DEEP[kind] + b', "status": "ok", "time": 0}'):
        recorder.answer(body=body)
        with refused("54001"):
            request(db, "GET", "/")
        with pytest.raises(psycopg.Error):
            db.sql("SELECT * FROM qdrant_query('x', '[1, 0]', server => 'recorder')")
        # An error's document is read by another parser.
        recorder.answer(500, b'{"status": ' + body + b"}")
        with refused("58000"):
            request(db, "GET", "/")
    assert db.cluster.pids("^qdrant_sync request worker") == workers
    assert request(db, "GET", "/collections", server="qdrant")["status"] == "ok"


@faults
@pytest.mark.versions
def test_the_sync_worker_survives_answers_nested_100000_deep(db, recorder):
    other = Items(db, "other", rows=3)
    workers = db.cluster.pids("^qdrant_sync worker")
    asked = set()

    def deep(noted):
        asked.add((noted.method, noted.path.split("?")[0]))
        answer = {"title": "qdrant", "version": "1.18.3"}
        if noted.path == "/":
            return 200, "application/json", json.dumps(answer).encode(), {}
        return 200, "application/json", b'{"status": "ok", "time": 0, "result": ' + DEEP["arrays"] + b"}", {}
    recorder.answer_to = deep
    add_server(db, "recorder", recorder.url)
    items = Items(db, rows=3, server="recorder", live=False)
    wait_until(lambda: items.row().get("last_error"), 30, lambda: f"an error: {items.row()}, asked {asked}")
    other.insert(10, 12)
    other.converged()
    assert db.cluster.pids("^qdrant_sync worker") == workers
    items.unmirror()


@faults
def test_an_answer_of_any_length_is_bounded(db, recorder):
    add_server(db, "recorder", recorder.url)
    recorder.answer(body=b'{"a": "' + b"x" * (40 << 20) + b'"}')
    with refused("54000", "larger than"):
        request(db, "GET", "/")
    recorder.answer(headers={f"X-{i}": "x" * 8000 for i in range(20)})
    with refused("08006", "head"):
        request(db, "GET", "/")


# --- changes while requests run ---

@faults
def test_a_server_or_a_mapping_that_changes_while_requests_run_takes_effect_at_once(db, front, recorder):
    front.faults.fault("hold", path_regex="/collections/slow")
    conn = db.connect()
    answers = []

    def ask():
        try:
            answers.append(request(db, "GET", "/collections/slow", server="qdrant", conn=conn))
        except psycopg.Error as e:
            answers.append(e.sqlstate)
    thread = threading.Thread(target=ask)
    thread.start()
    front.faults.wait_held(1)
    alter(db, f"SET url '{recorder.url}'", "qdrant")
    db.sql("CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key 'one')")
    request(db, "GET", "/first", server="qdrant")
    db.sql("ALTER USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (SET api_key 'two')")
    request(db, "GET", "/second", server="qdrant")
    db.sql("DROP USER MAPPING FOR PUBLIC SERVER qdrant")
    request(db, "GET", "/third", server="qdrant")
    assert [(r.path, r.headers.get("api-key")) for r in recorder.requests] == [
        ("/first", "one"), ("/second", "two"), ("/third", None)]
    # What was under way goes on where it was sent.
    front.faults.release()
    thread.join(30)
    assert answers == ["42704"]
    conn.close()
