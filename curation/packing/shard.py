"""One train shard: its pictures with their texts as plain webdataset, and its part of the index."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.packing.rows import build_record, encode_texts
from curation.packing.version import Version
from curation.scratch import name_scratch
from curation.shards import ShardWriter, file_sha256, picture_extension, read_member
from curation.storage import Root

NUM_READERS = 16
ROWS_AHEAD = 128
"""Rows whose pictures a task holds at a time."""


def write_shard(version: Version, number: int, table: pa.Table) -> dict[str, Any]:
    """Write and publish one shard, then its part of the index; only counted when both stand. What the shard holds.

    `table` has the rows of the shard in the order of their uids and the columns of `version.rows`.
    """
    root, rel, part = version.root, version.shard(number), version.part(number)
    if root.exists(part) and root.exists(rel):
        return {"num_samples": len(table), "num_bytes": root.size(rel), "sha256": file_sha256(root, rel)}
    rows = []
    with tempfile.TemporaryDirectory(prefix=name_scratch(root, "shard"), dir=root.scratch()) as folder:
        path = Path(folder, "shard.tar")
        with ShardWriter(path) as writer:
            for row, data in _read_pictures(root, table):
                rows.append(_add_sample(version, writer, row, data, rel))
        root.publish(rel, path)
    root.publish_parquet(part, pa.Table.from_pylist(rows, schema=version.columns))
    return {"num_samples": len(rows), "num_bytes": writer.num_bytes, "sha256": writer.sha256}


def _read_pictures(root: Root, table: pa.Table) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each row with its picture, several requests at a time: from an object store each one waits."""

    def picture(row: dict[str, Any]) -> bytes:
        return read_member(root, row["shard"], row["offset"], row["size"], row["stored_sha256"])

    with ThreadPoolExecutor(NUM_READERS) as pool:
        for start in range(0, len(table), ROWS_AHEAD):
            rows = table.slice(start, ROWS_AHEAD).to_pylist()
            yield from zip(rows, pool.map(picture, rows), strict=True)


def _add_sample(version: Version, writer: ShardWriter, row: dict[str, Any], data: bytes, rel: str) -> dict[str, Any]:
    """Append one sample to the shard; its row of the index."""
    record = build_record(row, version.pack)
    extension = picture_extension(data)
    members = writer.add(row["uid"], {extension: data, **encode_texts(record)})
    places = {f"{e}_{what}": getattr(members[e], what) for e in ("txt", "json") for what in ("offset", "size")}
    picture = members[extension]
    return record | places | {"shard": rel, "offset": picture.offset, "size": picture.size}
