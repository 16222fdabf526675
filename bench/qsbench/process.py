"""CPU time and memory of one process, from /proc."""

import statistics
import threading
from pathlib import Path


def cpu_seconds(pid):
    """Time on a CPU, user and kernel, to the nanosecond."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def queued_seconds(pid):
    """Time that it could have run, had a CPU been free."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9


def private_kb(pid):
    """Anonymous memory that is resident: not shared buffers, not the program's text."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise LookupError(f"process {pid} has no RssAnon")


class Sampler:
    """Calls a function every few milliseconds while the with block runs, and keeps the largest answer."""

    def __init__(self, function, interval=0.02):
        self.function = function
        self.interval = interval
        self.largest = None
        self.last = None
        self._done = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._done.set()
        self._thread.join()

    def _run(self):
        while not self._done.wait(self.interval):
            self.last = self.function()
            self.largest = self.last if self.largest is None else max(self.largest, self.last)


def median(values):
    return statistics.median(values)
