"""test/run, after the set-up: pg_regress, isolation specs and pytest on each version, and one closing line."""

import argparse
import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harness import Cluster, FrontHandle, available_versions, places, system_version  # noqa: E402
from harness.cluster import remove_abandoned  # noqa: E402
from harness.report import indented  # noqa: E402

WHEEL_VERSIONS = ("16", "18")
REGRESS_LIMIT = 300
PYTEST_LIMIT = 40 * 60
SHOWN_DIFF_LINES = 120


@dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other):
        self.passed += other["passed"]
        self.failed += other["failed"]
        self.skipped += other["skipped"]

    def total(self):
        return self.passed + self.failed + self.skipped

    def skip(self, what):
        self.skipped += 1
        print(f"SKIPPED {what}", flush=True)


@dataclass
class Suite:
    """One of pg_regress's two kinds of suite, as the Makefile declares it."""
    title: str
    program: str
    variable: str
    suffix: str


SUITES = (
    Suite("sql", "regress/pg_regress", "REGRESS", ".sql"),
    Suite("specs", "isolation/pg_isolation_regress", "ISOLATION", ".spec"),
)


# --- pg_regress -------------------------------------------------------------------------------------------------------

def make_variables(version, *names):
    """Variables of the Makefile as make sees them."""
    show = "qs-show: ; @:" + "".join(f" $(info {name}=$({name}))" for name in names)
    result = subprocess.run(
        ["make", "-s", "--no-print-directory", f"--eval={show}", "qs-show",
         f"PG_CONFIG={places.bindir(version) / 'pg_config'}"],
        cwd=places.ROOT, capture_output=True, text=True, check=True)
    pairs = (line.partition("=") for line in result.stdout.splitlines())
    return {name: shlex.split(value) for name, _, value in pairs}


def suite_tests(suite, version, names):
    variables = make_variables(version, suite.variable, f"{suite.variable}_OPTS")
    tests = [test for test in variables[suite.variable] if not names or is_named(suite, test, names)]
    return tests, variables[f"{suite.variable}_OPTS"]


def is_named(suite, test, names):
    path = f"{suite.title}/{test}{suite.suffix}"
    return any(name in (test, test + suite.suffix, path) or (name.startswith("~") and name[1:] in path)
               for name in names)


def run_suite(suite, version, args, names, front, counts):
    tests, options = suite_tests(suite, version, names)
    tests = with_expectation(tests, args.accept, version, suite, counts)
    if not tests:
        return
    # The system's own driver for every version, each with its own psql: the wheel's pg_regress 18 does not start.
    pgxs = subprocess.run([places.bindir(system_version()) / "pg_config", "--pgxs"], capture_output=True, text=True,
                          check=True)
    program = Path(pgxs.stdout.strip()).parents[1] / "test" / suite.program
    front.clear()
    with Cluster(version, name=f"regress{version}") as cluster, tempfile.TemporaryDirectory(prefix="qs-out-") as output:
        env = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        env.update(QDRANT_URL=front.url, LC_ALL="C", **({"QDRANT_API_KEY": front.api_key} if front.api_key else {}))
        command = [program, f"--inputdir={places.ROOT}", f"--outputdir={output}", f"--bindir={cluster.bindir}",
                   f"--host={cluster.socketdir}", f"--port={cluster.port}", f"--user={cluster.user}", *options, *tests]
        text = run_bounded(command, REGRESS_LIMIT, cwd=output, env=env)
        report_suite(suite, version, tests, text, Path(output), cluster, counts)
        if args.accept:
            for test in tests:
                shutil.copyfile(Path(output) / "results" / f"{test}.out", expectation(test))
    front.clear()


def expectation(test):
    return places.ROOT / "expected" / f"{test}.out"


def with_expectation(tests, accept, version, suite, counts):
    """pg_regress gives up at a missing file of expected output, so it is not asked; --accept makes the file."""
    known = []
    for test in tests:
        if not expectation(test).exists():
            if not accept:
                counts.failed += 1
                print(f"FAILED  {version} {suite.title}/{test}{suite.suffix}: expected/{test}.out is missing; "
                      f"`test/run {test} --accept` writes it, then read it", flush=True)
                continue
            expectation(test).touch()
        known.append(test)
    return known


