"""Longer side over shorter side of the picture as fetched, ≥ 1; null when a side is missing or not positive.

COYO-700M and DataComp's basic filtering keep aspect ratios up to 3 (Gadre et al. 2023, appendix F).
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Filter


@dataclass(frozen=True, kw_only=True)
class AspectRatio(Filter):
    """`max(width, height) / min(width, height)`."""

    reads = ("width", "height")
    writes = pa.schema([("aspect_ratio", pa.float32())])

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        width, height = (pc.cast(batch[name], pa.float64()) for name in self.reads)
        shorter = pc.min_element_wise(width, height, skip_nulls=False)
        longer = pc.max_element_wise(width, height, skip_nulls=False)
        known = pc.greater(shorter, 0)
        return self.result(pc.divide(longer, pc.if_else(known, shorter, None)))


FILTER = AspectRatio
