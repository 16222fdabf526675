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
        for first in (1000, 100_000, 200_000):
            writer = threading.Thread(target=insert_until_killed, args=(db, first))
            writer.start()
            wait_until(lambda: front.client.retrieve(items.collection, [first + 40]), what="40 new points")
            cluster.kill9()
            writer.join()
            seen = items.points()
            cluster.start()
            rows = table_points(db.conn, "items", payload=PAYLOAD)
            ghosts = seen.keys() - rows.keys()
            assert not ghosts, f"{len(ghosts)} points whose rows were never durable: {sorted(ghosts)[:5]}"
            newer = [key for key in seen if seen[key].payload["n"] > rows[key].payload["n"]]
            assert not newer, f"points newer than what was durable: {newer[:5]}"
            items.converged()
        db.drop()


def insert_until_killed(db, first):
    with contextlib.suppress(psycopg.OperationalError):
        with contextlib.closing(psycopg.connect(db.cluster.conninfo(db.name), autocommit=True)) as conn:
            for key in range(first, first + 50_000):
                conn.execute(f"INSERT INTO items VALUES ({key}, 'new', 0, {VECTOR.format(key)})")
                conn.execute(f"UPDATE items SET n = n + 1 WHERE id = {key - 1}")


# --- 2: everything that committed, whatever crashes ---

@pytest.mark.parametrize("commit", ["on", "off"])
def test_postmaster_killed_under_write_load(db, cluster, commit):
    items = Items(db, rows=300)
    items.insert(999)
    with WriteLoad(db, sessions=4, settings={"synchronous_commit": commit}) as load:
        for _ in range(3):
            load.wait_more(250)
            cluster.kill9()
            cluster.start()
        load.wait_more(100)
    items.converged(60)
    assert items.dead_letters() == {}


@faults
def test_qdrant_away_under_write_load(db, front):
    items = Items(db, rows=100)
    items.insert(999)
    with WriteLoad(db, sessions=3) as load:
        load.wait_more(50)
        front.faults.down()
        load.wait_more(400)
        items.wait_error(".")
        front.faults.up()
        load.wait_more(50)
    items.converged(60)
    assert items.dead_letters() == {}
    assert items.state() == "live"


@faults
def test_qdrant_dies_with_all_its_points_under_write_load(db, front):
    """This front keeps nothing on disk: its collection is gone, and every row has to come again."""
    items = Items(db, rows=300)
    items.insert(999)
    with WriteLoad(db, sessions=2) as load:
        load.wait_more(50)
        front.faults.kill()
        load.wait_more(100)
        front.faults.start()
        load.wait_more(50)
    items.converged(60)
    assert items.dead_letters() == {}


@faults
def test_promotion_of_a_standby_that_lagged(front, pgversion):
    """What the old primary had sent and the standby never saw are ghosts and stale points: the sweep finds them."""
    with Cluster(pgversion) as primary:
        db = new_extension_db(primary, front)
        items = Items(db, rows=200)
        standby = primary.standby()
        primary.wait_replayed(standby)
        # From here on nothing reaches the standby.
        standby.stop()
        items.insert(1000, 1050)
        items.update("id <= 20")
        items.delete("id BETWEEN 50 AND 60")
        items.converged()
        primary.kill9()
        standby.start()
        standby.promote()
        after = type(db)(standby, front, db.name)
        after.sql(f"INSERT INTO items VALUES (5000, 'after', 0, {VECTOR.format(5000)})")
        assert assert_converged(after, "items", front, items.collection, payload=PAYLOAD, timeout=60) == 201


def test_worker_ended_under_write_load(db, cluster):
    items = Items(db, rows=100)
    items.insert(999)
    with WriteLoad(db, sessions=3, pause=0.002) as load:
        for _ in range(3):
            load.wait_more(100)
            end_worker(cluster, db)
        load.wait_more(50)
    items.converged(60)


# --- 3: it converges ---

