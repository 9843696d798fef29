"""Soak: a thousand seeded changes of the files of a sealed root, each of which verify must name.

    python -m benchmarks.damage [--trials 1000]

Exits with 1 when a change was not named. The quick tests run the first sixty trials.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks import table
from curation.progress import bar
from curation.terminal import write_error, write_out
from tests.support.rot_trials import Trial, build_roots, run_trials


def main() -> None:
    """Run the trials and write their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, metavar="N", help="number of trials (default: 1000)")
    num_trials = parser.parse_args().trials
    started = time.monotonic()
    trials = []
    with tempfile.TemporaryDirectory() as temporary:
        folder, earlier = Path(temporary, "root"), Path(temporary, "earlier")
        build_roots(folder, earlier)
        with bar(num_trials, "damage", "trial") as progress:
            for trial in run_trials(folder, earlier, range(num_trials)):
                trials.append(trial)
                progress.update()
    notes = [
        f"{num_trials:,} trials, seeds 0 to {num_trials - 1}, {time.monotonic() - started:.0f} s; a trial changes one "
        "file of a sealed root with every stage behind it, and counts as named when a sentence of `curate verify` has "
        "the file's path.",
        "`age` puts back what was right before, `swap` exchanges two files, `link` puts a link to a copy there.",
    ]
    write_out(table.write("damage", count_named(trials), notes, ("pyarrow", "duckdb")))
    unnamed = [trial for trial in trials if not trial.is_named]
    for trial in unnamed:
        write_error(f"Trial {trial.number} ({trial.change} of {trial.file}) was not named: {trial.said}\n")
    sys.exit(1 if unnamed else 0)


def count_named(trials: list[Trial]) -> list[dict[str, object]]:
    """A row for each kind of file: trials of each change, and how many were named."""
    changes = sorted({trial.change for trial in trials})
    rows = []
    for kind in sorted({trial.kind for trial in trials}):
        mine = [trial for trial in trials if trial.kind == kind]
        counts = Counter(trial.change for trial in mine)
        row = {"file": kind, **{change: counts[change] for change in changes}}
        rows.append(row | {"trials": len(mine), "named": sum(trial.is_named for trial in mine)})
    total = {key: sum(int(str(row[key])) for row in rows) for key in (*changes, "trials", "named")}
    return [*rows, {"file": "all", **total}]


if __name__ == "__main__":
    main()
