"""Soak: the readers of pictures, HTTP answers and tars on inputs that are changed by chance, for a fixed time.

    python -m benchmarks.fuzz [--minutes 10] [--seed 1]

Exits with 1 when an input broke a reader. It is kept in tests/support/fuzzed, where tests/test_fuzzed.py reads
it from then on. The quick tests read the first two hundred inputs of seed 0.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

from benchmarks import table
from curation.terminal import write_error, write_out
from tests.support.fuzz import KEPT, READERS, Reader, make_input

BATCH = 64
"""Inputs that are read together; the decoding process takes many at once."""


def main() -> None:
    """Fuzz each reader for its share of the time and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="of all readers (default: 10)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which inputs (default: 1)")
    arguments = parser.parse_args()
    share_s = arguments.minutes * 60 / len(READERS)
    rows, kept = [], list[Path]()
    for reader in READERS:
        number, broken, seconds = fuzz(reader, arguments.seed, share_s)
        kept += broken
        rows.append({"reader": reader.name, "inputs": number, "seconds": round(seconds), "broken": len(broken)})
    notes = [f"Seed {arguments.seed}; an input is one of the tests' own, real or hostile, with one to five changes."]
    write_out(table.write("fuzz", rows, notes, ("opencv-python-headless", "pillow", "simplejpeg")))
    sys.exit(1 if kept else 0)


def fuzz(reader: Reader, seed: int, share_s: float) -> tuple[int, list[Path], float]:
    """How many inputs `reader` was given within `share_s` seconds, those that broke it, and the seconds it took."""
    began, number, kept = time.monotonic(), 0, list[Path]()
    while time.monotonic() - began < share_s:
        inputs = [make_input(reader, seed, number + place) for place in range(BATCH)]
        for place, broke in enumerate(reader.read(inputs)):
            # A busy machine may have ended a picture's time, so it is read once more, alone.
            if broke and reader.read([inputs[place]]) != [None]:
                kept.append(keep(reader, inputs[place]))
                write_error(f"Input {number + place} of {reader.name} (seed {seed}): {broke}; kept as {kept[-1]}\n")
        number += BATCH
    return number, kept, time.monotonic() - began


def keep(reader: Reader, data: bytes) -> Path:
    """Keep an input as a test, named by its sum."""
    file = KEPT / reader.name / hashlib.sha256(data).hexdigest()[:16]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


if __name__ == "__main__":
    main()
