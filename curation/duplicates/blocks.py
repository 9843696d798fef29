"""Rows of one cluster compared with each other, a block against a block at a time.

A row belongs to its nearest clusters, and is of rank i in the i-th of them. Two rows are compared in a cluster when
the product of their ranks is at most `num_probes`: of a pair that clusters part, one row mostly lies near to where the
other is at home, so for as many pairs found this takes fewer cosines than comparing everything in a cluster does.
Rows are numbered in the order of the keep rule, so of a pair the smaller number is the row that would stay. No step
holds more than BLOCK × BLOCK similarities, whatever the size of the cluster.

A row with more alike rows than it may remember is cut short. A pair of that row with itself tells so: whoever removes
rows has to search those again that are still there (jobs/duplicates/graph.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from curation.duplicates.clustering import normalised, widened
from curation.duplicates.room import take

BLOCK = 256
ROUNDING = 1e-6
"""What float32 may take from the cosine of a vector with itself."""
NO_PAIRS = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(left int64, right int64, cosine float32) `[pairs]` each, left < right; or left = right, a row that was cut short."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How pairs are searched. `min_cosine` is τ.

    A row remembers its `max_neighbours` best neighbours by the keep rule, in each comparison of two sets of ranks.
    """

    min_cosine: float
    num_centroids: int | None = None
    num_probes: int = 12
    num_passes: int = 2
    max_cluster_rows: int = 20_000
    max_neighbours: int = 64
    seed: int = 0

    @property
    def near_rank(self) -> int:
        """Rank up to which all rows of a cluster are compared with each other, and that rows of a huge one have."""
        return math.isqrt(self.num_probes)

    def passes(self, num_centroids: int) -> int:
        """How many clusterings are searched: one cluster needs no second look."""
        return self.num_passes if num_centroids > 1 else 1


def all_pairs(
    vectors: np.ndarray,
    members: np.ndarray,
    search: Search,
    labels: np.ndarray | None = None,
    ranks: np.ndarray | None = None,
) -> Iterator[Pairs]:
    """Pairs among `members`, rising row numbers of `vectors` `[n, d]`; holds the members' vectors in float32.

    `ranks` int `[members]` from 1 on says the how manieth nearest this cluster is of each; None compares all.
    """
    known = normalised(widened(vectors[members]))
    if ranks is None:
        yield from _within(known, members, np.arange(len(members)), search, labels)
        return
    for rank in range(1, search.near_rank + 1):
        own = np.flatnonzero(ranks == rank)
        others = np.flatnonzero((ranks > rank) & (ranks <= search.num_probes // rank))
        yield from _within(known, members, own, search, labels)
        yield from _between(known, members, own, others, search, labels)


def _within(
    known: np.ndarray, members: np.ndarray, own: np.ndarray, search: Search, labels: np.ndarray | None
) -> Iterator[Pairs]:
    """Pairs among the places `own` of `members`, whose vectors are `known`."""
    for start in range(0, len(own), BLOCK):
        mine = own[start : start + BLOCK]
        room = np.full(len(mine), search.max_neighbours)
        for first in range(0, start + 1, BLOCK):
            theirs = own[first : first + BLOCK]
            yield _close(known[mine], members[mine], known[theirs], members[theirs], search, labels, room)
        yield _cut_short(members[mine][room < 0])


def _between(
    known: np.ndarray,
    members: np.ndarray,
    own: np.ndarray,
    others: np.ndarray,
    search: Search,
    labels: np.ndarray | None,
) -> Iterator[Pairs]:
    """Pairs of a place in `own` with one in `others`, whichever is the better row."""
    other_room = np.full(len(others), search.max_neighbours)
    for start in range(0, len(own), BLOCK):
        mine = own[start : start + BLOCK]
        room = np.full(len(mine), search.max_neighbours)
        for first in range(0, len(others), BLOCK):
            theirs = others[first : first + BLOCK]
            theirs_room = other_room[first : first + BLOCK]
            yield _close(known[mine], members[mine], known[theirs], members[theirs], search, labels, room, theirs_room)
        yield _cut_short(members[mine][room < 0])
    yield _cut_short(members[others][other_room < 0])


def with_leaders(vectors: np.ndarray, members: np.ndarray, search: Search) -> Iterator[Pairs]:
    """Pairs of `members` with those of them that nothing before them resembles; all others are cut short.

    That is what the keep rule needs of them as long as these leaders stay, and costs members × distinct pictures.
    """
    leaders = members[:0]
    for start in range(0, len(members), BLOCK):
        rows = members[start : start + BLOCK]
        block = normalised(vectors[rows])
        room = np.full(len(rows), search.max_neighbours)
        for first in range(0, len(leaders), BLOCK):
            others = leaders[first : first + BLOCK]
            yield _close(block, rows, normalised(vectors[others]), others, search, None, room)
        alone = np.flatnonzero(room == search.max_neighbours)
        fresh = alone[_first_of_their_kind(block[alone], search.min_cosine)]
        yield _close(block, rows, block[fresh], rows[fresh], search, None, room)
        yield _cut_short(rows[room < search.max_neighbours])
        leaders = np.concatenate([leaders, rows[fresh]])


def alike(a: np.ndarray, b: np.ndarray, min_cosine: float) -> np.ndarray:
    """Mask `[len(a), len(b)]` of the rows of length 1 whose cosine is at least `min_cosine`."""
    return np.asarray(a @ b.T >= min_cosine - ROUNDING)


def _close(
    block: np.ndarray,
    rows: np.ndarray,
    others: np.ndarray,
    other_rows: np.ndarray,
    search: Search,
    labels: np.ndarray | None,
    room: np.ndarray,
    other_room: np.ndarray | None = None,
) -> Pairs:
    """Pairs (one of `other_rows`, a later one of `rows`) that are alike, taking from `room`, best-ranked first.

    With `other_room` also those whose later row is one of `other_rows`.
    """
    mine, theirs = np.nonzero(alike(block, others, search.min_cosine))
    if not len(mine):
        return NO_PAIRS
    a, b = rows[mine], other_rows[theirs]
    wanted = np.ones(len(mine), bool) if labels is None else labels[a] == labels[b]
    taken = take(mine, wanted & (b < a), room)
    if other_room is not None:
        taken |= take(theirs, wanted & (a < b), other_room)
    mine, theirs, a, b = mine[taken], theirs[taken], a[taken], b[taken]
    cosine = np.einsum("ij,ij->i", block[mine], others[theirs])
    return np.minimum(a, b).astype(np.int64), np.maximum(a, b).astype(np.int64), cosine.clip(max=1)


def _cut_short(rows: np.ndarray) -> Pairs:
    return rows.astype(np.int64), rows.astype(np.int64), np.ones(len(rows), np.float32)


def _first_of_their_kind(block: np.ndarray, min_cosine: float) -> np.ndarray:
    """Positions in `block` of the rows that resemble none of the chosen ones before them."""
    similar = alike(block, block, min_cosine)
    gone, chosen = np.zeros(len(block), bool), []
    for position in range(len(block)):
        if not gone[position]:
            chosen.append(position)
            gone |= similar[position]
    return np.array(chosen, np.int64)
