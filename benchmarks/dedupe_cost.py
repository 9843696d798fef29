"""What the second look costs: `curate dedupe` with and without the tier `verified`, in turns on the same photographs.

    .venv/bin/python -m benchmarks.dedupe_cost --pictures 5000 --turns 3

Uses the pictures that `python -m benchmarks.dedupe prepare` made, as many as stand: photographs with nine altered
copies each, and photographs without. Every call is a process of its own, as a user starts it, over the same root, from
which the duplicates of the call before are deleted. Writes benchmarks/results/dedupe_cost.{json,md}. Target (issue 16):
at most 20 % more time.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.decisions import run
from benchmarks.dedupe_pictures import MODEL, Pictures, load_blocks
from benchmarks.table import write
from curation import schema
from curation.shards import ShardWriter
from curation.storage import Root
from curation.tables import metadata_file, raw_shard, vectors_file

BATCH = "00000000"
ROWS_PER_UNIT = 1_000
WAYS = {"with the tier": "", "without it": "min_cosine = 0.8\n"}
"""A cosine of one's own leaves no pair in doubt; before there was the tier the embedder's was 0.8."""
PACKAGES = ("faiss-cpu", "numpy", "opencv-python-headless", "pyspark")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/bench-dedupe"))
    parser.add_argument("--images", type=Path, default=Path("../shared/data/flickr8k/images"))
    parser.add_argument("--pictures", type=int, default=5_000)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    pictures, files = load_blocks(arguments.images, arguments.folder / "photographs")
    with tempfile.TemporaryDirectory(prefix="dedupe-cost-") as folder:
        root = Root(Path(folder, "root"))
        root.create()
        num_pictures = make_root(root, pictures, files, arguments.pictures)
        calls = [measure(root, Path(folder), way) for _ in range(arguments.turns) for way in WAYS]
    sys.stdout.write(write("dedupe_cost", calls, describe(calls, num_pictures), PACKAGES))


def describe(calls: list[dict[str, Any]], num_pictures: int) -> list[str]:
    """The notes below the table."""
    more = []
    for measure_name in ("CPU s", "seconds"):
        one, other = (median(row[measure_name] for row in calls if row["dedupe"] == way) for way in WAYS)
        more.append(f"{measure_name} {one:.1f} and {other:.1f}, {100 * (one / other - 1):+.0f} %")
    return [
        f"{num_pictures:,} pictures: photographs with nine altered copies each, and photographs without; {MODEL}. "
        "The start of Python, Java and Spark is included.",
        f"Medians with the tier and without it: {'; '.join(more)}. Target: at most 20 % more.",
        f"Mean load of the machine in the last 15 minutes: {os.getloadavg()[2]:.1f}, of which the run itself has about "
        "2. With more than that, CPU seconds say more than seconds.",
    ]


def make_root(root: Root, pictures: Pictures, files: list[Path], num_pictures: int) -> int:
    """Samples, downloads, shards and vectors of the first `num_pictures` of `pictures`; how many there are."""
    units = dict[str, int]()
    for start in range(0, min(num_pictures, len(files)), ROWS_PER_UNIT):
        numbers = range(start, min(start + ROWS_PER_UNIT, num_pictures, len(files)))
        unit = f"{BATCH}-{len(units):06d}"
        units[unit[len(BATCH) + 1 :]] = len(numbers)
        _write_unit(root, unit, pictures, files, list(numbers))
    count = sum(units.values())
    root.publish_json(
        f"plans/{BATCH}.json", {"batch": BATCH, "number": 0, "inputs": [], "totals": {"samples": count}, "units": units}
    )
    return count


def _write_unit(root: Root, unit: str, pictures: Pictures, files: list[Path], numbers: list[int]) -> None:
    names = {number: schema.uid(f"https://a.example/{number}.jpg", None) for number in numbers}
    ordered = sorted(numbers, key=names.__getitem__)
    with tempfile.TemporaryDirectory(dir=root.scratch()) as folder:
        path = Path(folder, "shard.tar")
        data = {number: files[number].read_bytes() for number in ordered}
        with ShardWriter(path) as writer:
            places = {number: writer.add(names[number], {"jpg": data[number]})["jpg"] for number in ordered}
        shard = raw_shard(unit, writer.sha256)
        root.publish(shard, path)
    samples, downloads = [], []
    for number in ordered:
        uid, place = names[number], places[number]
        width, height = Image.open(io.BytesIO(data[number])).size
        url = {"url": f"https://a.example/{number}.jpg", "domain": "a.example", "source": "flickr8k"}
        samples.append(dict.fromkeys(schema.SAMPLES.names) | {"uid": uid, **url})
        row = {"uid": uid, "status": "ok", "sha256": str(pictures.sha256[number]), "format": "jpeg", "fetch_round": 0}
        row |= {"pixel_sha256": str(pictures.pixel_sha256[number]), "phash": f"{int(pictures.phash[number]):016x}"}
        row |= {"entropy": float(pictures.entropy[number]), "num_bytes": len(data[number]), "shard": shard}
        row |= {"width": width, "height": height, "stored_width": width, "stored_height": height}
        row |= {"offset": place.offset, "size": place.size, "stored_sha256": hashlib.sha256(data[number]).hexdigest()}
        downloads.append(dict.fromkeys(schema.DOWNLOADS.names) | row)
    root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(samples, schema.SAMPLES))
    root.publish_parquet(f"downloads/{unit}.parquet", pa.Table.from_pylist(downloads, schema.DOWNLOADS))
    sink = io.BytesIO()
    np.save(sink, pictures.vectors[ordered])
    root.publish(vectors_file(unit), sink.getvalue())
    root.publish_parquet(metadata_file(unit), pa.table({"uid": [names[number] for number in ordered]}))


def measure(root: Root, folder: Path, way: str) -> dict[str, Any]:
    """One call of `curate dedupe`: what it took, and what it removed by each tier."""
    shutil.rmtree(Path(root.path, "duplicates"), ignore_errors=True)
    recipe = folder / "dedupe.toml"
    recipe.write_text(f"[dedupe]\n{WAYS[way]}")
    call = [sys.executable, "-m", "jobs.cli", "dedupe", "--recipe", str(recipe), "--root", root.path]
    taken = run(call)
    current = root.current("duplicates") or {"files": []}
    tiers = Counter(tier for rel in current["files"] for tier in root.read_parquet(rel, ["tier"])["tier"].to_pylist())
    return {"dedupe": way, **taken, "removed": sum(tiers.values()), "by verified": tiers["verified"]}


if __name__ == "__main__":
    main()
