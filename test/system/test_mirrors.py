"""The life of a mirror: made, filled, paused, taken over, unmade; several of them; and its outbox (hazards 3, 16)."""

import re

import psycopg
import pytest
from qdrant_client.models import Distance, PointStruct, VectorParams

from harness import Cluster, FrontHandle, assert_converged, new_extension_db, stays, wait_until
from items import PAYLOAD, VECTOR, Items, end_worker, points_path, workers

faults = pytest.mark.faults


def collections(front):
    return {found.name for found in front.client.get_collections().collections}


# --- making ---

@faults
def test_mirror_that_is_rolled_back_leaves_nothing(db, front):
    items = Items(db, rows=10, mirror=False)
    since = items.mark()
    before = db.sql("SELECT count(*) FROM pg_class")
    with db.connect(autocommit=False) as conn:
        items.mirror(conn=conn)
        items.insert(11, conn=conn)
        conn.rollback()
    with db.connect(autocommit=False) as conn:
        conn.execute("SAVEPOINT a")
        items.mirror(conn=conn)
        conn.execute("ROLLBACK TO a")
        items.insert(12, conn=conn)
        conn.commit()
    assert db.sql("SELECT count(*) FROM qdrant_mirrors") == [(0,)]
    assert db.sql("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'items'::regclass") == [(0,)]
    assert db.sql("SELECT count(*) FROM pg_class") == before
    stays(lambda: items.collection not in collections(front), 1)
    changing = [entry for entry in front.faults.log(since=since) if entry["method"] != "GET"]
    assert changing == []
    items.mirror()
    assert items.converged() == 11


def test_mirror_made_in_a_transaction_that_writes(db):
    items = Items(db, rows=10, mirror=False)
    with db.connect(autocommit=False) as conn:
        items.insert(11, 20, conn=conn)
        items.mirror(conn=conn)
        items.insert(21, 30, conn=conn)
        items.delete("id <= 5", conn=conn)
        conn.commit()
    assert items.converged() == 25


def test_unmirror_that_is_rolled_back_goes_on(db):
    items = Items(db, rows=10)
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT qdrant_unmirror('items', true)")
        conn.rollback()
    items.insert(11)
    assert items.converged() == 11


@faults
def test_mirror_made_while_qdrant_is_away_begins_when_it_comes(db, front):
    items = Items(db, rows=10, mirror=False)
    front.faults.down()
    items.mirror()
    items.insert(11, 20)
    items.wait_error(".")
    front.faults.up()
    assert items.converged() == 20


def test_empty_table_without_a_typed_dimension_waits_for_its_first_row(db, front):
    items = Items(db, live=False)
    items.wait_state("creating")
    db.sql("INSERT INTO items (id) VALUES (1)")
    stays(lambda: items.collection not in collections(front) and items.row()["last_error"] is None, 1.5)
    db.sql("INSERT INTO items (id, embedding) VALUES (2, '{1,2,3,4,5}')")
    items.converged(where="embedding IS NOT NULL")
    assert front.client.get_collection(items.collection).config.params.vectors.size == 5
    # The next row of another dimension is that row's fault.
    db.sql("INSERT INTO items (id, embedding) VALUES (3, '{1,2,3}')")
    wait_until(lambda: items.dead_letters().keys() == {"3"}, what="its dead letter")
    db.sql("UPDATE items SET embedding = '{5,4,3,2,1}' WHERE id = 1")
    items.converged(where="id < 3")


@pytest.mark.parametrize("key, value", [
    ("smallint", "i"), ("integer", "i + 2000000000"), ("bigint", "i + 9000000000000000000"),
    ("uuid", "md5(i::text)::uuid")])
