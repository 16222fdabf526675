"""The sweep under everything that can come between its steps (hazard 5)."""

import contextlib
import json
import uuid

import pytest
from qdrant_client import models

from harness import stays, wait_until
from items import VECTOR, Items, WriteLoad, end_worker, points_path

CLUSTER = {"conf": {"qdrant_sync.outbox_limit": "256kB", "qdrant_sync.segment_size": "64kB",
                    "max_prepared_transactions": 5}}

faults = pytest.mark.faults


def partitioned(db, rows=1000):
    db.sql("""CREATE TABLE items (id bigint PRIMARY KEY, title text, n integer NOT NULL DEFAULT 0, embedding real[])
        PARTITION BY RANGE (id);
        CREATE TABLE items_low PARTITION OF items FOR VALUES FROM (0) TO (500);
        CREATE TABLE items_high PARTITION OF items FOR VALUES FROM (500) TO (100000)""")
    items = Items.of(db)
    items.insert(1, rows)
    items.mirror()
    items.wait_state("live")
    return items


def fill_outbox(db):
    db.sql("CREATE PROCEDURE fill(times integer) LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..times LOOP "
           "UPDATE items SET n = n + 1 WHERE id = i % 1000 + 1; COMMIT; END LOOP; END $$")

    def full():
        db.sql("CALL fill(2000)")
        return db.one("SELECT skipping FROM qdrant_internal.progress")
    wait_until(full, 60, "the outbox to reach its limit")


@faults
@pytest.mark.parametrize("prepared", [False, True])
def test_writer_straight_to_a_leaf_that_skipped_and_commits_late_is_in_the_sweep(db, front, prepared):
    items = partitioned(db)
    front.faults.down()
    fill_outbox(db)
    late = db.connect(autocommit=False)
    late.execute("UPDATE items_high SET title = 'late' WHERE id = 700")
    late.execute("DELETE FROM items_low WHERE id = 7")
    if prepared:
        late.execute("PREPARE TRANSACTION 'late'")
        late.commit()
    front.faults.up()
    wait_until(lambda: db.one("SELECT pending FROM qdrant_mirrors") == 0, 60, "the outbox to be sent")
    stays(lambda: db.one("SELECT skipping FROM qdrant_internal.progress"), 1.0, "the sweep waits for the writer")
    if prepared:
        db.sql("COMMIT PREPARED 'late'")
    else:
        late.commit()
    assert items.wait("60s")
    items.converged()


@faults
def test_row_that_comes_between_a_page_and_its_look_up_keeps_its_point(db, front):
    items = Items(db, rows=50)
    front.client.upsert(items.collection, [models.PointStruct(id=i, vector=[1, 0, 0, 0], payload={})
                                           for i in (100, 101)])
    front.faults.fault("delay", seconds=1, when="after", path_regex="/points/scroll$", times=1)
    db.sql("SELECT qdrant_resync('items')")
    wait_until(lambda: [one for one in front.faults.log() if one["path"].endswith("/points/scroll")]
               or front.faults.faults()[0]["fired"], what="the page is made")
    items.insert(100)
    items.delete("id = 50")
    assert items.wait()
    items.converged()
    assert items.point(100) is not None and items.point(101) is None


@faults
def test_row_that_comes_while_its_suspect_is_settled_keeps_its_point(db, front):
    """The page's suspect is being deleted when its row is inserted: the delete may not be the last word."""
    items = Items(db, rows=50)
    front.client.upsert(items.collection, [models.PointStruct(id=100, vector=[1, 0, 0, 0], payload={})])
    front.faults.fault("hold", path_regex="/points/delete$", times=1)
    db.sql("SELECT qdrant_resync('items')")
    front.faults.wait_held(1)
    items.insert(100)
    front.faults.clear_faults()
    front.faults.release()
    assert items.wait()
    items.converged()


