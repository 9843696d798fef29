"""Sharpness of the stored picture: variance of its Laplacian at a fixed size; low means blurred or empty.

The measure is Pech-Pacheco et al. 2000 (LAPV in Pertuz et al. 2013). It grows with resolution, so pictures are first
brought down to `max_side`, which makes one threshold fit all; smaller pictures are left as they are. The column
`sharpness` of downloads is the same measure on the picture at its stored size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from filters._gray import gray
from filters.base import Filter


def laplacian_variance(luma: np.ndarray) -> float | None:
    """Variance of the 4-neighbour Laplacian of `luma` `[h, w]` inside its border; None below 3 × 3."""
    if min(luma.shape) < 3:
        return None
    x = luma.astype(np.float32)
    laplacian = x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] - 4 * x[1:-1, 1:-1]
    return float(laplacian.var(dtype=np.float64))


@dataclass(frozen=True, kw_only=True)
class Blur(Filter):
    """`laplacian_variance` of the luma (0 to 255); null for pictures that cannot be decoded."""

    max_side: int = 128
    """Longer side in pixels at which pictures are compared."""

    reads = ("image",)
    writes = pa.schema([("laplacian_variance", pa.float32())])

    def __post_init__(self) -> None:
        if self.max_side < 3:
            raise ValueError(f"max_side must be at least 3, not {self.max_side}")

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        arrays = [None if image is None else gray(image, self.max_side) for image in batch["image"].to_pylist()]
        return self.result([None if luma is None else laplacian_variance(luma) for luma in arrays])


FILTER = Blur
