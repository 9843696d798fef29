"""Decisions on generated tables: `curate select --what-if`, `curate select` by DuckDB and by Spark, and a pack index.

    nice .venv/bin/python -m benchmarks.decisions --rows 1000000 4000000 10000000

Every call is a process of its own, as a user starts it; CPU seconds and peak memory of all below it are sampled.
Three sets of rules: `plain` reads columns alone, `quantile` asks for one of each source, `windows` counts captions,
ranks pictures of one hash and joins duplicates. The pack index is that of all pictures (benchmarks/pack_index.py).
Writes benchmarks/results/decisions.json and .md. Targets (issue 16) at 10 M rows: what-if under 10 s, select and the
pack index under 30 s, under 4 GB.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.decisions_tables import make_root
from benchmarks.process_tree import ProcessTree
from benchmarks.table import write

HEAD = """
[filters.aspect_ratio]
[filters.unsafe_score]
[filters.language]
[filters.caption_length]
[filters.clip_score]

[rules]
bytes = "num_bytes >= 12000"
min_side = "least(width, height) >= 200"
aspect = "aspect_ratio <= 3"
safe = "unsafe_score <= 0.5"
english = "language = 'en'"
words = "caption_words between 3 and 256"
"""
SETS = {
    "plain": "",
    "quantile": 'top = "clip_score_l14 >= quantile(clip_score_l14, 0.7) over (partition by source)"\n',
    "windows": 'repeated_text = "count(*) over (partition by caption) <= 10"\n'
    'unique_pair = "row_number() over (partition by phash, caption order by uid) = 1"\n'
    'deduplicated = "duplicate_of is null"\n',
}
ALL_PICTURES = '[rules]\nall = "num_bytes > 0"\n'
SPARK_ROWS = 1_000_000
MAX_BYTES = 16_000_000_000
MAX_S = 3_600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 4_000_000, 10_000_000])
    parser.add_argument("--folder", type=Path, help="where the tables are made, and left for the next run")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="bench-decisions-"))
    rows = []
    try:
        for num_rows in arguments.rows:
            root = folder / f"root-{num_rows}"
            make_root(root, num_rows)
            read_files(root)
            for name in SETS:
                rows += measure(root, folder, num_rows, name)
            rows += measure_index(root, folder, num_rows)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)
    load = os.getloadavg()[2]
    notes = [
        "Each call is a process of its own, its start included (Python 1 s, Java and Spark 7 s); files in page cache.",
        f"Mean load of the machine in the last 15 minutes of the run: {load:.1f}, of which the run itself has about 2. "
        "With more than that, CPU seconds divided by the cores say more than seconds.",
        "Targets at 10 M rows: what-if 10 s, select and the pack index 30 s, 4,000 MB.",
    ]
    sys.stdout.write(write("decisions", rows, notes, ("duckdb", "pyarrow", "pyspark")))


def read_files(root: Path) -> None:
    """Let the page cache hold the tables of `root`: else what is measured first would wait for the disk."""
    for file in root.rglob("*.parquet"):
        file.read_bytes()


def measure(root: Path, folder: Path, num_rows: int, name: str) -> list[dict[str, Any]]:
    """One row a call: what-if, select by DuckDB, and of SPARK_ROWS rows select by Spark."""
    recipe = folder / f"{name}.toml"
    recipe.write_text(HEAD + SETS[name])
    common = ["--recipe", str(recipe), "--root", str(root)]
    curate = [sys.executable, "-m", "jobs.cli", "select", *common]
    calls = {"what-if": [*curate, "--what-if", str(recipe)], "select": curate}
    if num_rows <= SPARK_ROWS:
        calls["select, Spark"] = [sys.executable, "-m", "jobs.selection", *common]
    found = []
    for what, call in calls.items():
        shutil.rmtree(root / "selection", ignore_errors=True)
        found.append({"rules": name, "call": what, "rows": num_rows} | run(call))
    return found


def measure_index(root: Path, folder: Path, num_rows: int) -> list[dict[str, Any]]:
    """The row of the index, of a selection that keeps every picture."""
    recipe = folder / "all.toml"
    recipe.write_text(ALL_PICTURES)
    common = ["--recipe", str(recipe), "--root", str(root)]
    run([sys.executable, "-m", "jobs.cli", "select", *common])
    call = [sys.executable, "-m", "benchmarks.pack_index", *common]
    return [{"rules": "all pictures", "call": "pack index", "rows": num_rows} | run(call)]


def run(call: list[str]) -> dict[str, Any]:
    """Seconds, CPU seconds and peak MB of one command and all below it."""
    began = time.time()
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    tree = ProcessTree(process.pid, MAX_BYTES, MAX_S)
    _, said = process.communicate()
    ended = time.time()
    tree.stop()
    if process.returncode:
        sys.exit(f"{call}: {said.decode()}")
    return {"seconds": ended - began, "CPU s": tree.cpu_s(began, ended), "peak MB": round(tree.peak_bytes / 1e6)}


if __name__ == "__main__":
    main()