@faults
@pytest.mark.parametrize("end", ["worker_ended", "postmaster_killed"])
def test_worker_that_ends_in_the_middle_of_the_scroll(db, cluster, front, end):
    items = Items(db, rows=25_000)
    front.client.upsert(items.collection, [models.PointStruct(id=i, vector=[1, 0, 0, 0], payload={})
                                           for i in range(50_000, 50_030)])
    front.client.delete(items.collection, [5, 24_000])
    front.faults.fault("hold", path_regex="/points/scroll$", nth=[2])
    db.sql("SELECT qdrant_resync('items')")
    front.faults.wait_held(1)
    if end == "worker_ended":
        end_worker(cluster, db)
    else:
        cluster.kill9()
    front.faults.clear_faults()
    front.faults.release()
    if end == "postmaster_killed":
        cluster.start()
    items.converged(60)


@faults
@pytest.mark.parametrize("step", ["scroll", "backfill"])
@pytest.mark.parametrize("again", [False, True])
def test_truncate_in_the_middle_of_a_sweep(db, front, step, again):
    items = Items(db, rows=3000)
    if step == "scroll":
        front.faults.fault("hold", path_regex="/points/scroll$", times=1)
    else:
        front.faults.fault("hold", path_regex=points_path(items), nth=[5])
    db.sql("SELECT qdrant_resync('items')")
    front.faults.wait_held(1)
    with db.connect(autocommit=False) as conn:
        conn.execute("TRUNCATE items")
        if again:
            items.insert(5, 10, conn=conn)
    front.faults.clear_faults()
    front.faults.release()
    assert items.wait("60s")
    items.converged()
    assert len(items.points()) == (6 if again else 0)


@faults
def test_rows_on_their_way_when_the_table_is_truncated_leave_no_points(db, front):
    """The scroll could pass ids whose write is read, sent and not applied yet, and nothing found them then."""
    items = Items(db, rows=20)
    items.wait()
    front.faults.fault("hold", method="PUT", path_regex=points_path(items), times=1)
    items.insert(21, 30)
    front.faults.wait_held(1)
    db.sql("TRUNCATE items")
    # What the sweep begins with is done by the time that later rows have arrived.
    for key in (31, 32):
        items.insert(key)
        wait_until(lambda: items.point(key), what="a later row's point")
    front.faults.release()
    assert items.converged() == 2


def test_collection_in_strict_mode_is_swept_and_verified_in_smaller_pages(db):
    items = Items(db, rows=600, collection_config=json.dumps(
        {"strict_mode_config": {"enabled": True, "max_query_limit": 1000}}))
    items.wait()
    before = items.row()["retries"]
    db.front.client.upsert(items.collection, [models.PointStruct(id=700 + n, vector=[1, 0, 0, 0]) for n in range(300)])
    db.sql("SELECT qdrant_resync('items')")
    assert items.wait("60s")
    assert items.points().keys() == {str(key) for key in range(1, 601)}
    assert items.row()["retries"] == before and items.row()["last_error"] is None
    assert {kind: count for kind, count, _ in db.sql("SELECT * FROM qdrant_verify('items')") if count} == {"equal": 600}
    items.delete("id > 500")
    items.converged()


def test_resync_again_and_again_under_write_load(db):
    items = Items(db, rows=2500)
    with WriteLoad(db, sessions=2, first=1000) as load:
        for _ in range(4):
            load.wait_more(30)
            db.sql("SELECT qdrant_resync('items')")
    assert items.wait("60s")
    items.converged()


# --- points that do not say their key ---

def text_items(db, rows=100):
    items = Items(db, key="text", mirror=False)
    db.sql(f"INSERT INTO items SELECT 'k' || i, 'x', i, {VECTOR.format('i')} FROM generate_series(1, {rows}) i")
    items.mirror()
    items.wait_state("live")
    return items, {point.payload["n"]: point.id for point in items.points().values()}


def assert_whole(items, db):
    points = items.points()
    rows = dict(db.sql("SELECT id, title FROM items"))
    assert {point.payload["id"]: point.payload["title"] for point in points.values()} == rows
    assert all(point.payload["_qs_key"] == [point.payload["id"]] for point in points.values())


