"""A pytest plugin: one line a test, details of failures at once, names as `test/run NAME` gives them, a limit per test.

It stands in for pytest's own terminal output (`-p no:terminal`) and leaves the counts in a file for the runner.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from . import places

TIME_LIMIT = 180


def pytest_addoption(parser):
    group = parser.getgroup("qdrant_sync")
    group.addoption("--pg", default=None, help="PostgreSQL's version")
    group.addoption("--seed", type=int, default=None, help="of the randomised tests")
    group.addoption("--minutes", type=float, default=0.5, help="how long a randomised test may go on")
    group.addoption("--name", action="append", default=[], help="only tests of this name or file")
    group.addoption("--counts", default=None, help="file for the counts")
    group.addoption("--label", default="", help="stands before each test's name")


def pytest_configure(config):
    config.option.tbstyle = "short"
    # The runner ends a run by SIGTERM: fixtures must then clean up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for mark, meaning in MARKS.items():
        config.addinivalue_line("markers", f"{mark}: {meaning}")
    if not config.pluginmanager.hasplugin("terminalreporter"):
        config.pluginmanager.register(Lines(config), "qdrant_sync_lines")


MARKS = {
    "versions": "runs on every version of PostgreSQL that is set up, not only the system's",
    "faults": "needs the front's misbehaviour: skipped with QDRANT_URL",
    "pgvector": "needs pgvector: runs where it is installed",
    "slow": "takes long",
    "timeout(seconds)": f"ends the test after so many seconds instead of {TIME_LIMIT}",
}


def pytest_collection_modifyitems(config, items):
    version = config.getoption("--pg") or places.system_version()
    keep, drop = [], []
    for item in items:
        here = matches(item, config.getoption("--name")) and runs_on(item, version)
        (keep if here else drop).append(item)
    if drop:
        config.hook.pytest_deselected(items=drop)
        items[:] = keep


def matches(item, names):
    """Equal to the test's function, file or path; the runner falls back to parts of names."""
    if not names:
        return True
    function = item.name.partition("[")[0]
    file = item.path.stem
    known = {item.name, function, function.removeprefix("test_"), file, file.removeprefix("test_"), item.path.name,
             item.nodeid, str(item.path), str(item.path.relative_to(places.ROOT))}
    return any(name in known or (name.startswith("~") and name[1:] in item.nodeid) for name in names)


def runs_on(item, version):
    """A test of pgvector is left out where the version has none, if another one has."""
    if item.get_closest_marker("pgvector") is None or places.has_pgvector(version):
        return True
    return not any(places.has_pgvector(v) for v in places.available_versions())


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    marker = item.get_closest_marker("timeout")
    seconds = marker.args[0] if marker else max(TIME_LIMIT, 2 * 60 * item.config.getoption("--minutes"))

    def too_long(*_):
        pytest.fail(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class Lines:
    def __init__(self, config):
        self.label = config.getoption("--label")
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.output = config.getoption("--counts")
        self.started = {}
        self.failed = set()
        self.skipped = set()

    def line(self, verdict, name, seconds=None, note=""):
        took = f"  {seconds:.1f} s" if seconds is not None else ""
        print(f"{verdict:7} {self.label}{name}{took}{note}", flush=True)

    def pytest_collectreport(self, report):
        if report.failed:
            self.counts["failed"] += 1
            self.line("FAILED", report.nodeid)
            print(indented(report.longreprtext), flush=True)

    def pytest_runtest_logstart(self, nodeid):
        self.started[nodeid] = time.monotonic()

    def pytest_runtest_logreport(self, report):
        name = short_name(report.nodeid)
        if report.failed:
            self.failed.add(report.nodeid)
            self.line("FAILED" if report.when == "call" else f"FAILED in {report.when}", name, report.duration)
            print(indented(report.longreprtext), flush=True)
            for title, text in report.sections:
                if text.strip():
                    print(indented(f"--- {title}\n{text.strip()}"), flush=True)
        elif report.skipped:
            self.counts["skipped"] += 1
            self.skipped.add(report.nodeid)
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.line("SKIPPED", name, note=f": {reason.removeprefix('Skipped: ')}")

    def pytest_runtest_logfinish(self, nodeid):
        seconds = time.monotonic() - self.started[nodeid]
        if nodeid in self.failed:
            self.counts["failed"] += 1
        elif nodeid not in self.skipped:
            self.counts["passed"] += 1
            self.line("ok", short_name(nodeid), seconds)

    def pytest_sessionfinish(self):
        if self.output:
            Path(self.output).write_text(json.dumps(self.counts))

    def pytest_internalerror(self, excrepr):
        print(excrepr, file=sys.stderr, flush=True)
        return True

    def pytest_keyboard_interrupt(self, excinfo):
        print(f"interrupted: {excinfo.value}", flush=True)


def short_name(nodeid):
    path, _, test = nodeid.partition("::")
    return f"{os.path.basename(path)}::{test}" if test else path


def indented(text):
    return "\n".join(f"        {line}" for line in text.splitlines())
