"""What a writing transaction pays: CPU, instructions, WAL, memory; and what its keys become."""

import contextlib
import random

from harness import Cluster
from qsbench import process, tables
from qsbench.native import Sink, require
from qsbench.report import Line, below, say
from qsbench.single import Single
from qsbench.tables import VARIANTS, make_table

# Shown of a profile.
FUNCTIONS = 20

CONF = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": False,
        "synchronous_commit": "on"}


def cluster(directory=None):
    return Cluster(conf=CONF, name="bench", directory=directory)


# --- CPU --------------------------------------------------------------------------------------------------------------

def bulk_cpu(options):
    """CPU of one INSERT … SELECT of many rows, each variant in a session of its own, in random order."""
    rows = 20_000 if options.quick else 100_000
    repetitions = 5 if options.quick else 11
    with Sink() as sink, cluster("/var/tmp") as c, tables.database(c, sink, rows) as db:
        sessions = {variant: Session(db, make_table(db, variant)) for variant in VARIANTS}
        times = {variant: [] for variant in VARIANTS}
        for repetition in range(repetitions + 1):
            say(f"bulk INSERT: {repetition}/{repetitions}")
            for variant in random.sample(list(VARIANTS), len(VARIANTS)):
                times[variant].append(sessions[variant].insert_all())
        # The first round made the files and filled the caches.
        return bulk_cpu_lines(rows, {variant: seconds[1:] for variant, seconds in times.items()})


class Session:
    """A connection that fills one table again and again."""

    def __init__(self, db, table):
        self.db = db
        self.table = table
        self.conn = db.connect()
        self.pid = self.conn.info.backend_pid

    def insert_all(self):
        """CPU seconds of the backend for the INSERT and its commit, into an empty table."""
        self.conn.execute(f"TRUNCATE {self.table}")
        if self.table == "items_mirror":
            tables.wait_live(self.db, self.table)
        self.conn.execute("CHECKPOINT")
        before = process.cpu_seconds(self.pid)
        self.conn.execute(f"INSERT INTO {self.table} SELECT * FROM source")
        spent = process.cpu_seconds(self.pid) - before
        if self.table == "items_mirror":
            tables.wait_sent(self.db, self.table)
        return spent


def bulk_cpu_lines(rows, times):
    """The ratio of a round is to that round's own run without a trigger; of all rounds, the median."""
    base = times["none"]
    ratios = {variant: process.median(s / b for s, b in zip(seconds, base)) for variant, seconds in times.items()}
    least = {variant: min(seconds) / min(base) for variant, seconds in times.items()}
    lines = [below(f"bulk INSERT of {rows:,} rows, CPU over no trigger", ratios["mirror"], 1.08, "{:.2f}×")]
    lines.append(Line("the same, of the fastest runs", f"{least['mirror']:.2f}×"))
    lines += [Line(VARIANTS[v], f"{ratios[v]:.2f}×, of the fastest {least[v]:.2f}×") for v in ("empty", "plpgsql")]
    lines.append(Line("no trigger", f"{process.median(base):.3f} s; {min(base):.3f} to {max(base):.3f} s"))
    return lines


# --- instructions and WAL ---------------------------------------------------------------------------------------------

@contextlib.contextmanager
def single_user(rows):
    """A stopped cluster with a table for each variant: empty ones, and filled ones to be updated."""
    with Sink() as sink, cluster() as c:
        db = tables.new_extension_db(c, tables.Server(sink))
        tables.make_source(db, rows)
        for variant in VARIANTS:
            make_table(db, variant)
            make_table(db, variant, f"filled_{variant}", rows)
            make_table(db, variant, f"apart_{variant}", rows, payload="title, category")
        tables.analyze(db)
        embedding = db.one("SELECT embedding::text FROM source WHERE id = 1")
        db.conn.close()
        c.stop()
        yield Single(c, db.name), embedding


def insert(variant):
    return lambda n: ([], [f"INSERT INTO items_{variant} SELECT * FROM source WHERE id <= {n}"])


def update(variant):
    return lambda n: ([], [f"UPDATE filled_{variant} SET price = price + 1 WHERE id <= {n}"])


def update_apart(variant):
    """Of a column that is in no point."""
    return lambda n: ([], [f"UPDATE apart_{variant} SET price = price + 1 WHERE id <= {n}"])


