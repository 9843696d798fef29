"""Aesthetic rating from the metadata, on LAION's scale of 1 to 10; null unless it lies in [0, 10].

LAION-aesthetic's tiers are ≥ 4.5, 5, 6 and 6.5. The predictors are regressions on ratings from 1 to 10 and come out a
little below 1 at times; anything outside [0, 10] is dirt.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from filters._metadata import MetadataScore


@dataclass(frozen=True, kw_only=True)
class AestheticScore(MetadataScore):
    """`aesthetic` with what is no rating made null."""

    reads = ("aesthetic",)
    writes = pa.schema([("aesthetic_score", pa.float32())])
    bounds = (0.0, 10.0)


FILTER = AestheticScore
