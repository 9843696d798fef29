"""Plan 1,000,000 rows on Spark (`jobs/ingest.py`): how long it takes, how much memory, how the hosts are spread.

    quiet .venv/bin/python -m benchmarks.plan --rows 1000000

Captions and hosts are drawn from the 5,000 real LAION rows beside the checkout (shared/data/laion_url_text_5k.parquet),
paths are numbered so that every URL is new; nothing is fetched. The ingest is a process of its own; its
memory and that of the Java and Python processes below it is sampled. Writes benchmarks/results/plan.json
and .md. Target (issue 3): 1,000,000 rows in under 3 minutes in bounded memory.

Then, or alone with --files, 1,000,000 rows in files of 1,000 rows and in files of 250,000, by turns: plan_files.json
and .md. Target: many small files take at most 1.5 times as long.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.table import write
from curation.plan import read_plans
from curation.storage import Root

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "laion_url_text_5k.parquet"
ROWS_PER_FILE = 250_000
FILES_ROWS, ROWS_PER_SMALL_FILE = 1_000_000, 1_000
NUM_TURNS = 2
PACKAGES = ("pyspark", "pyarrow", "tldextract")
POLL_S = 0.25
TARGET_S = 180.0
NUM_ROWS_PER_UNIT = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000])
    parser.add_argument("--files", action="store_true", help="only compare many small files with few large ones")
    arguments = parser.parse_args()
    if not REAL.exists():
        sys.exit(f"{REAL} is not there: this benchmark draws its rows from it.")
    if not arguments.files:
        sys.stdout.write(measure_rows(arguments.rows))
    sys.stdout.write(compare_files())


def measure_rows(counts: list[int]) -> str:
    """Ingest so many rows, one count after the other; the table of what each took."""
    rows, notes = [], []
    for num_rows in counts:
        with tempfile.TemporaryDirectory(prefix="bench-plan-") as folder:
            recipe = metadata(Path(folder, "meta"), num_rows)
            measured, said = ingest(recipe, Path(folder, "root"))
            rows.append({"rows": num_rows} | measured)
            notes = [f"Said of the {num_rows:,} rows: {line.strip()}" for line in said]
    about = [
        f"`jobs/ingest.py` from its start to its end, Java and Spark included; units of {NUM_ROWS_PER_UNIT:,} rows. "
        f"Target: 1,000,000 rows within {TARGET_S:.0f} s.",
        "`peak MB` is the largest sum of the resident memory of all its processes, sampled every 0.25 s; the driver's "
        "heap is capped at 2 GB (jobs/spark/session.py).",
    ]
    return write("plan", rows, [*about, *notes], PACKAGES)


def compare_files() -> str:
    """Ingest the same number of rows in many files and in few, by turns; the table of all runs with their ratio."""
    rows: list[dict[str, Any]] = []
    for _ in range(NUM_TURNS):
        for rows_per_file in (ROWS_PER_SMALL_FILE, ROWS_PER_FILE):
            with tempfile.TemporaryDirectory(prefix="bench-plan-") as folder:
                recipe = metadata(Path(folder, "meta"), FILES_ROWS, rows_per_file)
                measured, _ = ingest(recipe, Path(folder, "root"))
            names = ("seconds", "rows/s", "peak MB", "of it Java MB")
            rows.append({"files": FILES_ROWS // rows_per_file} | {name: measured[name] for name in names})
    most, fewest = (
        min(row["seconds"] for row in rows if row["files"] == FILES_ROWS // rows_per_file)
        for rows_per_file in (ROWS_PER_SMALL_FILE, ROWS_PER_FILE)
    )
    note = (
        f"`jobs/ingest.py` of {FILES_ROWS:,} rows from its start to its end. The fastest runs: {most:.1f} s with many "
        f"files and {fewest:.1f} s with few, a ratio of {most / fewest:.2f}. Target: at most 1.5."
    )
    load = f"Average load of the machine at the end: {os.getloadavg()[1]:.1f} (its own runs take about 2)."
    return write("plan_files", rows, [note, load], PACKAGES)


def metadata(folder: Path, num_rows: int, rows_per_file: int = ROWS_PER_FILE) -> Path:
    """LAION-2B files, `num_rows` rows in all, with hosts and captions drawn from real rows; the recipe over them."""
    folder.mkdir(parents=True)
    real = pq.read_table(REAL)
    hosts = [urlsplit(url).netloc for url in real["URL"].to_pylist()]
    captions, rng = real["TEXT"].to_pylist(), np.random.default_rng(0)
    for number, start in enumerate(range(0, num_rows, rows_per_file)):
        count = min(rows_per_file, num_rows - start)
        drawn, said = rng.integers(0, len(hosts), (2, count))
        table = pa.table(
            {
                "URL": [f"https://{hosts[k]}/pictures/{start + i}.jpg" for i, k in enumerate(drawn)],
                "TEXT": [captions[k] for k in said],
                "WIDTH": rng.integers(64, 4_000, count, dtype=np.int32),
                "HEIGHT": rng.integers(64, 4_000, count, dtype=np.int32),
                "similarity": rng.uniform(0.28, 0.5, count),
                "hash": rng.integers(0, 2**62, count),
                "punsafe": rng.uniform(0, 1, count).astype(np.float32),
                "pwatermark": rng.uniform(0, 1, count).astype(np.float32),
            }
        )
        pq.write_table(table, folder / f"part-{number:05d}.parquet")
    recipe = folder / "recipe.toml"
    recipe.write_text(f"""
        [[sources]]
        name = "laion"
        format = "laion2b"
        paths = ["part-*.parquet"]
        [download]
        num_rows_per_unit = {NUM_ROWS_PER_UNIT}
    """)
    return recipe


def ingest(recipe: Path, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Run `jobs/ingest.py`; what it took and what it said. Raises RuntimeError when it fails."""
    command = [sys.executable, "-m", "jobs.ingest", "--recipe", str(recipe), "--root", str(folder)]
    started, peak = time.perf_counter(), {"all": 0, "java": 0}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stderr=said, stdout=said)
        while process.poll() is None:
            for name, size in read_resident_bytes(process.pid).items():
                peak[name] = max(peak[name], size)
            time.sleep(POLL_S)
        seconds = time.perf_counter() - started
        said.seek(0)
        lines = said.read().splitlines()
    if process.returncode:
        raise RuntimeError("\n".join(lines[-20:]))
    plan = read_plans(Root(folder))[0]
    sizes = sorted(plan["units"].values())
    measured = {
        "seconds": seconds,
        "rows/s": plan["totals"]["samples"] / seconds,
        "peak MB": peak["all"] / 1e6,
        "of it Java MB": peak["java"] / 1e6,
        "domains": plan["hosts"]["num_domains"],
        "units": len(sizes),
        "smallest unit": sizes[0],
        "largest unit": sizes[-1],
        "split domains": len(plan["large_domains"]),
    }
    return measured, [line for line in lines if " rows" in line]


def read_resident_bytes(pid: int) -> dict[str, int]:
    """Resident bytes of `pid` and everything below it, in all and of the Java processes."""
    below, found = {pid}, {"all": 0, "java": 0}
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    while added := {child for child, parent in parents.items() if parent in below} - below:
        below |= added
    for one in below:
        try:
            size = int(Path("/proc", str(one), "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            name = Path("/proc", str(one), "comm").read_text().strip()
        except (OSError, IndexError):
            continue
        found["all"] += size
        found["java"] += size if name == "java" else 0
    return found


if __name__ == "__main__":
    main()