def test_keys_of_every_type(db, cluster, key, value):
    items = Items(db, key=key, mirror=False)
    insert = f"INSERT INTO items SELECT {value}, 'x', i, {VECTOR.format('i')} FROM generate_series({{}}, {{}}) i"
    db.sql(insert.format(1, 300))
    items.mirror()
    items.wait_state("live")
    db.sql(insert.format(301, 600))
    db.sql("DELETE FROM items WHERE n % 7 = 0")
    end_worker(cluster, db)
    db.sql("UPDATE items SET title = 'changed' WHERE n % 5 = 0")
    items.converged()


def test_named_vectors_and_expressions(db, front):
    db.sql("CREATE TABLE docs (id integer PRIMARY KEY, title text, price float8, title_emb real[], body_emb float8[])")
    db.sql(f"INSERT INTO docs SELECT i, 'doc ' || i, i / 3.0, {VECTOR.format('i')}, ARRAY[i, 0.5, -1] "
           "FROM generate_series(1, 50) i")
    docs = Items.of(db, "docs", vector="title_emb AS title, body_emb AS body",
                    payload="upper(title) AS name, price * 2 AS double, id % 2 = 0 AS even")
    docs.mirror()
    docs.converged(vector={"title": "title_emb", "body": "body_emb"},
                   payload={"name": "upper(title)", "double": "price * 2", "even": "id % 2 = 0"})
    db.sql("UPDATE docs SET title = 'new ' || id, body_emb = NULL WHERE id < 10")
    wait_until(lambda: front.client.retrieve(docs.collection, [5])[0].payload["name"] == "NEW 5", what="the update")
    point, = front.client.retrieve(docs.collection, [5], with_vectors=True)
    assert point.vector.keys() == {"title"}


@pytest.mark.parametrize("distance", ["Dot", "Euclid", "Manhattan", "cosine"])
def test_distances_and_exact_floats(db, front, rng, distance):
    items = Items(db, mirror=False, distance=distance)
    for i in range(40):
        vector = [rng.uniform(-1, 1) * 10 ** rng.randint(-30, 30) for _ in range(4)]
        if distance == "cosine":
            vector = [rng.uniform(-1, 1) for _ in range(4)]
        db.sql("INSERT INTO items VALUES (%s, 'x', 0, %s::float8[]::real[])", (i, vector))
    items.mirror()
    items.converged(distance=distance.capitalize())
    found = front.client.get_collection(items.collection).config.params.vectors.distance
    assert found == distance.capitalize()


# --- the first filling ---

def sent_points(items, since):
    return sum(entry["points"] for entry in items.requests(since) if entry["method"] == "PUT")


@faults
@pytest.mark.parametrize("end", ["worker_ended", "postmaster_killed"])
def test_filling_goes_on_where_it_was(db, cluster, front, end):
    items = Items(db, rows=20_000, mirror=False)
    front.faults.fault("delay", seconds=0.05, path_regex=points_path(items))
    items.mirror()
    progress = "SELECT fraction FROM qdrant_backfills"
    done = wait_until(lambda: (found := db.one(progress) or 0) > 0.25 and found, 60, "a quarter is filled")
    assert done < 1
    since = items.mark()
    if end == "worker_ended":
        end_worker(cluster, db)
    else:
        cluster.kill9()
        cluster.start()
    # Rows that come and go meanwhile.
    items.delete("id IN (1, 19999)")
    items.insert(30_000)
    front.faults.clear_faults()
    items.converged(60)
    items.wait_state("live")
    again = sent_points(items, since)
    assert again < 20_000 * (1 - done) + 3000, f"{done:.0%} was done, and {again} points were sent after the end"
    fraction, finished, rows = db.sql("SELECT fraction, finished IS NOT NULL, rows FROM qdrant_backfills")[0]
    assert (fraction, finished) == (1, True)


def test_table_rewritten_in_the_middle_of_its_filling(db, front):
    items = Items(db, rows=5000, mirror=False)
    if front.faults:
        front.faults.fault("delay", seconds=0.02, path_regex=points_path(items))
    items.mirror()
    wait_until(lambda: (db.one("SELECT fraction FROM qdrant_backfills") or 0) > 0, what="the filling has begun")
    items.delete("id % 2 = 0")
    db.sql("VACUUM FULL items")
    items.update("id % 10 = 1")
    items.converged(60)


