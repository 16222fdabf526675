"""Logical replication between two databases that both have the extension (hazard 16): its own state stays at home."""

import contextlib
import json

import pytest
from qdrant_client.models import Distance, VectorParams

from harness import Cluster, new_extension_db, wait_until
from items import Items, end_worker


@pytest.fixture
def pair(front, pgversion):
    with Cluster(pgversion, wal_level="logical") as publisher, Cluster(pgversion, name="subscriber") as subscriber:
        yield new_extension_db(publisher, front), new_extension_db(subscriber, front)


@contextlib.contextmanager
def subscribed(db, other, copy_data):
    db.sql("CREATE PUBLICATION everything FOR ALL TABLES")
    other.sql(f"CREATE SUBSCRIPTION s CONNECTION '{db.cluster.conninfo(db.name)}' PUBLICATION everything "
              f"WITH (copy_data = {copy_data})")
    yield
    other.sql("ALTER SUBSCRIPTION s DISABLE")
    other.sql("ALTER SUBSCRIPTION s SET (slot_name = NONE)")
    other.sql("DROP SUBSCRIPTION s")


def all_tables_follow(other):
    """The initial copy of every table is over; one that fails is tried again and again."""
    wait_until(lambda: other.one("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'") == 0, 30,
               lambda: f"all tables are ready: {other.sql('SELECT srrelid::regclass, srsubstate FROM pg_subscription_rel')}")


def has_arrived(db, other, key):
    """Everything before this row of the publisher has been applied, in whatever table."""
    db.sql("INSERT INTO items (id) VALUES (%s)", (key,))
    wait_until(lambda: other.one("SELECT count(*) FROM items WHERE id = %s", (key,)), what="the changes have arrived")


def test_mirror_of_the_publisher_is_none_of_the_subscriber(pair):
    """The subscriber makes its own afterwards, whose number the publisher's has as well."""
    db, other = pair
    items = Items(db, rows=20)
    other.sql("CREATE TABLE items (id bigint PRIMARY KEY, title text, n integer, embedding real[])")
    with subscribed(db, other, copy_data="true"):
        all_tables_follow(other)
        assert other.one("SELECT count(*) FROM qdrant_mirrors") == 0
        twin = Items.of(other, collection=f"{items.collection}_twin")
        twin.mirror()
        twin.wait_state("live")
        items.update("id < 10")
        items.delete("id = 15")
        items.pause()
        has_arrived(db, other, 100)
        assert (items.state(), twin.state()) == ("paused", "live")
        twin.converged(where="embedding IS NOT NULL")


def test_what_a_publisher_knows_of_its_mirror_does_not_overwrite_the_subscribers(pair, front):
    db, other = pair
    target = db.collection("plain")
    front.client.create_collection(target, vectors_config=VectorParams(size=2, distance=Distance.DOT))
    items = Items(db, rows=20)
    twin = Items(other, collection=f"{items.collection}_twin", rows=5)
    twin.wait()
    with subscribed(db, other, copy_data="false"):
        # Its epoch and low-water number go up, and it gets a dead letter.
        end_worker(db.cluster, db)
        for number in range(1, 6):
            db.sql("SELECT qdrant_upsert(%s, %s)", (target, json.dumps([{"id": number, "vector": [1, number]}])))
        assert db.wait()
        wait_until(lambda: db.one("SELECT low_water FROM qdrant_internal.operation_progress") == 5, what="low water")
        db.sql("INSERT INTO items VALUES (200, 'bad', 0, '{1,2}')")
        wait_until(lambda: items.dead_letters().keys() == {"200"}, what="its dead letter")
        items.pause()
        has_arrived(db, other, 100)
        assert other.one("SELECT low_water FROM qdrant_internal.operation_progress") == 0
        end_worker(other.cluster, other)
        other.sql("SELECT qdrant_upsert(%s, %s)", (target, json.dumps([{"id": 100, "vector": [1, 100]}])))
        assert other.wait() is not None
        assert front.client.retrieve(target, [100])
        twin.insert(300)
        twin.converged(where="id < 200 AND embedding IS NOT NULL OR id = 300")
        assert twin.state() == "live"
