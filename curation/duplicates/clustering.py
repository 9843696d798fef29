"""Overlapping clusters of vectors: spherical k-means trained by faiss on a sample, each vector in its nearest few.

SemDeDup (Abbas et al. 2023, arXiv 2303.09540) compares inside one cluster only and so misses pairs across a boundary;
here a vector belongs to its `num_probes` nearest clusters. Above FLAT_CENTROIDS centroids, training and assignment
take two levels, which makes them O(sqrt(k)) a vector. faiss uses a GPU where it finds one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np

ROWS_PER_CENTROID = 200
"""With 4 probes and 2 passes benchmarks/dedupe.py finds over 99 % of the pairs at cosine 0.75."""
SINGLE_CLUSTER_ROWS = 5_000
"""Below it all pairs are compared."""
SAMPLES_PER_CENTROID = 64
MIN_SAMPLES_PER_CENTROID = 16
FLAT_CENTROIDS = 1_024
ITERATIONS = 10
COARSE_PROBES = 8
BLOCK = 8_192


@dataclass(frozen=True)
class Clustering:
    """`centroids` float32 `[k, d]` of length 1, and `coarse` `[k1, d]`, empty when there is one level."""

    centroids: np.ndarray
    coarse: np.ndarray

    def assign(self, vectors: np.ndarray, num_probes: int, rows: np.ndarray | None = None) -> np.ndarray:
        """The nearest `num_probes` (at most k) centroids of each vector, nearest first; int32 `[n, num_probes]`.

        `vectors` `[n, d]` of any float type, possibly memory-mapped, or the given `rows` of them. Rows without a
        direction get -1 throughout.
        """
        probes, count = min(num_probes, len(self.centroids)), len(vectors) if rows is None else len(rows)
        nearest = np.full((count, probes), -1, np.int32)
        for start in range(0, count, BLOCK):
            wanted = slice(start, start + BLOCK)
            block = np.asarray(vectors[wanted if rows is None else rows[wanted]], np.float32)
            known = np.flatnonzero(usable(block))
            if len(known):
                nearest[start + known] = self._index.search(normalised(block[known]), probes)[1]
        return nearest

    def __getstate__(self) -> dict[str, Any]:
        return {"centroids": self.centroids, "coarse": self.coarse}

    @cached_property
    def _index(self) -> faiss.Index:
        flat = faiss.IndexFlatIP(self.centroids.shape[1])
        if not len(self.coarse):
            flat.add(self.centroids)
            return _on_gpu(flat)
        flat.add(self.coarse)
        index = faiss.IndexIVFFlat(flat, self.centroids.shape[1], len(self.coarse), faiss.METRIC_INNER_PRODUCT)
        index.nprobe = COARSE_PROBES
        index.add(self.centroids)
        return _on_gpu(index)


def usable(vectors: np.ndarray) -> np.ndarray:
    """Mask `[n]` of the rows that have a direction: finite and not zero."""
    lengths = np.linalg.norm(np.asarray(vectors, np.float32), axis=1)
    return np.isfinite(lengths) & (lengths > 0)


def normalised(vectors: np.ndarray) -> np.ndarray:
    """float32 rows of length 1."""
    wide = np.asarray(vectors, np.float32)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def num_centroids_for(num_rows: int) -> int:
    """How many clusters `num_rows` vectors get when nothing else is asked for."""
    return 1 if num_rows <= SINGLE_CLUSTER_ROWS else math.ceil(num_rows / ROWS_PER_CENTROID)


def train(sample: np.ndarray, num_centroids: int, *, seed: int = 0) -> Clustering:
    """Spherical k-means on `sample` (float32 `[n, d]`, length 1, in an order that does not vary between runs).

    Gives at most `num_centroids`, and no more than a sixteenth of the sample.
    """
    wanted = max(1, min(num_centroids, len(sample) // MIN_SAMPLES_PER_CENTROID))
    none = np.zeros((0, sample.shape[1]), np.float32)
    if wanted <= FLAT_CENTROIDS:
        return Clustering(_kmeans(sample, wanted, seed), none)
    coarse = _kmeans(sample[:: max(1, len(sample) // (256 * math.isqrt(wanted)))], math.isqrt(wanted), seed)
    cell = Clustering(coarse, none).assign(sample, 1)[:, 0]
    leaves = []
    for number in range(len(coarse)):
        members = sample[cell == number]
        if len(members):
            share = max(1, round(wanted * len(members) / len(sample)))
            leaves.append(_kmeans(members, min(share, len(members)), seed))
    return Clustering(np.concatenate(leaves), coarse)


def _kmeans(sample: np.ndarray, num_centroids: int, seed: int) -> np.ndarray:
    if num_centroids == 1:
        mean = sample.sum(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)
    means = faiss.Kmeans(
        sample.shape[1],
        num_centroids,
        niter=ITERATIONS,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=10 * SAMPLES_PER_CENTROID,
        gpu=faiss.get_num_gpus() > 0,
    )
    means.train(np.ascontiguousarray(sample))
    assert means.centroids is not None  # train() has set them
    return means.centroids


def _on_gpu(index: faiss.Index) -> faiss.Index:
    return faiss.index_cpu_to_all_gpus(index) if faiss.get_num_gpus() else index