# --- pause, unmirror, take over ---

@faults
def test_paused_mirror_sends_nothing_and_catches_up(db, cluster):
    items = Items(db, rows=10)
    items.pause()
    items.wait_state("paused")
    since = items.mark()
    items.insert(11, 50)
    items.delete("id = 1")
    stays(lambda: items.requests(since) == [], 1)
    end_worker(cluster, db)
    wait_until(lambda: workers(cluster, db), what="the next worker")
    stays(lambda: items.requests(since) == [], 1, "paused also for the next worker")
    items.resume()
    assert items.converged() == 49
    items.wait_state("live")


@faults
def test_unmirrored_table_is_free_and_its_collection_stays(db, front):
    items = Items(db, rows=10)
    items.unmirror()
    wait_until(lambda: items.aliases() == [], what="the alias is given back")
    wait_until(lambda: db.one("SELECT count(*) FROM qdrant_internal.mirror") == 0, what="the row is gone")
    since = items.mark()
    items.insert(11)
    stays(lambda: items.requests(since) == [], 0.5)
    assert len(items.points()) == 10
    assert db.sql("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'items'::regclass") == [(0,)]
    # Again: what is there now are points that this mirror has not written.
    with pytest.raises(psycopg.Error, match="points") as caught:
        items.mirror()
    assert "take_over" in (caught.value.diag.message_hint or "") + (caught.value.diag.message_detail or "")
    items.mirror(take_over=True)
    assert items.converged() == 11


def test_unmirror_with_drop_collection_and_mirrored_again_at_once(db, front):
    items = Items(db, rows=10)
    with db.connect(autocommit=False) as conn:
        if front.faults:
            front.faults.fault("delay", seconds=1, path_regex=f"^/collections/{items.collection}$", times=1)
        conn.execute("SELECT qdrant_unmirror('items', true)")
        conn.commit()
    # Its points are still there, and are no reason to ask for take_over.
    items.mirror(payload="title, id, n")
    items.wait_state("live")
    items.converged()
    # Both in one transaction: the old collection is not the new one's to keep.
    with db.connect(autocommit=False) as conn:
        conn.execute("SELECT qdrant_unmirror('items')")
        items.mirror(conn=conn, take_over=True)
        items.insert(11, conn=conn)
        conn.commit()
    assert items.converged() == 11
    items.wait_state("live")
    assert len(items.aliases()) == 1


def test_table_dropped_and_made_again(db):
    """At once, before the worker has seen that it was dropped; and in one transaction."""
    items = Items(db, rows=10)
    db.sql("DROP TABLE items")
    again = Items(db, rows=3, collection=items.collection, take_over=True)
    assert again.converged() == 3
    with db.connect(autocommit=False) as conn:
        conn.execute("CREATE TABLE other (LIKE items INCLUDING ALL)")
        conn.execute("DROP TABLE items")
        conn.execute("ALTER TABLE other RENAME TO items")
        again.insert(5, 11, conn=conn)
        again.mirror(conn=conn)
        conn.commit()
    assert again.converged() == 7
    wait_until(lambda: db.one("SELECT count(*) FROM qdrant_internal.mirror") == 1, what="the old row is gone")


def test_existing_collection_with_points_only_by_take_over(db, front):
    name = db.collection()
    front.client.create_collection(name, vectors_config=VectorParams(size=4, distance=Distance.COSINE))
    front.client.upsert(name, [PointStruct(id=i, vector=[1, 2, 3, 4], payload={"old": i}) for i in range(5, 900)])
    items = Items(db, rows=10, mirror=False)
    with pytest.raises(psycopg.Error, match=re.escape(name)):
        items.mirror()
    assert len(items.points()) == 895
    items.mirror(take_over=True)
    assert items.converged() == 10


