"""All pairs inside a cluster, also when it is too large to compare everything with everything.

A cluster of more than `max_cluster_rows` first loses its crowds: pictures found so often that they fill a share of it
(a placeholder a million times), which k-means cannot split. Their rows are compared with the first of their kind
only. What is left is clustered again, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from curation.duplicates import blocks
from curation.duplicates.blocks import Pairs, Search, alike, all_pairs, with_leaders
from curation.duplicates.clustering import (
    SAMPLES_PER_CENTROID,
    Clustering,
    normalised,
    num_centroids_for,
    train,
    usable,
)

CROWD_SAMPLE = 2_048
CROWD_SHARE = 0.01
"""Of a sample of the cluster, alike to one row: such a row is the centre of a crowd."""


def inside(
    vectors: np.ndarray, members: np.ndarray, search: Search, labels: np.ndarray | None = None
) -> Iterator[Pairs]:
    """Pairs among `members`, rising row numbers of `vectors` `[n, d]`, possibly memory-mapped; some come repeatedly.

    With `labels` (int64 `[n]`), only pairs of equal labels. All members must have a direction.
    """
    if len(members) <= search.max_cluster_rows:
        yield from all_pairs(vectors, members, search, labels)
        return
    if labels is not None:
        order = np.argsort(labels[members], kind="stable")
        changes = np.flatnonzero(np.diff(labels[members[order]])) + 1
        for group in np.split(order, changes):
            yield from inside(vectors, members[group], search)
        return
    crowd = _crowds(vectors, members, search)
    follows = np.zeros(len(members), bool)
    for number in range(crowd.max() + 1):
        for pairs in with_leaders(vectors, members[crowd == number], search):
            follows[np.searchsorted(members, pairs[1])] = True
            yield pairs
    yield from _split(vectors, members[~follows], search)


def trained(vectors: np.ndarray, members: np.ndarray, num_centroids: int, seed: int) -> Clustering:
    """A clustering of the rows `members` of `vectors`, trained on a seeded sample of them."""
    wanted = min(len(members), num_centroids * SAMPLES_PER_CENTROID)
    rows = np.sort(np.random.default_rng(seed).choice(len(members), wanted, replace=False))
    sample = np.asarray(vectors[members[rows]], np.float32)
    return train(normalised(sample[usable(sample)]), num_centroids, seed=seed)


def clusters(nearest: np.ndarray, num_clusters: int) -> Iterator[np.ndarray]:
    """Sorted row numbers of each cluster that has two or more, from `nearest` int32 `[n, probes]` (-1 for none)."""
    flat = nearest.ravel()
    order = np.argsort(flat, kind="stable")
    bounds = np.searchsorted(flat[order], np.arange(num_clusters + 1))
    for start, stop in zip(bounds, bounds[1:], strict=False):
        if stop - start > 1:
            yield order[start:stop] // nearest.shape[1]


def _crowds(vectors: np.ndarray, members: np.ndarray, search: Search) -> np.ndarray:
    """The crowd of each member, -1 for most; int32 `[members]`."""
    step = -(-len(members) // CROWD_SAMPLE)
    sample = normalised(vectors[members[::step]])
    similar = alike(sample, sample, search.min_cosine)
    centres: list[int] = []
    free = np.ones(len(sample), bool)
    while len(sample):
        sizes = similar[:, free].sum(axis=1)
        if sizes.max() < max(2, CROWD_SHARE * len(sample)):
            break
        centres.append(int(sizes.argmax()))
        free &= ~similar[centres[-1]]
    crowd = np.full(len(members), -1, np.int32)
    for start in range(0, len(members) if centres else 0, blocks.BLOCK):
        similar = alike(normalised(vectors[members[start : start + blocks.BLOCK]]), sample[centres], search.min_cosine)
        crowd[start : start + blocks.BLOCK] = np.where(similar.any(axis=1), similar.argmax(axis=1), -1)
    return crowd


def _split(vectors: np.ndarray, members: np.ndarray, search: Search) -> Iterator[Pairs]:
    """Pairs among `members` by clusters of their own; a part that is no smaller is compared with leaders only."""
    if len(members) <= search.max_cluster_rows:
        yield from all_pairs(vectors, members, search)
        return
    clustering = trained(vectors, members, num_centroids_for(len(members)), search.seed)
    nearest = clustering.assign(vectors, search.num_probes, members)
    for positions in clusters(nearest, len(clustering.centroids)):
        part = members[positions]
        is_smaller = 2 * len(part) <= len(members)
        yield from inside(vectors, part, search) if is_smaller else with_leaders(vectors, part, search)
