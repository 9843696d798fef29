"""CLIP cosine similarities from the metadata, B/32 and L/14; null unless they lie in [-1, 1].

LAION-400M carries "similarities" up to 6016. LAION-2B kept B/32 ≥ 0.28 (English) or ≥ 0.26 (multilingual)
(Schuhmann et al. 2022, section 3.2); DataComp's clip-score baseline keeps the top 30 % by L/14.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from filters._metadata import MetadataScore


@dataclass(frozen=True, kw_only=True)
class ClipScore(MetadataScore):
    """`clip_similarity` and `clip_similarity_l14` with what is no cosine made null."""

    reads = ("clip_similarity", "clip_similarity_l14")
    writes = pa.schema([("clip_score", pa.float32()), ("clip_score_l14", pa.float32())])
    bounds = (-1.0, 1.0)


FILTER = ClipScore
