"""Shannon entropy of the stored picture's grey histogram: 0 for one flat colour, 8 bits at most.

Flat placeholders, logos and one-pixel trackers have little; photographs mostly lie between 6 and 8 bits. The column
`entropy` of downloads is the same measure on the picture at its stored size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from filters._gray import gray
from filters.base import Filter


def histogram_entropy(luma: np.ndarray) -> float:
    """Entropy in bits of the distribution of the 256 grey values in `luma` uint8 `[h, w]`."""
    counts = np.bincount(luma.reshape(-1), minlength=256)
    shares = counts[counts > 0] / luma.size
    return abs(float(-(shares * np.log2(shares)).sum()))


@dataclass(frozen=True, kw_only=True)
class Entropy(Filter):
    """`gray_entropy` in bits; null for pictures that cannot be decoded."""

    max_side: int = 128
    """Longer side in pixels that pictures are brought down to first."""

    reads = ("image",)
    writes = pa.schema([("gray_entropy", pa.float32())])

    def __post_init__(self) -> None:
        if self.max_side < 1:
            raise ValueError(f"max_side must be at least 1, not {self.max_side}")

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        arrays = [None if image is None else gray(image, self.max_side) for image in batch["image"].to_pylist()]
        return self.result([None if luma is None else histogram_entropy(luma) for luma in arrays])


FILTER = Entropy
