"""Aesthetic rating by LAION's linear heads (aesthetic-predictor v1, MIT) over the run's own CLIP embeddings.

The head is the state dict of one `Linear(d, 1)` and was fitted on L2-normalised CLIP image embeddings: the B/32 head
(d = 512) needs OpenAI B/32 embeddings, the L/14 head (d = 768) L/14 ones; give it no other model's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.errors import UserError
from curation.npy import read_arrays
from filters._embeddings import EmbeddingFilter

MAX_BYTES = 1 << 24
"""A head of 1,280 numbers takes some kilobytes."""


@functools.lru_cache(maxsize=4)
def _linear(path: str) -> tuple[np.ndarray, float]:
    """Weight `[d]` and bias of the head. Raises UserError when the file holds no such head."""
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        state = read_arrays(path, MAX_BYTES) if path.endswith(".npz") else _read_state(path)
        weight = np.asarray(state["weight"], np.float64).reshape(-1)
        return weight, float(np.asarray(state["bias"], np.float64).reshape(()))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds no linear head (weight [1, d], bias [1]) as .pth or .npz: {error}.") from error


def _read_state(path: str) -> dict[str, np.ndarray]:
    """The tensors of a state dict. Raises ValueError."""
    import torch

    try:
        return {
            name: tensor.numpy() for name, tensor in torch.load(path, map_location="cpu", weights_only=True).items()
        }
    except Exception as error:  # what a damaged or hostile pickle raises has no list
        raise ValueError((str(error).strip().splitlines() or [type(error).__name__])[0]) from error


@dataclass(frozen=True, kw_only=True)
class AestheticHead(EmbeddingFilter):
    """`weight · embedding / |embedding| + bias`; null where a row has no embedding, or a zero or non-finite one."""

    head: str
    """State dict as .pth, or the same two arrays as .npz, which needs no torch."""

    reads = ("image_embedding",)
    writes = pa.schema([("aesthetic_head", pa.float32())])
    files = ("head",)

    def check_ready(self) -> None:
        _linear(self.head)

    def check_dim(self, dim: int) -> None:
        wanted = len(_linear(self.head)[0])
        if dim != wanted:
            raise UserError(
                f"The aesthetic head {self.head} is for embeddings of {wanted} numbers, but the run's have "
                f"{dim}: embed with the CLIP model that the head was fitted on."
            )

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        weight, bias = _linear(self.head)
        return self.result([self._rating(row, weight, bias) for row in batch["image_embedding"].to_pylist()])

    def _rating(self, embedding: list[float] | None, weight: np.ndarray, bias: float) -> float | None:
        if embedding is None:
            return None
        self.check_dim(len(embedding))
        norm = float(np.linalg.norm(embedding))
        return float(weight @ np.asarray(embedding)) / norm + bias if 0 < norm < np.inf else None


FILTER = AestheticHead
