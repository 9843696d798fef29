"""Queries on a manifest of generated tables: how long each takes, opened anew and on an open manifest.

    quiet .venv/bin/python -m benchmarks.manifest --rows 10000000

The tables have the files, columns and settings that a run writes: units of 10,000 rows, 1,000 files a table at 10 M.
Writes benchmarks/results/manifest.json and .md. Targets (issue 5): the group query under 1 s, a look-up under 50 ms.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.table import write
from curation import schema
from curation.manifest.manifest import Manifest
from curation.progress import bar
from curation.storage import Root

ROWS_PER_UNIT = 10_000
SOURCES = ("laion", "coyo", "commonpool")
VERSION = "0123456789ab"
TARGET_S = {"group": 1.0, "look-up": 0.05}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where the tables are made, and left for the next run")
    parser.add_argument("--runs", type=int, default=5, help="repetitions; the median is reported")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="bench-manifest-"))
    try:
        root = make_root(folder / "root", arguments.rows)
        with tempfile.TemporaryDirectory() as cache:
            os.environ["XDG_CACHE_HOME"] = cache
            rows = measure(root, arguments.runs)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)
    notes = [
        f"{arguments.rows:,} rows in {arguments.rows // ROWS_PER_UNIT:,} units a table.",
        "`opened anew` includes opening the manifest; `open` is the median on an open manifest, files in page cache.",
        "`group`: select source, count(*), avg(aesthetic) from manifest group by source. `look-up`: every column of "
        "one uid. `first look-up` finds no filter of uids in the cache folder and makes it.",
    ]
    sys.stdout.write(write("manifest", rows, notes))


def make_root(folder: Path, num_rows: int) -> Root:
    """A root with samples, downloads, one table of scores and a selection; kept when it stands already."""
    root = Root(folder)
    if root.exists("selection/current.json"):
        return root
    root.create()
    rng = np.random.default_rng(0)
    units = [f"00000000-{number:06d}" for number in range(num_rows // ROWS_PER_UNIT)]
    with bar(len(units), "make tables", "unit") as progress:
        for number, unit in enumerate(units):
            _write_unit(root, unit, number, rng)
            progress.update()
    sizes = {unit[9:]: ROWS_PER_UNIT for unit in units}
    plan = {"batch": "00000000", "number": 0, "inputs": [], "totals": {"samples": num_rows}, "units": sizes}
    root.publish_json("plans/00000000.json", plan)
    files = [f"selection/{VERSION}/{unit}.parquet" for unit in units]
    root.publish_current("selection", VERSION, files, {"rules": {}}, {})
    return root


def _write_unit(root: Root, unit: str, number: int, rng: np.random.Generator) -> None:
    n = ROWS_PER_UNIT
    digits = rng.bytes(16 * n).hex()
    uids = sorted(digits[i : i + 32] for i in range(0, len(digits), 32))
    ok = rng.random(n) < 0.7
    columns = {name: pa.nulls(n, schema.SAMPLES.field(name).type) for name in schema.SAMPLES.names}
    columns |= {
        "uid": pa.array(uids),
        "url": pa.array([f"https://host{number}-{i % 97}.example/pictures/{u[:12]}.jpg" for i, u in enumerate(uids)]),
        "caption": pa.array([f"a picture of {u[:6]} beside {u[6:12]}, number {i}" for i, u in enumerate(uids)]),
        "source": pa.array([SOURCES[k] for k in rng.integers(0, 3, n)]),
        "domain": pa.array([f"host{number}-{i % 97}.example" for i in range(n)]),
        "clip_similarity": pa.array(rng.uniform(0.2, 0.4, n).astype(np.float32)),
        "aesthetic": pa.array(rng.uniform(2, 8, n).astype(np.float32)),
        "punsafe": pa.array(rng.uniform(0, 1, n).astype(np.float32)),
    }
    root.publish_parquet(f"samples/{unit}.parquet", pa.table(columns, schema.SAMPLES))
    root.publish_parquet(f"downloads/{unit}.parquet", _downloads(unit, uids, ok, rng))
    stored = [u for u, good in zip(uids, ok, strict=True) if good]
    scores = {"uid": stored, "aspect_ratio": pa.array(rng.uniform(1, 4, len(stored)).astype(np.float32))}
    root.publish_parquet(f"scores_aspect_ratio/{unit}.parquet", pa.table(scores))
    kept = ok & (rng.random(n) < 0.4)
    reasons = [None if k else "aspect" if good else "download:http_404" for k, good in zip(kept, ok, strict=True)]
    table = pa.table({"uid": uids, "kept": pa.array(kept), "reason": pa.array(reasons, pa.string())})
    root.publish_parquet(f"selection/{VERSION}/{unit}.parquet", table)


def _downloads(unit: str, uids: list[str], ok: np.ndarray, rng: np.random.Generator) -> pa.Table:
    n = len(uids)

    def where_ok(values: Any) -> pa.Array:
        return pa.array(values, mask=~ok)

    sizes = rng.integers(5_000, 30_000, n)
    columns = {name: pa.nulls(n, schema.DOWNLOADS.field(name).type) for name in schema.DOWNLOADS.names}
    columns |= {
        "uid": pa.array(uids),
        "status": pa.array(["ok" if good else "http_404" for good in ok]),
        "sha256": where_ok(np.array([u * 2 for u in uids], object)),
        "phash": where_ok(np.array([u[:16] for u in uids], object)),
        "num_bytes": where_ok(sizes * 3),
        "width": where_ok(rng.integers(100, 2_000, n).astype(np.int32)),
        "height": where_ok(rng.integers(100, 2_000, n).astype(np.int32)),
        "shard": where_ok(np.array([f"raw/{unit}-{'0' * 16}.tar"] * n, object)),
        "offset": where_ok(np.cumsum(sizes + 1_024)),
        "size": where_ok(sizes),
        "stored_sha256": where_ok(np.array([u[::-1] * 2 for u in uids], object)),
    }
    return pa.table(columns, schema.DOWNLOADS)


def measure(root: Root, runs: int) -> list[dict[str, Any]]:
    """One row a query: seconds opened anew and on an open manifest."""
    uid = root.read_parquet(f"samples/{root.units('samples')[len(root.units('samples')) // 2]}.parquet", ["uid"])[
        "uid"
    ][1_234].as_py()
    queries: dict[str, Callable[[Manifest], list[Any]]] = {
        "open": lambda m: [],
        "group": lambda m: m.query("select source, count(*), avg(aesthetic) from manifest group by source").fetchall(),
        "group, samples": lambda m: m.query(
            "select source, count(*), avg(aesthetic) from samples group by source"
        ).fetchall(),
        "first look-up": lambda m: m.query("select * from manifest where uid = ?", [uid]).fetchall(),
        "look-up": lambda m: m.query("select * from manifest where uid = ?", [uid]).fetchall(),
        "look-up, samples": lambda m: m.query("select * from samples where uid = ?", [uid]).fetchall(),
        "reasons": lambda m: m.query("select reason, count(*) from manifest group by reason").fetchall(),
        "kept by source": lambda m: m.query(
            "select source, count(*), avg(aspect_ratio) from manifest where kept group by source"
        ).fetchall(),
        "statuses": lambda m: m.query("select status, count(*) from downloads group by status").fetchall(),
    }
    rows = []
    for name, ask in _each(queries):
        anew = _seconds(partial(_ask_new_manifest, root, ask))
        manifest = Manifest(root)
        ask(manifest)
        times = [_seconds(partial(ask, manifest)) for _ in range(runs)]
        target = TARGET_S.get(name)
        rows.append({"query": name, "opened anew s": anew, "open s": statistics.median(times), "target s": target})
    return rows


def _each(queries: dict[str, Any]) -> Any:
    with bar(len(queries), "queries", "query") as progress:
        for item in queries.items():
            yield item
            progress.update()


def _ask_new_manifest(root: Root, ask: Callable[[Manifest], Any]) -> Any:
    return ask(Manifest(root))


def _seconds(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
