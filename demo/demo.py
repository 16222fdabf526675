"""The demo itself; demo/run starts it, in the environment that test/setup made.

It starts a cluster and, without QDRANT_URL, Qdrant's engine in a process of its
own. Whatever happens to it, it ends both and removes their files, except where
--keep was asked for.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "data"), str(HERE.parent / "test")]

import dataset  # noqa: E402
import harness  # noqa: E402
import psycopg  # noqa: E402
from harness import outcome, places  # noqa: E402
from transcript import Table, Transcript, answer, say, statement  # noqa: E402

FIRST_LOAD = 3419
DATABASE, TABLE = "demo", "entries"
ENGINE = "qdrant_front"
STATE = places.HOME / "demo.json"
PAYLOAD = ("id", "title", "category", "body")
SESSIONS = 6
LOAD_SECONDS = 5
MIRRORS = "SELECT collection, state, pending, lag_seconds, last_error FROM qdrant_mirrors;"
BACKFILLS = "SELECT * FROM qdrant_backfills;"
FILLED = ("live", "failed")  # states of a mirror whose backfill has ended
VOID = 2278  # the type void, by its oid


class DemoError(Exception):
    """The demo cannot go on."""


# --- Qdrant -----------------------------------------------------------------------------------------------------------

class Engine:
    """Qdrant's engine in a child process, or the server that QDRANT_URL names."""

    def __init__(self):
        self.url = os.environ.get("QDRANT_URL", "").rstrip("/")
        self.api_key = os.environ.get("QDRANT_API_KEY")
        self.process = self.client = None
        self.ours = not self.url

    def start(self, keep):
        if self.ours:
            self._start_process(keep)
        self.client = outcome.make_client(self.url, self.api_key)
        if self.client.collection_exists(TABLE):
            self.client = None
            raise DemoError(f"{self.url} already has a collection {TABLE}, which is not the demo's to overwrite")

    def _start_process(self, keep):
        # A session of its own: Ctrl-C is for the demo, which ends this in its turn.
        log = places.HOME / "demo-engine.log"
        with open(log, "wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", ENGINE, *([] if keep else ["--exit-with-stdin"])], cwd=HERE.parent / "test",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
        started = re.match(r"listening on (\S+)", self.process.stdout.readline().decode())
        if not started:
            raise DemoError(f"Qdrant's engine did not start: {log.read_text()[-500:]}")
        self.url = started[1]

    def describe(self):
        info = self.client.info()
        if self.ours:
            return f"Qdrant's own engine (package qdrant-edge-py) behind its REST interface, at {self.url}"
        return f"{info.title} {info.version} at {self.url}"

    def count(self):
        return self.client.count(TABLE, exact=True).count

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait(20)
        elif self.client and not self.ours:
            # Nothing of the demo stays on a server that others use.
            remove_collection(self.client)


def remove_collection(client):
    for alias in client.get_aliases().aliases:
        if alias.collection_name == TABLE and alias.alias_name.startswith(TABLE + "__qs_"):
            delete_alias(client, alias.alias_name)
    if client.collection_exists(TABLE):
        client.delete_collection(TABLE)


def delete_alias(client, name):
    from qdrant_client import models
    client.update_collection_aliases([
        models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name))])


# --- a load that is killed --------------------------------------------------------------------------------------------

