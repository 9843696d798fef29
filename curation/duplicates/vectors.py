"""All pairs of vectors at least τ alike, searched inside overlapping clusters, a block against a block at a time.

Rows are numbered in the order of the keep rule, so of a pair the smaller number is the row that would stay. No step
holds more than BLOCK × BLOCK similarities, whatever the size of a cluster. In a cluster of more than
`max_cluster_rows` (a placeholder picture found a million times cannot be split) rows are compared only with those
that nothing before them resembles, which is what the keep rule needs and costs rows × distinct pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from curation.duplicates.clustering import (
    SAMPLES_PER_CENTROID,
    Clustering,
    normalised,
    num_centroids_for,
    train,
    usable,
)

BLOCK = 2_048
NO_PAIRS = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(left int64, right int64, cosine float32) `[pairs]` each, left < right."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How pairs are searched. `min_cosine` is τ; a row keeps its `max_neighbours` best-ranked neighbours a cluster."""

    min_cosine: float
    num_centroids: int | None = None
    num_probes: int = 4
    num_passes: int = 1
    max_cluster_rows: int = 20_000
    max_neighbours: int = 64
    seed: int = 0


def near_pairs(vectors: np.ndarray, search: Search, labels: np.ndarray | None = None) -> Pairs:
    """Pairs of rows of `vectors` (`[n, d]`, any float type, possibly memory-mapped), sorted, each once.

    With `labels` (int64 `[n]`), only pairs of equal labels. Rows without a direction are in no pair.
    """
    found = [NO_PAIRS]
    for number in range(search.num_passes):
        clustering = trained(vectors, search, search.seed + number)
        for members in clusters(clustering.assign(vectors, search.num_probes), len(clustering.centroids)):
            found.extend(inside(vectors, members, search, labels))
    left, right, cosine = (np.concatenate(column) for column in zip(*found, strict=True))
    _, first = np.unique(left * len(vectors) + right, return_index=True)
    return left[first], right[first], cosine[first]


def trained(vectors: np.ndarray, search: Search, seed: int) -> Clustering:
    """A clustering of `vectors` on a seeded sample of them."""
    num_centroids = search.num_centroids or num_centroids_for(len(vectors))
    wanted = min(len(vectors), num_centroids * SAMPLES_PER_CENTROID)
    rows = np.sort(np.random.default_rng(seed).choice(len(vectors), wanted, replace=False))
    sample = np.asarray(vectors[rows], np.float32)
    return train(normalised(sample[usable(sample)]), num_centroids, seed=seed)


def clusters(nearest: np.ndarray, num_clusters: int) -> Iterator[np.ndarray]:
    """Sorted row numbers of each cluster that has two or more, from `nearest` int32 `[n, probes]` (-1 for none)."""
    flat = nearest.ravel()
    order = np.argsort(flat, kind="stable")
    bounds = np.searchsorted(flat[order], np.arange(num_clusters + 1))
    for start, stop in zip(bounds, bounds[1:], strict=False):
        if stop - start > 1:
            yield order[start:stop] // nearest.shape[1]


def inside(vectors: np.ndarray, members: np.ndarray, search: Search, labels: np.ndarray | None) -> Iterator[Pairs]:
    """Pairs among `members`, rising row numbers of `vectors`."""
    everyone = len(members) <= search.max_cluster_rows
    leaders = members if everyone else members[:0]
    for start in range(0, len(members), BLOCK):
        rows = members[start : start + BLOCK]
        block = normalised(vectors[rows])
        room = np.full(len(rows), search.max_neighbours)
        before = leaders[:start] if everyone else leaders
        for first in range(0, len(before), BLOCK):
            others = before[first : first + BLOCK]
            yield _close(block, rows, normalised(vectors[others]), others, search, labels, room)
        if everyone:
            yield _close(block, rows, block, rows, search, labels, room)
            continue
        alone = np.flatnonzero(room == search.max_neighbours)
        fresh = alone[_first_of_their_kind(block[alone], rows[alone], search.min_cosine, labels)]
        yield _close(block, rows, block[fresh], rows[fresh], search, labels, room)
        leaders = np.concatenate([leaders, rows[fresh]])


def _close(
    block: np.ndarray,
    rows: np.ndarray,
    others: np.ndarray,
    other_rows: np.ndarray,
    search: Search,
    labels: np.ndarray | None,
    room: np.ndarray,
) -> Pairs:
    """Pairs (one of `other_rows`, a later one of `rows`) that are alike, taking from `room`, best-ranked first."""
    alike = _alike(block, rows, others, other_rows, search.min_cosine, labels)
    alike &= other_rows[None, :] < rows[:, None]
    mine, theirs = np.nonzero(alike)
    counts = np.bincount(mine, minlength=len(rows))
    place = np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = place < room[mine]
    mine, theirs = mine[taken], theirs[taken]
    room -= np.minimum(counts, room)
    cosine = np.einsum("ij,ij->i", block[mine], others[theirs])
    return other_rows[theirs].astype(np.int64), rows[mine].astype(np.int64), cosine.clip(max=1)


def _alike(
    a: np.ndarray, a_rows: np.ndarray, b: np.ndarray, b_rows: np.ndarray, min_cosine: float, labels: np.ndarray | None
) -> np.ndarray:
    alike = a @ b.T >= min_cosine
    if labels is not None:
        alike &= labels[a_rows][:, None] == labels[b_rows][None, :]
    return alike


def _first_of_their_kind(
    block: np.ndarray, rows: np.ndarray, min_cosine: float, labels: np.ndarray | None
) -> np.ndarray:
    """Positions in `block` of the rows that resemble none of the chosen ones before them."""
    alike = _alike(block, rows, block, rows, min_cosine, labels)
    gone, chosen = np.zeros(len(rows), bool), []
    for position in range(len(rows)):
        if not gone[position]:
            chosen.append(position)
            gone |= alike[position]
    return np.array(chosen, np.int64)
