"""Pairs inside a cluster, also when it is too large to compare everything with everything.

A cluster of more than `max_cluster_rows` keeps only the rows that lie near, a quarter of them, and loses its crowds:
pictures found so often that they fill a share of it (a placeholder a million times), which k-means cannot split. Their
rows are compared with the first of their kind only, and told as cut short. What is left is clustered again, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from curation.duplicates import blocks
from curation.duplicates.blocks import Pairs, Search, alike, all_pairs, with_leaders
from curation.duplicates.clustering import (
    SAMPLES_PER_CENTROID,
    Clustering,
    along,
    normalised,
    num_centroids_for,
    principal_axes,
    train,
    usable,
)

CROWD_SAMPLE = 2_048
CROWD_SHARE = 0.01
"""Of a sample of the cluster, alike to one row: such a row is the centre of a crowd."""


def inside(
    vectors: np.ndarray,
    members: np.ndarray,
    search: Search,
    labels: np.ndarray | None = None,
    ranks: np.ndarray | None = None,
) -> Iterator[Pairs]:
    """Pairs among `members`, rising row numbers of `vectors` `[n, d]`, possibly memory-mapped; some come repeatedly.
    Pairs of a row with itself are rows that were cut short.

    With `labels` (int64 `[n]`), only pairs of equal labels; with `ranks` (`[members]`), what `all_pairs` compares then.
    All members must have a direction.
    """
    if len(members) > search.max_cluster_rows and ranks is not None:
        near = ranks <= search.near_rank
        members, ranks = members[near], ranks[near]
    if len(members) <= search.max_cluster_rows:
        yield from all_pairs(vectors, members, search, labels, ranks)
        return
    if labels is not None:
        order = np.argsort(labels[members], kind="stable")
        changes = np.flatnonzero(np.diff(labels[members[order]])) + 1
        for group in np.split(order, changes):
            yield from inside(vectors, members[group], search, None, None if ranks is None else ranks[group])
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
    sample = normalised(sample[usable(sample)])
    axes = principal_axes(sample)
    return train(along(sample, axes), num_centroids, seed=seed, axes=axes)


def clusters(nearest: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers, rising, and ranks of each cluster of two or more, from `nearest` int32 `[n, probes]` (-1 for none).

    A rank is the position of the cluster among the nearest of a row, from 1 on.
    """
    flat = nearest.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[np.searchsorted(flat[order], 0) :]
    for part in np.split(order, np.flatnonzero(np.diff(flat[order])) + 1):
        if len(part) > 1:
            yield part // nearest.shape[1], part % nearest.shape[1] + 1


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
    for positions, ranks in clusters(nearest):
        part = members[positions]
        if 2 * len(part) <= len(members):
            yield from inside(vectors, part, search, None, ranks)
        else:
            yield from with_leaders(vectors, part, search)