def test_every_kind_of_write_ends_in_the_collection(db):
    items = Items(db, rows=50)
    items.insert(100, 120)
    with db.conn.cursor().copy("COPY items (id, title, embedding) FROM STDIN") as copy:
        for i in range(200, 230):
            copy.write_row((i, f"copied {i}", [float(i), 1.0, 0.0, 2.0]))
    items.update("id < 20")
    items.delete("id BETWEEN 20 AND 30")
    db.sql(f"INSERT INTO items SELECT i, 'upsert', 7, {VECTOR.format('i')} FROM generate_series(40, 60) i "
           "ON CONFLICT (id) DO UPDATE SET title = excluded.title, n = excluded.n")
    db.sql("INSERT INTO items (id) VALUES (1) ON CONFLICT DO NOTHING")
    db.sql("UPDATE items SET id = id + 1000 WHERE id BETWEEN 100 AND 110")
    db.sql("UPDATE items SET embedding = NULL WHERE id = 5")
    if db.conn.info.server_version >= 150000:
        db.sql("""MERGE INTO items USING (SELECT generate_series(10, 14) AS id) s ON items.id = s.id
                  WHEN MATCHED AND s.id % 2 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET title = 'merged'""")
    # A point without its only vector is no point.
    items.converged(where="embedding IS NOT NULL")


@faults
def test_stray_point_of_another_program_goes_at_the_next_sweep(db, front):
    items = Items(db, rows=20)
    from qdrant_client.models import PointStruct
    front.client.upsert(items.collection, [
        PointStruct(id=777, vector=[1, 2, 3, 4]),
        PointStruct(id="7c7a7e0e-7bb0-4a72-8d31-2a7a4a6e4c11", vector=[1, 2, 3, 4])])
    db.sql("SELECT qdrant_resync('items')")
    items.converged()


def test_keys_swapped_in_one_statement(db):
    items = Items(db, rows=10)
    db.sql("ALTER TABLE items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (id) DEFERRABLE INITIALLY DEFERRED")
    db.sql("UPDATE items SET id = 11 - id")
    items.converged()


def test_truncate_and_insert_in_one_transaction(db):
    items = Items(db, rows=50)
    with db.connect(autocommit=False) as conn:
        conn.execute("TRUNCATE items")
        items.insert(40, 60, conn=conn)
        conn.commit()
    assert items.converged() == 21
    with db.connect(autocommit=False) as conn:
        conn.execute("TRUNCATE items")
        conn.rollback()
    items.update("id = 40")
    assert items.converged() == 21


# --- 5: the writer waits for nobody ---

@faults
@pytest.mark.parametrize("trouble", ["down", "frozen", "stall"])
def test_writer_neither_waits_nor_fails_when_qdrant_is(db, front, trouble):
    items = Items(db, rows=10)
    if trouble == "down":
        front.faults.down()
    elif trouble == "frozen":
        front.faults.freeze()
    else:
        front.faults.fault(trouble, path_regex=points_path(items))
    conn = db.connect()
    conn.execute("SET statement_timeout = '2s'")
    for i in range(300):
        items.insert(100 + i, conn=conn)
    with conn.transaction():
        items.update(conn=conn)
        items.delete("id < 5", conn=conn)
    front.faults.thaw()
    front.faults.clear_faults()
    front.faults.up()
    front.faults.release()
    items.converged(60)


# --- 7: memory and disk are bounded ---

