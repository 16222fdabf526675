"""Explicit writes (qdrant_upsert): in the order of their commits, whatever crashes (hazard 7, contract 1 and 2)."""

import contextlib
import itertools
import json
import re
import threading

import psycopg
import pytest

from harness import stays, wait_until
from items import end_worker

faults = pytest.mark.faults


@pytest.fixture
def target(db):
    """A collection of nobody's mirror."""
    name = db.collection("written")
    db.sql("SELECT qdrant_create_collection(%s, '{\"size\": 4, \"distance\": \"Dot\"}')", (name,))
    return name


def upsert(conn, target, point_id, n):
    conn.execute("SELECT qdrant_upsert(%s, %s)", (target, json.dumps(
        [{"id": point_id, "vector": [1, 2, 3, 4], "payload": {"n": n}}])))


def payload(front, target, point_id):
    found = front.client.retrieve(target, [point_id])
    return found[0].payload["n"] if found else None


@faults
def test_upserts_of_rolled_back_work_are_not_sent(db, front, target):
    since = len(front.faults.log())
    conn = db.connect()
    conn.execute("BEGIN")
    upsert(conn, target, 1, 1)
    conn.execute("SAVEPOINT a")
    upsert(conn, target, 2, 1)
    conn.execute("ROLLBACK TO a")
    upsert(conn, target, 3, 1)
    conn.execute("COMMIT")
    conn.execute("BEGIN")
    upsert(conn, target, 4, 1)
    conn.execute("ROLLBACK")
    assert db.one("SELECT qdrant_wait('20s')") is True
    sent = {one for entry in front.faults.log(path_regex="/points$") for one in entry["ids"]}
    assert sent == {1, 3}


def test_upserts_arrive_in_the_order_of_their_commits_across_sessions(db, cluster, front, target):
    """Each begins after the other's commit; workers end in between, so that notices are lost."""
    sessions = [db.connect() for _ in range(3)]
    for n in range(1, 301):
        upsert(sessions[n % 3], target, n % 5, n)
        if n in (100, 200):
            end_worker(cluster, db)
    assert db.one("SELECT qdrant_wait('30s')") is True
    assert {i: payload(front, target, i) for i in range(5)} == {0: 300, 1: 296, 2: 297, 3: 298, 4: 299}


@faults
def test_never_two_operations_for_one_point_in_flight(db, front, target):
    front.faults.fault("delay", seconds=0.03, path_regex="/points$")
    for n in range(40):
        upsert(db.conn, target, 1, n)
    assert db.one("SELECT qdrant_wait('30s')") is True
    spans = sorted((entry["received"], entry["answered"]) for entry in front.faults.log(path_regex="/points$"))
    assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:]))
    assert payload(front, target, 1) == 39


@faults
def test_acknowledged_operation_does_not_come_again_over_a_newer_one_after_a_crash(db, cluster, front, target):
    """Its segment is not emptied, since a later operation waits: replay begins at a durable low-water number."""
    front.faults.fault("hold", path_regex="/points$", ids_any=[2], times=1)
    for n in range(1, 21):
        upsert(db.conn, target, 1, n)
    upsert(db.conn, target, 2, 21)
    front.faults.wait_held(1)
    wait_until(lambda: db.one("SELECT low_water FROM qdrant_internal.operation_progress") == 20,
               what=lambda: f"the low-water number: {db.sql('SELECT * FROM qdrant_internal.operation_progress')}")
    # Somebody else's write, after ours was acknowledged: a replay would undo it.
    front.client.set_payload(target, {"n": "newer"}, [1], wait=True)
    cluster.kill9()
    cluster.start()
    assert db.one("SELECT qdrant_wait('30s')") is True
    assert payload(front, target, 2) == 21
    assert payload(front, target, 1) == "newer"
    upsert(db.conn, target, 1, 99)
    wait_until(lambda: payload(front, target, 1) == 99, what="the next one")


