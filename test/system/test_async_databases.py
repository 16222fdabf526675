"""Many databases and servers through one request worker: each has its turn."""

import contextlib

import pytest
from qdrant_client import models

from harness import FrontHandle, new_extension_db, wait_until
from test_async import POINTS, TICKET, let_go, none_left, states
from test_request_path import Session

pytestmark = pytest.mark.faults

CLUSTER = {"conf": {"qdrant_sync.max_tickets": 2048, "qdrant_sync.max_session_tickets": 2048}}

RUNNING = 16


def fill(front, ids):
    front.client.create_collection("items", models.VectorParams(size=2, distance=models.Distance.DOT))
    front.client.upsert("items", [models.PointStruct(id=i, vector=[1, 0]) for i in ids], wait=True)


@pytest.fixture
def second(db, front):
    """Another front, with other points; both have the servers `qdrant` and `second` in their databases."""
    fill(front, [1, 2])
    with FrontHandle() as other:
        fill(other, [11, 12])
        add_second(db, other)
        yield other


def add_second(db, other):
    db.sql(f"CREATE SERVER second FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{other.url}')")


@pytest.fixture
def elsewhere(cluster, front, second):
    """A second database."""
    made = new_extension_db(cluster, front)
    add_second(made, second)
    yield made
    made.drop()


def at(server, text=TICKET, timeout="60s"):
    return text.replace("\"timeout\" => '60s'", f"server => '{server}', \"timeout\" => '{timeout}'")


def query(server, timeout):
    return at(server, "SELECT id FROM qdrant_query('items', '[1,0]', \"timeout\" => '60s') ORDER BY id", timeout)


def test_a_thousand_slow_requests_of_a_database_keep_nobody_from_being_answered(db, elsewhere, front, second):
    """One who asks the same server, there or in the same database, waits for a few of them; who asks another, for none."""
    front.faults.fault("hold", path_regex=POINTS)
    with contextlib.closing(db.connect()) as slow:
        slow.execute(at("qdrant") + " FROM generate_series(1, 1000)")
        front.faults.wait_held(RUNNING)
        assert elsewhere.sql(query("second", "60s")) == [("11",), ("12",)]
        assert db.sql(query("second", "60s")) == [("11",), ("12",)]
        # The front knows them by what it is told as their time.
        same = Session(db, query("qdrant", "61s"))
        other = Session(elsewhere, query("qdrant", "62s"))
        pids = {same.pid, other.pid}
        wait_until(lambda: {pid for (pid,) in db.sql("SELECT pid FROM qdrant_requests")} >= pids, 10, "both queue")

        def under_way():
            own = {entry["n"] for entry in front.faults.log() if entry["query"] in ("timeout=61", "timeout=62")}
            return [entry["n"] for entry in front.faults.held() if entry["n"] in own]

        turns = 0
        while len(under_way()) < 2:
            # In turn: a database's, and of that a session's; four turns are two of each.
            assert turns < 4, states(db)
            seen = {entry["n"] for entry in front.faults.held()}
            front.faults.release(min(seen))
            turns += 1
            wait_until(lambda: {entry["n"] for entry in front.faults.held()} - seen, 10, "the next one is sent")
        front.faults.release(*under_way())
        for session in (same, other):
            assert session.ended().rows == [("1",), ("2",)], session.error
            session.close()
        assert states(db).count("queued") > 970
    let_go(front.faults)
    none_left(db)


def test_two_databases_and_two_servers_through_one_worker(db, elsewhere, front, second, cluster):
    """Each server has all its connections in use at the same time, and each ticket its own server's answer."""
    servers = {"qdrant": (front.faults, {1, 2}), "second": (second.faults, {11, 12})}
    for faults, _ in servers.values():
        faults.clear_log()
        faults.fault("hold", path_regex=POINTS)
    tickets = []
    for _ in range(25):
        for asker in (db, elsewhere):
            tickets += [(asker, server, asker.one(at(server))) for server in servers]
    for faults, _ in servers.values():
        faults.wait_held(RUNNING)
    assert states(db) == ["queued"] * (100 - 2 * RUNNING) + ["running"] * 2 * RUNNING
    assert {d for (d,) in db.sql("SELECT database FROM qdrant_requests WHERE state = 'running'")} == {db.name, elsewhere.name}
    assert len(cluster.pids("qdrant_sync request worker")) == 1
    for faults, _ in servers.values():
        let_go(faults)
    for asker, server, ticket in tickets:
        assert {p["id"] for p in asker.one("SELECT qdrant_await(%s)", (ticket,))["points"]} == servers[server][1]
    for faults, _ in servers.values():
        log = faults.log(path_regex=POINTS)
        assert len(log) == 50 and len({entry["connection"] for entry in log}) <= RUNNING
    none_left(db)
