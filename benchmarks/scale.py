"""Growth: what each stage takes at 0.1, 1 and 10 M rows of real captions and hosts, and the exponent of each.

    nice .venv/bin/python -m benchmarks.scale --rows 100000 1000000 10000000 --pack-up-to 1000000
    nice .venv/bin/python -m benchmarks.scale --rows 50000000 --stages ingest "ingest again"

Metadata are drawn from the 5,000 real LAION rows beside the checkout, with URLs of their own; downloads are written as
a download would have, all with one tiny picture. Every stage is `curate STAGE` in a process of its own, as a user
starts it; "ingest, Spark" is jobs/ingest.py, as a cluster runs it. Bytes shuffled are from Spark's own event log. Each
row of benchmarks/results/scale.json is written as it is measured, and a run that was stopped goes on where it was; the
folder of a size is deleted when it is done. --prepare makes these folders before, as what is in them takes minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.plan import REAL, metadata
from benchmarks.process_peaks import measure
from benchmarks.scale_plot import draw_growth
from benchmarks.scale_tables import write_downloads
from benchmarks.table import RESULTS, write
from curation.storage import Root

RECIPE = """
[dedupe]
tiers = ["exact", "perceptual"]
[filters.caption_length]
[filters.aspect_ratio]
[rules]
deduplicated = "duplicate_of is null"
min_side = "least(width, height) >= 100"
aspect = "aspect_ratio <= 3"
words = "caption_words >= 2"
"""
SEVERAL_WINDOWS = 'rules.repeated="count(*) over (partition by caption) <= 1000"'
STAGES = (
    "ingest", "ingest, Spark", "ingest again", "dedupe", "score", "select", "select, windows", "pack", "queries",
    "loader",
)  # fmt: skip
SPARK = (
    "spark.eventLog.enabled true\nspark.eventLog.rolling.enabled false\nspark.eventLog.compress false\n"
    "spark.eventLog.dir file://{}\n"
)
METADATA_STAGES = ("ingest", "dedupe", "score", "select")
SPARK_ROWS = 1_000_000
"""More rows are not ingested by Spark on one machine."""
MADE = "made"
"""Stands in a folder whose metadata, samples and downloads are whole."""
BATCH_SIZE = 256
NUM_CORES = 2


@dataclass(frozen=True, kw_only=True)
class Run:
    """One size: its folder with recipe, root and Spark's event logs."""

    folder: Path
    num_rows: int

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def call(self, stage: str) -> list[str]:
        """The command of a stage."""
        recipe = str(self.folder / "recipe.toml")
        if stage == "ingest, Spark":
            by_spark = ["--root", str(self.folder / "by-spark"), "--quiet"]
            return [sys.executable, "-m", "jobs.ingest", "--recipe", recipe, *by_spark]
        name = {"ingest again": "ingest", "select, windows": "select"}.get(stage, stage)
        if name in ("queries", "loader"):
            return [sys.executable, "-m", "benchmarks.scale", f"--{name}", str(self.root)]
        changes = ["--set", SEVERAL_WINDOWS] if stage == "select, windows" else []
        curate = [str(Path(sys.executable).with_name("curate")), name, "--recipe", recipe]
        return [*curate, "--root", str(self.root), "--quiet", *changes]

    def measure(self, stage: str) -> dict[str, Any]:
        """What the stage takes, shuffles and leaves."""
        logs, before = self.folder / "events", count_files(self.root)
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir()
        (self.folder / "conf").mkdir(exist_ok=True)
        (self.folder / "conf" / "spark-defaults.conf").write_text(SPARK.format(logs))
        places = {"SPARK_CONF_DIR": str(self.folder / "conf"), "XDG_CACHE_HOME": str(self.folder / "cache")}
        took, out = measure(self.call(stage), {**os.environ, **places, "TMPDIR": str(self.folder)})
        files, num_bytes = count_files(self.root)
        row = {"rows": self.num_rows, "stage": stage, **took, "rows/CPU s": self.num_rows / took["CPU s"]}
        row |= {"shuffled MB": read_shuffled_bytes(logs) / 1e6, "files": files - before[0]}
        row |= {"MB in root": (num_bytes - before[1]) / 1e6}
        return row | {"load": os.getloadavg()[0], "of it": out.strip() or None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--pack-up-to", type=int, default=1_000_000, help="more rows than these are not packed")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE", help="only these")
    parser.add_argument("--prepare", action="store_true", help="make what is measured, ingest it, and no more")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "bench-scale"))
    parser.add_argument("--queries", metavar="ROOT", help="only ask the manifest of ROOT")
    parser.add_argument("--loader", metavar="ROOT", help="only load from ROOT")
    arguments = parser.parse_args()
    if arguments.queries or arguments.loader:
        sys.stdout.write(ask_manifest(arguments.queries) if arguments.queries else load_samples(arguments.loader))
        return
    if not REAL.exists():
        sys.exit(f"{REAL} is not there: this benchmark draws its rows from it.")
    rows = read_rows()
    for num_rows in sorted(arguments.rows):
        limits = {"pack": arguments.pack_up_to, "loader": arguments.pack_up_to, "ingest, Spark": SPARK_ROWS}
        stages = [s for s in STAGES if s in arguments.stages and num_rows <= limits.get(s, num_rows)]
        run = Run(folder=arguments.folder / str(num_rows), num_rows=num_rows)
        if not arguments.prepare:
            measure_size(run, stages, rows)
        elif not (run.folder / MADE).exists():
            prepare(run, rows, with_downloads=True)
    sys.stdout.write(report(rows))


