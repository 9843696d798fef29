"""Hashes and statistics of every decoded picture, taken while its pixels are in memory."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from curation.images.resize import scale

SHARPNESS_SIDE = 256
"""Pictures are scaled to this longest side for sharpness, so that it does not depend on the stored size."""
COLOUR_STEP = 8
PHASH_SIDE, PHASH_KEPT = 32, 8
"""pHash: the picture at PHASH_SIDE², the PHASH_KEPT² lowest frequencies of its DCT."""
MAX_MATRIX_SIDE = 1024
"""Longer sides are halved first: a matrix takes 32 bytes for each pixel of a side, and all matrices are cached."""
LANCZOS_LOBES = 3


@dataclass(kw_only=True)
class Measures:
    """Hashes and statistics of the pixels; None where the picture was not decoded."""

    phash: str | None = None
    pixel_sha256: str | None = None
    sharpness: float | None = None
    entropy: float | None = None


def measure(image: np.ndarray, width: int, height: int, encoded_sha256: str | None = None) -> Measures:
    """All measures of `image` (BGR uint8 `[h, w, 3]`), decoded from a picture of `width` × `height`.

    `encoded_sha256` is the sha256 of `image` as it was encoded here, which identifies its pixels as well.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return Measures(
        phash=phash(gray),
        pixel_sha256=encoded_sha256 or pixel_sha256(image, gray, (width, height)),
        sharpness=sharpness(gray),
        entropy=entropy(gray),
    )


def pixel_sha256(image: np.ndarray, gray: np.ndarray, size: tuple[int, int]) -> str:
    """The identity of what is shown: the size, the grey of every pixel, and the colours of every COLOUR_STEP-th row.

    That is a third of the bytes of all colours, and recolouring a picture changes more than a few rows.
    """
    digest = hashlib.sha256(f"{size}{image.shape}".encode())
    digest.update(np.ascontiguousarray(gray).data)
    digest.update(np.ascontiguousarray(image[::COLOUR_STEP]).data)
    return digest.hexdigest()


def phash(gray: np.ndarray) -> str:
    """The perceptual hash that `curation.duplicates.phash` defines, of `gray` uint8 `[h, w]`, as 16 hex digits.

    Resampling and transform are linear, so one matrix for each side does both in a tenth of the time. Intermediate grey
    levels are not rounded and large pictures are halved first, which changes a bit near the median now and then.
    """
    while min(gray.shape) >= 4 * PHASH_SIDE:
        size = (gray.shape[1] + 1) // 2, (gray.shape[0] + 1) // 2
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_LINEAR)  # at a half, the mean of four
    while max(gray.shape) > MAX_MATRIX_SIDE:  # thin pictures
        width, height = ((n + 1) // 2 if n == max(gray.shape) else n for n in gray.shape[::-1])
        gray = cv2.resize(gray, (width, height), interpolation=cv2.INTER_LINEAR)
    low = _frequencies(gray.shape[0]) @ gray.astype(np.float32) @ _frequencies(gray.shape[1]).T
    values = low.ravel()
    ranked = np.sort(values)
    median = (ranked[len(ranked) // 2 - 1] + ranked[len(ranked) // 2]) / 2  # np.median takes as long as all the rest
    return np.packbits(values > median).tobytes().hex()


@lru_cache(MAX_MATRIX_SIDE)
def _frequencies(side: int) -> np.ndarray:
    """float32 `[PHASH_KEPT, side]`: Lanczos to PHASH_SIDE as Pillow samples it, then the lowest rows of a DCT-II."""
    scaling = side / PHASH_SIDE
    stretch = max(scaling, 1.0)
    centres = (np.arange(PHASH_SIDE)[:, None] + 0.5) * scaling
    support = LANCZOS_LOBES * stretch
    first = np.maximum(0, np.floor(centres - support + 0.5))
    last = np.minimum(side, np.floor(centres + support + 0.5))
    places = np.arange(side)[None, :]
    distance = (places + 0.5 - centres) / stretch
    weights = np.sinc(distance) * np.sinc(distance / LANCZOS_LOBES) * ((places >= first) & (places < last))
    weights /= weights.sum(axis=1, keepdims=True)
    k, n = np.arange(PHASH_KEPT)[:, None], np.arange(PHASH_SIDE)[None, :]
    waves = np.cos(np.pi * k * (2 * n + 1) / (2 * PHASH_SIDE))
    return np.asarray(waves @ weights, np.float32)


def sharpness(gray: np.ndarray) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000) of `gray` uint8 `[h, w]`, at most SHARPNESS_SIDE wide."""
    side = max(gray.shape)
    if side > SHARPNESS_SIDE:
        height, width = (max(1, round(n * SHARPNESS_SIDE / side)) for n in gray.shape)
        gray = scale(gray, width, height)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_16S))
    return float(deviation[0, 0] ** 2)


def entropy(gray: np.ndarray) -> float:
    """Shannon entropy of the histogram of `gray` uint8, in bits (0 for one colour, at most 8)."""
    counts = cv2.calcHist([gray], [0], None, [256], [0, 256]).ravel()
    counts = counts.astype(np.float64)
    return math.log2(gray.size) - float(counts @ np.log2(np.maximum(counts, 1.0))) / gray.size + 0.0
