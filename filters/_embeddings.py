"""What filters share that read vectors: which model's, as rows of length 1, and prompts embedded by the same model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from filters.base import Filter

Encode = Callable[[Sequence[str]], np.ndarray]
"""Texts → float32 `[n, d]` by the model whose vectors the filter reads."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingFilter(Filter, abstract=True):
    """Reads `image_embedding`, `text_embedding` or both, of one model; null where a row has no usable vector."""

    embeddings: str = ""
    """NAME of [embed.models.NAME]; empty means embed.model."""

    def check_dim(self, dim: int) -> None:  # noqa: B027  # most take vectors of any length
        """Raise UserError when vectors of `dim` numbers are none that this filter can read."""

    def list_prompts(self) -> tuple[str, ...]:
        """Texts that the model has to embed before scoring; none for most filters."""
        return ()

    def bind(self, encode: Encode) -> Self:
        """This filter, with the vectors of its prompts."""
        return self

    def config(self) -> dict[str, Any]:
        """See `filters.base.Filter.config`; what earlier versions recorded has no `embeddings`."""
        config = super().config()
        if not self.embeddings:
            del config["options"]["embeddings"]
        return config


def read_unit_rows(column: pa.Array) -> np.ndarray:
    """A column of lists as float32 `[n, d]` of rows of length 1; NaN where there is none, or none with a direction."""
    dim = pc.max(pc.list_value_length(column)).as_py() or 1
    rows = np.full((len(column), dim), np.nan, np.float32)
    known = column.drop_null()
    rows[column.is_valid().to_numpy(zero_copy_only=False)] = np.asarray(known.flatten(), np.float32).reshape(-1, dim)
    return normalise_rows(rows)


def normalise_rows(rows: np.ndarray) -> np.ndarray:
    """`[n, d]` as float32 rows of length 1; what is zero or not finite becomes NaN."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        unit: np.ndarray = rows / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    unit[~np.isfinite(unit).all(axis=1)] = np.nan
    return unit.astype(np.float32)