def read_rows() -> list[dict[str, Any]]:
    """What an earlier run has measured."""
    file = RESULTS / "scale.json"
    return json.loads(file.read_text())["rows"] if file.exists() else []


def measure_size(run: Run, stages: list[str], rows: list[dict[str, Any]]) -> None:
    """Append a row to `rows` for each of `stages` that has none of this size, and write the results."""
    done = {row["stage"] for row in rows if row["rows"] == run.num_rows}
    if done >= set(stages):
        return
    only_ingest = set(stages) <= {"ingest", "ingest, Spark", "ingest again"}
    if not (run.folder / MADE).exists():
        prepare(run, rows, with_downloads=not only_ingest)
    for stage in (stage for stage in stages if stage not in done and stage != "ingest"):
        append(rows, run.measure(stage))
    shutil.rmtree(run.folder)


def prepare(run: Run, rows: list[dict[str, Any]], *, with_downloads: bool) -> None:
    """Make metadata, ingest them, which is measured unless `rows` know it, and write downloads if they are wanted."""
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    recipe = metadata(run.folder / "metadata", run.num_rows).rename(run.folder / "recipe.toml")
    recipe.write_text(recipe.read_text().replace('"part-', '"metadata/part-') + RECIPE)
    measured = run.measure("ingest")
    if all((row["stage"], row["rows"]) != ("ingest", run.num_rows) for row in rows):
        append(rows, measured)
    if with_downloads:
        write_downloads(Root(run.root), NUM_CORES)
    (run.folder / MADE).touch()


def append(rows: list[dict[str, Any]], measured: dict[str, Any]) -> None:
    """Enter what was measured, and write the results."""
    rows.append(measured)
    report(rows)


def count_files(folder: Path) -> tuple[int, int]:
    """Files below `folder` and their bytes."""
    sizes = [(Path(where) / name).stat().st_size for where, _, names in os.walk(folder) for name in names]
    return len(sizes), sum(sizes)


def read_shuffled_bytes(folder: Path) -> int:
    """Bytes that the tasks of Spark's event logs in `folder` wrote for other tasks."""
    total = 0
    for file in (path for path in folder.rglob("*") if path.is_file()):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if '"SparkListenerTaskEnd"' in line:
                    metrics = json.loads(line).get("Task Metrics") or {}
                    total += metrics.get("Shuffle Write Metrics", {}).get("Shuffle Bytes Written", 0)
    return total


