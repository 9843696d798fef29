"""A root of many units before and after `curate compact`: open, queries, look-ups, a selection, each stage resumed.

    quiet .venv/bin/python -m benchmarks.units --units 50000
    quiet .venv/bin/python -m benchmarks.units --units 5000 --s3
    quiet .venv/bin/python -m benchmarks.units --units 50000 --folder /scratch/units --minutes 7

Units have few rows, so that files cost more than rows. With --s3 the root lies in moto's S3 on loopback, in a process
of its own, or in that of ENDPOINT. A run with --folder goes on where the one before was. Each measure is the first in a
process that has read nothing of the root. Writes benchmarks/results/units.json and .md, or units_s3, after each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.process_tree import ProcessTree
from benchmarks.table import write
from benchmarks.units_root import finish_versions, make_root, write_recipe
from curation import schema
from curation.compaction.compact import compact
from curation.manifest.manifest import Manifest
from curation.progress import be_quiet
from curation.recipe.config import Recipe
from curation.storage import Root
from jobs import selection
from jobs.spark.session import session
from jobs.spark.stage import check_stages
from jobs.stages import STAGES, load_stages
from tests.support.memory import memory_bytes

BUCKET = "units"
GROUP = "select source, count(*), count(kept) from manifest group by source"
PACKAGES = ("duckdb", "pyarrow", "pyspark")
MAX_S, MAX_BYTES = 1_200.0, 16 << 30
SMALL, PACKED = "small files", "packed"
COMPACT = "compact"
FINISH = "the versions of dedupe and pack"
"""A step between measures, which is none itself."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=50_000)
    parser.add_argument("--rows", type=int, default=20, help="of each unit")
    parser.add_argument("--s3", action="store_true", help="in moto's S3 on this machine instead of a folder")
    parser.add_argument("--folder", help="where the root and what was measured stay, so that a run can be gone on with")
    parser.add_argument("--minutes", type=float, default=600.0, help="no measure begins after so many minutes")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "ROOT"), help="one measure, for a process of its own")
    arguments = parser.parse_args()
    be_quiet(True)
    if arguments.measure:
        name, url = arguments.measure
        sys.stdout.write(json.dumps(measure(name, open_root(url))) + "\n")
        return
    name = "units_s3" if arguments.s3 else "units"
    where = "S3 (moto)" if arguments.s3 else "a folder"
    notes = [f"{arguments.units:,} units of {arguments.rows} rows in {where}.", *NOTES]
    with _folder(arguments.folder) as folder, _place(folder, arguments.s3) as url:
        os.environ["XDG_CACHE_HOME"], os.environ["UNITS_FOLDER"] = f"{folder}/cache", folder
        make_once(url, Path(folder), arguments.units, arguments.rows)
        compare(url, Path(folder), 60 * arguments.minutes, lambda rows: write(name, rows, notes, PACKAGES))


NOTES = (
    "`files`: units, packed files and vectors in the root. Each line is a process of its own; `s` begins when its "
    "modules are imported and Spark, where a stage needs it, has started. `CPU s` is of the process and its children, "
    "Spark's Java and Python among them; `peak MB` of the process itself, which is the driver.",
    "`look-up, first`: the first of one uid makes the filters of uids, which `look-up` finds in the cache folder.",
    "`resume STAGE`: `check` and `run` of a stage that finds nothing to do. No picture came: of duplicates and train "
    "shards there is one version of nothing.",
)


@contextlib.contextmanager
def _folder(kept: str | None) -> Iterator[str]:
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield kept
    else:
        with tempfile.TemporaryDirectory(prefix="bench-units-") as folder:
            yield folder


def open_root(url: str) -> Root:
    """The root at `url`; in S3 that of the server that ENDPOINT names."""
    endpoint = os.environ.get("ENDPOINT")
    options = {"key": "testing", "secret": "testing", "client_kwargs": {"endpoint_url": endpoint}} if endpoint else {}
    return Root(url, **options)


