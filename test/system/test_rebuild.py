"""qdrant_rebuild: a new collection with a new definition is filled beside the old one and takes its place; qdrant_abandon."""

import contextlib
import threading
import time

import psycopg
import pytest
from qdrant_client import models

from harness import stays, wait_until
from items import VECTOR, Items, WriteLoad, end_worker

faults = pytest.mark.faults

QUERY = "'[0.1, 0.9, 0.3, 1]'"
LOUD = {"id": "id", "loud": "upper(title)"}


class Rebuilt(Items):
    """An Items whose collection changes."""

    def rebuild(self, conn=None, **options):
        names = "".join(f", {name} => %s" for name in options)
        self._run(f"SELECT qdrant_rebuild('{self.table}'{names})", list(options.values()), conn)
        self.next = options.get("collection") or self.newest(conn)

    def newest(self, conn=None):
        """The collection that is being made, or was made already: a small one takes no time."""
        return self._run("SELECT collection FROM qdrant_internal.mirror WHERE relid = to_regclass(%s) ORDER BY id DESC LIMIT 1",
                         (self.table,), conn).fetchone()[0]

    def abandon(self, conn=None):
        self._run(f"SELECT qdrant_abandon('{self.table}')", conn=conn)

    def states(self):
        """{collection: state} of the table's mirrors, those aside that are cleaned up."""
        return dict(self._run("SELECT collection, state FROM qdrant_mirrors WHERE source = to_regclass(%s) "
                              "AND state <> 'dropping'", (self.table,)).fetchall())

    def error(self, collection):
        return self.db.one("SELECT last_error FROM qdrant_mirrors WHERE collection = %s", (collection,)) or ""

    def wait_error_of(self, collection, text):
        wait_until(lambda: text in self.error(collection), 30, lambda: f"{text}: {self.error(collection)}", 0.05)

    def switched(self, timeout=60):
        """Until the new collection serves; from then on it is this table's."""
        wait_until(lambda: self.states() == {self.next: "live"}, timeout,
                   lambda: f"{self.next} serves: {self.states()} {self.error(self.next)}", 0.05)
        self.collection = self.next

    def argument(self, member=None):
        text = "convert_from(substring(tgargs FOR length(tgargs) - 1), 'UTF8')::jsonb"
        return self.db.one(f"SELECT {text + (f' ->> {member!r}' if member else '')} FROM pg_trigger "
                           f"WHERE tgrelid = to_regclass(%s) AND tgname = 'qdrant_sync'", (self.table,))

    def is_as_before(self, collection):
        """Nothing of a rebuild is left, neither here nor there."""
        wait_until(lambda: not self.exists(collection), 30, f"{collection} is deleted")
        wait_until(lambda: self.db.sql("SELECT count(*), count(rebuilds) FROM qdrant_internal.mirror") == [(1, 0)],
                   30, "one mirror is left")
        assert self.db.one("SELECT count(*) FROM qdrant_internal.progress") == 1
        assert self.db.one("SELECT count(*) FROM pg_class WHERE relname LIKE 'segment%%'") == 2
        assert self.argument("rebuild") is None

    def exists(self, collection):
        return self.db.front.client.collection_exists(collection)

    def aliased(self, alias):
        for one in self.db.front.client.get_aliases().aliases:
            if one.alias_name == alias:
                return one.collection_name
        return None


class Polls:
    """Looks, in a thread of its own, and keeps what it has seen; an error is the test's."""

    def __init__(self, look):
        self.look, self.seen, self.errors = look, [], []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join(60)
        if exc[0] is None:
            assert not self.errors, self.errors[:3]
            assert self.seen

    def _run(self):
        while not self._stop.is_set():
            try:
                self.seen.append(self.look())
            except Exception as e:  # noqa: BLE001 - shown by the test
                self.errors.append(repr(e))
                return
            time.sleep(0.002)


@contextlib.contextmanager
def searches(db, k=5):
    """A session that searches all the time: it always finds k rows."""
    with db.connect() as conn:
        def look():
            return len(conn.execute(f"SELECT (hit).id FROM qdrant_search(NULL::items, {QUERY}, k => {k})").fetchall())
        with Polls(look) as polls:
            yield polls
        assert set(polls.seen) == {k}


