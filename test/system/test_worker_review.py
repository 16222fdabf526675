"""The sync worker where one mirror, one server or one moment goes wrong: it lives, and the others go on."""

import os
import time

import psycopg
import pytest

from harness import Cluster, FrontHandle, new_extension_db, stays, wait_until
from items import Items, workers

CLUSTER = {"conf": {"qdrant_sync.max_dead_letters": "3"}}


def the_worker(cluster, db):
    pid, = wait_until(lambda: workers(cluster, db), what="a sync worker")
    return pid


def segments(db, table):
    """Names and files of the mirror's outbox."""
    return db.sql("SELECT s::regclass::text, pg_relation_filepath(s) FROM qdrant_internal.mirror m, "
                  "unnest(ARRAY[segment_a, segment_b]) s WHERE m.relid = %s::regclass", (table,))


@pytest.mark.faults
@pytest.mark.parametrize("path", ["^/$", "^/cluster$", "^/collections/[^/]*$"])
def test_server_changed_while_it_is_asked_crashes_nothing(db, cluster, front, path):
    items = Items(db, rows=20, mirror=False)
    front.faults.fault("delay", method="GET", path_regex=path, seconds=0.4, times=4)
    items.mirror()
    for milliseconds in (20000, 21000, 22000, 23000):
        time.sleep(0.25)
        db.sql(f"ALTER SERVER qdrant OPTIONS ({'SET' if milliseconds > 20000 else 'ADD'} timeout '{milliseconds}')")
    items.converged()
    assert "signal 11" not in cluster.log_text()


def test_collection_made_anew_by_somebody_is_filled_again(db, front):
    """Its aliases went with the old one: whatever is in the new one is not known (hazard 32)."""
    from qdrant_client import models
    items = Items(db, rows=50)
    items.converged()
    front.client.delete_collection(items.collection)
    front.client.create_collection(items.collection, vectors_config=models.VectorParams(size=4, distance="Cosine"))
    front.client.upsert(items.collection, [models.PointStruct(id=9999, vector=[1, 2, 3, 4], payload={})], wait=True)
    items.update("id = 7")
    items.converged()


def test_refreshed_segment_loses_no_change(db):
    """A script that refreshes every materialized view takes the outbox away under a running worker (hazard 16)."""
    items = Items(db, rows=20)
    items.converged()
    items.pause()
    items.update("id <= 10")
    items.delete("id = 11")
    for name, _ in segments(db, "items"):
        db.sql(f"REFRESH MATERIALIZED VIEW {name}")
    items.resume()
    items.converged()


@pytest.mark.parametrize("what", ["table", "segment"])
def test_damaged_page_of_one_mirror_stops_no_other(front, pgversion, what):
    with Cluster(pgversion) as cluster:
        db = new_extension_db(cluster, front)
        good = Items(db, "good", rows=10)
        bad = Items(db, "bad", mirror=False)
        db.sql("INSERT INTO bad SELECT i, repeat('x', 500), 0, '{1,2,3,4}' FROM generate_series(1, 100) i")
        if what == "segment":
            bad.mirror()
            bad.converged()
            bad.pause()
            bad.update("id < 50")
            files = [file for name, file in segments(db, "bad")
                     if db.one("SELECT pg_relation_size(%s::regclass)", (name,)) > 0]
        else:
            files = [db.one("SELECT pg_relation_filepath('bad')")]
        assert files
        cluster.stop()
        for file in files:
            with open(os.path.join(cluster.datadir, file), "r+b") as f:
                f.seek(8192 if what == "table" else 0)
                f.write(b"\xff" * 4096)
        cluster.start()
        pid = the_worker(cluster, db)
        if what == "table":
            bad.mirror()
        else:
            bad.resume()
        bad.wait_error("invalid page")
        good.insert(11, 20)
        good.converged()
        stays(lambda: workers(cluster, db) == [pid], 2, "the worker goes on")


def test_bad_row_that_is_refused_often_is_one_dead_letter(db):
    items = Items(db, rows=5)
    for i in range(8):
        db.sql("INSERT INTO items VALUES (100, %s, 0, '{NaN,1,1,1}') ON CONFLICT (id) DO UPDATE SET title = excluded.title",
               (str(i),))
        items.wait()
    assert list(items.dead_letters()) == ["100"]
    assert items.state() == "live"


@pytest.mark.faults
def test_operations_of_a_dropped_server_are_dead_letters_soon(db, front):
    front.faults.down()
    with db.conn.transaction():
        for i in range(40):
            db.sql("SELECT qdrant_upsert('nowhere', '[{\"id\": 1, \"vector\": [1]}]')")
    db.sql("DROP SERVER qdrant CASCADE")
    wait_until(lambda: db.one("SELECT count(*) FROM qdrant_internal.dead_letter") == 40, 12, "forty dead letters")


@pytest.mark.faults
def test_locked_segment_of_a_dropped_mirror_keeps_no_processor_busy(db, cluster, front):
    items = Items(db, rows=5)
    name, _ = segments(db, "items")[0]
    front.faults.fault("hold", path_regex="/points$")
    items.update()
    front.faults.wait_held(1)
    with db.connect(autocommit=False) as reader:
        reader.execute(f"EXPLAIN SELECT * FROM {name}")
        items.unmirror()
        wait_until(lambda: items.aliases() == [], what="the alias is given back")
        pid = the_worker(cluster, db)
        before = processor_seconds(pid)
        time.sleep(2)
        assert processor_seconds(pid) - before < 0.5
    wait_until(lambda: db.one("SELECT count(*) FROM qdrant_internal.mirror") == 0, what="the mirror is forgotten")
    front.faults.release()


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_dropped_databases_give_their_mirrors_places_back(front, pgversion):
    with Cluster(pgversion, conf={"qdrant_sync.max_mirrors": "3"}) as cluster:
        for _ in range(3):
            db = new_extension_db(cluster, front)
            Items(db, rows=3).converged()
            db.drop()


def test_row_whose_vector_cannot_be_computed_does_not_stop_the_scroll(db):
    db.sql("CREATE TABLE items (id bigint PRIMARY KEY, title text, n integer)")
    db.sql("INSERT INTO items SELECT i, 'x', i FROM generate_series(0, 30) i")
    items = Items.of(db, vector="ARRAY[1, 10 / n, 2, 3]::real[] AS v")
    items.mirror()
    items.wait_state("live")
    assert list(items.dead_letters()) == ["0"]
    db.sql("SELECT qdrant_resync('items')")
    assert items.wait() is True


def test_server_dropped_and_back_leaves_no_broken_transaction(db):
    """The look-up's error is not the transaction's: no warning of a leaked reference in the log."""
    items = Items(db, rows=5)
    since = db.cluster.log_mark()
    db.sql("REVOKE USAGE ON FOREIGN SERVER qdrant FROM PUBLIC")
    url = db.one("SELECT option_value FROM pg_options_to_table("
                 "(SELECT srvoptions FROM pg_foreign_server WHERE srvname = 'qdrant')) WHERE option_name = 'url'")
    # Else CASCADE ends the mirror (test_drop_server.py); so it is of one that has lost its entry.
    db.sql("DELETE FROM pg_depend WHERE refclassid = 'pg_foreign_server'::regclass")
    db.sql("DROP SERVER qdrant CASCADE")
    items.wait_state("failed")
    db.sql(f"CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{url}')")
    items.wait_state("live")
    items.insert(6, 9)
    items.converged()
    assert "leak" not in db.cluster.log_text()[since:]
