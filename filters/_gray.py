"""Stored pictures as small grey arrays, decoded once for all filters of a batch that look at pixels."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image

MAX_BATCH = 256
"""Pictures a batch may hold for the cache to serve every filter of it; jobs/score.py keeps below."""


@functools.lru_cache(maxsize=MAX_BATCH)
def gray(image: bytes, max_side: int) -> np.ndarray | None:
    """Luma of `image` as uint8 `[h, w]`, the longer side brought down to `max_side` pixels; None if undecodable."""
    try:
        with Image.open(io.BytesIO(image)) as picture:
            picture.draft("L", (max_side, max_side))
            luma = picture.convert("L")
            luma.thumbnail((max_side, max_side), Image.Resampling.BOX)
            return np.asarray(luma)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # SyntaxError: Pillow's broken PNGs
        return None
