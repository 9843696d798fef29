"""The set of benchmarks/loader.py: photographs at 224 pixels in packed shards, an MDS copy, and a table of 10 M rows.

Everything is made once in the benchmark's folder and found there by the next run.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curation import schema
from curation.progress import bar
from curation.shards import ShardWriter
from curation.storage import Root

SIDE = 224
VERSION = "0123456789ab"
NUM_SAMPLES, PER_SHARD = 20_000, 1_000
EXTRA = pa.schema([("caption", pa.string()), ("source", pa.string()), ("score", pa.float64())])
LARGE_SHARDS = 1_000


def photographs(folder: Path) -> list[tuple[bytes, str]]:
    """(JPEG with sides of 224 pixels, caption) of each photograph of `folder`, as the download stage stores them."""
    captions: dict[str, str] = {}
    for line in (folder / "captions_en.tsv").read_text().splitlines():
        name, _, text = line.split("\t", 2)
        captions.setdefault(name, text)
    found = []
    paths = sorted((folder / "images").glob("*.jpg"))
    with bar(len(paths), "photographs", "picture") as progress:
        for path in paths:
            sink = io.BytesIO()
            picture = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            picture.save(sink, "JPEG", quality=95)
            found.append((sink.getvalue(), captions.get(path.name, "")))
            progress.update()
    return found


def pack_photographs(folder: Path, photographs_folder: Path) -> Root:
    """A root with `NUM_SAMPLES` in shards of 1,000; a sample's `score` is uniform in [0, 1)."""
    root = Root(folder)
    if root.current("train_index"):
        return root
    root.create()
    pictures = photographs(photographs_folder)
    uids = [hashlib.md5(str(number).encode()).hexdigest() for number in range(NUM_SAMPLES)]
    scores = np.random.default_rng(0).random(NUM_SAMPLES)
    rows, sizes = [], {}
    for start in range(0, NUM_SAMPLES, PER_SHARD):
        name = f"{VERSION}-{start // PER_SHARD:06d}.tar"
        rel = f"train/{VERSION}/{name}"
        with tempfile.TemporaryDirectory(dir=root.scratch()) as scratch:
            with ShardWriter(Path(scratch, "shard.tar")) as writer:
                for k in sorted(range(start, start + PER_SHARD), key=uids.__getitem__):
                    rows.append(_add(writer, rel, uids[k], *pictures[k % len(pictures)], scores[k]))
            root.publish(rel, Path(scratch, "shard.tar"))
        sizes[name] = PER_SHARD
    root.publish_json(f"train/{VERSION}/sizes.json", sizes)
    _publish_index(root, rows)
    return root


def _add(writer: ShardWriter, rel: str, uid: str, data: bytes, text: str, score: float) -> dict[str, Any]:
    record = {"uid": uid, "caption": text, "source": "flickr8k", "score": float(score)}
    files = {"jpg": data, "txt": text.encode(), "json": json.dumps(record).encode()}
    places = writer.add(uid, files)
    return record | {
        "shard": rel,
        "offset": places["jpg"].offset,
        "size": places["jpg"].size,
        "sha256": hashlib.sha256(data).hexdigest(),
        "json_offset": places["json"].offset,
        "json_size": places["json"].size,
        "txt_offset": places["txt"].offset,
        "txt_size": places["txt"].size,
    }


def _publish_index(root: Root, rows: list[dict[str, Any]]) -> None:
    part = f"train_index/{VERSION}/{VERSION}-000000.parquet"
    root.publish_parquet(part, pa.Table.from_pylist(rows, pa.schema([*schema.TRAIN_INDEX, *EXTRA])))
    root.publish_current("train_index", VERSION, [part], {}, {})


def mds(folder: Path, root: Root, python: Path) -> Path:
    """The same samples as MDS shards of 32 MiB, written by mosaicml-streaming in its own environment."""
    if not (folder / "index.json").exists():
        shards = Path(root.full(f"train/{VERSION}"))
        script = Path(__file__).with_name("loader_peers.py")
        subprocess.run([python, script, "write-mds", shards, folder], check=True)
    return folder


def large(folder: Path, small: Root, num_rows: int) -> Root:
    """An index of `num_rows` rows over 1,000 shards, which are links to those of `small`."""
    root = Root(folder)
    if root.current("train_index"):
        return root
    root.create()
    current = small.current("train_index")
    assert current is not None  # `small` is packed
    places = small.read_parquet(current["files"][0])
    parts = []
    rng = np.random.default_rng(1)
    per_shard = num_rows // LARGE_SHARDS
    (Path(folder) / "train").mkdir()
    with bar(LARGE_SHARDS, "index of 10 M rows", "shard") as progress:
        for number in range(LARGE_SHARDS):
            rel = f"train/{number:06d}.tar"
            start = number * PER_SHARD % NUM_SAMPLES
            Path(root.full(rel)).symlink_to(small.full(places["shard"][start].as_py()))
            part = f"train_index/{VERSION}/{number:06d}.parquet"
            root.publish_parquet(part, _repeat(places.slice(start, PER_SHARD), rel, per_shard, rng))
            parts.append(part)
            progress.update()
    root.publish_current("train_index", VERSION, parts, {}, {})
    return root


def _repeat(places: pa.Table, rel: str, num_rows: int, rng: np.random.Generator) -> pa.Table:
    """`num_rows` rows with uids of their own that point at the members of one shard, in its order."""
    taken = places.take(np.sort(rng.integers(0, len(places), num_rows)))
    digits = rng.bytes(16 * num_rows).hex()
    uids = [digits[i : i + 32] for i in range(0, len(digits), 32)]
    taken = taken.set_column(taken.column_names.index("uid"), "uid", pa.array(uids))
    taken = taken.set_column(taken.column_names.index("shard"), "shard", pa.array([rel] * num_rows))
    return taken.set_column(taken.column_names.index("score"), "score", pa.array(rng.random(num_rows)))
