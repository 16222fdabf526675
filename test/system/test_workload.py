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
from qdrant_client.models import Distance, VectorParams

from harness import collection_points, wait_until
from items import VECTOR, Items, end_worker
from keyed import Keyed

CLUSTER = {"conf": {"max_prepared_transactions": 40, "qdrant_sync.segment_size": "64kB", "deadlock_timeout": "50ms",
                    "checkpoint_timeout": "30s"}}

KEYS = 400

# What concurrent sessions, prepared transactions and crashes may do to a statement.
EXPECTED = (psycopg.errors.DeadlockDetected, psycopg.errors.UniqueViolation, psycopg.errors.LockNotAvailable,
            psycopg.errors.SerializationFailure, psycopg.errors.QueryCanceled, psycopg.errors.RaiseException,
            # A leaf is detached just now.
            psycopg.errors.CheckViolation)


# A second table with all that the first has not: a key of two columns, leaves on two levels, a filter, columns that do
# not count.
DOCS = (
    "CREATE TABLE docs (kind text, no int, title text, n int NOT NULL DEFAULT 0, unmirrored int, deleted boolean NOT NULL "
    "DEFAULT false, embedding real[], PRIMARY KEY (kind, no)) PARTITION BY LIST (kind)",
    "CREATE TABLE docs_a PARTITION OF docs FOR VALUES IN ('a')",
    "CREATE TABLE docs_b (unmirrored int, embedding real[], gone int, n int NOT NULL DEFAULT 0, title text, kind text NOT "
    "NULL, deleted boolean NOT NULL DEFAULT false, no int NOT NULL)",
    "ALTER TABLE docs_b DROP gone",
    "ALTER TABLE docs ATTACH PARTITION docs_b FOR VALUES IN ('b', 'b b')",
    "CREATE TABLE docs_rest PARTITION OF docs DEFAULT PARTITION BY HASH (no)",
    "CREATE TABLE docs_0 PARTITION OF docs_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
    "CREATE TABLE docs_1 PARTITION OF docs_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
)
KINDS = ("a", "b", "b b", "c", "", "\u00e9\"\\")
LEAF = {"a": "docs_a", "b": "docs_b", "b b": "docs_b"}

# DDL on both tables while others write to them; each ends as it began, except for values.
DDL = (
    ["ALTER TABLE docs_rest DETACH PARTITION docs_0", "UPDATE docs_0 SET n = n + 1, title = 'apart'",
     "ALTER TABLE docs_rest ATTACH PARTITION docs_0 FOR VALUES WITH (MODULUS 2, REMAINDER 0)"],
    ["CREATE TABLE docs_z PARTITION OF docs FOR VALUES IN ('z')",
     "INSERT INTO docs (kind, no, embedding) VALUES ('z', 1, '{1,2,3,4}')", "DROP TABLE docs_z"],
    ["ALTER TABLE items ADD extra integer DEFAULT 1", "UPDATE items SET extra = 2 WHERE id % 5 = 0",
     "ALTER TABLE items DROP extra"],
    ["ALTER TABLE items RENAME n TO number", "UPDATE items SET number = number + 1 WHERE id < 50",
     "ALTER TABLE items RENAME number TO n"],
    ["ALTER TABLE docs ALTER title TYPE text USING title || '!'"],
    ["ALTER TABLE items ALTER n TYPE integer USING n + 1"],
    ["ALTER TABLE items DISABLE TRIGGER qdrant_sync", "UPDATE items SET n = n + 1, title = 'unseen'",
     "DELETE FROM items WHERE id % 7 = 0", "ALTER TABLE items ENABLE ALWAYS TRIGGER qdrant_sync"],
    ["ALTER TABLE docs RENAME TO documents", "DELETE FROM documents WHERE no % 5 = 0", "ALTER TABLE documents RENAME TO docs"],
)
DETACH = "ALTER TABLE docs_rest DETACH PARTITION docs_1"
ATTACH = "ALTER TABLE docs_rest ATTACH PARTITION docs_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1)"
ATTACHED = "SELECT 1 FROM pg_inherits WHERE inhrelid = 'docs_1'::regclass"

# Points that are written by hand, each with its row in a table: whoever writes a point holds its row's lock until
# COMMIT, so that the rows say what the last writes were.
POINTS = 30


