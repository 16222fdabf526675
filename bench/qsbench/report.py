"""The table: lines of what was measured, against which bar, and how the other ways did in the same run."""

import datetime
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness import places

RESULTS = Path(__file__).resolve().parents[1] / "results"
HEADINGS = ("what", "bar", "measured", "verdict")


@dataclass
class Line:
    what: str
    measured: str
    bar: str = ""
    met: bool | None = None     # None: nothing to meet, a peer or a detail

    def cells(self):
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        return (self.what if self.bar else f"  {self.what}", self.bar, self.measured, verdict)


def below(what, value, limit, form, bar=None):
    """A line whose value must not exceed the limit."""
    return Line(what, form.format(value), bar or "≤ " + form.format(limit), value <= limit)


def say(text):
    """Progress, on stderr: stdout has the table and nothing else."""
    print(f"{datetime.datetime.now():%H:%M:%S} {text}", file=sys.stderr, flush=True)


def table(lines):
    rows = [HEADINGS, *(line.cells() for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    text = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    text.insert(1, "-+-".join("-" * width for width in widths))
    return "\n".join(text)


def markdown(lines, how):
    rows = [HEADINGS, ["---"] * len(HEADINGS)]
    rows += [[cell.replace("|", "\\|") for cell in line.cells()] for line in lines]
    body = "\n".join("| " + " | ".join(cell.replace("  ", "· ", 1) if cell.startswith("  ") else cell
                                      for cell in row) + " |" for row in rows)
    return f"# What `bench/run` measured\n\n{how}\n\n{body}\n"


def circumstances(quick):
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), "an unknown CPU")
    commit = subprocess.run(["git", "-C", RESULTS.parent, "describe", "--always", "--dirty"], capture_output=True,
                            text=True).stdout.strip() or "unknown"
    server = subprocess.run([places.bindir(places.system_version()) / "postgres", "--version"], capture_output=True,
                            text=True).stdout.split()[2]
    return (f"{datetime.date.today()}, commit {commit}, PostgreSQL {server}, {os.cpu_count()} × {cpu}"
            + f", load {os.getloadavg()[2]:.1f}" + (", --quick" if quick else "")
            + ". Indented lines are other ways to do it, measured in the same run, or details.")


def write(lines, how):
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "latest.md").write_text(markdown(lines, how))
