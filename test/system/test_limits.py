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


def test_orphan_prepared_transactions_in_both_segments_are_named_and_stop_nobody(db):
    """Hazard 13: neither segment can be emptied, and the mirror goes on, as do others."""
    items = Items(db, rows=1000)
    other = Items(db, "other", rows=10)
    # Each pins what is the active segment then; the other one is used when it is full.
    db.sql("CREATE PROCEDURE fill(times integer) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..times LOOP "
           "UPDATE items SET n = n + 1 WHERE id = i % 900 + 101; COMMIT; END LOOP; END $$")
    segments = [name for name, in db.sql("SELECT unnest(ARRAY[segment_a, segment_b])::regclass::text "
                                         "FROM qdrant_internal.mirror WHERE relid = 'items'::regclass")]

    def locked():
        return {name for name, in db.sql("SELECT relation::regclass::text FROM pg_locks WHERE pid IS NULL "
                                         "AND relation::regclass::text = ANY(%s)", (segments,))}

    db.sql("BEGIN; UPDATE items SET title = 'first' WHERE id = 1; PREPARE TRANSACTION 'first'")
    held = locked()
    assert len(held) == 1

    def in_the_other():
        db.sql("CALL fill(100)")
        db.sql("BEGIN; UPDATE items SET title = 'second' WHERE id = 2; PREPARE TRANSACTION 'second'")
        if len(locked()) == 2:
            return True
        db.sql("ROLLBACK PREPARED 'second'")
        return False

    wait_until(in_the_other, 30, lambda: f"both segments are pinned: {db.sql('SELECT * FROM qdrant_outboxes')}", 0.2)
    assert db.sql("SELECT held_by_pid, held_by_prepared, held_since IS NOT NULL FROM qdrant_outboxes "
                  "WHERE source = 'items'::regclass") == [(None, "first", True)]
    db.sql("CALL fill(5000)")
    assert db.one("SELECT bytes FROM qdrant_outboxes WHERE source = 'items'::regclass") <= (256 + 2 * 64) * 1024
    items.insert(2001, 2010)
    other.insert(11, 20)
    other.converged()
    items.converged(60)
    db.sql("COMMIT PREPARED 'first'")
    db.sql("ROLLBACK PREPARED 'second'")
    items.converged(60)
    wait_until(lambda: db.sql("SELECT sum(bytes), count(held_by_pid), count(held_by_prepared) FROM qdrant_outboxes") ==
               [(0, 0, 0)], 60, lambda: f"both outboxes empty: {db.sql('SELECT * FROM qdrant_outboxes')}")