@faults
def test_worker_that_ends_while_a_strangers_point_is_removed(db, cluster, front):
    items = Items(db, rows=50)
    front.client.upsert(items.collection, [models.PointStruct(id=str(uuid.uuid4()), vector=[1, 0, 0, 0], payload={})])
    front.faults.fault("stall", path_regex="/points/delete$", times=1)
    db.sql("SELECT qdrant_resync('items')")
    front.faults.wait_held(1)
    items.update("id = 7")
    wait_until(lambda: items.point(7).payload["n"] == 1, what="the mirror goes on meanwhile")
    end_worker(cluster, db)
    front.faults.clear_faults()
    front.faults.release()
    assert items.wait("60s")
    items.converged()


@faults
def test_stranger_whose_removal_fails_is_removed_in_the_end(db, front):
    items = Items(db, rows=50)
    front.client.upsert(items.collection, [models.PointStruct(id=str(uuid.uuid4()), vector=[1, 0, 0, 0], payload={})])
    front.faults.fault("500", path_regex="/points/delete$", times=3)
    db.sql("SELECT qdrant_resync('items')")
    assert items.wait("60s")
    items.converged()


def test_cleared_payload_of_every_point(db, front):
    items, ids = text_items(db)
    front.client.clear_payload(items.collection, list(ids.values()))
    db.sql("SELECT qdrant_resync('items')")
    assert items.wait()
    assert_whole(items, db)


@faults
def test_change_of_a_row_whose_point_lost_its_key_and_is_being_removed(db, front):
    items, ids = text_items(db)
    front.client.clear_payload(items.collection, [ids[5], ids[6]])
    front.faults.fault("hold", path_regex="/points/delete$", times=1)
    db.sql("SELECT qdrant_resync('items')")
    front.faults.wait_held(1)
    db.sql("UPDATE items SET title = 'changed' WHERE n IN (5, 7)")
    front.faults.clear_faults()
    front.faults.release()
    assert items.wait()
    assert_whole(items, db)


def test_points_of_strangers_beside_points_that_lost_their_key(db, front):
    """An integer id, a UUID of nobody, a forged key and a stripped one in one page."""
    items, ids = text_items(db)
    front.client.clear_payload(items.collection, [ids[1]])
    front.client.upsert(items.collection, [
        models.PointStruct(id=5, vector=[1, 0, 0, 0], payload={}),
        models.PointStruct(id=2 ** 64 - 1, vector=[1, 0, 0, 0], payload={}),
        models.PointStruct(id=str(uuid.uuid4()), vector=[1, 0, 0, 0], payload={"_qs_key": ["k3"]}),
        models.PointStruct(id=str(uuid.uuid4()), vector=[1, 0, 0, 0], payload={"_qs_key": [["k3"]]}),
        models.PointStruct(id=str(uuid.uuid4()), vector=[1, 0, 0, 0], payload={"_qs_key": "\u0000"})])
    front.client.set_payload(items.collection, {"_qs_key": ["k9"]}, [ids[2]])
    db.sql("SELECT qdrant_resync('items')")
    assert items.wait()
    assert len(items.points()) == 100
    assert_whole(items, db)


def test_foreign_ids_of_a_mirror_with_integer_keys(db, front):
    items = Items(db, rows=20, key="smallint")
    front.client.upsert(items.collection, [models.PointStruct(id=i, vector=[1, 0, 0, 0], payload={}) for i in (
        32768, 2 ** 63 - 1, 2 ** 63, 2 ** 64 - 1, str(uuid.uuid4()))])
    db.sql("SELECT qdrant_resync('items')")
    assert items.wait()
    items.converged()


def test_partition_that_leaves_in_the_middle_of_a_sweep(db, front):
    items = partitioned(db)
    with contextlib.ExitStack() as stack:
        if front.faults:
            front.faults.fault("hold", path_regex=points_path(items), nth=[3])
            stack.callback(front.faults.release)
            stack.callback(front.faults.clear_faults)
        db.sql("SELECT qdrant_resync('items')")
        if front.faults:
            front.faults.wait_held(1)
        db.sql("ALTER TABLE items DETACH PARTITION items_low")
        db.sql("SELECT qdrant_resync('items')")
    assert items.wait("60s")
    items.converged()