def ask_manifest(folder: str) -> str:
    """Seconds of three queries on a manifest that was just opened."""
    from curation import Manifest

    manifest = Manifest(folder)
    uid = manifest.query("select uid from samples limit 1").fetchall()[0][0]
    times = {
        "group": _seconds(lambda: manifest.query("select source, avg(punsafe) from manifest group by 1").fetchall()),
        "first look-up": _seconds(lambda: manifest.query("select * from manifest where uid = ?", [uid]).fetchall()),
        "look-up": _seconds(lambda: manifest.query("select * from manifest where uid = ?", [uid]).fetchall()),
        "reasons": _seconds(lambda: manifest.query("select reason, count(*) from manifest group by 1").fetchall()),
    }
    return ", ".join(f"{name} {seconds:.3f} s" for name, seconds in times.items())


def load_samples(folder: str) -> str:
    """Seconds until the loader stands, until its first batch, and samples a second of what it read in ten seconds."""
    from trainer.data import Loader

    started = time.perf_counter()
    loader = Loader(folder, batch_size=BATCH_SIZE, transform=None, tokenizer=None)
    opened = time.perf_counter() - started
    batches = iter(loader)
    next(batches)
    first, count, began = time.perf_counter() - started, 0, time.perf_counter()
    for _ in batches:
        count += BATCH_SIZE
        if time.perf_counter() - began > 10:
            break
    rate = count / (time.perf_counter() - began)
    bytes_a_row = loader.index.num_bytes / len(loader.index)
    return f"index {opened:.2f} s, first batch {first:.2f} s, {rate:,.0f} samples/s, {bytes_a_row:.0f} bytes a row"


def _seconds(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def report(rows: list[dict[str, Any]]) -> str:
    """Write the table with its exponents, and the plot; returns the table."""
    rows.sort(key=lambda row: (STAGES.index(row["stage"]), row["rows"]))
    for row in rows:
        smaller = [r for r in rows if r["stage"] == row["stage"] and r["rows"] < row["rows"]]
        row["exponent"] = _exponent(smaller[-1], row) if smaller else None
    notes = [
        "Every stage is a process of its own, its start included (Python 1 s, Java and Spark 7 s and more on a busy "
        "machine), so exponents between small sizes are small. `exponent` is of the CPU seconds, from "
        "the size before: with other work on the same cores they say more than seconds do.",
        "`driver MB` is the peak of the command's own process, `worker MB` of the largest process below it that is not "
        "Java; Java's heap is capped at 2 GB. `shuffled MB` is what Spark's tasks wrote for others.",
        "`load` is the mean load of the machine in the minute before the stage ended; its own is about 2. Where it is "
        "higher, seconds say little.",
        *_sum_metadata(rows),
    ]
    (RESULTS / "scale.svg").write_text(draw_growth(rows))
    return write("scale", rows, notes, ("pyspark", "duckdb", "pyarrow", "torch"))


def _exponent(smaller: dict[str, Any], larger: dict[str, Any]) -> float:
    return math.log(larger["CPU s"] / smaller["CPU s"]) / math.log(larger["rows"] / smaller["rows"])


def _sum_metadata(rows: list[dict[str, Any]]) -> list[str]:
    """Rows a second through all stages of metadata together at each size, if two cores did nothing else."""
    said = []
    for num_rows in sorted({row["rows"] for row in rows}):
        times = {row["stage"]: row["CPU s"] / NUM_CORES for row in rows if row["rows"] == num_rows}
        if set(METADATA_STAGES) <= set(times):
            rate = num_rows / sum(times[stage] for stage in METADATA_STAGES)
            said.append(
                f"{num_rows:,} rows through {', '.join(METADATA_STAGES)}: {rate:,.0f} rows a second, by CPU "
                f"seconds over {NUM_CORES} cores."
            )
    return said


if __name__ == "__main__":
    main()
