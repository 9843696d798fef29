"""A filter from a model of one's own on Flickr8k: how well it tells right captions from wrong ones, and its cost.

    python -m benchmarks.train_filter --photographs /data/flickr8k --folder /tmp/train-filter

The pool is every fourth file of `match_labels.tsv` (file, caption, match or no-match) with all of its captions. Nothing
is trained on these files. The trusted rows are the other photographs with their five captions (`captions_en.tsv`).
The command is `curate train-filter`, as a user types it. The curve is FOLDER/roc.png.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from benchmarks.table import write
from curation.manifest.manifest import Manifest
from curation.schema import DOWNLOADS, samples_schema, uid
from curation.shards import ShardWriter
from curation.storage import Root
from curation.tables import downloads_file, plan_file, raw_shard, samples_file

BATCH = "0a1b2c3d"
ROWS_PER_UNIT = 1_000
NUM_CAPTIONS = 5
HELD_EVERY = 4
SIDE = 480
"""Of the curve, pixels."""
RECIPE = """\
[embed.models.dfn]
model = "dfn.safetensors"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, required=True, help="folder with images/ and the lists")
    parser.add_argument("--folder", type=Path, required=True, help="where the root is made")
    parser.add_argument("--samples", type=int, default=76_800, help="that are trained on (76,800)")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    labels = read_labels(arguments.photographs)
    root = Root(arguments.folder / "root")
    if not root.exists("root.json"):
        fill(root, list_rows(arguments.photographs, labels), arguments.photographs / "images")
    found = measure(arguments.folder, arguments.samples)
    rows = Manifest(root).query("select uid, dfn from manifest where source = 'pool'").fetchall()
    matches = {uid(f"flickr8k/{file}", caption): match for file, caption, match in labels}
    scores = np.array([score for _, score in rows])
    truth = np.array([matches[one] for one, _ in rows])
    draw_curve(scores, truth, arguments.folder / "roc.png")
    row = {"trusted pairs": count(root, "trusted"), "pool": len(rows), "samples": arguments.samples, **found}
    row["AUC"] = area(scores, truth)
    row["precision of the best half"] = float(truth[scores >= np.median(scores)].mean())
    row["of all"] = float(truth.mean())
    notes = [
        "One run of `curate train-filter` on one rank: training, and embedding and scoring the pool and trusted pairs. "
        "`CPU s` is of the command and its training; Java and the Python of its tasks are not counted.",
        "The pool's photographs are none of the trusted ones. A wrong caption is one of another photograph.",
    ]
    sys.stdout.write(write("train_filter", [row], notes, ("torch", "deepspeed", "pyspark")))


