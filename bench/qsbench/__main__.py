"""bench/run, after the set-up: the rows one after the other, then the table."""

import argparse
import signal
import sys
import traceback

from harness.cluster import remove_abandoned
from qsbench import report
from qsbench.floats import floats
from qsbench.outbox import outbox
from qsbench.query import query
from qsbench.sessions import sessions
from qsbench.worker import worker, worker_memory
from qsbench.writer import backend_memory, bulk_cpu, bulk_instructions, coalesce, one_row_instructions, wal

# In the order of the bars in the design.
ROWS = {
    "bulk-cpu": bulk_cpu,
    "bulk-instructions": bulk_instructions,
    "wal": wal,
    "one-row": one_row_instructions,
    "coalesce": coalesce,
    "outbox": outbox,
    "backend-memory": backend_memory,
    "floats": floats,
    "worker": worker,
    "worker-memory": worker_memory,
    "query": query,
    "sessions": sessions,
}


def parse_args():
    parser = argparse.ArgumentParser(prog="bench/run")
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows to measure (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller amounts: a first look, not a result")
    parser.add_argument("--write", action="store_true", help="also write bench/results/latest.md")
    parser.add_argument("--profile", action="store_true", help="functions that the counted instructions are spent in")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    options = parser.parse_args()
    for name in options.names:
        if name not in ROWS:
            parser.error(f"no row is named {name}; there are {', '.join(ROWS)}")
    return options


def measure(name, options):
    """The lines of a row; one that cannot be measured says why, and the others go on."""
    report.say(f"--- {name}")
    try:
        return ROWS[name](options), True
    except Exception as e:  # noqa: BLE001 - whatever it is, it is shown
        traceback.print_exc()
        why = f"{type(e).__name__}: {e}".splitlines()[0][:100]
        return [report.Line(name, f"not measured: {why}", "?")], False


def main():
    options = parse_args()
    if options.list:
        print("\n".join(ROWS))
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    lines, complete = [], True
    try:
        for name in options.names or ROWS:
            measured, whole = measure(name, options)
            lines += measured
            complete = complete and whole
    except KeyboardInterrupt:
        complete = False
    finally:
        remove_abandoned()
    how = report.circumstances(options.quick)
    print(f"{how}\n\n{report.table(lines)}")
    if options.write:
        report.write(lines, how)
    sys.exit(0 if complete else 1)


if __name__ == "__main__":
    main()
