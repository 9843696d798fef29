"""Probability that a picture shows one of some concepts, by the CLIP that embedded the root (Radford et al. 2021).

softmax(scale · cosine) over `prompts` and `against`, summed over `prompts`. One CLIP so stands for many classifiers:
unsafe pictures, watermarks, drawings, text; docs/filters.md has lists of prompts and says how to calibrate them.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import pyarrow as pa

from filters._embeddings import EmbeddingFilter, Encode, normalise_rows, read_unit_rows


@dataclass(frozen=True, kw_only=True)
class ZeroShot(EmbeddingFilter):
    """In [0, 1]; null where the picture has no vector."""

    prompts: tuple[str, ...]
    """Texts that describe the concept."""
    against: tuple[str, ...]
    """Texts that describe what else a picture may be."""
    scale: float = 100.0
    """exp(logit_scale) of the model; 100 is CLIP's own and that of most released models."""

    reads = ("image_embedding",)
    writes = pa.schema([("zero_shot", pa.float32())])
    _vectors: ClassVar[np.ndarray | None] = None
    """Of `list_prompts`, `[n, d]` float32 of length 1; an instance has them once it is bound."""

    def __post_init__(self) -> None:
        if not self.prompts or not self.against or not all(text.strip() for text in self.list_prompts()):
            raise ValueError("prompts and against each need a text, and no text may be empty")
        if not 0 < self.scale <= 1_000:
            raise ValueError(f"scale must lie in (0, 1000], not {self.scale}")

    def list_prompts(self) -> tuple[str, ...]:
        return (*self.prompts, *self.against)

    def bind(self, encode: Encode) -> Self:
        bound = copy.copy(self)
        object.__setattr__(bound, "_vectors", normalise_rows(encode(self.list_prompts())))
        return bound

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self._vectors is None:
            raise TypeError("zero_shot needs the vectors of its prompts: call bind")
        logits = self.scale * (read_unit_rows(batch["image_embedding"]) @ self._vectors.T)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return self.result(pa.array(odds[:, : len(self.prompts)].sum(axis=1) / odds.sum(axis=1)))


FILTER = ZeroShot
