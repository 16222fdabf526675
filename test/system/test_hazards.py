"""Hazards of the request path that only a whole server shows: slow name look-ups, little shared memory, nobody to ask,
planning, and numbers and characters on their way to SQL."""

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import psycopg
import pytest
from qdrant_client import models

from harness import Cluster, new_extension_db, places, wait_until
from harness.cluster import as_server_user
from items import Items
from test_request_path import Session
from test_search import raw  # noqa: F401 - a fixture

# --- slow name look-ups ---

# Longer than anything here waits for: who waits for a look-up is found out by his statement_timeout.
LOOKUP_SECONDS = 120
PATIENCE = "statement_timeout = '20s'"


@pytest.fixture(scope="module")
def slow_cluster(pgversion):
    """A cluster to which names that end in .slow take LOOKUP_SECONDS."""
    cluster = Cluster(pgversion, name="slow")
    try:
        library = cluster.base / "slow_lookup.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library,
                        places.ROOT / "test" / "unit" / "faults" / "slow_lookup.c", "-ldl"], check=True)
        library.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LD_PRELOAD", str(library))
            patch.setenv("SLOW_LOOKUP_SECONDS", str(LOOKUP_SECONDS))
            cluster.start()
        yield cluster
    finally:
        cluster.remove()


@pytest.fixture
def slow(slow_cluster, front):
    front.clear()
    db = new_extension_db(slow_cluster, front)
    db.sql("CREATE SERVER slow FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'http://qdrant.slow:1')")
    db.sql(f"SET {PATIENCE}")
    yield db
    db.drop()
    front.clear()


def resolvers(pid):
    """Threads of a process of PostgreSQL's, which has none of its own."""
    return [task for task in os.listdir(f"/proc/{pid}/task") if task != str(pid)]


def assert_no_handler_of_ours_runs_in(pid):
    for task in resolvers(pid):
        status = Path(f"/proc/{pid}/task/{task}/status").read_text()
        blocked = int(re.search(r"SigBlk:\s*(\w+)", status).group(1), 16)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM):
            assert blocked >> (number - 1) & 1, (task, number, status)


def test_request_worker_waits_for_no_name_lookup(slow):
    """Hazards R2 and R15: a cancelled look-up, DROP DATABASE, and another server's requests."""
    (pid,) = slow.cluster.pids("^qdrant_sync request worker")
    sessions = [Session(slow, "SELECT qdrant_info(server => 'slow', \"timeout\" => '100s')", [PATIENCE.replace("20s", "90s")])
                for _ in range(2)]
    wait_until(lambda: len(resolvers(pid)) == 2, 10, "two look-ups")
    assert_no_handler_of_ours_runs_in(pid)
    assert slow.one("SELECT qdrant_info(server => 'qdrant')")["title"]
    sessions[0].conn.cancel()
    assert sessions[0].ended().error.sqlstate == "57014"
    wait_until(lambda: len(slow.sql("SELECT * FROM qdrant_requests")) == 1, 10, "the cancelled one is gone")
    assert slow.one("SELECT qdrant_info(server => 'qdrant')")["title"]
    slow.cluster.createdb("bystander")
    with contextlib.closing(slow.connect()) as conn:
        conn.execute(f"SET {PATIENCE}")
        conn.execute("DROP DATABASE bystander")
    # All of that happened during both look-ups.
    assert len(resolvers(pid)) == 2 and slow.cluster.pids("^qdrant_sync request worker") == [pid]
    sessions[1].conn.cancel()
    sessions[1].ended()
    for session in sessions:
        session.close()


def test_a_lookup_ends_at_its_requests_timeout(slow):
    with pytest.raises(psycopg.errors.ConnectionFailure):
        slow.sql("SELECT qdrant_info(server => 'slow', \"timeout\" => '300ms')")
    (pid,) = slow.cluster.pids("^qdrant_sync request worker")
    slow.cluster.sql("SELECT pg_terminate_backend(%s)", (pid,))
    wait_until(lambda: pid not in slow.cluster.pids("^qdrant_sync"), 20, "the worker ends during a look-up")
    assert slow.one("SELECT qdrant_info(server => 'qdrant')")["title"]


