"""What the outbox becomes under a stream of one-row transactions, with and without an old snapshot in the way."""

import contextlib
import tempfile
import time
from pathlib import Path

from harness import Cluster, wait_until
from qsbench import process, tables
from qsbench.native import Sink
from qsbench.report import Line, say
from qsbench.tables import make_table

CLIENTS = 4

# The vector comes from a table, so that parsing it is not what is measured.
SCRIPT = """\\set v random(1, 1000)
INSERT INTO {table} SELECT nextval('ids'), embedding, 'a title', 'a category', 1.99 FROM base WHERE i = :v
"""


def outbox(options):
    transactions = 100_000 if options.quick else 1_000_000
    # So that it is passed some four times in either case: a one-row chunk takes 64 bytes of a page.
    threshold = 2 if options.quick else 16
    conf = {"shared_buffers": "1GB", "max_wal_size": "4GB", "synchronous_commit": "off", "autovacuum": True,
            "qdrant_sync.segment_size": f"{threshold}MB"}
    lines = []
    for old_snapshot in (False, True):
        with Sink() as sink, Cluster(conf=conf, name="bench") as c, tables.database(c, sink, 1000) as db:
            lines += one_run(c, db, transactions, threshold << 20, old_snapshot)
    return lines


def one_run(cluster, db, transactions, threshold, old_snapshot):
    how = ", under an old snapshot" if old_snapshot else ""
    say(f"outbox: {transactions:,} one-row transactions{how}")
    table = make_table(db, "mirror")
    db.sql("CREATE SEQUENCE ids CACHE 1000")
    db.sql("CREATE EXTENSION pgstattuple")
    files = tables.segments(db, table)
    size = f"SELECT pg_relation_size('{files[0]}') + pg_relation_size('{files[1]}')"
    with contextlib.ExitStack() as stack:
        if old_snapshot:
            holder = stack.enter_context(db.connect(autocommit=False))
            holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            holder.execute("SELECT count(*) FROM base")
        watcher = stack.enter_context(db.connect())
        with process.Sampler(lambda: watcher.execute(size).fetchone()[0]) as sampler:
            seconds = write(cluster, db, table, transactions)
            tables.wait_sent(db, table, 1800)
        emptied = settles(db, size)
        dead = sum(db.one("SELECT dead_tuple_count FROM pgstattuple(%s::regclass)", (file,)) for file in files)
        left = db.one(size)
    return [
        Line(f"outbox after {transactions:,} one-row transactions{how}: largest size, dead rows",
             f"{sampler.largest / (1 << 20):.1f} MB, {dead} dead",
             f"≤ {2 * threshold >> 20} MB, 0 dead", sampler.largest <= 2 * threshold and dead == 0),
        Line(f"{transactions / seconds:,.0f} transactions/s by {CLIENTS} clients",
             f"{left / 1024:,.0f} kB left{'' if emptied else ' after 30 s'}"),
    ]


def write(cluster, db, table, transactions):
    """Seconds that pgbench took."""
    with tempfile.TemporaryDirectory(prefix="qs-bench-") as directory:
        Path(directory).chmod(0o755)
        script = Path(directory) / "script.sql"
        script.write_text(SCRIPT.format(table=table))
        start = time.monotonic()
        cluster.tool("pgbench", "-n", "-M", "prepared", "-c", CLIENTS, "-j", 2, "-t", transactions // CLIENTS,
                     "-f", script, db.name, timeout=3600)
        return time.monotonic() - start


def settles(db, size):
    """Both segments are emptied when everything is acknowledged."""
    try:
        wait_until(lambda: db.one(size) == 0, 30, "segments emptied")
        return True
    except TimeoutError:
        return False
