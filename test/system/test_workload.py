"""A randomised workload from a printed seed: sessions that do whatever SQL can do to a table, while the worker is ended
and the postmaster killed; at the end table and collection are equal, point by point.

`test/run workload --seed 17 --minutes 30` runs one long one.
"""

import contextlib
import random
import threading
import time

import psycopg
import pytest

from harness import wait_until
from items import VECTOR, Items, end_worker

CLUSTER = {"conf": {"max_prepared_transactions": 40, "qdrant_sync.segment_size": "64kB", "deadlock_timeout": "50ms",
                    "checkpoint_timeout": "30s"}}

KEYS = 400

# What concurrent sessions, prepared transactions and crashes may do to a statement.
EXPECTED = (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation, psycopg.errors.LockNotAvailable,
            psycopg.errors.SerializationFailure, psycopg.errors.QueryCanceled, psycopg.errors.RaiseException)


class Session(threading.Thread):
    """One session: random transactions of random statements until it is told to stop."""

    def __init__(self, db, number, seed, stop):
        super().__init__(daemon=True, name=f"session {number}")
        self.db, self.number, self.stop = db, number, stop
        self.rng = random.Random(seed)
        self.done = {}
        self.error = None

    def run(self):
        try:
            while not self.stop.is_set():
                with contextlib.suppress(psycopg.OperationalError):
                    self.connected()
                self.stop.wait(0.05)
        except Exception as e:  # noqa: BLE001 - shown by the test
            self.error = e

    def connected(self):
        with contextlib.closing(psycopg.connect(self.db.cluster.conninfo(self.db.name), autocommit=True)) as conn:
            # Never waits for ever behind a prepared transaction.
            conn.execute("SET lock_timeout = '1s'; SET statement_timeout = '10s'")
            conn.execute(f"SET synchronous_commit = {self.rng.choice(['on', 'on', 'off'])}")
            while not self.stop.is_set():
                self.transaction(conn)

    def transaction(self, conn):
        kind = self.rng.choices(
            ["single", "several", "rollback", "prepared", "end prepared", "procedure", "truncate", "vacuum"],
            [40, 30, 8, 6, 10, 4, 0.4, 0.6])[0]
        try:
            getattr(self, kind.replace(" ", "_"))(conn)
            self.done[kind] = self.done.get(kind, 0) + 1
        except EXPECTED:
            conn.execute("ROLLBACK")

    # --- transactions ---

    def single(self, conn):
        self.statement(conn)

    def several(self, conn):
        conn.execute("BEGIN")
        for _ in range(self.rng.randint(1, 6)):
            self.step(conn, 0)
        conn.execute("COMMIT")

    def rollback(self, conn):
        conn.execute("BEGIN")
        for _ in range(self.rng.randint(1, 4)):
            self.step(conn, 0)
        conn.execute("ROLLBACK")

    def step(self, conn, depth):
        """A statement, or a savepoint around some, released or rolled back."""
        if depth > 3 or self.rng.random() < 0.6:
            self.statement(conn)
            return
        name = f"s{depth}"
        conn.execute(f"SAVEPOINT {name}")
        for _ in range(self.rng.randint(1, 3)):
            self.step(conn, depth + 1)
        conn.execute(self.rng.choice([f"RELEASE {name}", f"ROLLBACK TO {name}"]))

    def prepared(self, conn):
        conn.execute("BEGIN")
        for _ in range(self.rng.randint(1, 3)):
            self.step(conn, 0)
        conn.execute(f"PREPARE TRANSACTION '{self.number}-{self.rng.randrange(1 << 40)}'")

    def end_prepared(self, conn):
        """Somebody's: the one who prepared it may be gone."""
        found = conn.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database() "
                             "ORDER BY prepared").fetchall()
        for (gid,) in found[:1 if len(found) < 8 else 8]:
            # Another session may end it first.
            with contextlib.suppress(psycopg.errors.UndefinedObject, psycopg.errors.ObjectNotInPrerequisiteState):
                conn.execute(f"{self.rng.choice(['COMMIT', 'COMMIT', 'ROLLBACK'])} PREPARED '{gid}'")

    def procedure(self, conn):
        first = self.key()
        conn.execute(f"""DO $$ BEGIN
            FOR i IN {first}..{first + 20} LOOP
                BEGIN
                    INSERT INTO items VALUES (i, 'block', 0, {VECTOR.format('i')})
                        ON CONFLICT (id) DO UPDATE SET n = items.n + 1;
                    IF i % 3 = 0 THEN RAISE 'undone'; END IF;
                EXCEPTION WHEN raise_exception THEN NULL;
                END;
                IF i % 7 = 0 THEN COMMIT; END IF;
            END LOOP; END $$""")

    def truncate(self, conn):
        conn.execute("BEGIN")
        conn.execute("TRUNCATE items")
        self.statement(conn)
        conn.execute(self.rng.choice(["COMMIT", "ROLLBACK"]))

    def vacuum(self, conn):
        conn.execute(self.rng.choice(["VACUUM items", "VACUUM FULL items", "ANALYZE items"]))

    # --- statements ---

    def key(self):
        return self.rng.randrange(1, KEYS)

    def statement(self, conn):
        key, other = self.key(), self.key()
        low, high = sorted((key, min(KEYS, key + self.rng.randint(0, 30))))
        kind = self.rng.choice(("upsert", "upsert", "insert", "update", "update", "vector", "delete", "rekey", "copy",
                                "null"))
        if kind == "upsert":
            conn.execute(f"INSERT INTO items SELECT i, 'up', 0, {VECTOR.format('i')} FROM generate_series({low}, {high}) i "
                         f"ON CONFLICT (id) DO UPDATE SET n = items.n + 1, title = 'up ' || items.n")
        elif kind == "insert":
            conn.execute(f"INSERT INTO items SELECT i, 'in', 0, {VECTOR.format('i')} FROM generate_series({low}, {high}) i "
                         "ON CONFLICT DO NOTHING")
        elif kind == "update":
            conn.execute(f"UPDATE items SET n = n + 1, title = 'changed {self.number}' WHERE id BETWEEN {low} AND {high}")
        elif kind == "vector":
            conn.execute(f"UPDATE items SET embedding = {VECTOR.format('(id + n)')} WHERE id BETWEEN {low} AND {high}")
        elif kind == "delete":
            conn.execute(f"DELETE FROM items WHERE id BETWEEN {low} AND {high}")
        elif kind == "rekey":
            conn.execute(f"UPDATE items SET id = {other} WHERE id = {key} "
                         f"AND NOT EXISTS (SELECT FROM items WHERE id = {other})")
        elif kind == "copy":
            first = KEYS + self.number * 10_000_000 + self.rng.randrange(5_000_000)
            with conn.cursor().copy("COPY items (id, title, embedding) FROM STDIN") as copy:
                for i in range(first, first + self.rng.randint(1, 20)):
                    copy.write_row((i, "copied", [1.0, 2.0, float(i % 97), 4.0]))
        else:
            conn.execute(f"UPDATE items SET embedding = NULL WHERE id = {key}")