# --- what a rebuild changes ---

@pytest.mark.parametrize("options, outcome", [
    ({"payload": "id, upper(title) AS loud"}, {"payload": LOUD}),
    ({"distance": "Dot"}, {"distance": "Dot"}),
    ({"vector": "embedding AS a, ARRAY[n, 1]::real[] AS b"}, {"vector": {"a": "embedding", "b": "ARRAY[n, 1]::real[]"}}),
    ({"row_filter": "id > 10"}, {"where": "id > 10"}),
], ids=["payload", "distance", "vector", "row_filter"])
def test_rebuild_changes(db, options, outcome):
    items = Rebuilt(db, rows=50)
    old = items.collection
    items.rebuild(**options)
    assert items.next == old + "_r1"
    items.switched()
    items.insert(51, 60)
    items.update("id < 20")
    items.delete("id = 30")
    assert items.converged(**outcome) == (49 if "where" in outcome else 59)
    assert items.argument("collection") == old + "_r1" and items.argument("rebuild") is None


def test_rebuild_with_another_key_and_back(db):
    items = Rebuilt(db, rows=30, columns=", sku text UNIQUE")
    db.sql("UPDATE items SET sku = 'sku ' || id")
    db.sql("ALTER TABLE items ALTER sku SET NOT NULL")
    items.rebuild(key="sku")
    items.switched()
    db.sql(f"INSERT INTO items VALUES (31, 'x', 0, {VECTOR.format('31')}, 'sku 31')")
    db.sql("UPDATE items SET sku = 'other' WHERE id = 1")
    db.sql("DELETE FROM items WHERE id = 2")
    assert items.wait()
    assert sorted(p.payload["sku"] for p in items.points().values()) == sorted(
        row[0] for row in db.sql("SELECT sku FROM items"))
    assert db.one(f"SELECT count(*) FROM qdrant_search(NULL::items, {QUERY}, k => 30)") == 30
    items.rebuild(key="")
    items.switched()
    assert items.converged(payload=("id", "title", "n", "sku")) == 30


def test_what_is_not_said_is_kept_and_empty_is_none(db):
    items = Rebuilt(db, rows=20, payload="title", row_filter="id > 5", distance="Dot")
    items.rebuild()
    items.switched()
    assert items.converged(payload=("title",), where="id > 5", distance="Dot") == 15
    items.rebuild(row_filter="", payload="n")
    assert items.next.endswith("_r2")
    items.switched()
    assert items.converged(payload=("n",), distance="Dot") == 20


def test_old_collection_goes_some_time_after(db):
    items = Rebuilt(db, rows=20)
    old = items.collection
    items.rebuild(payload="title")
    items.switched()
    assert items.exists(old)
    items.is_as_before(old)


def test_old_collection_stays_where_that_was_asked_for(db):
    items = Rebuilt(db, rows=20)
    old = items.collection
    items.rebuild(keep_old=True)
    items.switched()
    wait_until(lambda: db.one("SELECT count(*) FROM qdrant_internal.mirror") == 1, 40, "the old mirror is forgotten")
    assert items.exists(old) and db.front.client.count(old).count == 20
    assert not db.front.client.get_collection_aliases(old).aliases


# --- while it goes on ---

@pytest.mark.parametrize("options, outcome", [
    ({"payload": "id, upper(title) AS loud"}, {"payload": LOUD}),
    ({"distance": "Dot"}, {"distance": "Dot"}),
], ids=["payload", "distance"])
def test_searches_find_rows_all_the_time_under_writes(db, options, outcome):
    items = Rebuilt(db, rows=800)
    with searches(db), WriteLoad(db) as load:
        load.wait_more(20)
        items.rebuild(**options)
        items.switched()
        load.wait_more(20)
    assert items.converged(**outcome) > 0


