"""What the system tests say again and again: a mirrored table, what Qdrant was sent of it, sessions that write to it."""

import contextlib
import random
import threading
import time

import psycopg
from psycopg.rows import dict_row

from harness import assert_converged, collection_points, wait_until

PAYLOAD = ("id", "title", "n")

# Four numbers that depend on the key, so that a point in the wrong place is seen.
VECTOR = "ARRAY[sin({0}), cos({0}), sin(2 * {0}), 1]::real[]"


class Items:
    """A table (id, title, n, embedding) and its mirror."""

    def __init__(self, db, table="items", rows=0, key="bigint", live=True, mirror=True, columns="", **options):
        self._name(db, table, options)
        db.sql(f"CREATE TABLE {table} (id {key} PRIMARY KEY, title text, n integer NOT NULL DEFAULT 0, "
               f"embedding real[]{columns})")
        if rows:
            self.insert(1, rows)
        if mirror:
            self.mirror()
        if mirror and live:
            self.wait_state("live")

    @classmethod
    def of(cls, db, table="items", **options):
        """For a table that somebody else has made, and no mirror yet."""
        items = cls.__new__(cls)
        items._name(db, table, options)
        return items

    def _name(self, db, table, options):
        self.db = db
        self.table = table
        self.collection = options.pop("collection", None) or db.collection(table)
        self.options = options
        self._seen = 0

    # --- DDL ---

    def mirror(self, conn=None, **options):
        options = {"collection": self.collection, **self.options, **options}
        names = ", ".join(f"{name} => %s" for name in options)
        self._run(f"SELECT qdrant_mirror('{self.table}', {names})", list(options.values()), conn)

    def unmirror(self, drop_collection=False):
        self._run(f"SELECT qdrant_unmirror('{self.table}', %s)", [drop_collection])

    def pause(self):
        self._run(f"SELECT qdrant_pause('{self.table}')")

    def resume(self, take_over=False):
        self._run(f"SELECT qdrant_resume('{self.table}', %s)", [take_over])

    # --- writes ---

    def _run(self, text, params=None, conn=None):
        return (conn or self.db.conn).execute(text, params)

    def insert(self, first, last=None, conn=None):
        self._run(f"INSERT INTO {self.table} SELECT i, 'title ' || i, 0, {VECTOR.format('i')} "
                  f"FROM generate_series({first}, {last or first}) i", conn=conn)

    def update(self, where="true", conn=None):
        """One more in n, and another title."""
        self._run(f"UPDATE {self.table} SET n = n + 1, title = title || '.' WHERE {where}", conn=conn)

    def delete(self, where, conn=None):
        self._run(f"DELETE FROM {self.table} WHERE {where}", conn=conn)

    # --- what the views say ---

    def row(self):
        """The mirror's row of qdrant_mirrors; {} if there is none."""
        with self.db.conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute("SELECT * FROM qdrant_mirrors WHERE source = to_regclass(%s)", (self.table,))
            return cursor.fetchone() or {}

    def state(self):
        return self.row().get("state")

    def wait_state(self, *states, timeout=30):
        wait_until(lambda: self.state() in states, timeout, lambda: f"{self.table} is {states}: {self.row()}", 0.05)
        return self.row()

    def wait_error(self, pattern, timeout=30):
        """Until the view names an error that this pattern is found in."""
        import re
        wait_until(lambda: re.search(pattern, self.row().get("last_error") or ""), timeout,
                   lambda: f"an error like /{pattern}/: {self.row()}", 0.05)
        return self.row()

    def epoch(self):
        return self.row()["epoch"]

    def dead_letters(self):
        """{key: error} of this mirror."""
        return dict(self.db.sql("SELECT key, error FROM qdrant_dead_letters WHERE collection = %s",
                                (self.collection,)))

    # --- the outcome ---

    def converged(self, timeout=30, **more):
        more = {"payload": PAYLOAD, **more}
        return assert_converged(self.db, self.table, self.db.front, self.collection, timeout=timeout, **more)

    def wait(self, timeout="30s"):
        return self.db.one("SELECT qdrant_wait(%s::interval, %s::regclass)", (timeout, self.table))

    def points(self):
        return collection_points(self.db.front, self.collection)

    def point(self, point_id):
        """The point, or None."""
        found = self.db.front.client.retrieve(self.collection, [point_id], with_payload=True, with_vectors=True)
        return found[0] if found else None

    # --- what the front was sent ---

    def mark(self):
        """A place in the front's log, for `since`."""
        log = self.db.front.faults.log(since=self._seen)
        self._seen = log[-1]["n"] if log else self._seen
        return self._seen

    def requests(self, since=0):
        """Writes of points to this mirror's collection, by whatever name, in their order."""
        return [entry for entry in self.db.front.faults.log(since=since)
                if entry["method"] in ("PUT", "POST") and is_write_to(entry["path"], self.collection)]

    def sent(self, since=0):
        """Ids that writes have named."""
        return {str(one) for entry in self.requests(since) for one in entry["ids"]}

    def aliases(self):
        found = self.db.front.client.get_collection_aliases(self.collection).aliases
        return sorted(alias.alias_name for alias in found)


