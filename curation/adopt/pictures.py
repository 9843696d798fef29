"""The downloads rows of one adopted shard: every stored picture read once, hashed, decoded and measured in place."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from typing import Any, BinaryIO

import pyarrow as pa

from curation.adopt.folder import Shard, members, picture_of, read
from curation.adopt.messages import status_of
from curation.download.unit import Row, failed
from curation.images.decoder import MAX_IN_FLIGHT, Decoder
from curation.images.probe import PictureError
from curation.images.process import Stored
from curation.recipe.config import DownloadConfig
from curation.schema import DOWNLOADS, Status
from curation.shards import Member
from curation.storage import Root
from curation.tables import downloads_file, samples_file

AS_IT_IS = DownloadConfig(resize_mode="no")
"""Measures a picture without changing it; its limits on pixels and frames hold for adopted pictures too."""
SUCCESS = "success"


def end_unit(root: Root, unit: str, shard: Shard) -> None:
    """Publish downloads/UNIT.parquet: one row for each sample of the unit. Nothing to do when it stands."""
    rel = downloads_file(unit)
    if root.exists(rel):
        return
    uids = set(root.read_parquet(samples_file(unit), ["uid"])["uid"].to_pylist())
    chosen = best_of(row for row in read(root, shard).table.to_pylist() if row["uid"] in uids)
    rows = asyncio.run(_measured(root, shard, chosen))
    root.publish_parquet(rel, pa.Table.from_pylist(sorted(rows, key=lambda row: str(row["uid"])), schema=DOWNLOADS))


def best_of(rows: Iterable[Row]) -> list[Row]:
    """One row a uid: the first that was a success, else the first."""
    best: dict[str, Row] = {}
    for row in rows:
        held = best.get(row["uid"])
        if held is None or (row["status"] == SUCCESS and held["status"] != SUCCESS):
            best[row["uid"]] = row
    return list(best.values())


async def _measured(root: Root, shard: Shard, rows: list[Row]) -> list[Row]:
    found = members(root, shard) if any(row["status"] == SUCCESS for row in rows) else {}
    places = {key: picture for key, files in found.items() if (picture := picture_of(files)) is not None}
    # In the order of the tar: one pass over it, in large blocks where it lies in a bucket.
    ordered = sorted(rows, key=lambda row: places[row["key"]].offset if row["key"] in places else -1)
    decoder, ended = Decoder(AS_IT_IS), list[Row]()
    try:
        with root.open(shard.path) as tar:
            for start in range(0, len(ordered), MAX_IN_FLIGHT):
                some = ordered[start : start + MAX_IN_FLIGHT]
                ended += await asyncio.gather(
                    *(_ended(tar, shard, row, places.get(row["key"]), decoder) for row in some)
                )
    finally:
        await decoder.close()
    return ended


async def _ended(tar: BinaryIO, shard: Shard, row: Row, place: Member | None, decoder: Decoder) -> Row:
    if row["status"] != SUCCESS:
        return failed(row["uid"], status_of(row["status"], row["error_message"]), row["error_message"] or "")
    if place is None:
        detail = f"img2dataset counts a success, and {shard.name}.tar holds no picture {row['key']}"
        return failed(row["uid"], Status.LOST_BY_ENGINE, detail)
    tar.seek(place.offset)
    data = tar.read(place.size)
    try:
        stored = await decoder.decode(data)
    except PictureError as error:
        return failed(row["uid"], error.status, error.detail)
    return described(row, data, stored) | {"shard": shard.path, "offset": place.offset, "size": place.size}


def described(row: Row, data: bytes, stored: Stored) -> dict[str, Any]:
    """The row of a picture that img2dataset stored as `data`; what only the fetched bytes would tell is null.

    Of the picture as it was fetched img2dataset keeps the size and, when asked, the sha256.
    """
    stored_sha256 = hashlib.sha256(data).hexdigest()
    untouched = row["sha256"] == stored_sha256
    width, height = row["original_width"], row["original_height"]
    known = width is not None and height is not None and width > 0 and height > 0
    return dict.fromkeys(DOWNLOADS.names) | {
        "uid": row["uid"],
        "status": Status.OK.value,
        "sha256": row["sha256"],
        "pixel_sha256": stored.pixel_sha256,
        "phash": stored.phash,
        "format": stored.format if untouched else None,
        "num_bytes": len(data) if untouched else None,
        "width": width if known else stored.width,
        "height": height if known else stored.height,
        "stored_width": stored.stored_width,
        "stored_height": stored.stored_height,
        "sharpness": stored.sharpness,
        "entropy": stored.entropy,
        "stored_sha256": stored_sha256,
    }
