"""Probability that the picture carries a watermark, from the metadata; null unless it lies in [0, 1].

LAION-2B flags pwatermark above 0.8; LAION-aesthetic keeps values below 0.8.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from filters._metadata import MetadataScore


@dataclass(frozen=True, kw_only=True)
class WatermarkScore(MetadataScore):
    """`pwatermark` with what is no probability (NaN, infinities, values outside [0, 1]) made null."""

    reads = ("pwatermark",)
    writes = pa.schema([("watermark_score", pa.float32())])
    bounds = (0.0, 1.0)


FILTER = WatermarkScore