def is_write_to(path, collection):
    parts = path.split("/")
    return (len(parts) in (4, 5) and parts[3] == "points" and parts[4:] in ([], ["delete"])
            and (parts[2] == collection or parts[2].startswith(f"{collection}__qs_")))


def points_path(items):
    """A pattern of the front's rules: writes of points to this mirror."""
    return f"^/collections/{items.collection}(__qs_[^/]*)?/points(/delete)?$"


def workers(cluster, db):
    """Pids of the sync worker of this database."""
    return [row[0] for row in cluster.sql(
        "SELECT pid FROM pg_stat_activity WHERE backend_type ~ 'qdrant_sync' AND datname = %s", (db.name,))]


def end_worker(cluster, db):
    """SIGTERM for the database's sync worker; returns when it is gone."""
    pids = wait_until(lambda: workers(cluster, db), what="a sync worker to end")
    for pid in pids:
        cluster.sql("SELECT pg_terminate_backend(%s)", (pid,))
    wait_until(lambda: not set(pids) & set(workers(cluster, db)), what="the worker is gone")


class WriteLoad:
    """Sessions that write to a table of Items until the end of the block; a crash of the server does not end them.

    Each owns a range of keys for its transactions of several rows; one row more is everybody's.
    """

    def __init__(self, db, table="items", sessions=3, keys=150, settings=None, first=1000, pause=0.0):
        self.db, self.table, self.keys, self.first, self.pause = db, table, keys, first, pause
        self.settings = settings or {}
        self.committed = 0
        self.errors = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._session, args=(i,), daemon=True) for i in range(sessions)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        if exc[0] is None:
            assert not self.errors, f"writers failed: {self.errors[:3]}"
            assert not any(thread.is_alive() for thread in self._threads), "a writer hangs"

    def wait_more(self, transactions, timeout=60):
        """Until that many more have committed."""
        target = self.committed + transactions
        wait_until(lambda: self.committed >= target or self.errors, timeout,
                   lambda: f"{target} committed transactions (now {self.committed})")
        assert not self.errors, f"writers failed: {self.errors[:3]}"

    def _session(self, number):
        rng = random.Random(number)
        # A crash in the middle of COMMIT leaves its outcome open: that is the reconnect's business, not an error.
        while not self._stop.is_set():
            with contextlib.suppress(psycopg.OperationalError):
                with contextlib.closing(psycopg.connect(self.db.cluster.conninfo(self.db.name), autocommit=True)) as c:
                    for name, value in self.settings.items():
                        c.execute(f"SET {name} = '{value}'")
                    self._work(c, number, rng)
            time.sleep(0.02)

    def _work(self, conn, number, rng):
        while not self._stop.is_set():
            try:
                self._transaction(conn, number, rng)
            except psycopg.OperationalError:
                raise
            except Exception as e:  # noqa: BLE001 - shown by the test
                self.errors.append(repr(e))
                return
            with self._lock:
                self.committed += 1
            if self.pause:
                self._stop.wait(self.pause)

    def _transaction(self, conn, number, rng):
        with conn.transaction():
            for _ in range(rng.choice((1, 1, 1, 4))):
                key = self.first + number * self.keys + rng.randrange(self.keys)
                kind = rng.random()
                if kind < 0.55:
                    conn.execute(
                        f"INSERT INTO {self.table} VALUES ({key}, 'load', 0, {VECTOR.format(key)}) "
                        "ON CONFLICT (id) DO UPDATE SET n = items.n + 1, title = excluded.title || items.n".replace(
                            "items.", f"{self.table}."))
                elif kind < 0.8:
                    conn.execute(f"UPDATE {self.table} SET n = n + 1 WHERE id BETWEEN {key} AND {key + 5} "
                                 f"AND id < {self.first + (number + 1) * self.keys}")
                else:
                    conn.execute(f"DELETE FROM {self.table} WHERE id = {key}")
        if rng.random() < 0.1:
            conn.execute(f"UPDATE {self.table} SET n = n + 1 WHERE id = {self.first - 1}")
