"""What filters share that take scores from the metadata: a value outside of the score's range becomes null."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from filters.base import Filter, within


@dataclass(frozen=True, kw_only=True)
class MetadataScore(Filter, abstract=True):
    """Writes the columns of `reads` in their order; null for NaN, infinities and everything outside of `bounds`."""

    bounds: ClassVar[tuple[float, float]]
    """Smallest and largest value that the score can have, both included."""

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self.result(*(within(batch[name], *self.bounds) for name in self.reads))