class Writer(threading.Thread):
    """One session that writes until the server dies under it."""

    def __init__(self, number, connect, stop):
        super().__init__(name=f"writer {number}")
        self.number, self.connect, self.stop = number, connect, stop
        self.random = random.Random(number)
        self.committed = self.rolled_back = 0
        self.ended = ""

    def run(self):
        conn = None
        try:
            conn = self.connect()
            while not self.stop.is_set():
                self.transaction(conn)
        except psycopg.Error as e:
            self.ended = (str(e) or type(e).__name__).splitlines()[0].replace("consuming input failed: ", "")
        finally:
            with contextlib.suppress(psycopg.Error):
                if conn is not None:
                    conn.close()

    def transaction(self, conn):
        kind = self.random.choices(
            (self.edit, self.move, self.copy, self.remove, self.many, self.regret, self.savepoint),
            (8, 6, 8, 3, 1, 4, 4))[0]
        try:
            kind(conn)
            if kind == self.regret:
                conn.rollback()
                self.rolled_back += 1
            else:
                conn.commit()
                self.committed += 1
        except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
            conn.rollback()
            self.rolled_back += 1

    def any_id(self):
        return self.random.randint(1, FIRST_LOAD)

    def edit(self, conn):
        conn.execute("UPDATE entries SET body = %s WHERE id = %s",
                     (f"edit {self.committed} of session {self.number}", self.any_id()))

    def move(self, conn):
        """Another text and the embedding that belongs to it."""
        conn.execute("""UPDATE entries e SET (title, body, embedding) = (o.title, o.body, o.embedding)
                        FROM arrivals o WHERE e.id = %s AND o.id = %s""",
                     (self.any_id(), self.random.randint(FIRST_LOAD + 1, FIRST_LOAD + 300)))

    def copy(self, conn):
        conn.execute("""INSERT INTO entries SELECT nextval('copies'), title, category, body, embedding
                        FROM arrivals WHERE id = %s""", (self.random.randint(FIRST_LOAD + 1, FIRST_LOAD + 300),))

    def remove(self, conn):
        conn.execute("DELETE FROM entries WHERE id = %s", (self.any_id(),))

    def many(self, conn):
        first = self.any_id()
        conn.execute("UPDATE entries SET category = category || '*' WHERE id BETWEEN %s AND %s", (first, first + 100))

    def regret(self, conn):
        first = self.any_id()
        conn.execute("DELETE FROM entries WHERE id BETWEEN %s AND %s", (first, first + 20))

    def savepoint(self, conn):
        self.edit(conn)
        conn.execute("SAVEPOINT here")
        self.remove(conn)
        conn.execute("ROLLBACK TO here")


# --- the steps --------------------------------------------------------------------------------------------------------

