"""A root of many units before and after `curate compact`: open, queries, look-ups, a selection, and what is left to do.

    quiet .venv/bin/python -m benchmarks.units --units 50000
    quiet .venv/bin/python -m benchmarks.units --units 5000 --s3

Units have few rows, so that files cost more than rows. With --s3 the root lies in moto's S3 on loopback, in a process
of its own. Each measure is the first in a process that has read nothing of the root. Writes
benchmarks/results/units.json and .md, or units_s3.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.table import write
from curation import schema
from curation.compaction.compact import compact
from curation.manifest.manifest import Manifest
from curation.progress import be_quiet
from curation.recipe.config import load_recipe
from curation.report import status_text
from curation.storage import Root, parquet_bytes
from curation.sums.cover import summed_tables
from curation.sums.seal import seal_root
from curation.verify import verify
from jobs import selection

BATCH = "0badcafe"
BUCKET = "units"
RECIPE = """
[[sources]]
name = "laion"
format = "laion2b"
paths = ["none.parquet"]
[filters]
caption_length = {}
[rules]
words = "caption_words >= 3"
"""
GROUP = "select source, count(*), count(kept) from manifest group by source"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=50_000)
    parser.add_argument("--rows", type=int, default=20, help="of each unit")
    parser.add_argument("--s3", action="store_true", help="in moto's S3 on this machine instead of a folder")
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "ROOT"), help="one measure, for a process of its own")
    arguments = parser.parse_args()
    be_quiet(True)
    if arguments.measure:
        name, url = arguments.measure
        sys.stdout.write(json.dumps(measure(name, open_root(url))) + "\n")
        return
    with tempfile.TemporaryDirectory(prefix="bench-units-") as folder, _place(folder, arguments.s3) as url:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder, "cache"))
        rows = compare(url, arguments.units, arguments.rows)
    notes = [
        f"{arguments.units:,} units of {arguments.rows} rows in {'S3 (moto)' if arguments.s3 else 'a folder'}.",
        "`files`: of tables, in the root. Each line is a process of its own: its seconds, CPU seconds and peak memory.",
        "`look-up`: the first of one uid makes the filters of uids, which the second finds in the cache folder.",
        "`select again` finds that nothing is left to do, as every stage does that is resumed.",
    ]
    sys.stdout.write(write("units_s3" if arguments.s3 else "units", rows, notes, ("duckdb", "pyarrow")))


def open_root(url: str) -> Root:
    """The root at `url`; in S3 that of the server that ENDPOINT names."""
    endpoint = os.environ.get("ENDPOINT")
    options = {"key": "testing", "secret": "testing", "client_kwargs": {"endpoint_url": endpoint}} if endpoint else {}
    return Root(url, **options)


@contextlib.contextmanager
def _place(folder: str, s3: bool) -> Iterator[str]:
    """Where the root is made: a folder, or a bucket of a server that ends with this block."""
    if not s3:
        yield str(Path(folder, "root"))
        return
    command = [sys.executable, "-c", "from moto.server import main; main(['-p', '0'])"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            endpoint = next(line.split()[-1] for line in server.stderr if "Running on" in line)
            os.environ["ENDPOINT"] = endpoint
            open_root(f"s3://{BUCKET}/root").fs.mkdir(BUCKET)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(server.stderr.read)  # its log must not fill the pipe
                yield f"s3://{BUCKET}/root"
                server.terminate()
        finally:
            server.terminate()


def compare(url: str, num_units: int, num_rows: int) -> list[dict[str, Any]]:
    """The measures before and after, and the compaction between them."""
    make_root(open_root(url), num_units, num_rows)
    rows = [{"root": "small files", **row} for row in measure_all(url)]
    rows.append({"root": "", **run_measure("compact", url)})
    return rows + [{"root": "packed", **row} for row in measure_all(url)]


def make_root(root: Root, num_units: int, num_rows: int) -> None:
    """A sealed root with samples, downloads and one table of scores; written without waiting for the disk."""
    root.create(sealed=True)
    units = {f"{number:06d}": num_rows for number in range(num_units)}
    with ThreadPoolExecutor(1 if root.is_local else 16) as pool:
        list(pool.map(lambda number: _write_unit(root, number, num_rows), range(num_units)))
    count = num_units * num_rows
    source = {"source": "laion", "path": "none.parquet", "num_rows": count, "fingerprint": "f"}
    plan = {"batch": BATCH, "number": 0, "inputs": [source], "totals": {"samples": count}, "units": units}
    root.publish_json(f"plans/{BATCH}.json", plan)
    seal_root(root, summed_tables(root))


def _write_unit(root: Root, number: int, num_rows: int) -> None:
    keys = [(f"http://h{number}.test/{k}.jpg", f"a picture of thing {k} in {number}") for k in range(num_rows)]
    uids = sorted((schema.uid(*key), *key) for key in keys)
    samples = {name: pa.nulls(num_rows, schema.SAMPLES.field(name).type) for name in schema.SAMPLES.names}
    samples |= {name: pa.array([row[k] for row in uids]) for k, name in enumerate(("uid", "url", "caption"))}
    samples["source"] = pa.array(["laion", "coyo"] * (num_rows // 2) + ["laion"] * (num_rows % 2))
    downloads = {name: pa.nulls(num_rows, schema.DOWNLOADS.field(name).type) for name in schema.DOWNLOADS.names}
    downloads |= {"uid": samples["uid"], "status": pa.array(["http_404"] * num_rows)}
    scores = pa.schema([("uid", pa.string()), ("caption_chars", pa.int32()), ("caption_words", pa.int32())])
    _write(root, f"samples/{BATCH}-{number:06d}.parquet", pa.table(samples, schema.SAMPLES))
    _write(root, f"downloads/{BATCH}-{number:06d}.parquet", pa.table(downloads, schema.DOWNLOADS))
    _write(root, f"scores_caption_length/{BATCH}-{number:06d}.parquet", scores.empty_table())


def _write(root: Root, rel: str, table: pa.Table) -> None:
    if root.is_local:
        path = Path(root.full(rel))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(parquet_bytes(table))
    else:
        root.put(rel, parquet_bytes(table))


def measure_all(url: str) -> list[dict[str, Any]]:
    """Every measure, each in a process of its own."""
    return [run_measure(name, url) for name in MEASURES if name != "compact"]


def run_measure(name: str, url: str) -> dict[str, Any]:
    """One measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.units", "--measure", name, url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(name: str, root: Root) -> dict[str, Any]:
    """What the measure `name` takes in this process."""
    started, before = time.perf_counter(), time.process_time()
    MEASURES[name](root)
    seconds, cpu = time.perf_counter() - started, time.process_time() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    files = sum(
        len(root.fs.ls(root.full(f"{t}{part}"), detail=False)) for t in _folders(root) for part in _parts(root, t)
    )
    return {"measure": name, "s": seconds, "CPU s": cpu, "peak MB": round(peak), "files": files}


