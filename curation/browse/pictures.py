"""Pictures for the page: read as every reader of a root reads them, decoded in processes of their own, and made small.

What cannot be shown is a drawing that says why, so that a damaged shard hides no other picture.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

from curation.errors import UserError
from curation.images.decoder import Decoders, end_idle
from curation.images.probe import PictureError
from curation.recipe.config import FORMATS, DownloadConfig
from curation.schema import Status
from curation.shards import read_member
from curation.storage import Root

SMALL_SIDE, LARGE_SIDE = 320, 1_600
"""Pixels of the longer side of a picture on the wall, and of the one that is looked at."""

MAX_PIXELS = 100_000_000
MAX_PLACES = 200_000
MAX_CACHED_BYTES = 96 << 20
NUM_READERS = 4


class Place(NamedTuple):
    """Where the bytes of a picture lie, and how its download ended."""

    status: str | None
    shard: str | None
    offset: int | None
    size: int | None
    stored_sha256: str | None


@dataclass(frozen=True)
class Shown:
    """What the page gets for a picture: JPEG bytes, or a drawing that says why there is none."""

    data: bytes
    content_type: str


class Pictures:
    """Thumbnails of `root` by uid, of rows that were `remember`ed. Belongs to the event loop that makes it."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._pool = ThreadPoolExecutor(NUM_READERS)
        self._places: OrderedDict[str, Place] = OrderedDict()
        self._cache: OrderedDict[str, Shown] = OrderedDict()
        self._num_cached_bytes = 0
        self._small, self._large = (Decoders(_size_of(side)) for side in (SMALL_SIDE, LARGE_SIDE))

    def remember(self, rows: list[dict[str, Any]]) -> None:
        """Keep where the pictures of `rows` lie; rows that were last seen long ago are forgotten."""
        for row in rows:
            self._places[row["uid"]] = Place(*(row.get(name) for name in Place._fields))
            self._places.move_to_end(row["uid"])
        while len(self._places) > MAX_PLACES:
            self._places.popitem(last=False)

    def knows(self, uid: str) -> bool:
        """Whether the place of `uid` is remembered."""
        return uid in self._places

    async def show(self, uid: str, *, large: bool = False) -> Shown:
        """The picture of `uid`, which is known."""
        key = f"{uid} {large}"
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        shown = await self._make(self._places[uid], self._large if large else self._small)
        self._keep(key, shown)
        return shown

    async def _make(self, place: Place, decoders: Decoders) -> Shown:
        if place.status != Status.OK.value or place.shard is None:
            return draw_placeholder(place.status or "no download")
        try:
            data = await asyncio.get_running_loop().run_in_executor(self._pool, self._read, place)
            return Shown((await decoders.decode(data)).data, "image/jpeg")
        except PictureError as error:
            return draw_placeholder(error.status.value)
        except (UserError, OSError, RuntimeError):
            return draw_placeholder("unreadable")

    def _read(self, place: Place) -> bytes:
        assert place.shard is not None
        return read_member(self._root, place.shard, place.offset or 0, place.size or 0, place.stored_sha256)

    def _keep(self, key: str, shown: Shown) -> None:
        if key not in self._cache:
            self._cache[key] = shown
            self._num_cached_bytes += len(shown.data)
        while self._num_cached_bytes > MAX_CACHED_BYTES:
            self._num_cached_bytes -= len(self._cache.popitem(last=False)[1].data)

    async def close(self) -> None:
        """End the decoding processes and the threads."""
        for decoders in (self._small, self._large):
            await decoders.close()
        end_idle()
        self._pool.shutdown()


def _size_of(side: int) -> DownloadConfig:
    return DownloadConfig(
        image_size=side,
        resize_mode="keep_ratio_largest",
        only_if_bigger=True,
        encode_quality=84,
        formats=FORMATS,
        max_pixels=MAX_PIXELS,
        measure=False,
    )


def draw_placeholder(status: str) -> Shown:
    """A drawing that says `status`."""
    text = escape(status.replace("_", " ")[:40])
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="240" height="180" viewBox="0 0 240 180">'
        '<rect width="240" height="180" fill="#8884"/><text x="120" y="94" text-anchor="middle" fill="#888" '
        f'font-family="system-ui, sans-serif" font-size="15">{text}</text></svg>'
    )
    return Shown(svg.encode(), "image/svg+xml")