class Demo:
    def __init__(self, out, cluster, engine):
        self.out, self.cluster, self.engine = out, cluster, engine
        self.conn = None

    # --- typing ---

    def show(self, text, conn=None):
        """Prints the statement, executes exactly that, prints the answer, returns its rows."""
        statement(text, f"{DATABASE}=# ", f"{DATABASE}-# ")
        return self.answer_of(text, conn)

    def answer_of(self, text, conn=None):
        cursor = (conn or self.conn).execute(text)
        if cursor.description is None or not cursor.description:
            print(f"  {cursor.statusmessage}\n", flush=True)
            return []
        rows = cursor.fetchall()
        if [column.type_code for column in cursor.description] == [VOID]:
            print("  (nothing to answer)\n", flush=True)
        else:
            answer([column.name for column in cursor.description], rows)
        return rows

    def show_python(self, text, value, names=None):
        """A call of the official Python client, as typed; `value` is what it returned."""
        statement(text, ">>> ", "... ")
        if names:
            answer(names, value)
        else:
            print(f"  {value}\n", flush=True)
        return value

    def one(self, text, *params):
        return self.conn.execute(text, params or None).fetchone()[0]

    def settle(self):
        """qdrant_wait, as a person would call it after a change."""
        rows = self.show("SELECT qdrant_wait('30s');")
        if rows != [(True,)]:
            self.out.check(False, "everything reached Qdrant within 30 s", self.state())

    def state(self):
        """What helps when something went wrong."""
        lines = [str(row) for row in self.conn.execute("SELECT * FROM qdrant_mirrors")]
        lines += [str(row) for row in self.conn.execute("SELECT * FROM qdrant_dead_letters LIMIT 3")]
        return "\n".join(lines)

    def found_in_collection(self, ids, typed):
        """Looks points up with the official client, and prints them."""
        points = self.engine.client.retrieve(TABLE, ids=ids, with_payload=True)
        rows = sorted((p.id, p.payload["title"], p.payload["category"]) for p in points)
        self.show_python(typed, rows, ["id", "title", "category"])
        return rows

    # --- 1 ---

    def table(self):
        self.out.heading("A table of ordinary rows")
        say("Nouns of WordNet with their definitions; the embeddings are those of a sentence model "
            "(all-MiniLM-L6-v2), and lie in a column like any other.")
        print()
        self.show("""
            CREATE TABLE entries (
                id        bigint PRIMARY KEY,
                title     text NOT NULL,
                category  text NOT NULL,
                body      text NOT NULL,
                embedding real[] NOT NULL          -- 384 numbers
            );""")
        statement("\\copy entries FROM PROGRAM 'demo/data/dataset.py entries 1 %d'" % FIRST_LOAD,
                  f"{DATABASE}=# ", "")
        self.copy_in("entries", "entries", 1, FIRST_LOAD)
        print(f"  COPY {FIRST_LOAD}\n")
        # What comes later and what is asked about later is loaded quietly.
        self.conn.execute("CREATE TABLE arrivals (LIKE entries INCLUDING ALL)")
        self.copy_in("arrivals", "entries", FIRST_LOAD + 1, None)
        self.conn.execute("CREATE TABLE questions (id int PRIMARY KEY, text text, embedding real[])")
        self.copy_in("questions", "questions", 1, None)
        self.conn.execute("CREATE SEQUENCE copies START 10001")
        self.conn.execute("ANALYZE")
        self.show("""
            SELECT id, title, category, left(body, 64) AS body, cardinality(embedding) AS numbers
              FROM entries WHERE title IN ('banjo', 'blizzard', 'coffee', 'nostalgia', 'snow leopard')
             ORDER BY title;""")

    def copy_in(self, table, name, first, last):
        with self.conn.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as copy:
            for line in dataset.copy_text(name, first, last):
                copy.write(line)

    # --- 2 ---

    def extension(self):
        self.out.heading("Where Qdrant is")
        say(f"{self.engine.describe()}.")
        print()
        self.show("CREATE EXTENSION qdrant_sync;")
        self.show(f"""
            CREATE SERVER qdrant FOREIGN DATA WRAPPER qdrant_fdw
                OPTIONS (url '{self.engine.url}');""")
        if self.engine.api_key:
            statement("CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key '…');", f"{DATABASE}=# ", "")
            self.conn.execute("CREATE USER MAPPING FOR PUBLIC SERVER qdrant OPTIONS (api_key {})".format(
                psycopg.sql.Literal(self.engine.api_key).as_string(self.conn)))
            print("  CREATE USER MAPPING\n")

    # --- 3 ---

    def mirror(self):
        self.out.heading("One statement mirrors the table")
        started = time.monotonic()
        self.show("SELECT qdrant_mirror('entries');")
        say("That was a transaction like any other: it wrote down the wish. A background worker now makes the "
            "collection and fills it, and nobody waits for it.")
        print()
        self.watch_backfill()
        self.settle()
        seconds = time.monotonic() - started
        self.show(MIRRORS)
        say("Asked from outside, with Qdrant's official Python client:")
        print()
        count = self.show_python(f'client.count("{TABLE}", exact=True).count', self.engine.count())
        self.out.check(count == FIRST_LOAD,
                       f"{count} points for {FIRST_LOAD} rows, {seconds:.1f} s after the statement")

    def watch_backfill(self):
        """psql's \\watch, but only where something has changed, and until the backfill has ended."""
        statement(BACKFILLS.replace(";", " \\watch 0.2"), f"{DATABASE}=# ", "")
        table, last, deadline = None, None, time.monotonic() + 60
        while time.monotonic() < deadline:
            cursor = self.conn.execute(BACKFILLS)
            names = [column.name for column in cursor.description]
            row = cursor.fetchone()
            if row and row != last:
                if table is None:
                    table = Table(names, [row], [max(len(n), len(str(v)) + 2) for n, v in zip(names, row)])
                    table.head()
                table.row(row)
                last = row
            if self.one("SELECT state FROM qdrant_mirrors") in FILLED:
                break
            time.sleep(0.2)
        print()

    # --- 4 ---

    def search(self):
        self.out.heading("What is like this one?")
        say("qdrant_search finds the nearest points in Qdrant and returns the table's own rows, as they are now, to "
            "whom may see them.")
        print()
        rows = self.show("""
            SELECT rank, (hit).title, (hit).category, left((hit).body, 50) AS body, round(score::numeric, 3) AS score
              FROM qdrant_search(NULL::entries, (SELECT embedding FROM entries WHERE title = 'coffee'), k => 6);""")
        self.out.check([row[1] for row in rows] == self.nearest("coffee", 6),
                       "the same six as by comparing all rows in PostgreSQL")
        print()
        say("With a filter, in Qdrant's own language: which buildings are like coffee?")
        print()
        rows = self.show("""
            SELECT (hit).title, (hit).category, left((hit).body, 60) AS body, round(score::numeric, 3) AS score
              FROM qdrant_search(NULL::entries, (SELECT embedding FROM entries WHERE title = 'coffee'), k => 3,
                                 filter => '{"must": [{"key": "category", "match": {"value": "building"}}]}');""")
        self.out.check([row[0] for row in rows] == self.nearest("coffee", 3, "building"),
                       "the same three as by comparing all buildings")
        print()
        say("It is a FROM item: it joins. One answer to each of these questions, whose embeddings are in a table too:")
        print()
        rows = self.show("""
            SELECT q.text AS question, (hit).title AS answer, (hit).category
              FROM questions q, qdrant_search(NULL::entries, q.embedding, k => 1) ORDER BY q.id;""")
        self.out.check(len(rows) == self.one("SELECT count(*) FROM questions"), "an answer to every question")
        print()
        say("qdrant_query asks the collection itself, no table needed. A number means: nearest to that point.")
        print()
        leopard = self.one("SELECT id FROM entries WHERE title = 'leopard'")
        rows = self.show(f"""
            SELECT id, payload->>'title' AS title, round(score::numeric, 3) AS score
              FROM qdrant_query('{TABLE}', {leopard}, 4);""")
        self.out.check([row[1] for row in rows] == self.nearest("leopard", 5)[1:],
                       "like a leopard, the leopard itself left out")

    def nearest(self, title, k, category=None):
        """The k nearest titles by brute force, in PostgreSQL: what a search must find."""
        return [row[0] for row in self.conn.execute("""
            SELECT e.title FROM entries e,
                   LATERAL (SELECT sum(a * b) AS product FROM unnest(e.embedding,
                            (SELECT embedding FROM entries WHERE title = %s)) AS u (a, b)) AS s
             WHERE %s::text IS NULL OR e.category = %s ORDER BY s.product DESC LIMIT %s""",
            (title, category, category, k))]

    # --- 5 ---

    def changes(self):
        self.out.heading("Rows change, and the collection follows")
        espresso = self.one("SELECT id FROM arrivals WHERE title = 'espresso'")
        cappuccino = self.one("SELECT id FROM arrivals WHERE title = 'cappuccino'")
        coffee = self.one("SELECT id FROM entries WHERE title = 'coffee'")
        typed = f'client.retrieve("{TABLE}", ids=[{coffee}, {cappuccino}, {espresso}])'
        ids = [coffee, cappuccino, espresso]

        self.show("BEGIN;")
        self.show("INSERT INTO entries SELECT * FROM arrivals;           -- among them espresso and cappuccino")
        self.show("""
            UPDATE entries SET category = 'hot drink'
             WHERE title IN ('coffee', 'cocoa', 'espresso', 'cappuccino');""")
        self.show("DELETE FROM entries WHERE category = 'dance';")
        say("Nothing has left PostgreSQL so far: what is not committed is nobody's business.")
        print()
        rows = self.found_in_collection(ids, typed)
        self.out.check(rows == [(coffee, "coffee", "drink")] and self.engine.count() == FIRST_LOAD,
                       "the collection is as it was")
        print()
        self.show("COMMIT;")
        self.settle()
        rows = self.found_in_collection(ids, typed)
        self.out.check(
            sorted(rows) == sorted([(coffee, "coffee", "hot drink"), (cappuccino, "cappuccino", "hot drink"),
                                    (espresso, "espresso", "hot drink")]), "new and changed rows are there")
        print()
        dances = self.engine.client.count(TABLE, exact=True, count_filter=category_is("dance")).count
        self.show_python(f'client.count("{TABLE}", count_filter=…category is "dance"…).count', dances)
        self.out.check(dances == 0, "deleted rows are gone")
        print()
        rows = self.show("""
            SELECT rank, (hit).title, (hit).category, round(score::numeric, 3) AS score, (hit).id > 3419 AS "new"
              FROM qdrant_search(NULL::entries, (SELECT embedding FROM entries WHERE title = 'tea'), k => 5);""")
        self.out.check([row[1] for row in rows] == self.nearest("tea", 5) and any(row[4] for row in rows),
                       "the search finds new rows among the old")
        self.rollback(coffee, espresso)

    def rollback(self, coffee, espresso):
        before = self.engine.count()
        print()
        say("What is rolled back was never there, whole or in part:")
        print()
        self.show("BEGIN;")
        self.show("UPDATE entries SET title = 'a cup of coffee' WHERE title = 'coffee';")
        self.show("SAVEPOINT sober;")
        self.show("DELETE FROM entries WHERE category IN ('drink', 'hot drink');")
        self.show("ROLLBACK TO sober;")
        self.show("COMMIT;")
        self.show("BEGIN;")
        self.show("DELETE FROM entries;")
        self.show("ROLLBACK;")
        self.settle()
        rows = self.found_in_collection([coffee, espresso], f'client.retrieve("{TABLE}", ids=[{coffee}, {espresso}])')
        self.out.check([row[1] for row in rows] == ["a cup of coffee", "espresso"] and self.engine.count() == before,
                       "only what was committed has arrived")
        self.agreement()

    # --- 6 ---

    def crash(self):
        self.out.heading("PostgreSQL is killed in the middle of the work")
        say(f"{SESSIONS} sessions write as fast as they can: single rows and a hundred at a time, inserts, updates "
            "with new embeddings, deletes, savepoints, rollbacks. Then every process of the server gets SIGKILL.")
        print()
        stop = threading.Event()
        writers = [Writer(i, lambda: self.cluster.connect(DATABASE, autocommit=False), stop)
                   for i in range(1, SESSIONS + 1)]
        for writer in writers:
            writer.start()
        try:
            time.sleep(LOAD_SECONDS)
            self.cluster.kill9()
        finally:
            stop.set()
            for writer in writers:
                writer.join(20)
        names = ["session", "committed", "rolled back", "its last words"]
        answer(names, [(w.number, w.committed, w.rolled_back, w.ended[:60]) for w in writers])
        # Nobody writes to the collection now, so this is what the crash left.
        held = outcome.collection_points(self.engine, TABLE)
        statement("pg_ctl start", "$ ", "")
        started = time.monotonic()
        self.cluster.start()
        self.connect()
        print(f"  ready after {time.monotonic() - started:.1f} s of crash recovery\n", flush=True)
        ours = outcome.table_points(self.conn, TABLE, payload=PAYLOAD)
        behind = {line.partition(":")[0] for line in outcome.compare_points(ours, held)}
        say(f"{sum(w.committed for w in writers)} transactions had been committed. When the server died, the "
            f"collection was behind the table in {len(behind)} points. Only the outbox, which is as durable as the "
            "table, still knows them.")
        print()
        self.settle()
        self.show(MIRRORS)

    # --- 7 ---

    def agreement(self):
        """Table and collection, point by point: ids, all 384 numbers, payload."""
        ours = outcome.table_points(self.conn, TABLE, payload=PAYLOAD)
        theirs = outcome.collection_points(self.engine, TABLE)
        differences = outcome.compare_points(ours, theirs)
        self.out.check(not differences, f"{len(ours)} rows, {len(theirs)} points, compared one by one: ids, vectors, "
                       f"payload. Differences: {len(differences)}", "\n".join(differences[:10]))

    def final(self):
        self.out.heading("Do they agree?")
        self.show("SELECT count(*), max(id) FROM entries;")
        self.show_python(f'client.count("{TABLE}", exact=True).count', self.engine.count())
        letters = self.one("SELECT count(*) FROM qdrant_dead_letters")
        self.agreement()
        self.out.check(letters == 0, "no row was refused (qdrant_dead_letters is empty)", self.state())

    # --- all ---

    def connect(self):
        self.conn = self.cluster.connect(DATABASE)
        self.conn.execute("SET statement_timeout = '60s'")

    def all(self):
        self.cluster.createdb(DATABASE)
        self.connect()
        for step in (self.table, self.extension, self.mirror, self.search, self.changes, self.crash, self.final):
            step()


