"""Aesthetic rating by LAION's linear heads (aesthetic-predictor v1, MIT) over the run's own CLIP embeddings.

The head is the state dict of one `Linear(d, 1)` and was fitted on L2-normalised CLIP image embeddings: the B/32 head
(d = 512) needs OpenAI B/32 embeddings, the L/14 head (d = 768) L/14 ones; give it no other model's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.errors import UserError
from filters.base import Filter


@functools.lru_cache(maxsize=4)
def _linear(path: str) -> tuple[np.ndarray, float]:
    """Weight `[d]` and bias of the head. Raises UserError when the file holds no such head."""
    try:
        if path.endswith(".npz"):
            state = dict(np.load(path))
        else:
            import torch

            state = {k: v.numpy() for k, v in torch.load(path, map_location="cpu", weights_only=True).items()}
        return state["weight"].astype(np.float64).reshape(-1), float(state["bias"].reshape(()))
    except (OSError, KeyError, AttributeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} holds no linear head (weight [1, d], bias [1]) as .pth or .npz: {error}.") from error


@dataclass(frozen=True, kw_only=True)
class AestheticHead(Filter):
    """`weight · embedding / |embedding| + bias`; null where a row has no embedding, or a zero or non-finite one."""

    head: str
    """State dict as .pth, or the same two arrays as .npz, which needs no torch."""

    reads = ("image_embedding",)
    writes = pa.schema([("aesthetic_head", pa.float32())])
    files = ("head",)

    def check_ready(self) -> None:
        _linear(self.head)

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        weight, bias = _linear(self.head)
        return self.result([self._rating(row, weight, bias) for row in batch["image_embedding"].to_pylist()])

    def _rating(self, embedding: list[float] | None, weight: np.ndarray, bias: float) -> float | None:
        if embedding is None:
            return None
        if len(embedding) != len(weight):
            raise UserError(
                f"The aesthetic head {self.head} is for embeddings of {len(weight)} numbers, but the run's have "
                f"{len(embedding)}: embed with the CLIP model that the head was fitted on."
            )
        norm = float(np.linalg.norm(embedding))
        return float(weight @ np.asarray(embedding)) / norm + bias if 0 < norm < np.inf else None


FILTER = AestheticHead
