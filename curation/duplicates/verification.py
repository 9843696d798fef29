"""A second look at two pictures whose embeddings are neither near enough nor far enough: is one a copy of the other?

The look knows nothing of embeddings. Each picture is reduced to SIDE × SIDE grey pixels with even contrast, a
fingerprint that brightness, colour, size and compression hardly change. The middle of one picture, at several scales
and mirrored too, is laid over every place of the other (normalised cross-correlation). Copies agree at the place where
they were cut from, and a frame or a line of text outside of the middle does not matter. Pictures of like things agree
nowhere. benchmarks/results/dedupe_verifiers.md has what this was chosen from.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np

cv2.setNumThreads(1)

SIDE = 64
MIDDLE = 0.6
"""Share of the sides of one picture that is looked for in the other."""
SCALES = (1.0, 0.94, 1.06, 0.88, 1.14, 0.82, 1.22, 0.76, 1.32, 0.7, 1.43)
"""Sizes of the middle, in the order of trying. Steps of 7 % leave two pixels of error at the border of the middle."""
NEIGHBOURHOOD = SIDE / 8
"""Standard deviation, in pixels, of the window over which contrast is made even."""
CONTRAST_FLOOR = 4.0
"""Grey levels of contrast below which there is noise rather than picture."""
LEVELS = 32
"""Levels of a fingerprint that stand for one standard deviation, around GREY."""
GREY = 128
MIN_DETAIL = 8.0
"""Standard deviation of the levels of the middle below which a picture is too plain to be told from another."""
PICTURES_KEPT = 256


def make_fingerprint(data: bytes) -> np.ndarray | None:
    """uint8 `[SIDE, SIDE]` of the encoded picture `data`; None when it cannot be decoded."""
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if grey is None:
        return None
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    apart = small - cv2.GaussianBlur(small, (0, 0), NEIGHBOURHOOD)
    contrast = np.sqrt(cv2.GaussianBlur(apart * apart, (0, 0), NEIGHBOURHOOD) + CONTRAST_FLOOR**2)
    return np.asarray((GREY + LEVELS * apart / contrast).round().clip(0, 255).astype(np.uint8))


def correlate(left: np.ndarray, right: np.ndarray, enough: float) -> float:
    """How well the middle of `right` agrees with its best place in `left`, both fingerprints: -1 to 1.

    Ends with the first place of at least `enough`. Plain pictures agree with nothing: 0.
    """
    best = 0.0
    if min(_middle(left).std(), _middle(right).std()) < MIN_DETAIL:
        return best
    for seen in (right, right[:, ::-1]):
        for template in _scaled_middles(seen.tobytes()):
            best = max(best, float(cv2.matchTemplate(left, template, cv2.TM_CCOEFF_NORMED).max()))
            if best >= enough:
                return min(best, 1.0)
    return best


def correlate_pairs(fingerprints: np.ndarray, left: np.ndarray, right: np.ndarray, enough: float) -> Iterator[float]:
    """`correlate` of each pair of positions `left`, `right` of `fingerprints` uint8 `[n, SIDE, SIDE]`."""
    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        yield correlate(fingerprints[a], fingerprints[b], enough)


def _middle(fingerprint: np.ndarray) -> np.ndarray:
    margin = round(SIDE * (1 - MIDDLE) / 2)
    return fingerprint[margin : SIDE - margin, margin : SIDE - margin]


@lru_cache(maxsize=PICTURES_KEPT)
def _scaled_middles(fingerprint: bytes) -> tuple[np.ndarray, ...]:
    """The middle of a fingerprint in all of SCALES that are no larger than a fingerprint."""
    middle = _middle(np.frombuffer(fingerprint, np.uint8).reshape(SIDE, SIDE))
    sides = [round(len(middle) * scale) for scale in SCALES]
    methods = [cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR for scale in SCALES]
    return tuple(
        cv2.resize(middle, (side, side), interpolation=method) for side, method in zip(sides, methods, strict=True)
    )