def category_is(value):
    from qdrant_client import models
    return models.Filter(must=[models.FieldCondition(key="category", match=models.MatchValue(value=value))])


# --- keeping and stopping ---------------------------------------------------------------------------------------------

def birth(pid):
    """When that process began, in the kernel's ticks: pids are used again. None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def keep(cluster, engine):
    cluster.keep()
    STATE.write_text(json.dumps({
        "postmaster": [cluster.pid, birth(cluster.pid)], "base": str(cluster.base), "url": engine.url,
        "engine": [engine.process.pid, birth(engine.process.pid)] if engine.ours else None}))
    psql = cluster.bindir / "psql"
    print("\nIt goes on running. Look around:\n")
    print(f"    {psql} -h {cluster.socketdir} -p {cluster.port} -U {cluster.user} {DATABASE}\n")
    print("    SELECT * FROM qdrant_mirrors;")
    print("    SELECT (hit).title, (hit).body, score FROM qdrant_search(NULL::entries,")
    print("        (SELECT embedding FROM entries WHERE title = 'nostalgia' LIMIT 1), k => 5);\n")
    print(f"Qdrant is at {engine.url}. To stop all of it and remove its files:\n\n    demo/run --stop\n")


def stop_kept():
    if not STATE.exists():
        print("Nothing is running.")
        return
    state = json.loads(STATE.read_text())
    end(*state["postmaster"], signal.SIGINT)
    if state["engine"]:
        end(*state["engine"], signal.SIGTERM)
    else:
        remove_collection(outcome.make_client(state["url"], os.environ.get("QDRANT_API_KEY")))
    if Path(state["base"]).name.startswith("qs-demo-"):
        shutil.rmtree(state["base"], ignore_errors=True)
    STATE.unlink()
    print("Stopped and removed.")


def end(pid, born, sig):
    """Ends the process that was started then under this pid, if it still runs."""
    if born and birth(pid) == born:
        os.kill(pid, sig)
        harness.wait_until(lambda: birth(pid) != born, 30, f"process {pid} ended")


def interrupted(signum, _):
    raise KeyboardInterrupt(signal.Signals(signum).name)


def main():
    if "--stop" in sys.argv:
        return stop_kept()
    wants_keep = "--keep" in sys.argv
    if STATE.exists():
        print("A demo that was kept is still there: demo/run --stop ends it.", file=sys.stderr)
        return 1
    for sig in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, interrupted)
    warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
    return run(wants_keep)


def run(wants_keep):
    out, kept = Transcript(), False
    with contextlib.ExitStack() as cleanup:
        try:
            engine = Engine()
            cleanup.callback(engine.stop)
            engine.start(wants_keep)
            cluster = harness.Cluster(name="demo", directory="/tmp")
            cleanup.callback(cluster.remove)
            cluster.start()
            Demo(out, cluster, engine).all()
            print(f"\n  {out.seconds():.0f} s in all.", flush=True)
            if wants_keep:
                keep(cluster, engine)
                cleanup.pop_all()
                kept = True
        except KeyboardInterrupt as e:
            print(f"\nInterrupted{f' by {e}' if str(e) else ''}; cleaning up.", file=sys.stderr)
            out.stopped = True
        except (DemoError, harness.HarnessError, psycopg.Error, TimeoutError) as e:
            print(f"\nThe demo stopped: {e}", file=sys.stderr)
            out.stopped = True
        finally:
            # A second Ctrl-C must not leave half of it behind.
            for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(sig, signal.SIG_IGN)
    if not kept:
        print("  Nothing is left running.")
    if out.failures:
        print(f"\n{len(out.failures)} of the checks did not hold: {'; '.join(out.failures)}", file=sys.stderr)
    return 1 if out.failures or out.stopped else 0


if __name__ == "__main__":
    sys.exit(main())