def test_sync_worker_waits_for_no_name_lookup(slow):
    """The same for a mirror whose server has such a name: another one's rows arrive, and its database goes."""
    items = Items(slow, "here", rows=3, server="qdrant")
    Items(slow, "there", rows=3, server="slow", live=False)
    pid = slow.one("SELECT pid FROM qdrant_workers WHERE kind <> 'request' AND database = %s AND pid IS NOT NULL",
                   (slow.name,))
    wait_until(lambda: resolvers(pid), 20, "a look-up")
    assert_no_handler_of_ours_runs_in(pid)
    items.insert(10, 20)
    items.converged()
    assert resolvers(pid)
    slow.conn.close()
    with contextlib.closing(slow.cluster.connect()) as conn:
        conn.execute(f"SET {PATIENCE}")
        conn.execute(f'DROP DATABASE "{slow.name}"')


# --- little shared memory ---

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000


def with_small_memory(bytes_, action):
    """Runs the action in a thread to which /dev/shm is of that size; what it starts sees the same."""
    libc = ctypes.CDLL(None, use_errno=True)
    outcome = []

    def run():
        if (libc.unshare(CLONE_NEWNS) != 0 or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0
                or libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=%d,mode=1777" % bytes_) != 0):
            outcome.append(os.strerror(ctypes.get_errno()))
            return
        outcome.append(None)
        action()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if outcome[0]:
        pytest.skip(f"NO NAMESPACE OF ITS OWN FOR /dev/shm: {outcome[0]}")


def test_answers_larger_than_dev_shm_arrive(pgversion, front, tmp_path):
    """Hazard R3: as in a container. The place for answers is there from the start, or the server does not start."""
    cluster = Cluster(pgversion, name="container", directory="/tmp", conf={"dynamic_shared_memory_type": "posix"})
    try:
        with_small_memory(4 << 20, cluster.start)
        db = new_extension_db(cluster, front)
        assert Path(f"/proc/{cluster.pid}/root/dev/shm").stat().st_dev != Path("/dev/shm").stat().st_dev
        name = db.collection("large")
        front.client.create_collection(name, models.VectorParams(size=1, distance=models.Distance.DOT))
        for i in range(10):
            db.sql("SELECT qdrant_request('PUT', %s, '{\"wait\": true}', %s)", (f"/collections/{name}/points", json.dumps(
                {"points": [{"id": i, "vector": [1], "payload": {"text": "x" * 1_000_000}}]})))
        size = f"SELECT sum(length(payload->>'text')) FROM qdrant_scroll('{name}')"
        for _ in range(5):
            assert db.sql(size) == [(10_000_000,)]
        tickets = [db.one("SELECT qdrant_scroll_async(%s)", (name,)) for _ in range(5)]
        found = []
        for ticket in tickets:
            try:
                found.append(len(db.one("SELECT qdrant_await(%s)", (ticket,))["points"]))
            except psycopg.Error as e:
                # More than there is memory for, which is said by its name.
                assert e.sqlstate == "53200" and "qdrant_sync.answer_memory" in e.diag.message_hint
                found.append(e.sqlstate)
        assert 10 in found and "53200" in found
        assert db.sql(size) == [(10_000_000,)]
        assert "qdrant_sync request worker" not in "".join(re.findall(r".*exited with.*", cluster.log_text()))
    finally:
        cluster.remove()


# --- nobody to ask ---

def test_single_user_mode_says_that_it_has_no_worker(pgversion, front):
    """Hazard R5."""
    with Cluster(pgversion, name="alone") as cluster:
        db = new_extension_db(cluster, front)
        cluster.stop()
        statements = ["SELECT qdrant_info()", "SELECT * FROM qdrant_query('x', '[1]')", "SELECT qdrant_count_async('x')",
                      "SELECT qdrant_delete_collection('x')", "SELECT qdrant_request('GET', '/')", "SELECT 4711 AS at_the_end"]
        result = subprocess.run([cluster.bindir / "postgres", "--single", "-D", cluster.datadir, db.name],
                                input="\n".join(statements) + "\n", capture_output=True, text=True, timeout=60,
                                **as_server_user())
        output = result.stdout + result.stderr
        assert result.returncode == 0, output
        assert output.count("single-user mode has none") == len(statements) - 1, output
        assert 'at_the_end = "4711"' in output


# --- planning ---

# What gives a request, by name: everything else of the library's asks nobody.
ARGUMENTS = {
    "collection": "'c'", "collection_name": "'c'", "query": "'[1]'", "ids": "'{1}'::int[]", "key": "'k'", "requests": "'[{}]'",
    "group_by": "'k'", "method": "'GET'", "path": "'/'", "vector_name": "'v'", "vector_name_config": "'{}'",
    "field_name": "'f'", "change_aliases_operations": "'[]'",
}
LOCAL = ("await", "is_done", "cancel", "search", "upsert", "update_vectors", "delete", "delete_vectors", "set_payload",
         "overwrite_payload", "delete_payload", "clear_payload", "batch_update_points", "upload", "wait")


def calls(db):
    """{function: its call}: each function of Qdrant's methods that asks by itself."""
    rows = db.sql("""
        SELECT p.proname, p.proretset, p.provolatile, p.proargnames[1:p.pronargs - p.pronargdefaults]
          FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
          JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND e.extname = 'qdrant_sync'
         WHERE p.pronamespace <> 'qdrant_internal'::regnamespace AND 'server' = ANY (p.proargnames)""")
    found = {}
    for name, is_set, volatility, required in rows:
        if name.removeprefix("qdrant_") in LOCAL or "source" in (required or []):
            continue
        arguments = [ARGUMENTS[argument] for argument in required or []] + ["server => 'raw'"]
        found[name] = (f"{name}({', '.join(arguments)})", is_set, volatility)
    return found


def test_planning_asks_nobody(db, raw):  # noqa: F811
    """Hazard R14: every function that gives a request, as a scalar in WHERE and as a table, also planned for good."""
    server = raw(b'{"result":null,"status":"ok","time":0}')
    functions = calls(db)
    assert len(functions) > 40 and {"qdrant_count", "qdrant_scroll_async", "qdrant_create_collection"} < functions.keys()
    for name, (call, is_set, volatility) in functions.items():
        assert volatility == "v", name
        for query in (f"SELECT * FROM {call} x", f"SELECT {call}", f"SELECT 1 FROM pg_class LIMIT (SELECT count({call}) FROM pg_am)"
                      if not is_set else f"SELECT 1 FROM pg_class WHERE EXISTS (SELECT {call})",
                      None if is_set else f"SELECT 1 FROM pg_class WHERE {call} IS NOT NULL",
                      # Whose rows are estimated by the value, which the planner computes where it may.
                      None if is_set else f"SELECT 1 FROM pg_class WHERE relname::text = {call}::text"):
            if query is None:
                continue
            db.sql(f"EXPLAIN VERBOSE {query}")
            db.sql(f"PREPARE planned AS {query}")
            db.sql("SET plan_cache_mode = force_generic_plan")
            db.sql("EXPLAIN EXECUTE planned")
            db.sql("RESET plan_cache_mode")
            db.sql("DEALLOCATE planned")
    assert server.requests == [] and db.sql("SELECT * FROM qdrant_requests") == []
    # They would ask: the check itself.
    with pytest.raises(psycopg.Error):
        db.sql("SELECT " + functions["qdrant_count"][0])
    assert len(server.requests) == 1


def test_an_open_cursor_holds_no_ticket(db, raw):  # noqa: F811
    """Hazard R14: a portal that is never read to its end would keep a place for ever."""
    points = b'{"result":{"points":[{"id":1},{"id":2},{"id":3}],"next_page_offset":null},"status":"ok","time":0}'
    raw(points)
    with contextlib.closing(db.connect(autocommit=False)) as conn:
        for i, call in enumerate(("qdrant_scroll('c', server => 'raw')", "qdrant_query('c', '[1]', server => 'raw')")):
            conn.execute(f"DECLARE c{i} CURSOR FOR SELECT id FROM {call}")
            assert conn.execute(f"FETCH 1 FROM c{i}").fetchall() == [("1",)]
            assert db.sql("SELECT * FROM qdrant_requests") == []
            assert conn.execute(f"FETCH ALL FROM c{i}").fetchall() == [("2",), ("3",)]


# --- numbers and characters ---

NUMBERS = '{"price":0.8981463,"long":123456789012345678901234567890.12345678901234567890123456789,"big":18446744073709551615}'
ANSWERS = {
    "query": ("qdrant_query('c', '[1]', server => 'raw')", '{"points":[%s]}'),
    "query_points": ("qdrant_query_points('c', '[1]', server => 'raw')", '{"points":[%s]}'),
    "scroll": ("qdrant_scroll('c', server => 'raw')", '{"points":[%s],"next_page_offset":18446744073709551615}'),
    "retrieve": ("qdrant_retrieve('c', '{1}'::int[], server => 'raw')", "[%s]"),
    "query_batch_points": ("qdrant_query_batch_points('c', '[{}]', server => 'raw')", '[{"points":[%s]}]'),
    "query_points_groups": ("qdrant_query_points_groups('c', 'k', '[1]', server => 'raw')", '{"groups":[{"id":1,"hits":[%s]}]}'),
}


def answer(form, point):
    return ('{"result":' + form.replace("%s", point) + ',"status":"ok","time":0}').encode("utf-8", "surrogateescape")


def ways(read):
    """The read as a query of one text that has the id and the payload, waiting and by tickets."""
    call, _ = ANSWERS[read]
    twin = f"qdrant_{read}_async{call[call.index('('):]}"
    yield f"SELECT '\"id\": ' || id || payload FROM {call}"
    yield f"SELECT qdrant_await({twin})::text"
    if read in ("query", "query_points", "scroll", "retrieve"):
        yield f"SELECT '\"id\": ' || id || payload FROM qdrant_await_points(ARRAY[{twin}])"


@pytest.mark.parametrize("read", ANSWERS)
def test_numbers_arrive_exactly_by(db, raw, read):  # noqa: F811
    """Hazard R12: what a double would round, and the largest id."""
    raw(answer(ANSWERS[read][1], '{"id":18446744073709551615,"version":1,"score":1,"payload":%s}' % NUMBERS))
    expected = db.one("SELECT %s::jsonb::text", (NUMBERS,))
    assert ": 0.8981463}" in expected and "67890.12345678901234567890123456789" in expected
    for query in ways(read):
        ((found,),) = db.sql(query)
        assert '"id": 18446744073709551615' in found and expected in found, query


@pytest.mark.parametrize("read", ANSWERS)
def test_nul_is_replaced_and_the_rest_arrives_by(db, raw, read):  # noqa: F811
    """Hazard R12: one such character does not lose the whole page."""
    raw(answer(ANSWERS[read][1], '{"id":7,"version":1,"score":1,"payload":{"a":"x\\u0000y","\\u0000":"\\\\u0000"}}'))
    notices = []
    db.conn.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    for query in ways(read):
        notices.clear()
        ((found,),) = db.sql(query)
        assert '"id": 7' in found and '{"a": "x\ufffdy", "\ufffd": "\\\\u0000"}' in found, query
        assert notices and all("\\u0000" in notice for notice in notices), query


@pytest.mark.parametrize("read", ANSWERS)
def test_bytes_that_are_no_characters_are_refused_by(db, raw, read):  # noqa: F811
    """Hazard R13: jsonb's parser believes whatever has the highest bit set."""
    for bad in ("\udcff", "\udcc0\udc80", "\udced\udca0\udc80", "\udcf8\udc88\udc80\udc80\udc80", "\udce2\udc82"):
        raw(answer(ANSWERS[read][1], '{"id":7,"payload":{"a":"%s"}}' % bad))
        for query in ways(read):
            with pytest.raises(psycopg.errors.CharacterNotInRepertoire):
                db.sql(query)
    assert db.sql("SELECT * FROM qdrant_requests") == []


def test_a_database_in_latin1_takes_what_it_can_and_refuses_the_rest(cluster, raw, front):  # noqa: F811
    """Hazard R13, by every read; a search names the point."""
    name = "latin1_of_hazards"
    cluster.sql(f"CREATE DATABASE {name} ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    server = raw(b"{}")
    with contextlib.closing(cluster.connect(name)) as conn:
        conn.execute("CREATE EXTENSION qdrant_sync")
        conn.execute(f"CREATE SERVER raw FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{server.url}')")
        conn.execute("SET client_encoding = 'UTF8'")
        for read, (_, form) in ANSWERS.items():
            for query in ways(read):
                server.say(answer(form, '{"id":7,"payload":{"ä":"ö"}}'))
                ((found,),) = conn.execute(query).fetchall()
                assert '"id": 7' in found and '{"ä": "ö"}' in found, query
                server.say(answer(form, '{"id":7,"payload":{"a":"3 €"}}'))
                with pytest.raises(psycopg.errors.UntranslatableCharacter) as caught:
                    conn.execute(query)
                assert "LATIN1" in str(caught.value)
                if read in ("query", "query_points") and "qdrant_await(" not in query:
                    assert "point 7 " in str(caught.value)
    cluster.dropdb(name)