def one_row(variant, embedding):
    """n transactions of one prepared INSERT each; the vector is a constant, so that reading it costs no variant."""
    prepare = (f"PREPARE one(bigint) AS INSERT INTO items_{variant} VALUES "
               f"($1, '{embedding}', 'title number 1 of the benchmark', 'category 1', 1.99)")
    before = ["SET plan_cache_mode = force_generic_plan", prepare, "EXECUTE one(1000000000)"]
    return lambda n: (before, [f"EXECUTE one({i})" for i in range(1, n + 1)])


def preload_of(variant):
    """Without a mirror the library is not even loaded: its callbacks are part of what is measured."""
    return "qdrant_sync" if variant == "mirror" else ""


def count(single, what, statements, n, variants=VARIANTS):
    """{variant: Profile of a row}"""
    counted = {}
    for variant in variants:
        say(f"callgrind, {what}: {VARIANTS[variant]}")
        counted[variant] = single.per_row(statements(variant), n, preload_of(variant))
    return counted


def profile_lines(options, counted, over):
    """Where a row's instructions go beyond those of another variant."""
    if not options.profile:
        return []
    mine, other = counted["mirror"], counted[over]
    lines = [Line(f"  {name}", f"{value:+,.0f}") for name, value in mine.more_in_calls(other)[:FUNCTIONS]]
    lines += [Line(f"  {name} itself", f"{value:+,.0f}") for name, value in mine.more_in_functions(other)[:FUNCTIONS]]
    return lines


def bulk_instructions(options):
    require("valgrind")
    n = 1000 if options.quick else 2000
    lines = []
    with single_user(5 * n) as (single, _):
        for what, statements, limit in (("insert", insert, 250), ("update", update, 350),
                                        ("update of a column that no point has", update_apart, None)):
            counted = count(single, f"bulk {what}", statements, n)
            totals = {variant: profile.total() for variant, profile in counted.items()}
            name, more = f"bulk {what}, instructions per row over an empty C trigger", totals["mirror"] - totals["empty"]
            lines.append(below(name, more, limit, "{:.0f}") if limit else Line(name, f"{more:.0f}"))
            lines += profile_lines(options, counted, "empty")
            lines += [Line(f"{VARIANTS[v]}, over no trigger", f"{totals[v] - totals['none']:+,.0f}")
                      for v in ("empty", "mirror", "plpgsql")]
            lines.append(Line("no trigger", f"{totals['none']:,.0f}"))
    return lines


def one_row_instructions(options):
    require("valgrind")
    n = 200 if options.quick else 500
    with single_user(100) as (single, embedding):
        counted = count(single, "one-row transaction", lambda variant: one_row(variant, embedding), n)
    totals = {variant: profile.total() for variant, profile in counted.items()}
    more = {variant: totals[variant] / totals["none"] - 1 for variant in totals}
    return [
        below("one-row INSERT transaction, instructions over no trigger", more["mirror"] * 100, 11.5, "+{:.1f} %",
              "≤ +11.5 %"),
        *profile_lines(options, counted, "none"),
        Line("the same, as a number", f"{totals['mirror'] - totals['none']:+,.0f}"),
        *(Line(VARIANTS[v], f"+{more[v] * 100:.1f} %") for v in ("empty", "plpgsql")),
        Line("no trigger", f"{totals['none']:,.0f}"),
    ]


def wal(options):
    """Bytes of WAL beyond those of no trigger, per row."""
    rows = 20_000 if options.quick else 100_000
    transactions = 2000
    bulk, single_rows = {}, {}
    with single_user(rows) as (single, embedding):
        for variant in VARIANTS:
            say(f"WAL: {VARIANTS[variant]}")
            bulk[variant] = single.wal(*insert(variant)(rows)) / rows
            single_rows[variant] = single.wal(*one_row(variant, embedding)(transactions)) / transactions
    lines = []
    for what, bytes_of, limit, form in (("in bulk", bulk, 1.1, "{:.2f} B"),
                                        ("per one-row transaction", single_rows, 72, "{:.1f} B")):
        lines += [
            below(f"WAL per row, {what}", bytes_of["mirror"] - bytes_of["none"], limit, form),
            Line(VARIANTS["plpgsql"], form.format(bytes_of["plpgsql"] - bytes_of["none"])),
            Line("no trigger, all of its WAL", form.format(bytes_of["none"])),
        ]
    return lines