def run_bounded(command, limit, **kwargs):
    """The output of a command in a process group of its own, which is ended when it takes too long."""
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True, **kwargs)
    try:
        return process.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0] + f"\nended after {limit} s"
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise


def verdicts(output):
    """{test: (passed, milliseconds)} from pg_regress's lines, which became TAP in PostgreSQL 16."""
    found = {}
    for line in output.splitlines():
        tap = re.match(r"(not )?ok \d+\s+[-+] (\S+)\s+(\d+) ms", line)
        old = re.match(r"(?:test )?\s*(\S+)\s+\.\.\. (ok|FAILED)\b.*?(\d+) ms", line)
        if tap:
            found[tap[2]] = (tap[1] is None, int(tap[3]))
        elif old:
            found[old[1]] = (old[2] == "ok", int(old[3]))
    return found


def report_suite(suite, version, tests, text, output, cluster, counts):
    found = verdicts(text)
    diffs = output / "regression.diffs"
    for test in tests:
        passed, ms = found.get(test, (False, None))
        name = f"{version} {suite.title}/{test}{suite.suffix}"
        if passed:
            counts.passed += 1
            print(f"ok      {name}  {ms / 1000:.1f} s", flush=True)
            continue
        counts.failed += 1
        print(f"FAILED  {name}", flush=True)
        diff = diff_of(diffs, test)
        print(indented(diff or text.strip()), flush=True)
    if any(not found.get(test, (False,))[0] for test in tests):
        print(indented("--- the server's log ends\n" + cluster.log_tail(30)), flush=True)


def diff_of(diffs, test):
    """The part of regression.diffs that is about one test."""
    if not diffs.exists():
        return ""
    parts = re.split(r"^(?=diff )", diffs.read_text(errors="replace"), flags=re.M)
    lines = "".join(part for part in parts if f"/{test}.out" in part.partition("\n")[0]).splitlines()
    cut = [f"… {len(lines) - SHOWN_DIFF_LINES} more lines"] if len(lines) > SHOWN_DIFF_LINES else []
    return "\n".join(lines[:SHOWN_DIFF_LINES] + cut)


# --- pytest -----------------------------------------------------------------------------------------------------------

def run_pytest(paths, version, args, names, counts, *more):
    """Runs test files in a process of their own: what one leaves behind cannot spoil the next run."""
    paths = [path for path in paths if path.exists()]
    if not paths:
        return
    with tempfile.TemporaryDirectory(prefix="qs-counts-") as directory:
        result = Path(directory) / "counts"
        plugins = ("-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:timeout", "-p", "harness.report",
                   "-o", "tmp_path_retention_policy=none")
        command = [sys.executable, "-m", "pytest", *plugins,
                   "-c", os.devnull, "--rootdir", places.ROOT / "test", "--basetemp", Path(directory) / "tmp",
                   "--counts", result, "--label", f"{version} ",
                   "--pg", version, "--seed", args.seed, "--minutes", args.minutes,
                   *(f"--name={name}" for name in names), *more, *paths]
        env = {**os.environ, "PYTHONPATH": str(places.ROOT / "test")}
        # In a session of its own, so that a Ctrl-C reaches it once, from here.
        process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, cwd=places.ROOT / "test", env=env,
                                   start_new_session=True)
        try:
            process.wait(PYTEST_LIMIT)
        except BaseException as e:
            end(process)
            if not isinstance(e, subprocess.TimeoutExpired):
                raise
            print(f"FAILED  pytest on {version}: took longer than {PYTEST_LIMIT} s", flush=True)
            counts.failed += 1
        add_counts(result, f"pytest on {version}", process, counts)