def read_labels(photographs: Path) -> list[tuple[str, str, bool]]:
    """File, caption and whether they match, of every HELD_EVERYth file."""
    lines = (photographs / "match_labels.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    held = set(sorted({file for file, *_ in rows})[::HELD_EVERY])
    pairs = {(file, caption): label == "match" for file, caption, label in rows if file in held}
    return [(file, caption, match) for (file, caption), match in pairs.items()]


def list_rows(photographs: Path, labels: Sequence[tuple[str, str, bool]]) -> list[dict[str, Any]]:
    """Rows of samples: the pool, a row a pair, and the trusted photographs with all captions."""
    held, captions = {file for file, *_ in labels}, dict[str, list[str]]()
    for line in (photographs / "captions_en.tsv").read_text(encoding="utf-8").splitlines():
        file, _, caption = line.split("\t")
        captions.setdefault(file, []).append(caption)
    rows = [make_row("pool", file, [caption]) for file, caption, _ in labels]
    return rows + [make_row("trusted", file, several) for file, several in captions.items() if file not in held]


def make_row(source: str, file: str, captions: Sequence[str]) -> dict[str, Any]:
    names = ["caption", *(f"caption_{number}" for number in range(2, NUM_CAPTIONS + 1))]
    url = f"flickr8k/{file}"
    return {"uid": uid(url, captions[0]), "url": url, "source": source, **dict(zip(names, captions, strict=False))}


def fill(root: Root, rows: Sequence[dict[str, Any]], images: Path) -> None:
    """Write samples and downloads with their shards, as ingest and download would."""
    root.create()
    units = dict[str, int]()
    for number, start in enumerate(range(0, len(rows), ROWS_PER_UNIT)):
        unit = f"{BATCH}-{number:06d}"
        part = sorted(rows[start : start + ROWS_PER_UNIT], key=lambda row: row["uid"])
        root.publish_parquet(samples_file(unit), pa.Table.from_pylist(part, samples_schema(NUM_CAPTIONS)))
        root.publish_parquet(downloads_file(unit), pa.Table.from_pylist([*store(root, unit, part, images)], DOWNLOADS))
        units[f"{number:06d}"] = len(part)
    totals = {"samples": len(rows)}
    root.publish_json(plan_file(BATCH), {"batch": BATCH, "number": 0, "inputs": [], "units": units, "totals": totals})


def store(root: Root, unit: str, rows: Sequence[dict[str, Any]], images: Path) -> Iterator[dict[str, Any]]:
    path = Path(root.scratch(), "shard.tar")
    stored = []
    with ShardWriter(path) as writer:
        for row in rows:
            data = (images / row["url"].rpartition("/")[2]).read_bytes()
            (member,) = writer.add(row["uid"], {"jpg": data}).values()
            stored.append((row["uid"], hashlib.sha256(data).hexdigest(), member.offset, member.size))
    shard = raw_shard(unit, writer.sha256)
    root.publish(shard, path)
    for name, sha256, offset, size in stored:
        place = {"shard": shard, "offset": offset, "size": size, "stored_sha256": sha256, "sha256": sha256}
        yield {"uid": name, "status": "ok", "fetch_round": 0, "width": 160, "height": 160, **place}


def measure(folder: Path, num_samples: int) -> dict[str, Any]:
    """Seconds of `curate train-filter`, and of the CPU. Raises SystemExit when it fails."""
    (folder / "recipe.toml").write_text(RECIPE)
    captions = ", ".join(f'"caption_{number}" = 1.0' for number in range(2, NUM_CAPTIONS + 1))
    line = [str(Path(sys.executable).parent / "curate"), "train-filter", "--recipe", str(folder / "recipe.toml")]
    line += ["--root", str(folder / "root"), "--name", "dfn", "--where", "source = 'trusted'"]
    for setting in (f"phases.0.samples={num_samples}", f'data.captions={{"caption" = 1.0, {captions}}}'):
        line += ["--set-training", setting]
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    if subprocess.run(line, check=False).returncode:
        raise SystemExit("curate train-filter failed; what it printed above says why")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - started, "CPU s": cpu_s}


def count(root: Root, source: str) -> int:
    return int(Manifest(root).query(f"select count(*) from manifest where source = '{source}'").fetchall()[0][0])


def curve(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of wrong and of right pairs that lie above each threshold, from (0, 0) to (1, 1)."""
    order = truth[np.argsort(-scores)]
    wrong, right = (np.concatenate([[0], np.cumsum(found)]) / found.sum() for found in (~order, order))
    return wrong, right


def area(scores: np.ndarray, truth: np.ndarray) -> float:
    """The area under the curve: how often a right pair has a higher score than a wrong one."""
    wrong, right = curve(scores, truth)
    return float(np.trapezoid(right, wrong))


def draw_curve(scores: np.ndarray, truth: np.ndarray, file: Path) -> None:
    """The curve as a picture, with the diagonal of chance."""
    image = np.full((SIDE, SIDE, 3), 255, np.uint8)
    wrong, right = curve(scores, truth)
    points = np.stack([wrong * (SIDE - 1), (1 - right) * (SIDE - 1)], axis=1).round().astype(np.int32)
    cv2.line(image, (0, SIDE - 1), (SIDE - 1, 0), (190, 190, 190), 1)
    cv2.polylines(image, [points.reshape(-1, 1, 2)], False, (160, 60, 20), 2, cv2.LINE_AA)
    text = f"AUC {area(scores, truth):.3f}, wrong pairs to the right, right pairs up"
    cv2.putText(image, text, (40, SIDE - 12), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.imwrite(str(file), image)


if __name__ == "__main__":
    main()
