"""pg_upgrade --link (hazard 33): from 16 to 18 where both are set up, else from the system's version to the same."""

import contextlib
import json
import os

import psycopg
import pytest
from qdrant_client.models import Distance, VectorParams

from harness import Cluster, HarnessError, available_versions, new_extension_db, system_version, wait_until
from harness.cluster import server_user
from items import VECTOR, Items

# The upgraded cluster watches for 25 s whether the old one still writes.
PATIENCE = 60


def upgrade(old, new):
    """pg_upgrade --link; both are down then."""
    old.stop()
    new.create()
    if int(new.version) >= 18 and int(old.version) < 18:
        # Which initdb of 18 turns on by itself.
        new.tool("pg_checksums", "--disable", "-D", new.datadir)
    work = new.base / "upgrade"
    try:
        # It writes scripts where it is called.
        new.tool("/bin/bash", "-c", 'mkdir "$0" && cd "$0" && exec "$@"', work, new.bindir / "pg_upgrade",
                 "--link", "-U", new.user, "-b", old.bindir, "-B", new.bindir, "-d", old.datadir, "-D", new.datadir,
                 "-s", work, "-p", old.port, "-P", new.port, timeout=300)
    except HarnessError as error:
        logs = [log.read_text()[-2000:] for log in new.datadir.glob("pg_upgrade_output.d/*/log/pg_upgrade_dump_*.log")]
        raise AssertionError("\n".join([str(error), *logs])) from None


def promote(cluster):
    """From a standby without a primary: its timeline is 2 then, and that of an upgraded cluster always 1."""
    cluster.stop()
    (cluster.datadir / "standby.signal").touch()
    if os.getuid() == 0:
        os.chown(cluster.datadir / "standby.signal", *server_user()[1:])
    cluster.start()
    cluster.promote()


@pytest.fixture
def pair():
    """Not from the system's version: newer minor releases of it write what pg_dump of an older 18 cannot read."""
    old, new = ("16", "18") if {"16", "18"} <= set(available_versions()) else (system_version(), system_version())
    with Cluster(old, name="old") as one, contextlib.ExitStack() as stack:
        # pg_upgrade wants one that was never started.
        # Nor does it need the library preloaded while it works.
        two = Cluster(new, name="new", template=False, preload=False)
        stack.callback(two.remove)
        yield one, two


@pytest.mark.faults
def test_mirror_goes_on_after_pg_upgrade_with_what_it_had_to_send(front, pair):
    old, new = pair
    promote(old)
    db = new_extension_db(old, front)
    target = db.collection("plain")
    front.client.create_collection(target, vectors_config=VectorParams(size=2, distance=Distance.DOT))

    def upsert(number):
        db.sql("SELECT qdrant_upsert(%s, %s)", (target, json.dumps([{"id": number, "vector": [1, number]}])))

    items, paused = Items(db, rows=50), Items(db, "paused", rows=5)
    db.sql("""CREATE TABLE parts (id text PRIMARY KEY, embedding real[]) PARTITION BY HASH (id);
              CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
              CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1)""")
    parts = Items.of(db, "parts")

    def insert_parts(first, last):
        db.sql(f"INSERT INTO parts SELECT 'key ' || i, {VECTOR.format('i')} FROM generate_series({first}, {last}) i")

    def parts_are_equal():
        return ({point.payload["id"] for point in parts.points().values()}
                == {row[0] for row in db.sql("SELECT id FROM parts")})

    insert_parts(1, 10)
    parts.mirror()
    upsert(1)
    db.sql("INSERT INTO items VALUES (1000, 'bad', 0, '{1,2}')")
    wait_until(lambda: items.dead_letters().keys() == {"1000"}, what="its dead letter")
    paused.pause()
    paused.insert(6)
    assert items.wait() and parts.wait() and db.one("SELECT count(*) FROM qdrant_wait('30s') w WHERE NOT w") == 1
    epoch = items.epoch()
    front.faults.down()
    items.insert(51, 60)
    items.delete("id = 1")
    insert_parts(11, 15)
    upsert(2)
    db.conn.close()
    upgrade(old, new)

    # Sessions come before any worker does.
    db.cluster = new
    new.configure(shared_preload_libraries="qdrant_sync", max_worker_processes=0)
    new.start()
    assert items.state() in ("live", "creating", "claiming") and paused.state() == "paused"
    items.insert(61, 65)
    items.update("id = 2")
    insert_parts(16, 20)
    upsert(3)
    db.conn.close()
    new.restart(conf={"max_worker_processes": 16})
    since = items.mark()
    front.faults.up()
    items.converged(where="id < 1000", timeout=PATIENCE)
    wait_until(parts_are_equal, PATIENCE, "the partitioned table")
    # Nothing else was sent again: the outbox came along, and there is no sweep.
    assert items.sent(since) == {"1", "2", *map(str, range(51, 66))}
    assert len(parts.sent(since)) == 10
    assert db.sql("SELECT DISTINCT sweep_done FROM qdrant_internal.progress") == [(1,)]
    assert items.row()["epoch"] > epoch and len(items.aliases()) == 1
    wait_until(lambda: {p.id for p in front.client.scroll(target, limit=10)[0]} == {1, 2, 3}, PATIENCE,
               "the operations of before and after")
    assert db.one("SELECT count(*) FROM qdrant_internal.mirror "
                  "WHERE system_identifier = (SELECT system_identifier FROM pg_control_system())") == 3

    assert items.dead_letters().keys() == {"1000"}
    db.sql("INSERT INTO items VALUES (1001, 'bad', 0, '{1,2}')")
    wait_until(lambda: items.dead_letters().keys() == {"1000", "1001"}, what="dead letters of before and after")
    db.sql("DELETE FROM items WHERE id >= 1000")
    items.converged()
    assert paused.state() == "paused" and "6" not in paused.points()
    paused.resume()
    paused.converged(timeout=PATIENCE)
    more = Items(db, "more", rows=5)
    more.converged()
    # Which pg_upgrade does not bring along.
    with pytest.raises(psycopg.errors.DependentObjectsStillExist) as caught:
        db.sql("DROP SERVER qdrant")
    for table in ("items", "paused", "parts", "more"):
        assert f"trigger qdrant_sync on table {table} depends on server qdrant" in caught.value.diag.message_detail