def end(process, patience=60):
    """Lets pytest clean up, but not for ever."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def test_files(directory):
    return [places.ROOT / "test" / directory]


# ----------------------------------------------------------------------------------------------------------------------

def run_version(version, args, names, front, counts):
    for suite in SUITES:
        run_suite(suite, version, args, names, front, counts)
    marks = ("-m", "versions or pgvector")
    if version == system_version() or names:
        marks = ()
    if version == system_version():
        run_pytest(test_files("qdrant_front"), version, args, names, counts)
        run_pytest(test_files("unit"), version, args, names, counts)
        run_pytest(test_files("fuzz"), version, args, names, counts)
    run_pytest(test_files("system"), version, args, names, counts, *marks)


def run_all(args, front, counts):
    wanted = args.pg or [system_version(), *(v for v in WHEEL_VERSIONS if v != system_version())]
    for version in [v for v in wanted if v not in available_versions()]:
        counts.skip(f"everything on PostgreSQL {version}: it could not be set up here")
        wanted.remove(version)
    # The collections of a real server are one name space, so there one version waits for another.
    alone = len(wanted) if args.pg or os.environ.get("QDRANT_URL") else 1
    with beside(wanted[alone:], args, counts):
        for version in wanted[:alone]:
            run_version(version, args, [], front, counts)


@contextlib.contextmanager
def beside(versions, args, counts):
    """Runs other versions in a process of their own meanwhile, as nearly all tests wait; what they say is printed afterwards."""
    if not versions:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="qs-beside-") as directory:
        result, said = Path(directory) / "counts", Path(directory) / "said"
        command = [sys.executable, __file__, "--seed", args.seed, "--minutes", args.minutes, "--counts", result,
                   *(f"--pg={version}" for version in versions)]
        with said.open("w") as output:
            process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield
            process.wait(PYTEST_LIMIT)
        except subprocess.TimeoutExpired:
            print(f"FAILED  PostgreSQL {' and '.join(versions)}: took longer than {PYTEST_LIMIT} s", flush=True)
            counts.failed += 1
        finally:
            end(process)
            print(said.read_text(), end="", flush=True)
        add_counts(result, f"the tests on PostgreSQL {' and '.join(versions)}", process, counts)


def add_counts(result, what, process, counts):
    if result.exists():
        counts.add(json.loads(result.read_text()))
    elif process.returncode != 0:
        print(f"FAILED  {what} ended with {process.returncode}", flush=True)
        counts.failed += 1


def run_named(args, front, counts):
    """Runs what has one of these names, on the first version that has such a test; else what contains one of them."""
    versions = args.pg or [system_version(), *WHEEL_VERSIONS]
    for names in (args.names, [f"~{name}" for name in args.names]):
        for version in versions:
            if version not in available_versions():
                subprocess.run([places.ROOT / "test" / "setup", "--pg", version], check=True)
            if version in available_versions():
                run_version(version, args, names, front, counts)
            if counts.total() and not args.pg:
                return
        if counts.total():
            return
    counts.failed += 1
    print(f"FAILED  no test is named {' or '.join(args.names)}", flush=True)


def parse_args():
    parser = argparse.ArgumentParser(prog="test/run")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a file of sql/, specs/ or test/, or a test's name")
    parser.add_argument("--pg", action="append", help="only this version of PostgreSQL (15, 16, 18); repeatable")
    parser.add_argument("--accept", action="store_true", help="take the output of sql/ and specs/ as the expected one")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    parser.add_argument("--minutes", type=float, default=0.5, help="how long each randomised test goes on")
    parser.add_argument("--counts", type=Path, help=argparse.SUPPRESS)  # of the run beside, whose closing line is not the last
    return parser.parse_args()


def main():
    args = parse_args()
    # Ended from outside, clean up as after Ctrl-C (which a shell's background job would ignore).
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    started = time.monotonic()
    counts = Counts()
    if not args.counts:
        print(f"seed {args.seed}", flush=True)
    try:
        with FrontHandle() as front:
            (run_named if args.names else run_all)(args, front, counts)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        counts.failed += 1
    finally:
        remove_abandoned()
    if args.counts:
        args.counts.write_text(json.dumps(asdict(counts)))
        return
    print(f"{time.monotonic() - started:.0f} s, seed {args.seed}", flush=True)
    tail = f", {counts.skipped} skipped" if counts.skipped else ""
    print(f"{counts.passed} passed, {counts.failed} failed{tail}", flush=True)
    sys.exit(1 if counts.failed or not counts.passed else 0)


if __name__ == "__main__":
    main()
