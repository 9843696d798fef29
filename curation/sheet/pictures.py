"""Thumbnails for a contact sheet, decoded in processes of their own as those of `curate browse` are."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from curation.browse.pictures import Pictures, Shown
from curation.browse.wall import Row
from curation.storage import Root

BLURRED_SIDE = 8
"""Pixels of the longer side to which a picture is reduced before it is enlarged again: nothing of it is left to see."""


def make_pictures(root: Root, rows: Sequence[Row]) -> list[Shown]:
    """A small picture of each of `rows`, or a drawing that says why there is none; from wherever this is called."""
    with ThreadPoolExecutor(1) as pool:  # a notebook's own thread runs an event loop already
        return pool.submit(asyncio.run, _show_all(root, rows)).result()


async def _show_all(root: Root, rows: Sequence[Row]) -> list[Shown]:
    pictures = Pictures(root)
    try:
        pictures.remember(list(rows))
        return list(await asyncio.gather(*(pictures.show(row["uid"]) for row in rows)))
    finally:
        await pictures.close()


def blur(shown: Shown) -> Shown:
    """`shown`, a JPEG, as a JPEG of the same shape without details: no style sheet is needed to hide them."""
    with Image.open(io.BytesIO(shown.data)) as picture:
        small = picture.convert("RGB")
        size = small.size
        small.thumbnail((BLURRED_SIDE, BLURRED_SIDE))
    sink = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(sink, "JPEG", quality=50)
    return Shown(sink.getvalue(), "image/jpeg")