@faults
def test_points_that_came_while_nobody_could_look_are_not_removed_unasked(db, front):
    """qdrant_mirror could not see the collection; its worker does, and stops."""
    name = db.collection()
    front.client.create_collection(name, vectors_config=VectorParams(size=4, distance=Distance.COSINE))
    front.client.upsert(name, [PointStruct(id=500, vector=[1, 2, 3, 4])])
    items = Items(db, rows=10, mirror=False)
    front.faults.down()
    items.mirror()
    front.faults.up()
    assert "take_over" in items.wait_state("failed")["last_error"]
    assert items.points().keys() == {"500"}
    items.resume(take_over=True)
    assert items.converged() == 10


def test_existing_empty_collection_is_used_as_it_is(db, front):
    name = db.collection()
    front.client.create_collection(name, vectors_config=VectorParams(size=4, distance=Distance.DOT, on_disk=True))
    items = Items(db, rows=10, distance="Dot")
    items.converged(distance="Dot")
    assert front.client.get_collection(name).config.params.vectors.on_disk is True


# --- several ---

def test_two_mirrors_of_one_server(db):
    first, second = Items(db, "first", rows=300), Items(db, "second", rows=20)
    with db.connect(autocommit=False) as conn:
        first.update("id % 3 = 0", conn=conn)
        second.delete("id % 3 = 0", conn=conn)
        conn.commit()
    first.converged()
    second.converged()
    first.unmirror(drop_collection=True)
    second.insert(100, 200)
    second.converged()


@faults
def test_two_servers_and_one_of_them_dies(db, front):
    with FrontHandle() as other:
        db.sql(f"CREATE SERVER second FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url '{other.url}')")
        here = Items(db, "here", rows=20, server="qdrant")
        there = Items(db, "there", rows=20, server="second")

        def equal_there():
            assert_converged(db, "there", other, there.collection, payload=PAYLOAD)
        equal_there()
        other.faults.freeze()
        there.insert(100, 400)
        here.insert(100, 400)
        here.converged(10)
        assert db.one("SELECT qdrant_wait('5s', 'here')") is True
        assert db.one("SELECT qdrant_wait('300ms')") is False
        other.faults.thaw()
        equal_there()
        other.faults.kill()
        there.update()
        here.update()
        here.converged(10)
        other.faults.start()
        equal_there()


def test_many_mirrors(db):
    tables = [Items(db, f"t{i}", rows=5, live=False) for i in range(12)]
    for items in tables:
        items.converged()
    with db.connect(autocommit=False) as conn:
        for items in tables:
            items.update(conn=conn)
        conn.commit()
    for items in tables:
        items.converged()


# --- the outbox: hazards 3 and 16 ---

@faults
def test_chunk_that_appears_behind_the_scan_without_a_notice(db, cluster, front):
    """Written into block 0 by a prepared transaction before the backlog, visible only when the scan is far beyond."""
    items = Items(db, rows=10)
    front.faults.fault("500", path_regex=points_path(items))
    with db.connect() as conn:
        conn.execute("BEGIN")
        items.insert(100, conn=conn)
        items.update("id = 1", conn=conn)
        conn.execute("PREPARE TRANSACTION 'behind'")
    db.sql(f"DO $$ BEGIN FOR i IN 1000..4000 LOOP INSERT INTO items VALUES (i, 'x', 0, '{{1,2,3,4}}'); COMMIT; "
           "END LOOP; END $$")
    # Another worker reads all of it from the beginning: no notice is left.
    end_worker(cluster, db)
    wait_until(lambda: (items.row().get("pending") or 0) >= 3000, what=lambda: f"the scan is through: {items.row()}")
    db.sql("COMMIT PREPARED 'behind'")
    front.faults.clear_faults()
    items.converged()


def segments(db):
    return [row[0] for row in db.sql("SELECT s::regclass::text FROM qdrant_internal.mirror, "
                                     "unnest(ARRAY[segment_a, segment_b]) s")]


