"""`postgres --single` on a copy of a prepared data directory: no other process, no clock, nothing but the statements.

Run plainly it says how much WAL they wrote; under callgrind how many instructions they took. What the start of the
server costs falls out of the difference between N and 5N rows.
"""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from harness.cluster import as_server_user, fast_directory, private_dir

# Nothing but the statements' own WAL; memory enough that no buffer is written by the backend.
OPTIONS = ("-c", "full_page_writes=off", "-c", "shared_buffers=256MB", "-c", "autovacuum=off", "-c", "jit=off",
           "-c", "checkpoint_timeout=1h")

WAL_SEGMENT = 16 << 20
WAL_PAGE = 8192


class Single:
    """A stopped cluster, and any number of runs on copies of it."""

    def __init__(self, cluster, dbname, preload="qdrant_sync"):
        self.cluster = cluster
        self.dbname = dbname
        self.preload = preload

    def _run(self, statements, tool=(), preload=None):
        base = private_dir(fast_directory(), "qs-single-")
        preload = self.preload if preload is None else preload
        try:
            subprocess.run(["cp", "-a", self.cluster.datadir, base / "data"], check=True)
            (base / "data" / "postmaster.pid").unlink(missing_ok=True)
            tool = [option.replace("{base}", str(base)) for option in tool]
            command = [*tool, self.cluster.bindir / "postgres", "--single", *OPTIONS,
                       "-c", f"shared_preload_libraries={preload}", "-D", base / "data", self.dbname]
            how = as_server_user()
            how["cwd"] = base
            result = subprocess.run(list(map(str, command)), input="".join(s.replace("\n", " ") + "\n" for s in statements),
                                    capture_output=True, text=True, timeout=3600, **how)
            if result.returncode != 0 or re.search(r"\b(ERROR|FATAL|PANIC):", result.stderr):
                raise RuntimeError(f"postgres --single failed ({result.returncode}): {result.stderr[-2000:]}")
            return result.stdout, self_cost(base / "callgrind") if tool else None
        finally:
            shutil.rmtree(base, ignore_errors=True)

    def wal(self, before, measured):
        """Bytes of WAL records that the measured statements wrote, without the headers of WAL pages."""
        position = "SELECT pg_current_wal_insert_lsn() AS lsn"
        output, _ = self._run([*before, position, *measured, position])
        start, end = (int(high, 16) << 32 | int(low, 16)
                      for high, low in re.findall(r'lsn = "([0-9A-F]+)/([0-9A-F]+)"', output))
        return record_bytes(end) - record_bytes(start)

    def instructions(self, before, measured, preload=None):
        """Counter: function → instructions, of the whole run."""
        tool = ("valgrind", "--quiet", "--tool=callgrind", "--callgrind-out-file={base}/callgrind",
                "--compress-strings=no", "--compress-pos=no")
        _, functions = self._run([*before, *measured], tool, preload)
        return functions

    def per_row(self, statements, n, preload=None):
        """Instructions a row, by function: the slope between n and 5 n. statements(n) gives (before, measured)."""
        few = self.instructions(*statements(n), preload)
        many = self.instructions(*statements(5 * n), preload)
        return Counter({name: (many[name] - few[name]) / (4 * n) for name in many.keys() | few.keys()})


def record_bytes(lsn):
    """A position in WAL as if pages had no headers: 24 bytes a page, 16 more on the first of a segment."""
    return lsn - 24 * (lsn // WAL_PAGE) - 16 * (lsn // WAL_SEGMENT)


def self_cost(file):
    """Instructions by function from a callgrind file without compression.

    A cost line is "line cost"; the one after a calls= line is the callee's and counts there.
    """
    costs = Counter()
    name = None
    callee = False
    with Path(file).open(errors="replace") as lines:
        for line in lines:
            first = line[:1]
            if first.isdigit() or first in "+-*":
                if callee:
                    callee = False
                elif name is not None:
                    costs[name] += int(line.split()[1])
            elif line.startswith("fn="):
                name = line[3:].strip()
            elif line.startswith("calls="):
                callee = True
    return costs


def total(functions):
    return sum(functions.values())


def difference(functions, base):
    """What is more than in base, largest first."""
    more = Counter(functions)
    more.subtract(base)
    return sorted(((name, value) for name, value in more.items() if abs(value) >= 0.5), key=lambda item: -abs(item[1]))
