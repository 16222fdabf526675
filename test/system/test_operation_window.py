"""More explicit operations than a worker keeps in memory, and bounds of what is refused."""

import random

import psycopg
import pytest
from psycopg.types.json import Jsonb

from harness import collection_points, wait_until
from items import end_worker

pytestmark = pytest.mark.faults

CLUSTER = {"conf": {"qdrant_sync.operation_window": "16", "qdrant_sync.max_dead_letters": "5"}}


def make(db, front, name):
    made = db.collection(name)
    front.client.create_collection(made, vectors_config={"size": 1, "distance": "Dot"})
    return made


def upsert(conn, target, point, n):
    conn.execute("SELECT qdrant_upsert(%s, %s)", (target, Jsonb([{"id": point, "vector": [1], "payload": {"n": n}}])))


def numbers(front, target):
    return {int(key): point.payload["n"] for key, point in collection_points(front, target).items()}


def sent_ids(front, target):
    return [entry["ids"][0] for entry in front.faults.log(method="PUT", path_regex=f"{target}/points$") if entry["status"] == 200]


def test_backlog_beyond_the_window_is_sent_in_the_order_of_commits(db, cluster, front):
    target = make(db, front, "written")
    front.faults.down()
    sessions = [db.connect() for _ in range(3)]
    for n in range(300):
        upsert(sessions[n % 3], target, n % 7, n)
        if n == 200:
            end_worker(cluster, db)
    front.faults.up()
    for n in range(300, 320):
        upsert(sessions[n % 3], target, n % 7, n)
    assert db.one("SELECT qdrant_wait('60s')") is True
    assert numbers(front, target) == {i: max(n for n in range(320) if n % 7 == i) for i in range(7)}
    assert sent_ids(front, target) == [n % 7 for n in range(320)]


def test_transaction_larger_than_the_window_is_not_interrupted(db, front):
    """Others that commit while a part of it is sent come after all of it."""
    target = make(db, front, "written")
    front.faults.down()
    upsert(db.conn, target, 1, -1)
    with db.conn.transaction():
        for n in range(200):
            upsert(db.conn, target, 1000 + n, n)
    for n in range(50):
        upsert(db.conn, target, 1, n)
    front.faults.up()
    wait_until(lambda: len(sent_ids(front, target)) > 20, what="a part to be sent")
    upsert(db.conn, target, 1, 777)
    assert db.one("SELECT qdrant_wait('60s')") is True
    assert sent_ids(front, target) == [1, *range(1000, 1200)] + [1] * 51
    assert numbers(front, target)[1] == 777


def test_transactions_that_commit_at_the_same_moment_are_not_mixed(db, front, seed):
    """Each writes its number to all points: the last of them has all."""
    import threading
    target = make(db, front, "written")
    front.faults.down()

    def write(session):
        rng = random.Random(seed + session)
        with db.connect() as conn:
            for n in range(30):
                points = list(range(10))
                rng.shuffle(points)
                with conn.transaction():
                    for point in points:
                        upsert(conn, target, point, f"{session}-{n}")
    threads = [threading.Thread(target=write, args=(session,)) for session in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    front.faults.up()
    assert db.one("SELECT qdrant_wait('90s')") is True
    assert len(set(numbers(front, target).values())) == 1
    ids = sent_ids(front, target)
    assert len(ids) == 1200 and all(sorted(ids[i:i + 10]) == list(range(10)) for i in range(0, 1200, 10))


def test_dead_server_with_a_long_queue_does_not_stop_another(db, front):
    target = make(db, front, "written")
    db.sql("CREATE SERVER away FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'http://127.0.0.1:1')")
    with db.conn.transaction():
        for n in range(100):
            db.sql("SELECT qdrant_delete('c', %s::int, server => 'away')", (n,))
    with db.conn.transaction():
        for n in range(100):
            db.sql("SELECT qdrant_upsert(%s, %s, server => 'qdrant')", (target, Jsonb([{"id": n, "vector": [1], "payload": {"n": n}}])))
    wait_until(lambda: len(numbers(front, target)) == 100, what="the living server's")
    # Acknowledged is acknowledged, though the other's wait with smaller numbers.
    wait_until(lambda: db.one("SELECT done[2] - done[1] FROM qdrant_internal.operation_progress") == 99,
               what=lambda: f"it to be durable: {db.sql('SELECT * FROM qdrant_internal.operation_progress')}")
    since = front.faults.log()[-1]["n"]
    db.cluster.kill9()
    db.cluster.start()
    upsert_after = Jsonb([{"id": 1000, "vector": [1], "payload": {"n": 0}}])
    db.sql("SELECT qdrant_upsert(%s, %s, server => 'qdrant')", (target, upsert_after))
    wait_until(lambda: 1000 in numbers(front, target), what="the next one")
    assert [entry["ids"] for entry in front.faults.log(since=since, path_regex=f"{target}/points$", method="PUT")] == [[1000]]


def test_too_many_dead_letters_of_operations_refuse_new_ones(db):
    name = db.collection("missing")
    for _ in range(5):
        db.sql("SELECT qdrant_delete(%s, 1)", (name,))

    def is_refused():
        try:
            db.sql("SELECT qdrant_delete(%s, '[]')", (name,))
        except psycopg.errors.ConfigurationLimitExceeded:
            return True
        return False
    wait_until(is_refused, what="the limit")
    db.sql("DELETE FROM qdrant_internal.dead_letter WHERE id IN (SELECT id FROM qdrant_internal.dead_letter LIMIT 2)")
    wait_until(lambda: not is_refused(), what="room again")