@faults
@pytest.mark.parametrize("command", ["VACUUM FULL {}", "VACUUM {}", "REFRESH MATERIALIZED VIEW {}"])
def test_outbox_rewritten_under_a_backlog(db, front, command):
    items = Items(db, rows=50)
    front.faults.fault("500", path_regex=points_path(items))
    db.sql(f"DO $$ BEGIN FOR i IN 1000..2000 LOOP INSERT INTO items VALUES (i, 'x', 0, '{{1,2,3,4}}'); COMMIT; "
           "END LOOP; END $$")
    items.delete("id <= 20")
    for segment in segments(db):
        try:
            db.sql(command.format(segment))
        except psycopg.Error as e:
            assert e.sqlstate in ("0A000", "55000", "42809"), e
    items.insert(3000)
    front.faults.clear_faults()
    items.converged()
    items.insert(3001)
    items.converged()


@faults
def test_outbox_rewritten_while_no_worker_runs(db, cluster, front):
    """What was in it is lost: the worker that starts must see that, and compare everything."""
    items = Items(db, rows=50)
    front.faults.down()
    items.delete("id <= 20")
    items.insert(100, 120)
    cluster.restart(conf={"shared_preload_libraries": ""})
    try:
        for segment in segments(db):
            db.sql(f"REFRESH MATERIALIZED VIEW {segment}")
    finally:
        cluster.restart(conf={"shared_preload_libraries": "qdrant_sync"})
    front.faults.up()
    items.converged()


@pytest.mark.parametrize("on_subscriber", ["extension", "nothing"])
def test_publication_for_all_tables_carries_the_rows_and_not_the_outbox(front, pgversion, on_subscriber):
    """And what arrives at a subscriber is mirrored there, too."""
    with Cluster(pgversion, wal_level="logical") as publisher, Cluster(pgversion, name="subscriber") as subscriber:
        db = new_extension_db(publisher, front)
        items = Items(db, rows=20)
        db.sql("CREATE PUBLICATION everything FOR ALL TABLES")
        published = {row[0] for row in db.sql("SELECT schemaname || '.' || tablename FROM pg_publication_tables")}
        assert "public.items" in published
        assert not [name for name in published if "segment" in name or "operations" in name], published
        if on_subscriber == "extension":
            other = new_extension_db(subscriber, front)
            twin = Items(other, collection=f"{items.collection}_twin", live=False)
        else:
            subscriber.createdb("plain")
            other = type(db)(subscriber, front, "plain")
            other.sql("CREATE TABLE items (id bigint PRIMARY KEY, title text, n integer, embedding real[])")
            # A publication of every table wants them all there: the extension's own are named as missing.
        subscribe = (f"CREATE SUBSCRIPTION s CONNECTION '{publisher.conninfo(db.name)}' PUBLICATION everything "
                     "WITH (copy_data = true)")
        if on_subscriber == "nothing" and published - {"public.items"}:
            with pytest.raises(psycopg.Error, match="qdrant_internal"):
                other.sql(subscribe)
            db.sql("CREATE PUBLICATION mine FOR TABLE items")
            subscribe = subscribe.replace("everything", "mine")
        other.sql(subscribe)
        items.insert(100, 150)
        items.update("id < 10")
        items.delete("id = 15")
        items.converged()
        wait_until(lambda: other.one("SELECT count(*) FROM items") == 70, what="the rows have arrived")
        if on_subscriber == "extension":
            twin.converged()
            with db.connect() as conn:
                conn.execute("TRUNCATE items")
            items.insert(1, 3)
            twin.converged()
            wait_until(lambda: other.one("SELECT count(*) FROM items") == 3, what="the truncation has arrived")
            twin.converged()
            assert other.one("SELECT count(*) FROM qdrant_internal.mirror") == 1
        items.converged()
        other.sql("ALTER SUBSCRIPTION s DISABLE")
        other.sql("ALTER SUBSCRIPTION s SET (slot_name = NONE)")
        other.sql("DROP SUBSCRIPTION s")