@contextlib.contextmanager
def _place(folder: str, s3: bool) -> Iterator[str]:
    """Where the root is made: a folder, a bucket of the server ENDPOINT, or of a server that ends with this block."""
    url = f"s3://{BUCKET}/root"
    if not s3:
        yield str(Path(folder, "root"))
        return
    if "ENDPOINT" in os.environ:
        _make_bucket(url)
        yield url
        return
    command = [sys.executable, "-c", "from moto.server import main; main(['-p', '0'])"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            os.environ["ENDPOINT"] = next(line.split()[-1] for line in server.stderr if "Running on" in line)
            _make_bucket(url)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(server.stderr.read)  # its log must not fill the pipe
                yield url
                server.terminate()
        finally:
            server.terminate()


def _make_bucket(url: str) -> None:
    fs = open_root(url).fs
    if not fs.exists(BUCKET):
        fs.mkdir(BUCKET)


def make_once(url: str, folder: Path, num_units: int, num_rows: int) -> None:
    """The root, unless an earlier run has made it."""
    made = folder / "made"
    if not made.exists():
        make_root(open_root(url), write_recipe(folder / "recipe"), num_units, num_rows)
        made.touch()


def compare(url: str, folder: Path, max_s: float, show: Callable[[list[dict[str, Any]]], Any]) -> None:
    """The measures before and after, and the compaction between them; those that `folder` has are not repeated.

    `show` is called with all rows after each of them.
    """
    until, known = time.monotonic() + max_s, folder / "rows.jsonl"
    rows = [json.loads(line) for line in known.read_text().splitlines()] if known.exists() else []
    done = {(row["root"], row["measure"]) for row in rows}
    names = [name for name in MEASURES if name != COMPACT]
    steps = [*((SMALL, name) for name in names), ("", COMPACT), *((PACKED, name) for name in names)]
    for state, name in (step for step in steps if step not in done):
        if time.monotonic() > until:
            sys.stderr.write("there is more to measure: run it again\n")
            return
        rows.append({"root": state, **run_measure(name, url)})
        with open(known, "a") as f:
            f.write(json.dumps(rows[-1]) + "\n")
        show([row for row in rows if row["measure"] != FINISH])


def run_measure(name: str, url: str) -> dict[str, Any]:
    """One measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.units", "--measure", name, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        tree = ProcessTree(process.pid, MAX_BYTES, MAX_S)
        text, _ = process.communicate()
        tree.stop()
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode} ({tree.killed})")
    found: dict[str, Any] = json.loads(text)
    cpu = tree.cpu_s(found.pop("began"), found.pop("ended"))
    return {"measure": name, "s": found["s"], "CPU s": cpu, **found}


def measure(name: str, root: Root) -> dict[str, Any]:
    """What the measure `name` takes in this process."""
    work = MEASURES[name]
    if name in NEED_SPARK:
        session("units")
    began = time.time()
    work(root)
    ended = time.time()
    found = {"s": ended - began, "peak MB": round(memory_bytes("VmHWM") / 1e6), "files": count_files(root)}
    return found | {"began": began, "ended": ended}


def count_files(root: Root) -> int:
    """Files of units, packed files and arrays that stand in the root."""
    current = root.current("selection")
    tables = ("samples", "downloads", "scores_caption_length", "embeddings/metadata", "embeddings/img_emb")
    folders = [*tables, *([f"selection/{current['fingerprint']}"] if current else [])]
    return sum(len(root.own_sizes(f"{folder}{part}")) for folder in folders for part in ("", "/packed"))


def _recipe(root: Root) -> Recipe:
    """The recipe of all stages; by another rule once the root is packed, so that `select` makes a selection again."""
    return write_recipe(Path(os.environ["UNITS_FOLDER"], "recipe"), f"caption <> '{find_state(root)}'")


def find_state(root: Root) -> str:
    return PACKED if root.own_sizes("samples/packed") else SMALL


def _query(root: Root, sql: str) -> None:
    with Manifest(root) as manifest:
        manifest.query(sql).fetchall()


def _look_up(root: Root) -> None:
    uid = schema.uid("http://h7.test/3.jpg", "a picture of thing 3 in 7")
    _query(root, f"select * from manifest where uid = '{uid}'")


def _list_missing(root: Root) -> None:
    for table in ("downloads", "scores_caption_length"):
        assert not root.missing_units(table)


def _select(root: Root) -> None:
    selection.run_here(_recipe(root), root)


def _resume(name: str, root: Root) -> None:
    """What `curate NAME` does once its modules and Spark are there."""
    recipe, (stage,) = _recipe(root), load_stages([name])
    before = root.record()
    check_stages([stage], recipe, root)
    if stage.run_here is not None and not stage.runs_on_spark(recipe):
        stage.run_here(recipe, root)
    else:
        stage.run(session("units"), recipe, root)
    assert root.record() == before, f"{name} has found something to do"


MEASURES: dict[str, Callable[[Root], Any]] = {
    "open": lambda root: Manifest(root).close(),
    "missing units": _list_missing,
    "select": _select,
    FINISH: lambda root: finish_versions(root, _recipe(root)),
    **{f"resume {name}": partial(_resume, name) for name in STAGES},
    "group query": lambda root: _query(root, GROUP),
    "look-up, first": _look_up,
    "look-up": _look_up,
    COMPACT: compact,
}
NEED_SPARK = {f"resume {name}" for name in ("download", "embed", "dedupe")}


if __name__ == "__main__":
    main()
