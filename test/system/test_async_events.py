"""Tickets while something else happens: a crash, no worker, a server or a mapping that is altered."""

import contextlib
import signal

import psycopg
import pytest
from qdrant_client import models

from harness import FrontHandle, wait_until
from test_async import TEN, TICKET, WAITING, ONE, error, gone, held, items, let_go, none_left, states, usage, waiting  # noqa: F401
from test_request_path import Session

pytestmark = pytest.mark.faults

CLUSTER = {"conf": {"qdrant_sync.max_tickets": 64, "qdrant_sync.max_session_tickets": 64}}

# One server has three quarters of the tickets, and runs so many of them.
SHARE, RUNNING = 48, 16


def answered_by(db, ticket):
    """Ids of the points, which tell the fronts apart."""
    return sorted(point["id"] for point in db.one("SELECT qdrant_await(%s)", (ticket,))["points"])


@contextlib.contextmanager
def other_front(ids, **kwargs):
    with FrontHandle(**kwargs) as other:
        other.client.create_collection("items", models.VectorParams(size=2, distance=models.Distance.DOT))
        other.client.upsert("items", [models.PointStruct(id=i, vector=[1, 0]) for i in ids], wait=True)
        yield other


# --- a crash ---

@pytest.mark.versions
def test_a_backend_that_is_killed_leaves_no_slot_in_use(db, held, cluster):
    """With tickets in every state, and others that wait: the cluster recovers from a crash, and shared memory is new."""
    start = usage(db)
    conn = db.connect()
    done = conn.execute("SELECT qdrant_count_async('items')").fetchone()[0]
    wait_until(lambda: states(db) == ["done"], 10, "a ticket is done")
    assert usage(db)["answer_bytes"] > 0
    conn.execute(TICKET + f" FROM generate_series(1, {SHARE - 1})")
    held.wait_held(RUNNING)
    waiter = Session(db, ONE, WAITING)
    waiting(db, 1)
    assert {*states(db)} == {"done", "queued", "running"} and usage(db)["tickets"] == SHARE
    mark = cluster.log_mark()
    cluster.kill(conn.info.backend_pid, signal.SIGKILL)
    cluster.wait_log("all server processes terminated; reinitializing", since=mark)
    cluster.ensure_running()
    assert waiter.ended().error
    waiter.close()
    db.conn.close()
    let_go(held)
    assert usage(db) == start and states(db) == []
    gone(db, done)
    wait_until(lambda: cluster.pids("qdrant_sync request worker"), 20, "a new request worker")
    assert len(db.sql(TEN)) == 19
    assert usage(db) == start


# --- no worker ---

def test_no_worker_comes_back_and_who_awaits_or_wants_a_ticket_is_told(db, held, cluster):
    """After five seconds. What ran has failed, what queues stays for the next worker."""
    hoarder = db.connect()
    tickets = [t for (t,) in hoarder.execute(TICKET + f" FROM generate_series(1, {SHARE})")]
    held.wait_held(RUNNING)
    waiter = Session(db, ONE, WAITING)
    waiting(db, 1)
    worker = cluster.pids("qdrant_sync request worker")[0]
    cluster.kill(cluster.pid, signal.SIGSTOP)
    try:
        cluster.kill(worker)
        wait_until(lambda: "running" not in states(db), 10, lambda: f"nothing runs: {states(db)}")
        for call in ("qdrant_await(%s)", "qdrant_await_any(ARRAY[%s::bigint])"):
            with pytest.raises(psycopg.errors.CannotConnectNow, match="no request worker") as caught:
                hoarder.execute("SELECT " + call, (tickets[-1],))
            assert "max_worker_processes" in caught.value.diag.message_hint
        assert hoarder.execute("SELECT qdrant_is_done(%s)", (tickets[-1],)).fetchone() == (False,)
        refused = waiter.ended().error
        assert refused.sqlstate == "57P03" and "max_worker_processes" in refused.diag.message_hint
        assert usage(db)["waiting"] == 0 and usage(db)["tickets"] == SHARE
        with pytest.raises(psycopg.errors.CannotConnectNow, match="restarted"):
            hoarder.execute("SELECT qdrant_await(%s)", (tickets[0],))
    finally:
        cluster.kill(cluster.pid, signal.SIGCONT)
    let_go(held)
    assert hoarder.execute("SELECT count(*) FROM qdrant_await_points(%s)", (tickets[RUNNING:],)).fetchone() == (
        2 * (SHARE - RUNNING),)
    hoarder.close()
    waiter.close()
    none_left(db)


# --- altered ---

def test_a_server_that_moves_while_tickets_queue_and_run(db, held):
    """They are answered from where they were sent to; what is asked later goes to the new place."""
    with other_front([11, 12]) as other:
        tickets = [t for (t,) in db.sql(TICKET + f" FROM generate_series(1, {RUNNING + 2})")]
        held.wait_held(RUNNING)
        assert states(db) == ["queued"] * 2 + ["running"] * RUNNING
        db.sql(f"ALTER SERVER qdrant OPTIONS (SET url '{other.url}')")
        assert answered_by(db, db.one(TICKET)) == [11, 12]
        assert db.sql("SELECT id FROM qdrant_query('items', '[1,0]') ORDER BY id") == [("11",), ("12",)]
        assert states(db) == ["queued"] * 2 + ["running"] * RUNNING
        let_go(held)
        for ticket in tickets:
            assert answered_by(db, ticket) == [1, 2]
        assert len(other.faults.log(path_regex="/points/query$")) == 2
    none_left(db)


def test_a_key_that_changes_while_tickets_queue_and_run(db):
    """They have the key of the time of the call; what is asked next has the new one, and fails where it is wrong."""
    with other_front([1, 2], api_key="the-first-key", read_only_key="the-second-key") as keyed:
        db.sql(f"CREATE SERVER keyed FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{keyed.url}')")
        db.sql("CREATE USER MAPPING FOR CURRENT_USER SERVER keyed OPTIONS (api_key 'the-first-key')")
        text = TICKET.replace("\"timeout\"", "server => 'keyed', \"timeout\"")
        keyed.faults.clear_log()
        keyed.faults.fault("hold", path_regex="/points/query$")
        tickets = [t for (t,) in db.sql(text + f" FROM generate_series(1, {RUNNING + 2})")]
        keyed.faults.wait_held(RUNNING)
        mapping = "USER MAPPING FOR CURRENT_USER SERVER keyed"
        counts = []
        for change in (f"ALTER {mapping} OPTIONS (SET api_key 'the-second-key')",
                       f"ALTER {mapping} OPTIONS (SET api_key 'no-such-key')", f"DROP {mapping}"):
            db.sql(change)
            counts.append(db.one("SELECT qdrant_count_async('items', server => 'keyed', \"timeout\" => '60s')"))
        assert states(db) == ["queued"] * 5 + ["running"] * RUNNING
        let_go(keyed.faults)
        for ticket in tickets:
            assert answered_by(db, ticket) == [1, 2]
        assert db.one("SELECT qdrant_await(%s)", (counts[0],)) == {"count": 2}
        for ticket in counts[1:]:
            assert error(db, "SELECT qdrant_await(%s)", (ticket,)).sqlstate == "28000"
        queries = {entry["key"] for entry in keyed.faults.log(path_regex="/query$")}
        assert len(queries) == 1 and keyed.faults.log(path_regex="/count$")[0]["key"] not in queries
        assert len(keyed.faults.log(path_regex="/query$")) == len(tickets)
    none_left(db)
