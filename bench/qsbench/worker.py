"""The sync worker against a server that only answers: rows for each second of its CPU, and its memory at a backlog."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from harness import Cluster, wait_until
from qsbench import process, tables
from qsbench.native import Sink
from qsbench.report import Line, below, say
from qsbench.tables import make_table

PEER = Path(__file__).with_name("peer_client.py")
ROWS_PER_CORE = 80_000
TIMES_PEER = 10


def worker_pid(db):
    return db.one("SELECT pid FROM qdrant_workers WHERE kind = 'sync' AND database = current_database()")


def cluster(**conf):
    return Cluster(conf={"shared_buffers": "2GB", "max_wal_size": "8GB", "autovacuum": False,
                         "synchronous_commit": "off", "checkpoint_timeout": "1h", **conf}, name="bench")


# --- throughput -------------------------------------------------------------------------------------------------------

class Spent:
    """CPU of the worker, time, and what reached the sink, from a moment on."""

    def __init__(self, db, sink):
        self.pid = worker_pid(db)
        self.sink = sink
        self.cpu = process.cpu_seconds(self.pid)
        self.queued = process.queued_seconds(self.pid)
        self.bytes = sink.stats()["bytes"]
        self.started = time.monotonic()

    def stop(self, rows):
        self.seconds = time.monotonic() - self.started
        self.cpu = process.cpu_seconds(self.pid) - self.cpu
        self.queued = process.queued_seconds(self.pid) - self.queued
        self.bytes = self.sink.stats()["bytes"] - self.bytes
        self.rate = rows / self.cpu
        return self

    def text(self):
        return f"{self.rate:,.0f} rows/s of CPU"

    def clock(self, rows):
        return (f"{rows / self.seconds:,.0f} rows/s, {self.bytes / self.seconds / 1e6:,.0f} MB/s; on a CPU "
                f"{self.cpu / self.seconds:.0%} of the time, waiting for one {self.queued / self.seconds:.0%}")


def worker(options):
    rows = 50_000 if options.quick else 200_000
    repetitions = 3 if options.quick else 5
    with Sink() as sink, cluster() as c, tables.database(c, sink, rows) as db:
        table = make_table(db, "mirror", rows=rows)
        by_keys, by_blocks, peers = [], [], []
        for repetition in range(repetitions):
            say(f"worker: {repetition + 1}/{repetitions}")
            by_keys.append(changed_rows(db, sink, table, rows))
            by_blocks.append(swept_rows(db, sink, table, rows))
            peers.append(best_peer(db, sink, table, 2000 if options.quick else 10_000))
    return worker_lines(rows, middle(by_keys), middle(by_blocks), middle(peers))


def middle(runs):
    """The run with the median rate."""
    return sorted(runs, key=lambda run: run.rate)[len(runs) // 2]


def changed_rows(db, sink, table, rows):
    """Every row was changed by one transaction: keys from the outbox, rows by key."""
    db.sql(f"VACUUM {table}")
    start = Spent(db, sink)
    db.sql(f"UPDATE {table} SET price = price + 1")
    committed = time.monotonic()
    tables.wait_sent(db, table)
    spent = start.stop(rows)
    spent.seconds = time.monotonic() - committed
    return spent


def swept_rows(db, sink, table, rows):
    """Every row is compared: ranges of blocks."""
    start = Spent(db, sink)
    db.sql(f"SELECT qdrant_resync('{table}')")
    tables.wait_live(db, table)
    return start.stop(rows)


def worker_lines(rows, keys, blocks, peer):
    return [
        Line(f"worker, read + encode {rows:,} changed rows to a sink, per core", keys.text(),
             f"≥ {ROWS_PER_CORE:,} rows/s", keys.rate >= ROWS_PER_CORE),
        Line("the same by the clock", keys.clock(rows)),
        Line("filling (ranges of blocks)", blocks.text()),
        Line("the same by the clock", blocks.clock(rows)),
        Line("rows per CPU-second against psycopg + AsyncQdrantClient", f"{keys.rate / peer.rate:.1f}×",
             f"≥ {TIMES_PEER}×", keys.rate >= TIMES_PEER * peer.rate),
        Line(f"psycopg + AsyncQdrantClient, {peer.form}", f"{peer.rate:,.0f} rows/s of CPU"),
        Line("a trigger on pg_net", "not measured: pg_net is neither in Debian nor on PyPI"),
    ]


@dataclass
class PeerRun:
    form: str
    rate: float


def best_peer(db, sink, table, rows):
    """The script in each of the two forms in which the client takes points; the faster one counts."""
    return max((run_peer(db, sink, table, rows, form) for form in ("points", "batch")), key=lambda run: run.rate)


def run_peer(db, sink, table, rows, form):
    result = subprocess.run([sys.executable, PEER, db.cluster.conninfo(db.name), sink.url, table, str(rows), form],
                            capture_output=True, text=True, timeout=1800)
    if result.returncode != 0:
        raise RuntimeError(f"{PEER.name} failed: {result.stderr[-2000:]}")
    return PeerRun(form, json.loads(result.stdout)["rate"])


# --- memory -----------------------------------------------------------------------------------------------------------

def worker_memory(options):
    """Private memory of the worker while Qdrant hangs and while it catches up, over what it has when idle."""
    rows = 1_000_000 if options.quick else 10_000_000
    lines = []
    with Sink() as sink, cluster(**{"qdrant_sync.segment_size": "1GB"}) as c, \
            tables.database(c, sink, 1000, dimension=4) as db:
        table = make_table(db, "mirror", rows=1000)
        db.sql("CREATE PROCEDURE fall_behind(first int, n int) LANGUAGE plpgsql AS $$ BEGIN "
               f"FOR i IN first..first + n - 1 LOOP INSERT INTO {table} VALUES (i, '{{1,2,3,4}}', 't', 'c', 1); "
               "COMMIT; END LOOP; END $$")
        bulk = (f"INSERT INTO {table} SELECT n, '{{{{1,2,3,4}}}}', 't', 'c', 1 "
                "FROM generate_series({first}, {first} + {n} - 1) AS n")
        db.sql(f"UPDATE {table} SET price = price + 1")
        tables.wait_sent(db, table)
        pid = worker_pid(db)
        idle = process.private_kb(pid)
        for shape, statement, n in (("", bulk, rows),
                                    (", a transaction each", "CALL fall_behind({first}, {n})", rows // 10)):
            lines += memory_at_backlog(db, sink, table, pid, idle, statement, shape, n)
    return lines


def memory_at_backlog(db, sink, table, pid, idle, statement, shape, rows):
    first = db.one(f"SELECT max(id) + 1 FROM {table}")
    before = process.private_kb(pid)
    sent = sink.mode(hold=True, count=True)["points"]
    with process.Sampler(lambda: process.private_kb(pid)) as sampler:
        for start in range(0, rows, rows // 10):
            say(f"worker memory: {start:,} rows behind{shape}")
            db.sql(statement.format(first=first + start, n=rows // 10))
        wait_until(lambda: db.one("SELECT pending > 0 FROM qdrant_mirrors"), 30, "the worker knows of its backlog")
        held = sampler.last
        say("worker memory: catching up")
        sink.mode(hold=False)
        tables.wait_sent(db, table, 1800)
    sent = sink.mode(count=False)["points"] - sent
    if worker_pid(db) != pid or sent < rows:
        raise RuntimeError(f"the worker was restarted, or sent only {sent:,} of {rows:,} rows")
    after = process.private_kb(pid)
    return [
        below(f"worker's resident memory at a backlog of {rows:,} rows{shape}, over idle",
              (sampler.largest - idle) / 1024, 64, "{:.1f} MB"),
        Line("before, while Qdrant hangs, afterwards", f"{idle / 1024:.1f}, {held / 1024:.1f}, {after / 1024:.1f} MB"),
    ]
