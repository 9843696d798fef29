"""The downloads of benchmarks.scale: what a download would have written of samples that stand, with one tiny picture.

All rows name the same place in one shard, so that what grows is the tables alone.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from curation import schema
from curation.duplicates.phash import NUM_SET_BITS
from curation.progress import bar
from curation.shards import ShardWriter
from curation.storage import Root
from curation.sums.seal import seal_tables
from curation.tables import downloads_file, samples_file
from curation.workers import Workers

SHARE_CAME, SHARE_COPIED, SHARE_NEAR = 0.75, 0.02, 0.03
"""Of the rows: pictures that came; of these: the same bytes as an earlier one, a hash near that of an earlier one."""


def write_downloads(root: Root, num_processes: int) -> None:
    """A row of downloads for every sample of `root`, unless they stand; seals the table."""
    units = root.units("samples")
    missing = sorted(set(units) - set(root.units("downloads")))
    if not missing:
        return
    place = _write_shard(root)
    with Workers(num_processes) as workers, bar(len(missing), "make downloads", "unit") as progress:
        for _ in workers.map(partial(_write_unit, root, place), missing):
            progress.update()
    root.begin_stage("downloads", {})
    seal_tables(root, ["downloads"], {})


def _write_unit(root: Root, place: tuple[str, int, bytes], unit: str) -> None:
    uids = root.read_parquet(samples_file(unit), ["uid"])["uid"].to_pylist()
    root.publish_parquet(downloads_file(unit), _describe(uids, int(unit[-6:]), place))


def _write_shard(root: Root) -> tuple[str, int, bytes]:
    """Path of the one shard, offset of its picture, and the picture."""
    sink = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(sink, "JPEG")
    with tempfile.TemporaryDirectory() as folder:
        with ShardWriter(Path(folder, "shard.tar")) as writer:
            offset = writer.add("0" * 32, {"jpg": sink.getvalue()})["jpg"].offset
        data = Path(folder, "shard.tar").read_bytes()
    rel = f"raw/00000000-000000-{hashlib.sha256(data).hexdigest()[:16]}.tar"
    root.publish(rel, data)
    return rel, offset, sink.getvalue()


def _describe(uids: list[str], number: int, place: tuple[str, int, bytes]) -> pa.Table:
    rng, n = np.random.default_rng(number), len(uids)
    rel, offset, picture = place
    came = rng.random(n) < SHARE_CAME
    sources = np.where(rng.random(n) < SHARE_COPIED, rng.integers(0, n, n), np.arange(n))
    hashes = _draw_hashes(rng, n)
    near = np.where(rng.random(n) < SHARE_NEAR, rng.integers(0, n, n), np.arange(n))
    hashes = hashes[near][sources]
    shas = np.array([hashlib.sha256(uid.encode()).hexdigest() for uid in uids], object)[sources]
    values = {
        "sha256": shas,
        "pixel_sha256": shas,
        "phash": np.array([f"{value:016x}" for value in hashes.tolist()], object),
        "format": np.full(n, "jpeg", object),
        "num_bytes": rng.integers(3_000, 300_000, n),
        "width": rng.integers(64, 2_000, n).astype(np.int32),
        "height": rng.integers(64, 2_000, n).astype(np.int32),
        "sharpness": rng.uniform(0, 500, n).astype(np.float32),
        "entropy": rng.uniform(4, 8, n).astype(np.float32),
        "shard": np.full(n, rel, object),
        "offset": np.full(n, offset),
        "size": np.full(n, len(picture)),
        "stored_sha256": np.full(n, hashlib.sha256(picture).hexdigest(), object),
    }
    columns = {name: pa.nulls(n, schema.DOWNLOADS.field(name).type) for name in schema.DOWNLOADS.names}
    columns |= {name: pa.array(value, mask=~came) for name, value in values.items()}
    columns |= {"uid": pa.array(uids), "status": pa.array(np.where(came, "ok", "http_404").astype(object))}
    columns["fetch_round"] = pa.array(np.zeros(n, np.int32))
    return pa.table(columns, schema.DOWNLOADS)


def _draw_hashes(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random perceptual hashes, uint64 `[n]`, with as many bits set as those of pictures."""
    bits = np.zeros((n, 64), np.uint8)
    np.put_along_axis(bits, np.argpartition(rng.random((n, 64)), NUM_SET_BITS, axis=1)[:, :NUM_SET_BITS], 1, axis=1)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)