# --- keys -------------------------------------------------------------------------------------------------------------

def coalesce(options):
    """One row updated a thousand times in one transaction, counted where it arrives; and a column that no point has."""
    with Sink() as sink, cluster() as c, tables.database(c, sink, 1000) as db:
        table = make_table(db, "mirror", rows=10)
        apart = make_table(db, "mirror", "apart", 1000, payload="title, category")
        sink.mode(count=True)
        sent = sent_by(db, sink, table, f"DO $$ BEGIN FOR i IN 1..1000 LOOP UPDATE {table} SET price = i WHERE id = 5; "
                                        "END LOOP; END $$")
        unsent = sent_by(db, sink, apart, f"UPDATE {apart} SET price = price + 1")
    return [Line("one row updated 1,000 times in a transaction, keys sent", str(sent), "1", sent == 1),
            Line("1,000 rows updated in a column that no point has, keys sent", str(unsent), "0", unsent == 0)]


def sent_by(db, sink, table, statement):
    before = sink.stats()
    db.sql(statement)
    tables.wait_sent(db, table)
    return sink.stats()["points"] - before["points"]


def backend_memory(options):
    """Memory of the key log at its largest, for transactions of several shapes; the table is narrow to be quick."""
    million = 200_000 if options.quick else 1_000_000
    lines = []
    with Sink() as sink, cluster() as c, tables.database(c, sink, 1000, dimension=4) as db:
        table = make_table(db, "mirror")
        for shape, statements in (
                (f"{5 * million:,} rows, ascending", [rows_from(table, i * million, million) for i in range(5)]),
                (f"{million:,} rows, random keys", [random_rows(table, million)]),
                (f"{million // 10:,} rows, a savepoint each", [savepoint_rows(table, million // 10)]),
                (f"5,000 savepoints in each other and {million:,} rows",
                 [nested_rows(table, 5000), random_rows(table, million)])):
            say(f"backend memory: {shape}")
            lines.append((shape, largest_key_log(db, statements)))
            db.sql(f"TRUNCATE {table}")
            tables.wait_live(db, table)
    worst = max(size for _, size in lines)
    if worst == 0:
        raise RuntimeError("the key log's memory context was not found: it has another name now")
    return [below("backend memory for keys at any transaction size, at its largest", worst / 1024, 1024, "{:,.0f} kB",
                  "≤ 1 MB"),
            *(Line(shape, f"{size / 1024:,.0f} kB") for shape, size in lines)]


def rows_from(table, first, n):
    return f"INSERT INTO {table} SELECT {first} + n, '{{1,2,3,4}}', 't', 'c', 1 FROM generate_series(1, {n}) AS n"


def random_rows(table, n):
    """A permutation of numbers far apart: nothing to compress."""
    return (f"INSERT INTO {table} SELECT ((n::bigint * 7919) % 1000003) * 1000003, '{{1,2,3,4}}', 't', 'c', 1 "
            f"FROM generate_series(1, {n}) AS n")


def savepoint_rows(table, n):
    return (f"DO $$ BEGIN FOR i IN 1..{n} LOOP BEGIN INSERT INTO {table} VALUES (i, '{{1,2,3,4}}', 't', 'c', 1); "
            "EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$")


def nested_rows(table, n):
    return "; ".join(f"SAVEPOINT s; INSERT INTO {table} VALUES (-{i}, '{{1,2,3,4}}', 't', 'c', 1)"
                     for i in range(1, n + 1))


KEY_LOG = """
WITH RECURSIVE mine AS (
    SELECT name, total_bytes FROM pg_backend_memory_contexts WHERE name = 'qdrant_sync changed keys'
    UNION ALL
    SELECT c.name, c.total_bytes FROM pg_backend_memory_contexts c JOIN mine ON c.parent = mine.name)
SELECT coalesce(sum(total_bytes), 0)::bigint FROM mine
"""


def largest_key_log(db, statements):
    """Bytes in the contexts of the key log, after each statement of a transaction that is then rolled back."""
    size = 0
    with db.connect(autocommit=False) as conn:
        for statement in statements:
            conn.execute(statement)
            size = max(size, conn.execute(KEY_LOG).fetchone()[0])
        conn.rollback()
    return size