def _folders(root: Root) -> list[str]:
    current = root.current("selection")
    return [
        "samples",
        "downloads",
        "scores_caption_length",
        *([f"selection/{current['fingerprint']}"] if current else []),
    ]


def _parts(root: Root, folder: str) -> Sequence[str]:
    return ("", "/packed") if root.fs.exists(root.full(f"{folder}/packed")) else ("",)


def _query(root: Root, sql: str) -> None:
    with Manifest(root) as manifest:
        manifest.query(sql).fetchall()


def _look_up(root: Root) -> None:
    uid = schema.uid("http://h7.test/3.jpg", "a picture of thing 3 in 7")
    _query(root, f"select * from manifest where uid = '{uid}'")


def _select(root: Root) -> None:
    """A selection by other rules before and after `compact`."""
    text = "packed" if root.fs.exists(root.full("samples/packed")) else "small"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "recipe.toml")
        file.write_text(f"{RECIPE}new = \"caption <> '{text}'\"\n")
        selection.run_here(load_recipe(file), root)


def _list_missing(root: Root) -> None:
    for table in ("downloads", "scores_caption_length"):
        assert not root.missing_units(table)


def _verify(root: Root) -> None:
    found = verify(root, quick=True)
    assert found is None, found


MEASURES: dict[str, Callable[[Root], Any]] = {
    "open": lambda root: Manifest(root).close(),
    "missing units": _list_missing,
    "select": _select,
    "select again": _select,
    "group query": lambda root: _query(root, GROUP),
    "look-up, first": _look_up,
    "look-up": _look_up,
    "status": status_text,
    "verify --quick": _verify,
    "compact": compact,
}


if __name__ == "__main__":
    main()
