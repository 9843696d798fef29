"""Probability that the picture is unsafe, from the metadata; null unless it lies in [0, 1].

LAION-2B gives its own classifier's punsafe and flags values above 0.5; COYO-700M gives OpenNSFW2's score and keeps
values up to 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from filters._metadata import MetadataScore


@dataclass(frozen=True, kw_only=True)
class UnsafeScore(MetadataScore):
    """`punsafe` with what is no probability (NaN, infinities, values outside [0, 1]) made null."""

    reads = ("punsafe",)
    writes = pa.schema([("unsafe_score", pa.float32())])
    bounds = (0.0, 1.0)


FILTER = UnsafeScore
