"""The contract of DESIGN section 1, point by point: what a user was promised, seen from outside.

Point 4 (nothing older over something newer) is test_fence.py; points 6 and 9 are test_isolation.py.
"""

import contextlib
import re
import threading
import time
from pathlib import Path

import psycopg
import pytest

from harness import (Cluster, assert_converged, collection_points, new_extension_db, stays, table_points, wait_until,
                     worker_pids)
from items import PAYLOAD, VECTOR, Items, WriteLoad, end_worker, points_path, workers

faults = pytest.mark.faults


# --- 1: only what committed, and only what is durable ---

@faults
def test_rolled_back_transaction_sends_nothing(db):
    items = Items(db, rows=3)
    since = items.mark()
    with db.connect(autocommit=False) as conn:
        items.insert(10, conn=conn)
        items.update("id = 1", conn=conn)
        items.delete("id = 2", conn=conn)
        conn.rollback()
    items.insert(4)
    items.converged()
    assert items.sent(since) == {"4"}


@faults
def test_savepoints_that_failed_send_nothing(db):
    items = Items(db, rows=3)
    since = items.mark()
    db.sql(f"""DO $$
        BEGIN
            FOR i IN 100..299 LOOP
                BEGIN
                    INSERT INTO items VALUES (i, 'outer', 0, {VECTOR.format('i')});
                    BEGIN
                        INSERT INTO items VALUES (1000 + i, 'inner', 0, {VECTOR.format('i')});
                        IF i % 2 = 0 THEN RAISE 'inner'; END IF;
                    EXCEPTION WHEN raise_exception THEN NULL;
                    END;
                    IF i % 3 = 0 THEN RAISE 'outer'; END IF;
                EXCEPTION WHEN raise_exception THEN NULL;
                END;
            END LOOP;
        END $$""")
    items.converged()
    kept = [i for i in range(100, 300) if i % 3]
    assert items.sent(since) == {str(i) for i in kept} | {str(1000 + i) for i in kept if i % 2}


@faults
def test_rollback_to_savepoint_keeps_what_came_before_and_after(db):
    items = Items(db, rows=5)
    since = items.mark()
    conn = db.connect()
    conn.execute("BEGIN")
    items.update("id = 1", conn=conn)
    conn.execute("SAVEPOINT a")
    items.update("id = 2", conn=conn)
    conn.execute("SAVEPOINT b")
    items.delete("id = 3", conn=conn)
    conn.execute("RELEASE b")
    conn.execute("ROLLBACK TO a")
    items.update("id = 4", conn=conn)
    conn.execute("COMMIT")
    items.converged()
    assert items.sent(since) == {"1", "4"}


@faults
def test_prepared_transaction_is_sent_when_another_session_commits_it(db):
    items = Items(db, rows=2)
    since = items.mark()
    conn = db.connect()
    conn.execute("BEGIN")
    items.insert(10, 12, conn=conn)
    items.update("id = 1", conn=conn)
    conn.execute("PREPARE TRANSACTION 'held'")
    conn.close()
    items.update("id = 2")
    wait_until(lambda: "2" in items.sent(since), what="the other row is sent")
    stays(lambda: items.sent(since) == {"2"}, 1, "a prepared transaction sends nothing")
    db.connect().execute("COMMIT PREPARED 'held'")
    items.converged()
    assert items.sent(since) >= {"1", "10", "11", "12"}


@faults
def test_rollback_prepared_sends_nothing(db):
    items = Items(db, rows=2)
    since = items.mark()
    conn = db.connect()
    conn.execute("BEGIN")
    items.insert(10, conn=conn)
    items.delete("id = 1", conn=conn)
    conn.execute("PREPARE TRANSACTION 'held'")
    db.connect().execute("ROLLBACK PREPARED 'held'")
    items.update("id = 2")
    assert items.wait() is True
    items.converged()
    assert items.sent(since) == {"2"}


def test_prepared_transaction_survives_a_crash(db, cluster):
    items = Items(db, rows=2)
    conn = db.connect()
    conn.execute("BEGIN")
    items.insert(10, conn=conn)
    items.delete("id = 1", conn=conn)
    conn.execute("PREPARE TRANSACTION 'held'")
    cluster.kill9()
    cluster.start()
    items.update("id = 2")
    items.converged()
    db.sql("COMMIT PREPARED 'held'")
    items.converged()


def test_killed_with_asynchronous_commit_leaves_no_ghost(front, pgversion):
    """Hazard 2: with wal_writer_delay this long, a commit is not durable unless somebody flushes it."""
    conf = {"synchronous_commit": "off", "wal_writer_delay": "10s"}
    with Cluster(pgversion, conf=conf) as cluster:
        db = new_extension_db(cluster, front)
        items = Items(db, rows=20)
        for _ in range(3):
            arrived = len(items.points())
            # Keys of each round are new, so that nothing but this round explains a point.
            with WriteLoad(db, sessions=2, keys=400, first=1000 * (arrived + 1), pause=0.002):
                wait_until(lambda: len(items.points()) > arrived + 30, what="points of new rows")
                cluster.kill9()
                seen = items.points()
                cluster.start()
            rows = table_points(db.conn, "items", payload=PAYLOAD)
            # The load has gone on meanwhile: it may have deleted a row, so only its absence ever counts.
            ghosts = [key for key in seen.keys() - rows.keys() if not was_deleted_later(db, key)]
            assert not ghosts, f"{len(ghosts)} points of rows that no commit left behind: {sorted(ghosts)[:5]}"
            items.converged()
        db.drop()


def was_deleted_later(db, key):
    return False
