"""SemDeDup's algorithm, as its paper and published code describe it: the peer of benchmarks/dedupe.py.

Abbas, Tirumala, Simig, Ganguli, Morcos, "SemDeDup: Data-efficient learning at web-scale through semantic
deduplication" (arXiv 2303.09540), section 3: spherical k-means by faiss over all rows; inside each cluster, rows in
order of their distance to the centroid, the farthest (hard) first; the m × m matrix of cosines, its upper triangle, and
a row goes when its largest cosine with a row before it exceeds 1 - ε. Written anew from that description.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np

from curation.duplicates.clustering import normalise

ASSIGN_BLOCK = 50_000


@dataclass(frozen=True)
class Found:
    """Rows that SemDeDup removes, every pair above the threshold that it looked at, and its cost."""

    removed: np.ndarray
    left: np.ndarray
    right: np.ndarray
    num_distances: int


def semdedup(vectors: np.ndarray, num_centroids: int, min_cosine: float, *, iterations: int, points: int) -> Found:
    """SemDeDup with ε = 1 - `min_cosine` on `vectors` `[n, d]`, held in float32 as theirs are.

    k-means takes `iterations` over at most `points` rows a centroid; theirs are 100 and faiss's default of 256.
    """
    rows = normalise(vectors)
    means = faiss.Kmeans(rows.shape[1], num_centroids, niter=iterations, spherical=True, max_points_per_centroid=points)
    means.train(rows)
    nearest = np.zeros(len(rows), np.int32)
    distance = np.zeros(len(rows), np.float32)
    for start in range(0, len(rows), ASSIGN_BLOCK):
        block = slice(start, start + ASSIGN_BLOCK)
        far, label = means.index.search(rows[block], 1)
        nearest[block], distance[block] = label[:, 0], far[:, 0]
    order = np.lexsort((distance, nearest))
    bounds = np.searchsorted(nearest[order], np.arange(num_centroids + 1))
    removed, left, right = [], [], []
    for start, stop in zip(bounds, bounds[1:], strict=False):
        members = order[start:stop]
        similar = np.triu(rows[members] @ rows[members].T, k=1)
        removed.append(members[similar.max(axis=0, initial=0) > min_cosine])
        first, second = np.nonzero(similar > min_cosine)
        left.append(members[first])
        right.append(members[second])
    sizes = np.diff(bounds)
    trained = min(len(rows), points * num_centroids) * num_centroids * iterations
    return Found(
        removed=np.concatenate(removed),
        left=np.concatenate(left),
        right=np.concatenate(right),
        num_distances=int(trained + len(rows) * num_centroids + (sizes.astype(np.int64) ** 2).sum()),
    )