def test_what_was_committed_is_found_after_a_wait_whatever_is_being_switched(db):
    """qdrant_wait covers a rebuild from before it serves."""
    items = Rebuilt(db, rows=300)
    items.rebuild(payload="title")
    with WriteLoad(db, sessions=1):
        for i in range(2001, 2061):
            items.insert(i)
            assert items.wait()
            assert db.one("SELECT (hit).id FROM qdrant_search(NULL::items, "
                          f"(SELECT embedding FROM items WHERE id = {i}), k => 1)") == i
            if i % 20 == 0:
                items.switched()
                items.rebuild()
    items.switched()


@faults
def test_search_that_began_before_the_switch_ends_well(db, front):
    items = Rebuilt(db, rows=20)
    old = items.collection
    front.faults.fault("delay", seconds=3, method="POST", path_regex=f"^/collections/{old}/points/query$", times=1)
    with db.connect() as conn, Polls(lambda: conn.execute(
            f"SELECT count(*) FROM qdrant_search(NULL::items, {QUERY}, k => 5)").fetchone()[0]) as polls:
        wait_until(lambda: [entry for entry in front.faults.log() if entry["path"].startswith(
            f"/collections/{old}/points/query")], what="the search is under way")
        items.rebuild(payload="title")
        items.switched()
        assert not polls.seen
        wait_until(lambda: len(polls.seen) > 1 or polls.errors, what="the search has ended")
    assert set(polls.seen) == {5}


@faults
def test_switch_waits_for_changes_that_have_not_arrived(db, front):
    items = Rebuilt(db, rows=20)
    old, writes = items.collection, f"^/collections/{items.collection}_r1__qs_.*/points"
    front.faults.fault("delay", seconds=2, method="PUT", path_regex=writes, times=1)
    items.rebuild(payload="title")
    wait_until(lambda: [entry for entry in front.faults.log() if entry["method"] == "PUT"
                        and f"{old}_r1__qs_" in entry["path"]], 30, "it is being filled")
    front.faults.fault("503", path_regex=writes, ids_any=[21], times=None)
    items.insert(21)
    wait_until(lambda: items.states()[items.next] == "switching", 30, "it is filled")
    stays(lambda: items.states() == {old: "live", items.next: "switching"}, 1)
    assert db.one(f"SELECT count(*) FROM qdrant_search(NULL::items, {QUERY}, k => 30)") == 21
    front.faults.clear_faults()
    items.switched()
    assert items.converged(payload=("title",)) == 21


@faults
def test_wait_covers_the_collection_that_is_about_to_serve(db, front):
    items = Rebuilt(db, rows=20)
    with db.connect(autocommit=False) as holder:
        items.pause()
        items.rebuild(payload="title")
        wait_until(lambda: items.states()[items.next] == "switching", 30, "it is filled")
        # It lets sessions change the rows, and holds the switch.
        holder.execute("SELECT FROM qdrant_internal.mirror FOR KEY SHARE")
        items.resume()
        items.wait_error_of(items.next, "changes one of the two mirrors")
        front.faults.fault("503", path_regex=f"^/collections/{items.next}__qs_.*/points", times=None)
        items.insert(21)
        assert not items.wait("1s")
        assert not db.one("SELECT qdrant_wait('1s')")
        assert "21" in items.points()
        front.faults.clear_faults()
        assert items.wait()
        holder.rollback()
    items.switched()
    assert items.converged(payload=("title",)) == 21


def test_alias_is_switched_for_a_client_outside(db, front):
    items = Rebuilt(db, rows=200)
    alias = "live_" + db.name
    items.rebuild(alias=alias, payload="title")
    items.switched()
    assert items.aliased(alias) == items.collection

    def look():
        points = front.client.query_points(alias, query=[0.1, 0.9, 0.3, 1.0], limit=5).points
        assert len(points) == 5
        return "loud" in points[0].payload

    with Polls(look) as polls, WriteLoad(db, sessions=1):
        items.rebuild(payload="title, upper(title) AS loud")
        items.switched()
        seen = len(polls.seen)
        wait_until(lambda: len(polls.seen) > seen + 2 or polls.errors, what="another look")
    assert items.aliased(alias) == items.collection
    assert polls.seen == sorted(polls.seen) and polls.seen[-1] and not polls.seen[0]


