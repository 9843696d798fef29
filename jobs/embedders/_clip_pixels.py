"""Stored pictures as the input of a CLIP image encoder."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from trainer.data.readers import SampleError
from trainer.data.transforms import EvalTransform, decode, lookup_tables, normalise


def decode_pictures(pictures: Iterable[bytes], transform: EvalTransform) -> tuple[np.ndarray, list[int]]:
    """`[n, 3, s, s]` float32 of those that decode, and their positions among `pictures`."""
    pixels, known = [], []
    for position, data in enumerate(pictures):
        try:
            pixels.append(transform(decode(data), np.zeros(0)))
        except SampleError:
            continue
        known.append(position)
    return normalise(pixels, len(pixels), transform.image_size, lookup_tables()).numpy(), known
