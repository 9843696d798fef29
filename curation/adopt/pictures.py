"""The rows of downloads of one adopted shard: each stored picture is read once, hashed, decoded and measured."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import BinaryIO

import pyarrow as pa

from curation.adopt.messages import classify_message
from curation.adopt.rows import SUCCESS, AdoptedRow
from curation.download.rows import failed_row
from curation.download.tombstones import read_tombstones
from curation.errors import UserError
from curation.images.decoder import MAX_IN_FLIGHT, Decoder
from curation.images.probe import PictureError
from curation.images.process import Stored
from curation.recipe.config import DownloadConfig
from curation.schema import DOWNLOADS, DownloadRow, Status
from curation.storage import Root
from curation.tables import downloads_file, samples_file

AS_IT_IS = DownloadConfig(resize_mode="no")
"""Measures a picture without changing it; its limits on pixels and frames hold for adopted pictures too."""
MAX_PICTURE_BYTES = 100_000_000


def end_unit(root: Root, unit: str, rows: Iterable[AdoptedRow]) -> None:
    """Publish downloads/UNIT.parquet with one row for each sample of the unit. `rows` are all rows of its input.

    A picture at offset 0 is a file of its own, as a member of a tar has its header before it.
    """
    uids = set(root.read_parquet(samples_file(unit), ["uid"])["uid"].to_pylist())
    chosen = choose_rows(row for row in rows if row["uid"] in uids)
    measured = refuse_forgotten(root, asyncio.run(_measure_rows(root, chosen)))
    root.publish_parquet(downloads_file(unit), _to_table(measured))


def refuse_forgotten(root: Root, rows: Iterable[DownloadRow]) -> Iterator[DownloadRow]:
    """`rows`, in which a picture that the root was asked to forget is as one on an opt-out list."""
    tombstones = read_tombstones(root)
    for row in rows:
        is_forgotten = tombstones.name_picture(row["sha256"], row["stored_sha256"])
        yield failed_row(row["uid"], Status.OPTED_OUT, "its sha256 was forgotten") if is_forgotten else row


def _to_table(rows: Iterable[DownloadRow]) -> pa.Table:
    return pa.Table.from_pylist(sorted((dict(row) for row in rows), key=lambda row: str(row["uid"])), schema=DOWNLOADS)


def choose_rows(rows: Iterable[AdoptedRow]) -> list[AdoptedRow]:
    """One row for each uid: its first success, else its first row."""
    best: dict[str, AdoptedRow] = {}
    for row in rows:
        earlier = best.get(row["uid"])
        if earlier is None or (row["status"] == SUCCESS and earlier["status"] != SUCCESS):
            best[row["uid"]] = row
    return list(best.values())


async def _measure_rows(root: Root, rows: list[AdoptedRow]) -> list[DownloadRow]:
    measured = [describe_failure(row) for row in rows if not _has_picture(row)]
    # Pictures in the order of the shard: one pass reads it, in large blocks where it lies in a bucket.
    ordered = sorted(filter(_has_picture, rows), key=lambda row: (row["shard"], row["offset"]))
    by_place = [list(group) for _, group in groupby(ordered, lambda row: (row["shard"], row["offset"], row["size"]))]
    decoder, pictures = Decoder(AS_IT_IS), _Pictures(root)
    try:
        for batch in _batch(by_place):
            described = await asyncio.gather(*(_describe_rows(group, pictures, decoder) for group in batch))
            measured += [row for rows_of_picture in described for row in rows_of_picture]
    finally:
        pictures.close()
        await decoder.close()
    return measured


def _has_picture(row: AdoptedRow) -> bool:
    return row["status"] == SUCCESS and row["offset"] is not None


def describe_failure(row: AdoptedRow) -> DownloadRow:
    """The row of one that img2dataset could not fetch, or whose picture its tar does not hold."""
    if row["status"] != SUCCESS:
        return failed_row(row["uid"], classify_message(row["status"], row["error_message"]), row["error_message"])
    name = (row["shard"] or "").rpartition("/")[2]
    detail = f"img2dataset counts a success, and {name} holds no picture {row['key']}"
    return failed_row(row["uid"], Status.LOST_BY_ENGINE, detail)


def _batch(groups: Iterable[list[AdoptedRow]]) -> Iterator[list[list[AdoptedRow]]]:
    """Groups whose pictures are in memory at once: as many as a decoder takes, of MAX_PICTURE_BYTES and one more."""
    batch, num_bytes = list[list[AdoptedRow]](), 0
    for group in groups:
        batch.append(group)
        num_bytes += min(group[0]["size"] or 0, MAX_PICTURE_BYTES)
        if len(batch) == MAX_IN_FLIGHT or num_bytes > MAX_PICTURE_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


class _Pictures:
    """The bytes of pictures where they lie; the shard that was read last stays open."""

    def __init__(self, root: Root) -> None:
        self._root, self._path = root, ""
        self._file: BinaryIO | None = None

    def read(self, path: str, offset: int, size: int) -> bytes:
        if self._file is None or path != self._path:
            self.close()
            self._file, self._path = self._root.open(path), path
        self._file.seek(offset)
        return self._file.read(size)

    def read_file(self, path: str) -> bytes:
        """The whole file, whatever its size is by now. Raises PictureError when it cannot be read any more."""
        try:
            data = self._root.read_bytes(path, 0, MAX_PICTURE_BYTES + 1)
        except (OSError, UserError) as error:
            said = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise PictureError(Status.LOST_BY_ENGINE, f"{path} cannot be read since it was listed: {said}") from error
        if not data:
            raise PictureError(Status.EMPTY, f"{path} has no bytes")
        if len(data) > MAX_PICTURE_BYTES:
            raise PictureError(Status.TOO_LARGE, f"more than {MAX_PICTURE_BYTES:,} bytes")
        return data

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None


async def _describe_rows(rows: list[AdoptedRow], pictures: _Pictures, decoder: Decoder) -> list[DownloadRow]:
    """The rows of one picture, which may have several captions."""
    shard, offset, size = rows[0]["shard"] or "", rows[0]["offset"] or 0, rows[0]["size"] or 0
    try:
        if size > MAX_PICTURE_BYTES:
            raise PictureError(Status.TOO_LARGE, f"{size:,} bytes")
        data = pictures.read(shard, offset, size) if offset else pictures.read_file(shard)
        stored = await decoder.decode(data)
    except PictureError as error:
        return [failed_row(row["uid"], error.status, error.detail) for row in rows]
    described = [describe_picture(row, data, stored, is_original=not offset) for row in rows]
    for one in described:
        one["shard"], one["offset"], one["size"] = shard, offset, len(data)
    return described


def has_original(row: AdoptedRow) -> bool:
    """Whether nothing says that the picture was another one before img2dataset stored it."""
    return row["sha256"] is None and row["original_width"] is None


def describe_picture(row: AdoptedRow, data: bytes, stored: Stored, is_original: bool = False) -> DownloadRow:
    """The row of a picture that img2dataset stored as `data`; what it did not keep of the fetched bytes is null.

    img2dataset keeps the size of the picture as it was fetched and, when asked, its sha256. Of other pictures the
    bytes that are there are the original ones (`is_original`).
    """
    stored_sha256 = hashlib.sha256(data).hexdigest()
    sha256 = stored_sha256 if is_original else row["sha256"]
    untouched = sha256 == stored_sha256
    width, height = row["original_width"], row["original_height"]
    known = width is not None and height is not None and width > 0 and height > 0
    return {
        "uid": row["uid"],
        "status": Status.OK.value,
        "detail": None,
        "sha256": sha256,
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