def test_alias_does_not_go_round_the_privileges_of_the_table(db, cluster):
    items = Rebuilt(db, rows=5)
    alias = "live_" + db.name
    items.rebuild(alias=alias)
    items.switched()
    role = "reader_" + db.name
    db.sql(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON FOREIGN SERVER qdrant TO {role}")
    try:
        db.sql(f"SET ROLE {role}")
        for name in (alias, items.collection):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.sql(f"SELECT * FROM qdrant_query('{name}', {QUERY}, 1)")
        db.sql("RESET ROLE")
        with pytest.raises(psycopg.Error, match="mirror"):
            db.sql(f"""SELECT qdrant_upsert('{alias}', '[{{"id": 1, "vector": [1, 2, 3, 4]}}]')""")
    finally:
        db.sql("RESET ROLE")
        db.sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_progress_is_shown(db):
    items = Rebuilt(db, rows=50)
    with db.connect(autocommit=False) as conn:
        items.rebuild(conn=conn)
        assert items.states() == {items.collection: "live"}
        conn.rollback()
    items.pause()
    items.rebuild(payload="title")
    wait_until(lambda: items.states() == {items.collection: "paused", items.next: "switching"}, 30,
               lambda: f"both are shown: {items.states()}")
    assert dict(db.sql("SELECT collection, fraction FROM qdrant_backfills")) == {
        items.collection: 1.0, items.next: 1.0}
    items.wait_error_of(items.next, "paused")
    items.resume()
    items.switched()
    assert items.error(items.next) == ""


def test_lock_of_a_long_transaction_delays_the_switch_and_nobody_waits(db):
    items = Rebuilt(db, rows=50)
    items.pause()
    items.rebuild(payload="title")
    wait_until(lambda: items.states()[items.next] == "switching", 30, "it is filled")
    with db.connect(autocommit=False) as locker, db.connect() as writer:
        locker.execute("LOCK TABLE items IN SHARE ROW EXCLUSIVE MODE")
        items.resume()
        items.wait_error_of(items.next, "locked the table")
        writer.execute("SET lock_timeout = '100ms'")
        # It waits behind the lock, and nothing waits with it.
        with pytest.raises(psycopg.errors.LockNotAvailable):
            writer.execute("UPDATE items SET n = 5")
        assert writer.execute(f"SELECT count(*) FROM qdrant_search(NULL::items, {QUERY}, k => 50)").fetchone() == (50,)
        locker.rollback()
        items.switched()
    assert items.converged(payload=("title",)) == 50


def test_writers_in_progress_do_not_delay_the_switch_and_their_changes_arrive(db):
    items = Rebuilt(db, rows=50)
    with db.connect(autocommit=False) as before, db.connect(autocommit=False) as during:
        items.rebuild(payload="title")
        items.insert(51, conn=during)
        items.update("id < 10", conn=during)
        items.switched()
        items.insert(52, conn=during)
        items.delete("id > 45 AND id < 50", conn=during)
        during.commit()
        items.insert(53, conn=before)
        before.commit()
    assert items.converged(payload=("title",)) == 49


def test_prepared_transaction_that_wrote_during_the_rebuild_arrives(db):
    items = Rebuilt(db, rows=10)
    with db.connect(autocommit=False) as conn:
        with db.connect(autocommit=False) as holder:
            items.rebuild(payload="title", conn=holder)
            holder.commit()
        items.insert(11, conn=conn)
        conn.execute(f"PREPARE TRANSACTION '{db.name}'")
        conn.rollback()
    items.switched()
    db.sql(f"COMMIT PREPARED '{db.name}'")
    assert items.converged(payload=("title",)) == 11


def test_truncate_and_ddl_during_a_rebuild(db):
    items = Rebuilt(db, rows=300)
    items.pause()
    items.rebuild(payload="title, upper(title) AS loud", row_filter="n >= 0")
    db.sql("TRUNCATE items")
    items.insert(1, 40)
    db.sql("ALTER TABLE items RENAME title TO headline")
    db.sql("ALTER TABLE items DISABLE TRIGGER qdrant_sync")
    items_insert = f"INSERT INTO items SELECT i, 'late ' || i, 0, {VECTOR.format('i')} FROM generate_series(41, 60) i"
    db.sql(items_insert)
    db.sql("ALTER TABLE items ENABLE ALWAYS TRIGGER qdrant_sync")
    db.sql("UPDATE items SET headline = 'new', n = -1 WHERE id = 7")
    items.resume()
    items.switched()
    assert items.converged(payload={"title": "headline", "loud": "upper(headline)"}, where="n >= 0") == 59
    assert "headline" in items.argument("payload")


def test_rebuild_of_a_partitioned_table(db):
    db.sql("CREATE TABLE items (id bigint PRIMARY KEY, title text, n integer NOT NULL DEFAULT 0, embedding real[]) "
           "PARTITION BY RANGE (id)")
    db.sql("CREATE TABLE p0 PARTITION OF items FOR VALUES FROM (0) TO (100)")
    db.sql("CREATE TABLE p1 (embedding real[], n integer NOT NULL DEFAULT 0, gone text, title text, id bigint NOT NULL)")
    db.sql("ALTER TABLE p1 DROP COLUMN gone")
    db.sql("ALTER TABLE items ATTACH PARTITION p1 FOR VALUES FROM (100) TO (200)")
    items = Rebuilt.of(db)
    items.insert(90, 109)
    items.mirror()
    items.wait_state("live")
    items.pause()
    items.rebuild(payload="id, upper(title) AS loud")
    db.sql("CREATE TABLE p2 PARTITION OF items FOR VALUES FROM (200) TO (300)")
    items.insert(195, 205)
    db.sql(f"INSERT INTO p1 (id, title, embedding) VALUES (150, 'leaf', {VECTOR.format('150')})")
    db.sql("UPDATE items SET id = id + 20 WHERE id IN (95, 96)")
    db.sql("TRUNCATE p2")
    items.resume()
    items.switched()
    items.insert(210)
    db.sql("UPDATE p0 SET title = 'again' WHERE id = 91")
    assert items.converged(payload=LOUD) == 27
    db.sql("DROP TABLE p0")
    items.converged(payload=LOUD)


# --- crashes ---

@faults
@pytest.mark.parametrize("crash", ["worker", "postmaster"])
@pytest.mark.parametrize("stage, method, path", [
    ("creating", "PUT", "^/collections/{}$"),
    ("claiming", "GET", "^/collections/{}/aliases$"),
    ("filling", "PUT", "^/collections/{}__qs_.*/points$"),
    ("alias", "POST", "^/collections/aliases$"),
])
def test_crash_while_it_is(db, cluster, front, crash, stage, method, path):
    items = Rebuilt(db, rows=100)
    alias = "live_" + db.name
    next_name = items.collection + "_r1"
    fault = {"method": method, "path_regex": path.format(next_name)}
    front.faults.fault("503", times=None, **fault)
    items.rebuild(payload="title", alias=alias)
    items.wait_error_of(next_name, "503")
    items.insert(101, 110)
    if crash == "worker":
        front.faults.clear_faults()
        end_worker(cluster, db)
    else:
        cluster.kill9()
        front.faults.clear_faults()
        cluster.start()
    items.switched()
    assert items.converged(payload=("title",)) == 110
    assert items.aliased(alias) == items.collection


@faults
def test_crash_between_alias_and_table_is_repeated(db, cluster, front):
    items = Rebuilt(db, rows=30)
    alias = "live_" + db.name
    items.rebuild(payload="title", alias=alias)
    items.switched()
    old = items.collection
    with db.connect(autocommit=False) as locker:
        # The answer to the move is held until the table is locked.
        front.faults.fault("delay", when="after", seconds=3, method="POST", path_regex="^/collections/aliases$", times=None)
        items.rebuild(payload="n")
        wait_until(lambda: items.aliased(alias) == items.next, 60, "the alias is moved")
        locker.execute("LOCK TABLE items IN SHARE ROW EXCLUSIVE MODE")
        front.faults.clear_faults()
        items.wait_error_of(items.next, "locked the table")
        assert items.states() == {old: "live", items.next: "switching"}
        end_worker(cluster, db)
        items.wait_error_of(items.next, "locked the table")
    items.switched()
    assert items.converged(payload=("n",)) == 30


@faults
def test_rebuild_that_is_abandoned_with_the_alias_moved_gives_it_back(db, cluster, front):
    items = Rebuilt(db, rows=30)
    alias = "live_" + db.name
    items.rebuild(payload="title", alias=alias)
    items.switched()
    with db.connect(autocommit=False) as locker:
        front.faults.fault("delay", when="after", seconds=3, method="POST", path_regex="^/collections/aliases$", times=None)
        items.rebuild(payload="n")
        wait_until(lambda: items.aliased(alias) == items.next, 60, "the alias is moved")
        locker.execute("LOCK TABLE items IN SHARE ROW EXCLUSIVE MODE")
        front.faults.clear_faults()
        items.wait_error_of(items.next, "locked the table")
        items.abandon(conn=locker)
        locker.commit()
    wait_until(lambda: not items.exists(items.next), 30, "the new collection is deleted")
    assert items.aliased(alias) == items.collection
    assert items.states() == {items.collection: "live"}


@faults
def test_qdrant_is_away_at_the_switch(db, front):
    items = Rebuilt(db, rows=30)
    alias = "live_" + db.name
    front.faults.fault("503", method="GET", path_regex="^/aliases$", times=None)
    items.rebuild(payload="title", alias=alias)
    items.wait_error_of(items.next, "503")
    front.faults.pause_listening()
    items.insert(31, 40)
    front.faults.clear_faults()
    assert set(items.states()) == {items.collection, items.next}
    front.faults.resume_listening()
    items.switched()
    assert items.converged(payload=("title",)) == 40
    assert items.aliased(alias) == items.collection


# --- ends before its end ---

def test_rollback_of_rebuild_and_of_abandon(db):
    items = Rebuilt(db, rows=20)
    before = items.argument()
    with db.connect(autocommit=False) as conn:
        items.rebuild(conn=conn, payload="title")
        items.insert(21, conn=conn)
        conn.rollback()
    assert items.argument() == before
    items.is_as_before(items.collection + "_r1")
    items.pause()
    items.rebuild(payload="title")
    with db.connect(autocommit=False) as conn:
        items.abandon(conn=conn)
        conn.rollback()
    items.resume()
    items.switched()
    assert items.converged(payload=("title",)) == 20


def test_rebuild_and_abandon_in_one_transaction(db):
    items = Rebuilt(db, rows=20)
    with db.connect(autocommit=False) as conn:
        items.rebuild(conn=conn, payload="title")
        items.insert(21, conn=conn)
        items.abandon(conn=conn)
        items.insert(22, conn=conn)
        conn.commit()
    items.is_as_before(items.collection + "_r1")
    assert items.converged() == 22


@faults
@pytest.mark.parametrize("stage, method, path", [
    ("creating", "PUT", "^/collections/{}$"),
    ("claiming", "GET", "^/collections/{}/aliases$"),
    ("filling", "PUT", "^/collections/{}__qs_.*/points$"),
    ("switching", "GET", "^/aliases$"),
])
@pytest.mark.parametrize("restart", [False, True], ids=["", "after_a_restart"])
def test_abandon_while_it_is(db, cluster, front, stage, method, path, restart):
    items = Rebuilt(db, rows=50)
    next_name = items.collection + "_r1"
    front.faults.fault("503", method=method, path_regex=path.format(next_name), times=None)
    items.rebuild(payload="title", alias="live_" + db.name)
    items.wait_error_of(next_name, "503")
    if restart:
        end_worker(cluster, db)
    with db.connect(autocommit=False) as writer:
        items.insert(51, conn=writer)
        items.abandon()
        front.faults.clear_faults()
        items.insert(52, conn=writer)
        writer.commit()
    items.is_as_before(next_name)
    assert items.aliased("live_" + db.name) is None
    assert items.converged() == 52


@faults
def test_abandon_while_the_new_collection_is_being_made(db, front):
    """The request is on its way: what it makes is deleted after it."""
    items = Rebuilt(db, rows=5)
    next_name = items.collection + "_r1"
    front.faults.fault("delay", seconds=2, method="PUT", path_regex=f"^/collections/{next_name}$", times=1)
    items.rebuild(payload="title")
    wait_until(lambda: [e for e in front.faults.log() if e["method"] == "PUT" and next_name in e["path"]]
               or items.exists(next_name), 30, "the collection is asked for")
    items.abandon()
    items.is_as_before(next_name)
    stays(lambda: not items.exists(next_name), 3)


def test_collection_that_was_there_before_stays_when_the_rebuild_is_abandoned(db, front):
    items = Rebuilt(db, rows=5)
    there = "there_" + db.name
    front.client.create_collection(there, vectors_config=models.VectorParams(size=4, distance=models.Distance.COSINE))
    items.pause()
    items.rebuild(collection=there)
    wait_until(lambda: items.states().get(there) == "switching", 30, "it is filled")
    items.abandon()
    wait_until(lambda: db.one("SELECT count(*) FROM qdrant_internal.mirror") == 1, 30, "it is forgotten")
    assert items.exists(there) and not front.client.get_collection_aliases(there).aliases


def test_unmirror_ends_both(db):
    items = Rebuilt(db, rows=20)
    items.pause()
    items.rebuild(payload="title")
    wait_until(lambda: items.exists(items.next), what="the new collection is made")
    items.unmirror()
    wait_until(lambda: db.one("SELECT count(*) FROM qdrant_internal.mirror") == 0, 30, "both are forgotten")
    assert items.exists(items.collection) and not items.exists(items.next)
    assert items.argument() is None


def test_dropped_table_ends_both(db):
    items = Rebuilt(db, rows=20)
    items.pause()
    items.rebuild(payload="title")
    wait_until(lambda: items.exists(items.next), what="the new collection is made")
    db.sql("DROP TABLE items")
    wait_until(lambda: db.one("SELECT count(*) FROM qdrant_internal.mirror") == 0, 30, "both are forgotten")
    assert items.exists(items.collection) and not items.exists(items.next)
    assert db.one("SELECT count(*) FROM pg_class WHERE relname LIKE 'segment%%'") == 0


@faults
@pytest.mark.parametrize("mended", [True, False])
def test_collection_that_qdrant_refuses_fails_and_the_old_mirror_goes_on(db, front, mended):
    items = Rebuilt(db, rows=20)
    next_name = items.collection + "_r1"
    front.faults.fault("early_400", method="PUT", path_regex=f"^/collections/{next_name}$", times=None)
    items.rebuild(payload="title")
    wait_until(lambda: items.states() == {items.collection: "live", next_name: "failed"}, 30, "the new one has failed")
    assert "was not created" in items.error(next_name)
    items.insert(21, 30)
    assert items.converged() == 30
    front.faults.clear_faults()
    if mended:
        items.resume()
        items.switched()
        assert items.converged(payload=("title",)) == 30
    else:
        items.abandon()
        items.is_as_before(next_name)


def test_rows_that_are_refused_do_not_hold_the_switch(db):
    items = Rebuilt(db, rows=20)
    items.rebuild(vector="CASE WHEN id = 3 THEN ARRAY['nan', 1, 1, 1]::real[] ELSE embedding END AS e")
    items.switched()
    assert items.dead_letters().keys() == {"3"}
    assert len(items.points()) == 19


# --- copies ---

def test_dump_during_a_rebuild_has_both_and_resume_gives_it_up(db, cluster, front):
    items = Rebuilt(db, rows=20)
    items.pause()
    items.rebuild(payload="title")
    dump = cluster.dump(db.name)
    assert items.next in dump
    cluster.createdb(db.name + "_restored")
    restored = type(db)(cluster, front, db.name + "_restored")
    try:
        cluster.restore_sql(dump, restored.name)
        copy = Rebuilt.of(restored, collection=items.collection)
        assert copy.states() == {items.collection: "restored", items.next: "restored"}
        items.unmirror(drop_collection=True)
        copy.resume(take_over=True)
        assert copy.argument("rebuild") is None
        copy.wait_state("live")
        assert copy.converged() == 20
        copy.rebuild(payload="title")
        copy.switched()
        assert copy.converged(payload=("title",)) == 20
    finally:
        restored.drop()


def test_template_copy_during_a_rebuild(db, cluster, front):
    items = Rebuilt(db, rows=10)
    items.pause()
    items.rebuild(payload="title")
    wait_until(lambda: items.states()[items.next] == "switching", 30, "it is filled")
    db.conn.close()
    name = db.name + "_copy"
    cluster.sql(f"CREATE DATABASE {name} TEMPLATE {db.name}")
    try:
        with psycopg.connect(cluster.conninfo(name), autocommit=True) as conn:
            assert {row[0] for row in conn.execute("SELECT state FROM qdrant_mirrors")} == {"restored"}
            conn.execute("SELECT qdrant_abandon('items')")
            assert conn.execute("SELECT count(*) FROM qdrant_mirrors").fetchone() == (1,)
            conn.execute("SELECT qdrant_unmirror('items')")
            assert conn.execute("SELECT count(*) FROM qdrant_mirrors").fetchone() == (0,)
    finally:
        cluster.sql(f"DROP DATABASE {name} WITH (FORCE)")
    items.resume()
    items.switched()
    assert items.converged(payload=("title",)) == 10


# --- what is refused ---

def test_what_is_refused(db, front):
    items = Rebuilt(db, rows=5)
    other = Items(db, "other", rows=1)
    alias = "live_" + db.name
    front.client.create_collection("c_" + db.name, vectors_config=models.VectorParams(
        size=4, distance=models.Distance.COSINE))
    front.client.update_collection_aliases([models.CreateAliasOperation(create_alias=models.CreateAlias(
        collection_name="c_" + db.name, alias_name="taken_" + db.name))])
    for options, error, match in (
            ({"collection": items.collection}, psycopg.errors.DuplicateObject, "mirrored into now"),
            ({"collection": other.collection}, psycopg.errors.DuplicateObject, "another mirror"),
            ({"alias": items.collection}, psycopg.errors.DuplicateObject, "cannot be the alias"),
            ({"alias": other.collection}, psycopg.errors.DuplicateObject, "cannot be the alias"),
            ({"alias": "c_" + db.name}, psycopg.errors.DuplicateObject, "collection of that name"),
            ({"alias": "taken_" + db.name}, psycopg.errors.DuplicateObject, "not this table's"),
            ({"alias": "a/b"}, psycopg.errors.InvalidParameterValue, "cannot be the name"),
            ({"distance": "far"}, psycopg.errors.InvalidParameterValue, "unknown distance"),
    ):
        with pytest.raises(error, match=match):
            items.rebuild(**options)
    with pytest.raises(psycopg.errors.UndefinedObject, match="no rebuild"):
        items.abandon()
    items.pause()
    items.rebuild(alias=alias)
    with pytest.raises(psycopg.errors.DuplicateObject, match="going on"):
        items.rebuild()
    with pytest.raises(psycopg.errors.DuplicateObject, match="cannot be the alias"):
        Rebuilt.of(db, "other", collection=other.collection).rebuild(alias=alias)
    db.sql("CREATE TABLE none (id bigint PRIMARY KEY, v real[])")
    for function in ("rebuild", "abandon"):
        with pytest.raises(psycopg.errors.UndefinedObject):
            db.sql(f"SELECT qdrant_{function}('none')")
    role = "someone_" + db.name
    db.sql(f"CREATE ROLE {role}; GRANT SELECT ON items TO {role}; SET ROLE {role}")
    try:
        for function in ("rebuild", "abandon"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                db.sql(f"SELECT qdrant_{function}('items')")
    finally:
        db.sql(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
    items.resume()
    items.switched()