def memory_of(pid):
    """Resident memory of the process's own, in kB: shared buffers are not counted."""
    return int(re.search(r"^RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def test_backend_memory_does_not_grow_with_the_transaction(db):
    Items(db, rows=1)
    conn = db.connect()
    # Not resident memory: what malloc gives back comes and goes.
    memory = "SELECT sum(total_bytes) / 1024 FROM pg_backend_memory_contexts"
    # An odd factor makes the keys scattered and all different.
    insert = ("INSERT INTO items (id, embedding) SELECT i * 1103515245::bigint % 2147483648, '{{1,2,3,4}}' "
              "FROM generate_series({}, {}) i")
    used = []
    with conn.transaction():
        for part in range(15):
            conn.execute(insert.format(part * 40_000 + 2, (part + 1) * 40_000 + 1))
            used.append(conn.execute(memory).fetchone()[0])
    # 320,000 keys more are 2.5 MB by themselves.
    grown = used[-1] - max(used[:7])
    assert grown < 1024, f"the backend grew by {grown} kB"


@faults
def test_worker_memory_does_not_grow_with_the_backlog(db, front, cluster):
    items = Items(db, rows=1)
    front.faults.down()
    insert = "INSERT INTO items (id, embedding) SELECT i, '{{1,2,3,4}}' FROM generate_series({}, {}) i"
    pid, = wait_until(lambda: workers(cluster, db), what="a worker")
    idle = memory_of(pid)
    db.sql(insert.format(2, 150_000))
    wait_until(lambda: (items.row().get("pending") or 0) >= 50_000, what=lambda: f"the backlog is seen: {items.row()}")
    of_the_first = wait_until_it_rests(lambda: memory_of(pid))
    for part in range(2, 5):
        db.sql(insert.format(part * 150_000 + 1, (part + 1) * 150_000))
    grown = wait_until_it_rests(lambda: memory_of(pid))
    assert workers(cluster, db) == [pid]
    assert grown - idle < 64 * 1024, f"{grown - idle} kB over idle"
    assert grown - of_the_first < 16 * 1024, f"450,000 rows more cost {grown - stays_grown} kB more"


def wait_until_it_rests(value, seconds=1.0):
    """The value once it has not changed for a second."""
    state = {"value": value(), "since": time.monotonic()}

    def rests():
        now = value()
        if abs(now - state["value"]) > 256:
            state.update(value=now, since=time.monotonic())
        return time.monotonic() - state["since"] > seconds
    wait_until(rests, 60, "memory rests", 0.1)
    return state["value"]


def outbox_bytes(db):
    return db.one("SELECT coalesce(sum(pg_relation_size(s)), 0) FROM qdrant_internal.mirror, "
                  "unnest(ARRAY[segment_a, segment_b]) s")


def test_outbox_is_bounded_and_empty_at_the_end_also_under_an_old_snapshot(db, cluster):
    cluster.reload({"qdrant_sync.segment_size": "64kB"})
    try:
        items = Items(db, rows=1)
        old = db.connect(autocommit=False)
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM items")
        largest = 0
        for part in range(10):
            # One transaction a row, without a round trip for each.
            db.sql(f"DO $$ BEGIN FOR i IN {part * 1000 + 2}..{part * 1000 + 1001} LOOP "
                   f"INSERT INTO items VALUES (i, 'x', 0, '{{1,2,3,4}}'); COMMIT; END LOOP; END $$")
            largest = max(largest, outbox_bytes(db))
            wait_until(lambda: outbox_bytes(db) <= 2 * 96 * 1024, 30,
                       lambda: f"the outbox shrinks (now {outbox_bytes(db)})")
        wait_until(lambda: outbox_bytes(db) == 0, 30, lambda: f"the outbox is empty (now {outbox_bytes(db)})")
        assert largest > 0
        items.converged()
        old.rollback()
    finally:
        cluster.reload({"qdrant_sync.segment_size": "16MB"})


# --- 8: one bad row stops nobody ---

def test_three_bad_rows_among_ten_thousand(db, front):
    """One that the front refuses (where there is one), one with NaN, one of another dimension; all commit."""
    items = Items(db, rows=1)
    if front.faults:
        front.faults.fault("poison", ids=[7001], path_regex=points_path(items), text="Wrong input: refused on purpose")
    db.sql(f"""INSERT INTO items SELECT i, 'title ' || i, 0,
               CASE i WHEN 5000 THEN '{{1,NaN,3,4}}'::real[] WHEN 6000 THEN '{{1,2,3}}' ELSE {VECTOR.format('i')} END
               FROM generate_series(2, 10000) i""")
    bad = {"5000", "6000"} | ({"7001"} if front.faults else set())
    items.converged(60, where=f"id NOT IN ({','.join(sorted(bad))})")
    letters = wait_until(lambda: (found := items.dead_letters()) and found.keys() == bad and found, what=lambda: str(
        items.dead_letters()))
    assert re.search("NaN|finite", letters["5000"])
    assert "3" in letters["6000"] and "4" in letters["6000"]
    if front.faults:
        assert "refused on purpose" in letters["7001"]
    assert items.state() == "live"


@faults
def test_bad_rows_in_the_first_filling(db, front):
    db.sql("CREATE TABLE items (id bigint PRIMARY KEY, title text, n integer DEFAULT 0, embedding real[])")
    db.sql(f"INSERT INTO items SELECT i, 'title ' || i, 0, CASE i WHEN 500 THEN '{{1,2,Infinity,4}}'::real[] "
           f"WHEN 600 THEN '{{1,2,3,4,5}}' ELSE {VECTOR.format('i')} END FROM generate_series(1, 1000) i")
    items = Items.of(db)
    front.faults.fault("poison", ids=[700], path_regex=points_path(items))
    items.mirror()
    items.converged(where="id NOT IN (500, 600, 700)")
    items.wait_state("live")
    assert items.dead_letters().keys() == {"500", "600", "700"}


def test_mended_row_takes_its_dead_letter_away(db):
    items = Items(db, rows=5)
    db.sql("INSERT INTO items VALUES (9, 'bad', 0, '{1,2}')")
    wait_until(lambda: items.dead_letters().keys() == {"9"}, what="the dead letter")
    db.sql("UPDATE items SET embedding = '{1,2,3,4}' WHERE id = 9")
    items.converged()
    wait_until(lambda: not items.dead_letters(), what="no dead letter")


@faults
def test_one_dead_server_does_not_stop_the_other(db, front):
    """Also under a prepared transaction that nobody ends, and a table that its owner has locked."""
    db.sql("CREATE SERVER dead FOREIGN DATA WRAPPER qdrant_fdw OPTIONS (url 'http://127.0.0.1:9')")
    live = Items(db, "alive", rows=20, server="qdrant")
    lost = Items(db, "lost", rows=20, server="dead", live=False)
    locked = Items(db, "locked", rows=20, server="qdrant")
    orphan = Items(db, "orphan", rows=20, server="qdrant")
    holder = db.connect(autocommit=False)
    holder.execute("LOCK TABLE locked")
    db.sql("BEGIN; INSERT INTO orphan VALUES (99); PREPARE TRANSACTION 'orphan'")
    try:
        lost.insert(100, 200)
        live.insert(100, 200)
        orphan.insert(100, 200)
        live.converged(10)
        orphan.converged(10)
        assert re.search("connect|refused", lost.wait_error(".")["last_error"])
        holder.rollback()
        locked.update()
        locked.converged(10)
    finally:
        db.sql("ROLLBACK PREPARED 'orphan'")


# --- 10: an honest answer ---

@faults
def test_wait_says_false_while_qdrant_has_not_answered(db, front):
    items = Items(db, rows=3)
    assert items.wait() is True
    front.faults.fault("hold", path_regex=points_path(items))
    items.insert(4)
    assert items.wait("300ms") is False
    assert db.one("SELECT qdrant_wait('300ms')") is False
    front.faults.clear_faults()
    front.faults.release()
    assert items.wait() is True
    assert "4" in items.points()


def test_wait_in_a_transaction_with_unsent_changes_is_an_error(db):
    items = Items(db, rows=3)
    with db.connect(autocommit=False) as conn:
        items.insert(4, conn=conn)
        with pytest.raises(psycopg.Error, match="(?i)commit") as caught:
            conn.execute("SELECT qdrant_wait('1s')")
        assert caught.value.sqlstate and caught.value.sqlstate != "XX000"


def test_wait_for_a_paused_mirror_answers_at_once(db):
    items = Items(db, rows=3)
    items.pause()
    items.wait_state("paused")
    items.insert(4)
    started = time.monotonic()
    try:
        answer = items.wait("60s")
    except psycopg.Error as e:
        answer = str(e)
    assert time.monotonic() - started < 20
    assert answer is not True


def test_wait_never_lies_about_a_row_that_somebody_saw(db, front):
    """Hazard 18: a row is visible before its writer has posted its notice. Many tries; each must be right."""
    items = Items(db, rows=1)
    stop = threading.Event()
    writers = [threading.Thread(target=insert_rows, args=(db, 1000 * k, stop)) for k in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        watcher = db.connect()
        for _ in range(40):
            seen = {row[0] for row in watcher.execute("SELECT id FROM items")}
            assert watcher.execute("SELECT qdrant_wait('30s')").fetchone()[0] is True
            found = {point.id for point in front.client.retrieve(items.collection, sorted(seen))}
            assert found == seen, f"rows {sorted(seen - found)[:5]} were not there after qdrant_wait"
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    items.converged()


def insert_rows(db, first, stop):
    with contextlib.closing(psycopg.connect(db.cluster.conninfo(db.name), autocommit=True)) as conn:
        for key in range(first, first + 900):
            if stop.wait(0.003):
                return
            conn.execute(f"INSERT INTO items VALUES ({key}, 'new', 0, {VECTOR.format(key)})")


@faults
def test_acknowledged_and_dropped_is_not_taken_for_done(db, front):
    items = Items(db, rows=3)
    front.faults.fault("acknowledge_and_drop", path_regex=points_path(items), times=2)
    items.insert(4)
    assert items.wait() is True
    assert "4" in items.points()


@faults
def test_copy_by_template_writes_nothing_to_the_originals_collection(db, cluster, front):
    items = Items(db, rows=10)
    # With a backlog in its outbox.
    front.faults.down()
    items.insert(11, 15)
    copy_name = f"{db.name}_copy"
    db.conn.close()
    cluster.createdb(copy_name, template=db.name)
    copy = type(db)(cluster, front, copy_name)
    try:
        since = items.mark()
        front.faults.up()
        copy.sql("DELETE FROM items WHERE id < 5")
        copy.sql(f"INSERT INTO items VALUES (900, 'copy', 0, {VECTOR.format(900)})")
        wait_until(lambda: workers(cluster, copy), what="the copy has a worker")
        wait_until(lambda: copy.one("SELECT state FROM qdrant_mirrors") == "restored",
                   what=lambda: f"the copy says restored: {copy.sql('SELECT * FROM qdrant_mirrors')}")
        items.insert(16)
        items.converged()
        stays(lambda: not {"900"} & items.sent(since), 2, "the copy sends nothing")
        items.converged()
        assert items.state() == "live"
        # Asked to, it is told that the collection is another's.
        with pytest.raises(psycopg.Error, match="points"):
            copy.sql("SELECT qdrant_resume('items')")
        items.insert(17)
        items.converged()
    finally:
        copy.drop()


@faults
def test_restored_dump_writes_nothing_until_it_is_resumed(db, cluster, front):
    items = Items(db, rows=10)
    copy_name = f"{db.name}_restored"
    cluster.createdb(copy_name)
    copy = type(db)(cluster, front, copy_name)
    try:
        cluster.restore_sql(cluster.dump(db.name), copy_name)
        since = items.mark()
        copy.sql(f"INSERT INTO items VALUES (900, 'restored', 0, {VECTOR.format(900)})")
        assert copy.one("SELECT state FROM qdrant_mirrors") == "restored"
        items.insert(11)
        items.converged()
        stays(lambda: not {"900"} & items.sent(since), 2, "the restored copy sends nothing")
        # Its new home: a server of its own would do; here the original goes.
        items.unmirror()
        wait_until(lambda: not items.aliases(), what="the original has let go")
        copy.sql("SELECT qdrant_resume('items', true)")
        assert_converged(copy, "items", front, items.collection, payload=PAYLOAD)
    finally:
        copy.drop()


@faults
def test_of_a_cluster_and_its_clone_one_stops_and_says_so(front, pgversion):
    """A copy of the data directory, started beside the original: same identifier, same databases."""
    with Cluster(pgversion) as original:
        db = new_extension_db(original, front)
        items = Items(db, rows=20)
        original.sql("CHECKPOINT")
        clone = original.standby(name="clone")
        original.wait_replayed(clone)
        clone.promote()
        other = type(db)(clone, front, db.name)
        twin = Items.of(other, collection=items.collection)

        def states():
            items.update("id = 1")
            twin.update("id = 1")
            return {items.state(), twin.state()}
        wait_until(lambda: states() == {"live", "failed"}, 60,
                   lambda: f"one goes on and one stops: {items.row()}, {twin.row()}", 0.2)
        winner, loser = (items, twin) if items.state() == "live" else (twin, items)
        winner.insert(100, 110)
        loser.insert(200, 210)
        winner.converged()
        stays(lambda: "200" not in winner.points(), 1)
        assert re.search("another", loser.row()["last_error"])