def test_killed_between_operations_ends_with_the_last_one(db, cluster, front, target):
    stop = threading.Event()
    committed = []

    def write():
        for n in itertools.count(1):
            if stop.is_set():
                return
            with contextlib.suppress(psycopg.OperationalError):
                with contextlib.closing(psycopg.connect(cluster.conninfo(db.name), autocommit=True)) as conn:
                    while not stop.is_set():
                        upsert(conn, target, 1, len(committed) + 1)
                        committed.append(1)
    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(2):
        target_count = len(committed) + 150
        wait_until(lambda: len(committed) >= target_count, what="more operations")
        cluster.kill9()
        cluster.start()
    stop.set()
    writer.join()
    upsert(db.conn, target, 1, 1_000_000)
    assert db.one("SELECT qdrant_wait('30s')") is True
    assert payload(front, target, 1) == 1_000_000


@faults
def test_operation_in_limbo_does_not_stay_over_a_newer_one(db, cluster, front, target):
    """It is no alias of ours: what was in doubt is settled by time, and sent again."""
    front.faults.fault("hold", path_regex="/points$", times=1)
    upsert(db.conn, target, 1, 1)
    held, = front.faults.wait_held(1)
    front.faults.down()
    front.faults.up()
    upsert(db.conn, target, 1, 2)
    wait_until(lambda: front.faults.held()[0]["client_gone"], what="its client is gone")
    front.faults.release(held["n"])
    wait_until(lambda: payload(front, target, 1) == 2, 60, "the newer one")
    assert db.one("SELECT qdrant_wait('60s')") is True
    stays(lambda: payload(front, target, 1) == 2, 1)


def test_a_hundred_thousand_points_in_one_call(db, front, target):
    db.sql("""SELECT qdrant_upsert(%s, (SELECT jsonb_agg(qdrant_point(i, ARRAY[i, 1, 0, 0]::real[], jsonb_build_object('n', i)))
              FROM generate_series(1, 100000) i))""", (target,))
    assert db.one("SELECT qdrant_wait('60s')") is True
    assert front.client.count(target, exact=True).count == 100_000
    assert payload(front, target, 77_777) == 77_777


@faults
def test_refused_operation_is_a_dead_letter_and_the_next_one_goes_on(db, front, target):
    front.faults.fault("poison", ids=[7], path_regex="/points$", text="Wrong input: no sevens")
    upsert(db.conn, target, 7, 1)
    upsert(db.conn, target, 8, 1)
    wait_until(lambda: payload(front, target, 8) == 1, what="the next operation")
    letters = wait_until(lambda: db.sql("SELECT collection, error FROM qdrant_dead_letters"), what="a dead letter")
    assert letters[0][0] == target and "no sevens" in letters[0][1]


@faults
def test_operations_go_on_after_qdrant_was_away(db, front, target):
    front.faults.down()
    for n in range(50):
        upsert(db.conn, target, n % 7, n)
    front.faults.up()
    assert db.one("SELECT qdrant_wait('30s')") is True
    assert {i: payload(front, target, i) for i in range(7)} == {i: max(n for n in range(50) if n % 7 == i)
                                                                for i in range(7)}


def test_upsert_into_a_collection_that_is_not_there(db, front):
    """Known when it is sent; it does not block what comes after it for ever."""
    name = db.collection("missing")
    upsert(db.conn, name, 1, 1)
    letters = wait_until(lambda: db.sql("SELECT collection, error FROM qdrant_dead_letters"), 30, "a dead letter")
    assert letters[0][0] == name and re.search("404|not there|exist", letters[0][1])


def test_prepared_transaction_with_operations_is_refused(db, target):
    conn = db.connect()
    conn.execute("BEGIN")
    upsert(conn, target, 1, 1)
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        conn.execute("PREPARE TRANSACTION 'never'")


@faults
def test_operation_in_a_cluster_of_qdrant_asks_for_an_order_as_rows_do(db, front):
    front.faults.configure(peers=3)
    try:
        target = db.collection("written")
        db.sql("SELECT qdrant_create_collection(%s, '{\"size\": 4, \"distance\": \"Dot\"}')", (target,))
        since = front.faults.log()[-1]["n"]
        upsert(db.conn, target, 1, 1)
        wait_until(lambda: payload(front, target, 1) == 1, what="the operation to arrive")
        writes = front.faults.log(method="PUT", path_regex="/points$", since=since)
        assert writes and all("ordering=medium" in entry["query"] for entry in writes)
    finally:
        front.faults.configure(peers=1)
