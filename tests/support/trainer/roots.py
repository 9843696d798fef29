"""Roots with packed shards of tiny or real pictures, made without Spark, for tests of the loader."""

from __future__ import annotations

import hashlib
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curation import schema
from curation.shards import ShardWriter
from curation.storage import Root

VERSION = "0123456789ab"
SOURCES = ("laion", "coyo", "commonpool")
EXTRA = pa.schema(
    [
        ("caption", pa.string()),
        ("top_caption", pa.string()),
        ("source", pa.string()),
        ("score", pa.int32()),
    ]
)


def jpeg(seed: int, width: int = 40, height: int = 32) -> bytes:
    """A JPEG of smooth noise, another one for each seed."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    sink = io.BytesIO()
    small.resize((width, height), Image.Resampling.BICUBIC).save(sink, "JPEG", quality=90)
    return sink.getvalue()


def caption(number: int) -> str | None:
    return None if number % 10 == 9 else f"caption of {number}"


def packed(root: Root, num_rows: int, *, rows_per_shard: int = 16, pictures: bool = False, seed: int = 0) -> list[str]:
    """Publish train shards, their index and sizes.json; the uids in order of the shards.

    `score` of row k is k, its source is one of three in shares of 1/2, 1/3 and 1/6, every tenth caption is null and
    `top_caption` is there for even rows. Without `pictures` a picture is its uid as bytes, repeated up to 97 times.
    """
    root.create()
    uids = sorted(schema.uid(f"http://{seed}.test/{number}", caption(number)) for number in range(num_rows))
    files, rows, sizes = [], [], {}
    for number, start in enumerate(range(0, num_rows, rows_per_shard)):
        name = f"{VERSION}-{number:06d}"
        part = range(start, min(start + rows_per_shard, num_rows))
        rows += _shard(root, f"train/{VERSION}/{name}.tar", [(k, uids[k]) for k in part], pictures)
        sizes[f"{name}.tar"] = len(part)
    files = [f"train/{VERSION}/{name}" for name in (*sizes, "sizes.json")]
    root.publish_json(f"train/{VERSION}/sizes.json", sizes)
    root.publish_current("train", VERSION, files, {}, {})
    table = f"train_index/{VERSION}/{VERSION}-000000.parquet"
    root.publish_parquet(table, pa.Table.from_pylist(rows, pa.schema([*schema.TRAIN_INDEX, *EXTRA])))
    root.publish_current("train_index", VERSION, [table], {}, {})
    return uids


def picture(number: int, uid: str, pictures: bool) -> bytes:
    return jpeg(number, 40 + number % 7, 32 + number % 5) if pictures else uid.encode() * (1 + number % 97)


def _shard(root: Root, rel: str, members: list[tuple[int, str]], pictures: bool) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory(dir=root.scratch()) as folder:
        path = Path(folder, "shard.tar")
        with ShardWriter(path) as writer:
            for number, uid in members:
                rows.append(_add(writer, rel, number, uid, picture(number, uid, pictures)))
        root.publish(rel, path)
    return rows


def _add(writer: ShardWriter, rel: str, number: int, uid: str, data: bytes) -> dict[str, Any]:
    text = caption(number) or ""
    added = writer.add(uid, {"jpg": data, "txt": text.encode(), "json": b"{}"})
    return {
        "uid": uid,
        "shard": rel,
        "offset": added["jpg"].offset,
        "size": added["jpg"].size,
        "sha256": hashlib.sha256(data).hexdigest(),
        "json_offset": added["json"].offset,
        "json_size": added["json"].size,
        "txt_offset": added["txt"].offset,
        "txt_size": added["txt"].size,
        "caption": caption(number),
        "top_caption": f"top caption of {number}" if number % 2 == 0 else None,
        "source": SOURCES[(number % 6 > 2) + (number % 6 > 4)],
        "score": number,
    }
