"""Captions as numbers, for tiers that compare pictures of one caption only."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa


def number_captions(captions: pa.ChunkedArray) -> np.ndarray:
    """int64 `[n]`, equal for captions that differ in case and outer spaces alone; a null is an empty caption."""
    encoded = captions.combine_chunks().dictionary_encode()
    numbers = np.array([_number(text) for text in [*encoded.dictionary.to_pylist(), ""]], np.int64)
    return np.asarray(numbers[encoded.indices.fill_null(len(numbers) - 1).to_numpy()])


def _number(caption: str) -> int:
    digest = hashlib.blake2b(caption.strip(" ").lower().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
