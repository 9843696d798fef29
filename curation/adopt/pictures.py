"""The rows of downloads of one adopted shard: each stored picture is read once, hashed, decoded and measured."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from typing import BinaryIO

import pyarrow as pa

from curation.adopt.folder import Img2datasetRow, Shard, find_picture, list_members, read_rows
from curation.adopt.messages import classify_message
from curation.download.rows import failed_row
from curation.images.decoder import MAX_IN_FLIGHT, Decoder
from curation.images.probe import PictureError
from curation.images.process import Stored
from curation.recipe.config import DownloadConfig
from curation.schema import DOWNLOADS, DownloadRow, Status
from curation.shards import Member
from curation.storage import Root
from curation.tables import downloads_file, samples_file

AS_IT_IS = DownloadConfig(resize_mode="no")
"""Measures a picture without changing it; its limits on pixels and frames hold for adopted pictures too."""
SUCCESS = "success"


def end_unit(root: Root, unit: str, shard: Shard) -> None:
    """Publish downloads/UNIT.parquet with one row for each sample of the unit, unless that file stands already."""
    rel = downloads_file(unit)
    if root.exists(rel):
        return
    uids = set(root.read_parquet(samples_file(unit), ["uid"])["uid"].to_pylist())
    chosen = choose_rows(row for row in read_rows(root, shard).table.to_pylist() if row["uid"] in uids)
    rows = asyncio.run(_measure_rows(root, shard, chosen))
    root.publish_parquet(rel, _to_table(rows))


def _to_table(rows: Iterable[DownloadRow]) -> pa.Table:
    return pa.Table.from_pylist(sorted((dict(row) for row in rows), key=lambda row: str(row["uid"])), schema=DOWNLOADS)


def choose_rows(rows: Iterable[Img2datasetRow]) -> list[Img2datasetRow]:
    """One row for each uid: its first success, else its first row."""
    best: dict[str, Img2datasetRow] = {}
    for row in rows:
        earlier = best.get(row["uid"])
        if earlier is None or (row["status"] == SUCCESS and earlier["status"] != SUCCESS):
            best[row["uid"]] = row
    return list(best.values())


async def _measure_rows(root: Root, shard: Shard, rows: list[Img2datasetRow]) -> list[DownloadRow]:
    by_key = list_members(root, shard) if any(row["status"] == SUCCESS for row in rows) else {}
    places = {key: picture for key, files in by_key.items() if (picture := find_picture(files)) is not None}
    # Rows in the order of the tar: one pass reads it, in large blocks where it lies in a bucket.
    ordered = sorted(rows, key=lambda row: places[row["key"]].offset if row["key"] in places else -1)
    decoder, measured = Decoder(AS_IT_IS), list[DownloadRow]()
    try:
        with root.open(shard.path) as tar:
            for start in range(0, len(ordered), MAX_IN_FLIGHT):
                batch = ordered[start : start + MAX_IN_FLIGHT]
                measured += await asyncio.gather(
                    *(_measure_row(tar, shard, row, places.get(row["key"]), decoder) for row in batch)
                )
    finally:
        await decoder.close()
    return measured


async def _measure_row(
    tar: BinaryIO, shard: Shard, row: Img2datasetRow, place: Member | None, decoder: Decoder
) -> DownloadRow:
    if row["status"] != SUCCESS:
        return failed_row(row["uid"], classify_message(row["status"], row["error_message"]), row["error_message"])
    if place is None:
        detail = f"img2dataset counts a success, and {shard.name}.tar holds no picture {row['key']}"
        return failed_row(row["uid"], Status.LOST_BY_ENGINE, detail)
    tar.seek(place.offset)
    data = tar.read(place.size)
    try:
        stored = await decoder.decode(data)
    except PictureError as error:
        return failed_row(row["uid"], error.status, error.detail)
    described = describe_picture(row, data, stored)
    described["shard"], described["offset"], described["size"] = shard.path, place.offset, place.size
    return described


def describe_picture(row: Img2datasetRow, data: bytes, stored: Stored) -> DownloadRow:
    """The row of a picture that img2dataset stored as `data`; what it did not keep of the fetched bytes is null.

    img2dataset keeps the size of the picture as it was fetched and, when asked, its sha256.
    """
    stored_sha256 = hashlib.sha256(data).hexdigest()
    untouched = row["sha256"] == stored_sha256
    width, height = row["original_width"], row["original_height"]
    known = width is not None and height is not None and width > 0 and height > 0
    return {
        "uid": row["uid"],
        "status": Status.OK.value,
        "detail": None,
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
        "shard": None,
        "offset": None,
        "size": None,
        "stored_sha256": stored_sha256,
        "fetch_round": None,
    }
