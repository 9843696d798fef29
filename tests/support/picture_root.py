"""A root whose downloads are given pictures, written as the download stage would, without a network."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curation.images.process import process
from curation.recipe.config import DownloadConfig
from curation.schema import DOWNLOADS, SAMPLES, uid
from curation.shards import ShardWriter, picture_extension
from curation.storage import Root

Fetched = tuple[str, bytes, Mapping[str, Any]]
"""Caption, bytes as fetched (none for a picture that never came), more columns of samples."""
DOWNLOAD = DownloadConfig(image_size=64)


def scene(seed: int, size: int = 96) -> Image.Image:
    """A picture of smooth random colours: no two seeds look alike, and copies survive JPEG and resizing."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return small.resize((size, size), Image.Resampling.BICUBIC)


def fill(root: Root, pictures: Sequence[Fetched], num_units: int = 2) -> list[str]:
    """Write `pictures` into units; their uids, in order."""
    rows = []
    for number, (caption, data, more) in enumerate(pictures):
        url = f"http://host{number % 3}.test/{number}.jpg"
        sample = {**dict.fromkeys(SAMPLES.names), "uid": uid(url, caption), "url": url, "caption": caption}
        rows.append((sample | {"source": "laion" if number % 2 else "coyo", "domain": "test"} | dict(more), data))
    for number in range(num_units):
        _fill_unit(root, f"0123abcd-{number:06d}", rows[number::num_units])
    root.publish_json("plans/0123abcd.json", {"number": 0, "inputs": []})
    return [sample["uid"] for sample, _ in rows]


def _fill_unit(root: Root, unit: str, rows: Sequence[tuple[dict[str, Any], bytes]]) -> None:
    ordered = sorted(rows, key=lambda row: row[0]["uid"])
    downloads = []
    path = Path(root.scratch(), "shard.tar")
    with ShardWriter(path) as writer:
        for sample, data in ordered:
            downloads.append(_store(writer, sample["uid"], data))
    shard = f"raw/{unit}-{writer.sha256[:16]}.tar"
    root.publish(shard, path)
    for row in downloads:
        row["shard"] = shard if row["status"] == "ok" else None
    samples = [sample for sample, _ in ordered]
    root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(samples, SAMPLES))
    root.publish_parquet(f"downloads/{unit}.parquet", pa.Table.from_pylist(downloads, DOWNLOADS))


def _store(writer: ShardWriter, name: str, data: bytes) -> dict[str, Any]:
    row: dict[str, Any] = {**dict.fromkeys(DOWNLOADS.names), "uid": name}
    if not data:
        return row | {"status": "http_404"}
    stored = process(data, DOWNLOAD)
    member = next(iter(writer.add(name, {picture_extension(stored.data): stored.data}).values()))
    measured = {column: getattr(stored, column) for column in DOWNLOADS.names if hasattr(stored, column)}
    return row | measured | {
        "status": "ok",
        "sha256": hashlib.sha256(data).hexdigest(),
        "num_bytes": len(data),
        "offset": member.offset,
        "size": member.size,
        "stored_sha256": hashlib.sha256(stored.data).hexdigest(),
    }  # fmt: skip


def set_vectors(root: Root, vectors: Mapping[str, np.ndarray], missing: Sequence[str] = ()) -> None:
    """Write `vectors` (by uid) as the embed stage would; those of `missing` are left out of the tables."""
    for unit in root.units("downloads"):
        rows = root.read_parquet(f"downloads/{unit}.parquet", ["uid", "status"]).to_pylist()
        uids = [row["uid"] for row in rows if row["status"] == "ok" and row["uid"] not in missing]
        sink = io.BytesIO()
        np.save(sink, np.array([vectors[name] for name in uids], np.float16))
        root.publish(f"embeddings/img_emb/img_emb_{unit}.npy", sink.getvalue())
        root.publish_parquet(f"embeddings/metadata/metadata_{unit}.parquet", pa.table({"uid": uids}))
