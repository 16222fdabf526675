"""`postgres --single` on a copy of a prepared data directory: no other process, no clock, nothing but the statements.

Run plainly it says how much WAL they wrote; under callgrind how many instructions they took. What the start of the
server costs falls out of the difference between N and 5N rows.
"""

import re
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from harness.cluster import as_server_user, fast_directory, note_cluster, private_dir

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
        note = note_cluster(base)
        preload = self.preload if preload is None else preload
        try:
            subprocess.run(["cp", "-a", self.cluster.datadir, base / "data"], check=True)
            (base / "data" / "postmaster.pid").unlink(missing_ok=True)
            tool = [option.replace("{base}", str(base)) for option in tool]
            command = [*tool, self.cluster.bindir / "postgres", "--single", *OPTIONS,
                       "-c", f"shared_preload_libraries={preload}", "-D", base / "data", self.dbname]
            how = as_server_user()
            how["cwd"] = base
            lines = "".join(statement.replace("\n", " ") + "\n" for statement in statements)
            result = subprocess.run(list(map(str, command)), input=lines, capture_output=True, text=True, timeout=3600,
                                    **how)
            if result.returncode != 0 or re.search(r"\b(ERROR|FATAL|PANIC):", result.stderr):
                raise RuntimeError(f"postgres --single failed ({result.returncode}): {result.stderr[-2000:]}")
            return result.stdout, read_callgrind(base / "callgrind") if tool else None
        finally:
            shutil.rmtree(base, ignore_errors=True)
            note.unlink(missing_ok=True)

    def wal(self, before, measured):
        """Bytes of WAL records that the measured statements wrote, without the headers of WAL pages."""
        position = "SELECT pg_current_wal_insert_lsn() AS lsn"
        output, _ = self._run([*before, position, *measured, position])
        start, end = (int(high, 16) << 32 | int(low, 16)
                      for high, low in re.findall(r'lsn = "([0-9A-F]+)/([0-9A-F]+)"', output))
        return record_bytes(end) - record_bytes(start)

    def instructions(self, before, measured, preload=None):
        """Profile of the whole run."""
        tool = ("valgrind", "--quiet", "--tool=callgrind", "--callgrind-out-file={base}/callgrind",
                "--compress-strings=no", "--compress-pos=no")
        _, profile = self._run([*before, *measured], tool, preload)
        return profile

    def per_row(self, statements, n, preload=None):
        """Profile of a row: the slope between n and 5 n. statements(n) gives (before, measured)."""
        few = self.instructions(*statements(n), preload)
        many = self.instructions(*statements(5 * n), preload)
        return Profile(slope(few.functions, many.functions, 4 * n), slope(few.calls, many.calls, 4 * n))


def record_bytes(lsn):
    """A position in WAL as if pages had no headers: 24 bytes a page, 16 more on the first of a segment."""
    return lsn - 24 * (lsn // WAL_PAGE) - 16 * (lsn // WAL_SEGMENT)


@dataclass
class Profile:
    """Instructions of each function itself, and of each call with all that it calls in turn."""
    functions: Counter = field(default_factory=Counter)
    calls: Counter = field(default_factory=Counter)

    def total(self):
        return sum(self.functions.values())

    def more_in_functions(self, other):
        return difference(self.functions, other.functions)

    def more_in_calls(self, other):
        """Without those whose names nobody knows, and those that nearly everything is below."""
        all_of_it = 0.7 * (self.total() - other.total())
        return [(call, value) for call, value in difference(self.calls, other.calls)
                if "0x0" not in call and "'" not in call and abs(value) < all_of_it]


def slope(few, many, rows):
    return Counter({name: (many[name] - few[name]) / rows for name in many.keys() | few.keys()})


def difference(costs, base):
    """What is more than in base, or less, largest first."""
    more = ((name, costs[name] - base[name]) for name in costs.keys() | base.keys())
    return sorted(((name, value) for name, value in more if abs(value) >= 0.5), key=lambda item: -abs(item[1]))


def read_callgrind(file):
    """The profile in a callgrind file without compression.

    A cost line is "line cost"; the one after a calls= line is what the call cost, and no cost of the caller itself.
    """
    profile = Profile()
    name = callee = call = None
    with Path(file).open(errors="replace") as lines:
        for line in lines:
            if line[:1].isdigit():
                cost = int(line.split()[1])
                if call is not None:
                    profile.calls[call] += cost
                    call = None
                elif name is not None:
                    profile.functions[name] += cost
            elif line.startswith("fn="):
                name = line[3:].strip()
            elif line.startswith("cfn="):
                callee = line[4:].strip()
            elif line.startswith("calls="):
                call = f"{name} → {callee}"
    return profile
