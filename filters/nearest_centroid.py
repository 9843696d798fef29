"""Nearest of given centroids to the picture's embedding, and whether it is one of the target set's.

DataComp's image-based filtering (Gadre et al. 2023, "DataComp", baselines, paragraph "Image-based filtering"): cluster
the pool's image embeddings, find the clusters nearest to ImageNet-1K's training pictures, keep what falls into one of
those. docs/filters.md shows how both files are made. Similarity is the cosine.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curation.errors import UserError
from curation.npy import read_array
from filters._embeddings import EmbeddingFilter

CELLS = 1 << 24
"""Similarities held at once: 64 MB, whatever the number of centroids."""


def _array(path: str, what: str) -> np.ndarray:
    try:
        return read_array(path)
    except (OSError, ValueError) as error:
        raise UserError(f"The {what} file {path} cannot be read as a .npy array: {error}.") from error


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows `[n, d]` float32 of length 1; what has no direction becomes NaN."""
    rows = np.asarray(rows, np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


@functools.lru_cache(maxsize=4)
def _centroids(path: str) -> np.ndarray:
    """Centroids `[k, d]` float32 of length 1."""
    values = _array(path, "centroids")
    if values.ndim != 2 or values.dtype.kind not in "fiu" or not len(values) or not np.isfinite(_unit(values)).all():
        raise UserError(
            f"The centroids file {path} must hold finite non-zero rows [k, d], not {values.dtype} {values.shape}."
        )
    return _unit(values)


@functools.lru_cache(maxsize=4)
def _targets(path: str, centroids: str) -> np.ndarray:
    """Which centroids belong to the target set, bool `[k]`."""
    values, known = _array(path, "targets"), _centroids(centroids)
    if values.ndim == 2 and values.shape[1] == known.shape[1]:
        values = nearest(values, known)[0]
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer) or not len(values):
        raise UserError(
            f"The targets file {path} must hold centroid numbers [n] or embeddings [n, {known.shape[1]}], "
            f"not {values.dtype} {values.shape}."
        )
    values = values[values >= 0]
    if values.max(initial=-1) >= len(known):
        raise UserError(f"The targets file {path} names centroid {values.max()}, and there are {len(known)}.")
    return np.isin(np.arange(len(known)), values)


def nearest(rows: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of the nearest of `centroids` `[k, d]` to each of `rows` `[n, d]`, -1 without a direction, and cosines."""
    number, cosine = np.full(len(rows), -1, np.int64), np.full(len(rows), np.nan, np.float32)
    step = max(1, CELLS // len(centroids))
    for start in range(0, len(rows), step):
        block = _unit(rows[start : start + step])
        usable = np.isfinite(block).all(axis=1)
        similar = block[usable] @ centroids.T
        best = similar.argmax(axis=1)
        number[start : start + step][usable] = best
        cosine[start : start + step][usable] = similar[np.arange(len(best)), best]
    return number, cosine


@dataclass(frozen=True, kw_only=True)
class NearestCentroid(EmbeddingFilter):
    """All null where a row has no embedding, or a zero or non-finite one; `in_target` also without `targets`."""

    centroids: str
    """.npy of floats `[k, d]`."""
    targets: str | None = None
    """.npy of centroid numbers `[n]`, or of the target set's own embeddings `[n, d]`."""

    reads = ("image_embedding",)
    writes = pa.schema(
        [("nearest_centroid", pa.int32()), ("centroid_similarity", pa.float32()), ("in_target", pa.bool_())]
    )
    files = ("centroids", "targets")

    def check_ready(self) -> None:
        _centroids(self.centroids)
        if self.targets is not None:
            _targets(self.targets, self.centroids)

    def check_dim(self, dim: int) -> None:
        wanted = _centroids(self.centroids).shape[1]
        if dim != wanted:
            raise UserError(
                f"The centroids {self.centroids} are for embeddings of {wanted} numbers, but the run's "
                f"have {dim}: cluster embeddings of the model that the run uses."
            )

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        centroids = _centroids(self.centroids)
        rows = [None if row is None else np.asarray(row, np.float32) for row in batch["image_embedding"].to_pylist()]
        for row in rows:
            self.check_dim(centroids.shape[1] if row is None else len(row))
        empty = np.zeros(centroids.shape[1], np.float32)
        stacked = np.stack([empty if row is None else row for row in rows]) if rows else empty[None][:0]
        number, cosine = nearest(stacked, centroids)
        unknown = number < 0
        within = np.zeros(len(number), bool) if self.targets is None else _targets(self.targets, self.centroids)[number]
        return self.result(
            pa.array(number.astype(np.int32), mask=unknown),
            pa.array(cosine, mask=unknown),
            pa.array(within, mask=unknown | (self.targets is None)),
        )


FILTER = NearestCentroid
