"""A second look at two pictures whose embeddings are neither near enough nor far enough: is one a copy of the other?

The look knows nothing of embeddings. Each picture is reduced to SIDE × SIDE grey pixels with even contrast, a
fingerprint that brightness, colour, size and compression hardly change. The middle of each picture, at several scales
and mirrored too, is laid over every place of the other (normalised cross-correlation). Copies agree at the place where
they were cut from, and a frame or a line of text outside of the middle does not matter. Pictures of like things agree
nowhere. benchmarks/results/dedupe_verifiers.md has what this was chosen from.
"""

from __future__ import annotations

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


def correlate(left: np.ndarray, right: np.ndarray, enough: float | None = None) -> float:
    """How well two fingerprints agree, the same in both orders: -1 to 1.

    The middle of each is looked for in the other, and the lower agreement counts: the middle of a very smooth picture
    may be like some place of a picture that it has nothing to do with. With `enough` a search ends with the first place
    that reaches it, and where one search finds none the other is left out. Plain pictures agree with nothing: 0.
    """
    if min(_middle(left).std(), _middle(right).std()) < MIN_DETAIL:
        return 0.0
    first, second = sorted((left, right), key=np.ndarray.tobytes)
    found = _find_middle(first, second, enough)
    if enough is not None and found < enough:
        return found
    return min(found, _find_middle(second, first, enough))


def _find_middle(whole: np.ndarray, other: np.ndarray, enough: float | None) -> float:
    """How well the middle of `other`, in all sizes and mirrored too, agrees with its best place in `whole`."""
    best = 0.0
    for seen in (other, other[:, ::-1]):
        for template in _scaled_middles(seen.tobytes()):
            best = max(best, float(cv2.matchTemplate(whole, template, cv2.TM_CCOEFF_NORMED).max()))
            if enough is not None and best >= enough:
                return min(best, 1.0)
    return min(best, 1.0)


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
