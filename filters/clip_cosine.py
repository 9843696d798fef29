"""Cosine of the picture's and the caption's vectors by any CLIP that embedded the root: its CLIP score.

LAION-400M keeps 0.3 by OpenAI's B/32, LAION-2B 0.28 (Schuhmann et al. 2021 and 2022), DataComp the best 30 % by L/14.
A threshold belongs to the model: other models put the same pairs elsewhere, so that a quantile travels better.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from filters._embeddings import EmbeddingFilter, read_unit_rows


@dataclass(frozen=True, kw_only=True)
class ClipCosine(EmbeddingFilter):
    """In [-1, 1]; null where the picture does not decode or there is no caption."""

    reads = ("image_embedding", "text_embedding")
    writes = pa.schema([("clip_cosine", pa.float32())])

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        images, texts = (read_unit_rows(batch[name]) for name in self.reads)
        return self.result(pa.array((images * texts).sum(axis=1).clip(-1, 1)))


FILTER = ClipCosine