@pytest.mark.timeout(24 * 3600)
def test_random_workload_with_crashes(db, cluster, front, rng, seed, minutes):
    items = Items(db, rows=KEYS)
    stop = threading.Event()
    sessions = [Session(db, number, rng.randrange(1 << 60), stop) for number in range(5)]
    killer = random.Random(rng.randrange(1 << 60))
    until = time.monotonic() + 60 * minutes
    counts = {"worker ended": 0, "postmaster killed": 0, "qdrant away": 0, "checks": 0}
    for session in sessions:
        session.start()
    try:
        while time.monotonic() < until:
            stop.wait(killer.uniform(1, 3))
            kind = killer.random()
            if kind < 0.4:
                counts["worker ended"] += 1
                end_worker(cluster, db)
            elif kind < 0.7:
                counts["postmaster killed"] += 1
                cluster.kill9()
                cluster.start()
            elif kind < 0.9 and front.faults:
                counts["qdrant away"] += 1
                front.faults.down()
                stop.wait(killer.uniform(0.2, 2))
                front.faults.up()
            assert not [s.error for s in sessions if s.error], [s.error for s in sessions]
    finally:
        stop.set()
        for session in sessions:
            session.join(60)
    assert not [s.error for s in sessions if s.error], [s.error for s in sessions]
    for gid, in db.sql("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
        db.sql(f"{killer.choice(['COMMIT', 'ROLLBACK'])} PREPARED '{gid}'")
    what = f"seed {seed}: {counts}, {[s.done for s in sessions]}"
    try:
        items.converged(60, where="embedding IS NOT NULL")
    except AssertionError as e:
        raise AssertionError(f"{what}\n{e}") from None
    assert items.dead_letters() == {}, what
    assert items.wait() is True
    done = {}
    for session in sessions:
        for kind, n in session.done.items():
            done[kind] = done.get(kind, 0) + n
    assert all(done.get(kind) for kind in ("single", "several", "rollback", "prepared", "end prepared", "procedure")), what
    # Nothing of the outbox is left behind.
    wait_until(lambda: db.one("SELECT coalesce(sum(pg_relation_size(s)), 0) FROM qdrant_internal.mirror, "
                              "unnest(ARRAY[segment_a, segment_b]) s") == 0, 30, "the outbox is empty")
