"""What the demo prints: headings, statements as typed, answers as aligned tables."""

import os
import sys
import textwrap
import time

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
WIDTH = 110


def paint(text, code):
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def say(text=""):
    """A sentence or two, in lines that fit."""
    text = " ".join(text.split())
    print(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ") if text else "", flush=True)


def statement(text, prompt, more):
    """What was typed, behind a prompt such as psql's or Python's."""
    lines = textwrap.dedent(text).strip("\n").splitlines()
    for i, line in enumerate(lines):
        print(f"{prompt if i == 0 else more}{paint(line, '1')}", flush=True)


def cell(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return "t" if value else "f"
    return str(value)


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) or type(value).__name__ == "Decimal"


class Table:
    """Rows under their names. With `widths` given, rows can be printed as they come."""

    def __init__(self, names, rows=(), widths=None):
        self.names = names
        self.right = [all(is_number(row[i]) or row[i] is None for row in rows) and bool(rows)
                      for i in range(len(names))]
        self.widths = widths or [
            max([len(name), *(len(cell(row[i])) for row in rows)]) for i, name in enumerate(names)]

    def head(self):
        print("  " + "  ".join(name.center(w) for name, w in zip(self.names, self.widths)).rstrip())
        print("  " + "  ".join("─" * w for w in self.widths), flush=True)

    def row(self, row):
        cells = (cell(v).rjust(w) if right else cell(v).ljust(w)
                 for v, w, right in zip(row, self.widths, self.right))
        print("  " + "  ".join(cells).rstrip(), flush=True)


def answer(names, rows):
    table = Table(names, rows)
    table.head()
    for row in rows:
        table.row(row)
    if not rows:
        print("  (no rows)")
    print(flush=True)


class Transcript:
    """Numbers the steps, remembers what did not agree."""

    def __init__(self):
        self.started = time.monotonic()
        self.step = 0
        self.failures = []
        self.stopped = False

    def heading(self, text):
        self.step += 1
        line = f"── {self.step}. {text} "
        print("\n" + paint(line + "─" * max(0, WIDTH + 2 - len(line)), "1;36") + "\n", flush=True)

    def check(self, true, text, otherwise=""):
        """One statement about the outcome. A false one fails the demo, which goes on."""
        print("  " + (paint("✓", "1;32") if true else paint("✗", "1;31")), text, flush=True)
        if not true:
            self.failures.append(text)
            for line in otherwise.splitlines():
                print("      " + line, flush=True)
        return true

    def seconds(self):
        return time.monotonic() - self.started
