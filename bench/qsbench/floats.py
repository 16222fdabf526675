"""Float arrays to JSON text: float_text.c of src/ beside the usual functions."""

import subprocess

from qsbench import native
from qsbench.report import Line, say

SETS = {"uniform": "uniform in [-1, 1]", "unit": "vectors of length 1", "decimals4": "four decimals"}
OTHERS = {"shortest": "PostgreSQL's shortest", "printf9": "printf %.9g", "jansson": "jansson"}
LIMIT = 20


def floats(options):
    say("float encoder")
    program = native.float_program()
    checked_vectors = 10_000 if options.quick else 100_000
    output = subprocess.run([program, str(checked_vectors)], capture_output=True, text=True, check=True).stdout
    found, wrong = {}, 0
    for line in output.splitlines():
        name, encoder, nanoseconds, size, bad = line.split()
        if encoder == "qdrant_sync":
            wrong += int(bad)
        if name in SETS:
            found[name, encoder] = (float(nanoseconds), float(size))
    worst = max(found[name, "qdrant_sync"][0] for name in SETS)
    lines = [Line("float array to JSON, bit-exact on the way back",
                  f"{worst:.1f} ns per float, {wrong} of {checked_vectors * 384 + 3 * 98304:,} wrong",
                  f"≤ {LIMIT} ns", worst <= LIMIT and wrong == 0)]
    for name, text in SETS.items():
        us = found[name, "qdrant_sync"]
        others = ", ".join(f"{label} {found[name, other][0]:.0f}" for other, label in OTHERS.items())
        lines.append(Line(f"{text}: {us[1]:.1f} bytes a float", f"{us[0]:.1f} ns ({others})"))
    return lines