def make_by_hand(db):
    collection = db.collection("by_hand")
    db.front.client.create_collection(collection, VectorParams(size=2, distance=Distance.DOT))
    db.sql("CREATE TABLE by_hand (id bigint PRIMARY KEY, n integer)")
    db.sql(f"INSERT INTO by_hand SELECT i, NULL FROM generate_series(1, {POINTS}) i")
    return collection


def by_hand_differences(db, collection):
    rows = dict(db.sql("SELECT id, n FROM by_hand WHERE n IS NOT NULL"))
    points = {int(i): point.payload["n"] for i, point in collection_points(db.front, collection).items()}
    return {i: (rows.get(i), points.get(i)) for i in rows.keys() | points.keys() if rows.get(i) != points.get(i)}


def make_docs(db):
    for statement in DOCS:
        db.sql(statement)
    docs = Keyed.of(db, "docs")
    docs.key, docs.hashed = ("kind", "no"), True
    db.sql(f"INSERT INTO docs SELECT 'a', i, 'first', 0, 0, false, {VECTOR.format('i')} FROM generate_series(1, 50) i")
    docs.mirror(payload="title, n", row_filter="NOT deleted")
    docs.wait_state("live")
    return docs


class Session(threading.Thread):
    """One session: random transactions of random statements until it is told to stop."""

    def __init__(self, db, number, seed, stop, collection):
        super().__init__(daemon=True, name=f"session {number}")
        self.db, self.number, self.stop, self.collection = db, number, stop, collection
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
            ["single", "several", "rollback", "prepared", "end prepared", "procedure", "truncate", "vacuum", "by hand", "ddl"],
            [40, 30, 8, 6, 10, 4, 0.4, 0.6, 8, 1.5])[0]
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

    def end_prepared(self, conn, everything=False):
        """Somebody's: the one who prepared it may be gone."""
        found = conn.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database() "
                             "ORDER BY prepared").fetchall()
        for (gid,) in found[:1 if len(found) < 8 and not everything else 8]:
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
        conn.execute(self.rng.choice(["TRUNCATE items", "TRUNCATE docs", "TRUNCATE docs_b", "TRUNCATE docs_rest",
                                      "TRUNCATE items, docs_1"]))
        self.statement(conn)
        conn.execute(self.rng.choice(["COMMIT", "ROLLBACK"]))

    def vacuum(self, conn):
        conn.execute(self.rng.choice(["VACUUM items", "VACUUM FULL items", "ANALYZE items", "VACUUM FULL docs_b",
                                      "CLUSTER docs_a USING docs_a_pkey", "VACUUM docs"]))

    def by_hand(self, conn):
        """Points of a collection that no mirror owns, some of them in a savepoint that is rolled back."""
        conn.execute("BEGIN")
        for point in sorted(self.rng.sample(range(1, POINTS + 1), self.rng.randint(1, 4))):
            undone = self.rng.random() < 0.3
            conn.execute("SAVEPOINT s")
            self.write_by_hand(conn, point)
            conn.execute("ROLLBACK TO s" if undone else "RELEASE s")
        self.statement(conn)
        conn.execute(self.rng.choice(["COMMIT", "COMMIT", "COMMIT", "ROLLBACK"]))

    def write_by_hand(self, conn, point):
        n, old = self.rng.randrange(1_000_000), "SELECT n FROM by_hand WHERE id = %s FOR UPDATE"
        exists = conn.execute(old, (point,)).fetchone()[0] is not None
        kind = self.rng.choice(("upsert", "upsert", "delete", "set", "batch") if exists else ("upsert", "batch"))
        whole = f'{{"id": {point}, "vector": [1, 2], "payload": {{"n": {n}}}}}'
        if kind == "upsert":
            conn.execute("SELECT qdrant_upsert(%s, %s)", (self.collection, f"[{whole}]"))
        elif kind == "delete":
            conn.execute("SELECT qdrant_delete(%s, %s::bigint)", (self.collection, point))
        elif kind == "set":
            conn.execute("SELECT qdrant_set_payload(%s, %s, %s::bigint)", (self.collection, f'{{"n": {n}}}', point))
        else:
            conn.execute("SELECT qdrant_batch_update_points(%s, %s)", (self.collection, (
                f'[{{"delete": {{"points": [{point}]}}}}, {{"upsert": {{"points": [{whole}]}}}}]')))
        conn.execute("UPDATE by_hand SET n = %s WHERE id = %s", (None if kind == "delete" else n, point))

    def ddl(self, conn):
        """In one transaction, or, of a leaf, in two with a while between them."""
        # Prepared transactions hold locks as long as nobody ends them.
        self.end_prepared(conn, everything=True)
        if self.rng.random() < 0.3:
            # Another session may come first.
            with contextlib.suppress(psycopg.errors.WrongObjectType, psycopg.errors.UndefinedTable):
                conn.execute(DETACH if conn.execute(ATTACHED).fetchone() else ATTACH)
            return
        conn.execute("BEGIN")
        conn.execute("SET LOCAL lock_timeout = '5s'")
        for statement in self.rng.choice(DDL):
            conn.execute(statement)
        conn.execute(self.rng.choice(["COMMIT", "COMMIT", "ROLLBACK"]))

    # --- statements ---

    def key(self):
        return self.rng.randrange(1, KEYS)

    def document(self, conn):
        """A statement about the second table, through its root or straight to a leaf."""
        kind, other, no = self.rng.choice(KINDS), self.rng.choice(KINDS), self.rng.randrange(1, 60)
        high = no + self.rng.randint(0, 12)
        table = self.rng.choice(["docs", LEAF.get(kind, "docs_rest")])
        rows = f"SELECT %s, i, 'd', 0, 0, i % 9 = 0, {VECTOR.format('i')} FROM generate_series({no}, {high}) i"
        rows = f"INSERT INTO docs (kind, no, title, n, unmirrored, deleted, embedding) {rows.replace('% 9', '%% 9')}"
        where = f"kind = %s AND no BETWEEN {no} AND {high}"
        statements = {
            "upsert": f"{rows} ON CONFLICT (kind, no) DO UPDATE SET n = docs.n + 1, deleted = false",
            "insert": f"{rows} ON CONFLICT DO NOTHING",
            "update": f"UPDATE {table} SET n = n + 1, title = 'changed {self.number}' WHERE {where}",
            "nothing": f"UPDATE {table} SET unmirrored = unmirrored + 1, title = title WHERE {where}",
            "delete": f"DELETE FROM {table} WHERE {where}",
            "hide": f"UPDATE {table} SET deleted = NOT deleted WHERE {where} AND no %% 3 = 0",
            "null": f"UPDATE {table} SET embedding = NULL WHERE {where} AND no %% 11 = 0",
            "move": f"UPDATE docs d SET kind = %s WHERE {where} AND NOT EXISTS "
                    "(SELECT FROM docs o WHERE o.kind = %s AND o.no = d.no)",
            "renumber": f"UPDATE docs d SET no = no + 100 WHERE {where} AND NOT EXISTS "
                        "(SELECT FROM docs o WHERE o.kind = d.kind AND o.no = d.no + 100)",
        }
        what = self.rng.choice(list(statements))
        conn.execute(statements[what], (other, kind, other) if what == "move" else (kind,))

    def statement(self, conn):
        if self.rng.random() < 0.4:
            self.document(conn)
            return
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
    docs = make_docs(db)
    by_hand = make_by_hand(db)
    stop = threading.Event()
    sessions = [Session(db, number, rng.randrange(1 << 60), stop, by_hand) for number in range(5)]
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
    if not db.sql(ATTACHED):
        db.sql(ATTACH)
    what = f"seed {seed}: {counts}, {[s.done for s in sessions]}"
    try:
        items.converged(60, where="embedding IS NOT NULL")
        docs.equal(60, where="NOT deleted")
    except AssertionError as e:
        raise AssertionError(f"{what}\n{e}") from None
    wait_until(lambda: not by_hand_differences(db, by_hand), 60,
               lambda: f"points written by hand as their rows: {by_hand_differences(db, by_hand)}; {what}")
    assert items.dead_letters() == docs.dead_letters() == {}, what
    # A crash repeats operations; by then a later delete may have been applied (doc/operations.md).
    assert db.sql("SELECT * FROM qdrant_dead_letters WHERE (operation, http_status) IS DISTINCT FROM ('set_payload', 404)") == [], \
        what
    assert items.wait() is True
    assert docs.wait() is True
    done = {}
    for session in sessions:
        for kind, n in session.done.items():
            done[kind] = done.get(kind, 0) + n
    assert all(done.get(kind) for kind in ("single", "several", "rollback", "prepared", "end prepared", "procedure", "by hand",
                                           "ddl")), what
    # Nothing of the outbox is left behind.
    wait_until(lambda: db.one("SELECT coalesce(sum(pg_relation_size(s)), 0) FROM qdrant_internal.mirror, "
                              "unnest(ARRAY[segment_a, segment_b]) s") == 0, 30, "the outbox is empty")
