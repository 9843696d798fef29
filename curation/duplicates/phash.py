"""The perceptual hash of a picture: 64 bits of its low frequencies, the ones that COYO-700M publishes.

The algorithm is pHash's as the imagehash package computes it (COYO's `image_phash`): grey, 32×32, DCT-II, the 8×8
lowest frequencies, one bit each for "above the median".
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.fft import dctn

SIDE = 32
"""The picture is shrunk to SIDE × SIDE before the transform."""
KEPT = 8
"""KEPT × KEPT lowest frequencies become bits."""


def phash(image: np.ndarray) -> int:
    """64-bit hash of `image` (uint8, `[h, w]` grey or `[h, w, 3]` RGB). First bit is the most significant."""
    small = Image.fromarray(image).convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    low = dctn(np.asarray(small, dtype=np.float64), type=2)[:KEPT, :KEPT]
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


NUM_SET_BITS = KEPT * KEPT // 2
"""Bits set in the hash of a picture whose frequencies all differ. Symmetric and plain pictures have ties at the median,
and the bits of such frequencies mean nothing."""
