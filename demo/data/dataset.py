#!/usr/bin/env python3
"""Reads the demo's data set with nothing but the standard library.

    demo/data/dataset.py entries [FIRST [LAST]]     COPY input: id, title, category, body, embedding
    demo/data/dataset.py questions                  COPY input: id, text, embedding

NAME.tsv.gz holds the rows (lines beginning with # are comments), NAME.i8 one
vector of 384 signed bytes for each, in the same order. A vector stands for its
direction; its length is one after division.
"""

import array
import gzip
import math
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
DIMENSION = 384


def rows(name, first=1, last=None):
    """Yields each row as (fields of the text file, embedding), ids from first to last."""
    packed = array.array("b")
    packed.frombytes((HERE / f"{name}.i8").read_bytes())
    with gzip.open(HERE / f"{name}.tsv.gz", "rt", encoding="utf-8") as lines:
        texts = [line.rstrip("\n").split("\t") for line in lines if not line.startswith("#")]
    if len(texts) * DIMENSION != len(packed):
        raise ValueError(f"{name}: {len(texts)} rows, but {len(packed)} bytes of vectors")
    for i, fields in enumerate(texts):
        if int(fields[0]) < first or (last is not None and int(fields[0]) > last):
            continue
        vector = packed[i * DIMENSION:(i + 1) * DIMENSION]
        length = math.sqrt(sum(x * x for x in vector))
        yield fields, [x / length for x in vector]


def copy_text(name, first=1, last=None):
    """Yields the rows as lines of COPY's text format."""
    for fields, vector in rows(name, first, last):
        quoted = [f.replace("\\", "\\\\") for f in fields]
        yield "\t".join(quoted) + "\t{" + ",".join("%.7g" % x for x in vector) + "}\n"


if __name__ == "__main__":
    name, *bounds = sys.argv[1:] or sys.exit(__doc__)
    sys.stdout.writelines(copy_text(name, *map(int, bounds)))
