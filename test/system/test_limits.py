"""Bounds: an outbox at its limit."""

import pytest

from harness import wait_until
from items import Items, WriteLoad

CLUSTER = {"conf": {"qdrant_sync.outbox_limit": "256kB", "qdrant_sync.segment_size": "64kB",
                    "max_prepared_transactions": 5}}

pytestmark = pytest.mark.faults


def outbox_bytes(db):
    return db.one("SELECT pg_relation_size(segment_a) + pg_relation_size(segment_b) FROM qdrant_internal.mirror")


def skipping(db):
    return db.one("SELECT skipping FROM qdrant_internal.progress")


def fill_outbox(items, db):
    """One-row transactions, since a large one is packed into a few chunks."""
    db.sql("CREATE PROCEDURE fill(times integer) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..times LOOP "
           f"UPDATE {items.table} SET n = n + 1 WHERE id = i % 1000 + 1; COMMIT; END LOOP; END $$")

    def full():
        db.sql("CALL fill(2000)")
        return skipping(db)

    wait_until(full, 60, "the outbox to reach its limit")


def test_full_outbox_stops_growing_and_the_mirror_ends_equal(db, front):
    items = Items(db, rows=1000)
    front.faults.down()
    fill_outbox(items, db)
    size = outbox_bytes(db)
    db.sql("CALL fill(20000)")
    items.insert(1001, 1100)
    items.delete("id <= 50")
    assert outbox_bytes(db) <= size + 64 * 1024
    front.faults.up()
    items.wait("60s")
    items.converged()
    assert not skipping(db)


def test_writers_that_skipped_and_commit_late_are_in_the_sweep(db, front):
    items = Items(db, rows=1000)
    front.faults.down()
    fill_outbox(items, db)
    db.sql(f"BEGIN; UPDATE {items.table} SET title = 'prepared late' WHERE id = 7; PREPARE TRANSACTION 'late'")
    late = db.connect(autocommit=False)
    late.execute(f"UPDATE {items.table} SET title = 'late' WHERE id = 8")
    front.faults.up()
    wait_until(lambda: db.one("SELECT pending FROM qdrant_mirrors") == 0, 60, "the outbox to be sent")
    assert skipping(db)
    db.sql("COMMIT PREPARED 'late'")
    late.commit()
    items.wait("60s")
    items.converged()


def test_full_outbox_survives_a_crash(db, front, cluster):
    items = Items(db, rows=1000)
    front.faults.down()
    fill_outbox(items, db)
    items.update("id BETWEEN 500 AND 600")
    cluster.kill9()
    cluster.start()
    db.sql(f"UPDATE {items.table} SET title = 'after the crash' WHERE id = 3")
    front.faults.up()
    wait_until(lambda: db.one("SELECT qdrant_wait('20s')"), 60, "the mirror to catch up")
    items.converged()


def test_disk_stays_as_it_is_while_many_writers_go_on_without_qdrant(db, front):
    items = Items(db, rows=1000)
    front.faults.down()
    fill_outbox(items, db)
    sizes = []
    with WriteLoad(db, sessions=4, first=2000) as load:
        for _ in range(12):
            load.wait_more(250)
            sizes.append(outbox_bytes(db))
    # Who read the flag before it was set has committed by now.
    assert len(set(sizes[2:])) == 1, sizes
    assert skipping(db) and items.row()["dead_letters"] == 0
    front.faults.up()
    assert items.wait("90s") is True
    items.converged(60)
    assert not skipping(db)
    # It is emptied as well, and records again.
    wait_until(lambda: outbox_bytes(db) < sizes[-1], 30, lambda: f"a segment is emptied: {outbox_bytes(db)}")
    since = items.mark()
    items.update("id = 3")
    items.wait()
    assert items.sent(since) == {"3"}
