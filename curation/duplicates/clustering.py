"""Overlapping clusters of vectors: spherical k-means trained by faiss on a sample, each vector in its nearest few.

SemDeDup (Abbas et al. 2023, arXiv 2303.09540) compares inside one cluster only and so misses pairs across a boundary;
here a vector belongs to its `num_probes` nearest clusters. They are small, and cut along the strongest axes of the
sample, partly whitened: copies of a picture differ along weak axes, about which clusters then need not care. Above
FLAT_CENTROIDS centroids, training and assignment take two levels, which makes them O(sqrt(k)) a vector. faiss uses a
GPU where it finds one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np

ROWS_PER_CENTROID = 50
"""Smaller clusters with more probes find as many pairs with fewer cosines, until assigning costs more than that."""
SINGLE_CLUSTER_ROWS = 5_000
"""Below it all pairs are compared."""
SAMPLES_PER_CENTROID = 16
AXES = 128
"""Dimensions in which vectors are clustered: an eighth to a quarter of the work of all."""
WHITENING = 1 / 3
"""Axes are scaled by their second moment to the power of minus this, so that what altered copies differ by is as large
along each: on photographs the moments fall as i^-0.9, the differences as i^-0.6 (benchmarks/dedupe_data.py)."""
WEAKEST_AXIS = 1e-6
"""Share of the strongest axis's second moment below which an axis is noise."""
ROWS_FOR_AXES = 65_536
FLAT_CENTROIDS = 1_024
MAX_SAMPLES_PER_CENTROID = 640
ITERATIONS = 10
COARSE_PROBES = 8
BLOCK = 8_192


@dataclass(frozen=True)
class Clustering:
    """`centroids` float32 `[k, a]` of length 1, and `coarse` `[k1, a]`, empty when there is one level.

    `axes` float32 `[d, a]` are those of `principal_axes`, None when vectors are clustered as they are.
    """

    centroids: np.ndarray
    coarse: np.ndarray
    axes: np.ndarray | None = None

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
                unit = normalise(block[known])
                turned = unit if self.axes is None else project(unit, self.axes)
                nearest[start + known] = self._index.search(turned, probes)[1]
        return nearest

    def __getstate__(self) -> dict[str, Any]:
        return {"centroids": self.centroids, "coarse": self.coarse, "axes": self.axes}

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
    return np.asarray(np.isfinite(lengths) & (lengths > 0))


def widen(vectors: np.ndarray) -> np.ndarray:
    """float32 of finite `vectors`. For float16 this takes a quarter of `astype`'s time, as long as multiplying them."""
    if vectors.dtype != np.float16:
        return np.asarray(vectors, np.float32)
    bits = vectors.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(-0x70002000)  # the sign, which the wider type has repeated, then exponent and fraction
    wide = bits.view(np.float32)
    wide *= np.float32(2.0**112)  # 127 - 15, from one exponent's bias to the other's
    return wide


def normalise(vectors: np.ndarray) -> np.ndarray:
    """float32 rows of length 1."""
    wide = np.asarray(vectors, np.float32)
    return np.asarray(wide / np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None])


def principal_axes(sample: np.ndarray) -> np.ndarray:
    """The at most AXES strongest axes of `sample` (float32 `[n, d]`, length 1), partly whitened: float32 `[d, a]`."""
    some = sample[:: max(1, len(sample) // ROWS_FOR_AXES)]
    moments, axes = np.linalg.eigh((some.T @ some).astype(np.float64))
    moments, axes = moments[::-1][:AXES], axes[:, ::-1][:, :AXES]
    strong = moments > WEAKEST_AXIS * moments[0]
    return np.asarray(axes[:, strong] * (moments[strong] / moments[0]) ** -WHITENING, np.float32)


def project(vectors: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """`vectors` (float32 `[n, d]`) along `axes` `[d, a]`, of length 1; zero for what has no part along them."""
    turned = vectors @ axes
    return np.asarray(turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12))


def num_centroids_for(num_rows: int) -> int:
    """How many clusters `num_rows` vectors get when nothing else is asked for."""
    return 1 if num_rows <= SINGLE_CLUSTER_ROWS else math.ceil(num_rows / ROWS_PER_CENTROID)


def train(sample: np.ndarray, num_centroids: int, *, seed: int = 0, axes: np.ndarray | None = None) -> Clustering:
    """Spherical k-means on `sample` (float32 `[n, a]`, length 1, in an order that does not vary between runs).

    Gives at most `num_centroids`, and no more than a sixteenth of the sample. `axes` are those that the sample lies
    along already, and that vectors to be assigned will be laid along.
    """
    wanted = max(1, min(num_centroids, len(sample) // SAMPLES_PER_CENTROID))
    none = np.zeros((0, sample.shape[1]), np.float32)
    if wanted <= FLAT_CENTROIDS:
        return Clustering(_kmeans(sample, wanted, seed), none, axes)
    coarse = _kmeans(sample[:: max(1, len(sample) // (256 * math.isqrt(wanted)))], math.isqrt(wanted), seed)
    cell = Clustering(coarse, none).assign(sample, 1)[:, 0]
    leaves = []
    for number in range(len(coarse)):
        members = sample[cell == number]
        if len(members):
            share = max(1, round(wanted * len(members) / len(sample)))
            leaves.append(_kmeans(members, min(share, len(members)), seed))
    return Clustering(np.concatenate(leaves), coarse, axes)


def _kmeans(sample: np.ndarray, num_centroids: int, seed: int) -> np.ndarray:
    if num_centroids == 1:
        mean = sample.sum(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12))
    means = faiss.Kmeans(
        sample.shape[1],
        num_centroids,
        niter=ITERATIONS,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=MAX_SAMPLES_PER_CENTROID,
        gpu=faiss.get_num_gpus() > 0,
    )
    means.train(np.ascontiguousarray(sample))
    assert means.centroids is not None  # train() has set them
    centroids: np.ndarray = means.centroids
    return centroids


def _on_gpu(index: faiss.Index) -> faiss.Index:
    return faiss.index_cpu_to_all_gpus(index) if faiss.get_num_gpus() else index
