"""Pairs inside a cluster, also when it is too large to compare everything with everything.

Of a cluster with more than `max_cluster_rows` rows only those are compared that have it among their nearest clusters,
about a quarter. Then its crowds are taken out: a crowd is a picture that occurs so often (a placeholder a million
times) that its copies fill a share of the cluster, which k-means cannot split. The rows of a crowd are compared with
its leaders only, and are reported as cut short. The rest is clustered again, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from curation.duplicates import blocks
from curation.duplicates.blocks import Pairs, SearchSettings, are_alike, find_pairs, find_pairs_with_leaders
from curation.duplicates.clustering import (
    SAMPLES_PER_CENTROID,
    Clustering,
    normalise,
    num_centroids_for,
    principal_axes,
    project,
    train,
    usable,
)

CROWD_SAMPLE = 2_048
CROWD_SHARE = 0.01
"""A row is the centre of a crowd when this share of a sample of the cluster is like it."""


def search_cluster(
    vectors: np.ndarray,
    members: np.ndarray,
    search: SearchSettings,
    labels: np.ndarray | None = None,
    ranks: np.ndarray | None = None,
) -> Iterator[Pairs]:
    """Pairs among `members`, rising row numbers of `vectors` `[n, d]`, possibly memory-mapped; some come repeatedly.
    Pairs of a row with itself are rows that were cut short.

    With `labels` (int64 `[n]`), only pairs of equal labels; with `ranks` (`[members]`), only pairs that
    `find_pairs` compares then.
    All members must have a direction.
    """
    if len(members) > search.max_cluster_rows and ranks is not None:
        near = ranks <= search.near_rank
        members, ranks = members[near], ranks[near]
    if len(members) <= search.max_cluster_rows:
        yield from find_pairs(vectors, members, search, labels, ranks)
        return
    if labels is not None:
        order = np.argsort(labels[members], kind="stable")
        changes = np.flatnonzero(np.diff(labels[members[order]])) + 1
        for group in np.split(order, changes):
            yield from search_cluster(vectors, members[group], search, None, None if ranks is None else ranks[group])
        return
    crowd = _find_crowds(vectors, members, search)
    follows = np.zeros(len(members), bool)
    for number in range(crowd.max() + 1):
        for pairs in find_pairs_with_leaders(vectors, members[crowd == number], search):
            follows[np.searchsorted(members, pairs[1])] = True
            yield pairs
    yield from _search_subclusters(vectors, members[~follows], search)


def train_on_sample(vectors: np.ndarray, members: np.ndarray, num_centroids: int, seed: int) -> Clustering:
    """A clustering of the rows `members` of `vectors`, trained on a seeded sample of them."""
    wanted = min(len(members), num_centroids * SAMPLES_PER_CENTROID)
    rows = np.sort(np.random.default_rng(seed).choice(len(members), wanted, replace=False))
    sample = np.asarray(vectors[members[rows]], np.float32)
    sample = normalise(sample[usable(sample)])
    axes = principal_axes(sample)
    return train(project(sample, axes), num_centroids, seed=seed, axes=axes)


def split_by_cluster(nearest: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers, rising, and ranks of each cluster of two or more, from `nearest` int32 `[n, probes]` (-1 for none).

    A rank is the position of the cluster among the nearest of a row, from 1 on.
    """
    flat = nearest.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[np.searchsorted(flat[order], 0) :]
    for part in np.split(order, np.flatnonzero(np.diff(flat[order])) + 1):
        if len(part) > 1:
            yield part // nearest.shape[1], part % nearest.shape[1] + 1


def _find_crowds(vectors: np.ndarray, members: np.ndarray, search: SearchSettings) -> np.ndarray:
    """The crowd of each member, -1 for most; int32 `[members]`."""
    step = -(-len(members) // CROWD_SAMPLE)
    sample = normalise(vectors[members[::step]])
    similar = are_alike(sample, sample, search.min_cosine)
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
        block = normalise(vectors[members[start : start + blocks.BLOCK]])
        similar = are_alike(block, sample[centres], search.min_cosine)
        crowd[start : start + blocks.BLOCK] = np.where(similar.any(axis=1), similar.argmax(axis=1), -1)
    return crowd


def _search_subclusters(vectors: np.ndarray, members: np.ndarray, search: SearchSettings) -> Iterator[Pairs]:
    """Pairs among `members` by clusters of their own; a part that is no smaller is compared with leaders only."""
    if len(members) <= search.max_cluster_rows:
        yield from find_pairs(vectors, members, search)
        return
    clustering = train_on_sample(vectors, members, num_centroids_for(len(members)), search.seed)
    nearest = clustering.assign(vectors, search.num_probes, members)
    for positions, ranks in split_by_cluster(nearest):
        part = members[positions]
        if 2 * len(part) <= len(members):
            yield from search_cluster(vectors, part, search, None, ranks)
        else:
            yield from find_pairs_with_leaders(vectors, part, search)
