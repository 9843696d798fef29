"""Rows of one cluster compared with each other, a block against a block at a time.

A row belongs to its nearest clusters, and has rank i in the i-th nearest of them. Two rows are compared in a cluster
when the product of their ranks is at most `num_probes`. When two alike rows have different nearest clusters, one of
them mostly lies close to the nearest cluster of the other. So this finds as many pairs with fewer cosines than
comparing all rows of a cluster does. Rows are numbered in the order of the keep rule: the smaller number of a pair is
the row that would be kept. No step holds more than BLOCK × BLOCK similarities, whatever the size of the cluster.

A row that is like more rows than it may remember is cut short. A pair of the row with itself reports it: the caller
that removes rows must search the kept ones among them again (jobs/duplicates/graph.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from curation.duplicates.clustering import normalise, widen
from curation.duplicates.limit import take_best

BLOCK = 256
ROUNDING = 1e-6
"""How far the cosine of a vector with itself may fall below 1 in float32."""
NO_PAIRS = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(left int64, right int64, cosine float32) `[pairs]` each, left < right; or left = right, a row that was cut short.
`SearchSettings.in_doubt` says which of them are in doubt."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How pairs are searched. `min_cosine` is τ.

    A row remembers its `max_neighbours` best neighbours by the keep rule, in each comparison of two sets of ranks. With
    `doubtful_from`, pairs from this cosine up to `min_cosine` are in doubt; of these a row remembers its nearest
    `max_doubtful` better ones in each comparison of two blocks.
    """

    min_cosine: float
    doubtful_from: float | None = None
    max_doubtful: int = 4
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

    def in_doubt(self, cosine: np.ndarray) -> np.ndarray:
        """Mask of the cosines of found pairs that are in doubt, not alike."""
        if self.doubtful_from is None:
            return np.zeros(cosine.shape, bool)
        return np.asarray(cosine < self.min_cosine - ROUNDING)

    def passes(self, num_centroids: int) -> int:
        """How many clusterings are searched: one cluster needs no second look."""
        return self.num_passes if num_centroids > 1 else 1


def find_pairs(
    vectors: np.ndarray,
    members: np.ndarray,
    search: SearchSettings,
    labels: np.ndarray | None = None,
    ranks: np.ndarray | None = None,
) -> Iterator[Pairs]:
    """Pairs among `members`, rising row numbers of `vectors` `[n, d]`; holds the members' vectors in float32.

    `ranks` int `[members]` is the rank that each member has in this cluster, from 1 on; None compares all members.
    """
    known = normalise(widen(vectors[members]))
    if ranks is None:
        yield from _compare_within(known, members, np.arange(len(members)), search, labels)
        return
    for rank in range(1, search.near_rank + 1):
        own = np.flatnonzero(ranks == rank)
        others = np.flatnonzero((ranks > rank) & (ranks <= search.num_probes // rank))
        yield from _compare_within(known, members, own, search, labels)
        yield from _compare_between(known, members, own, others, search, labels)


def _compare_within(
    known: np.ndarray, members: np.ndarray, own: np.ndarray, search: SearchSettings, labels: np.ndarray | None
) -> Iterator[Pairs]:
    """Pairs among the places `own` of `members`, whose vectors are `known`."""
    for start in range(0, len(own), BLOCK):
        mine = own[start : start + BLOCK]
        remaining = np.full(len(mine), search.max_neighbours)
        for first in range(0, start + 1, BLOCK):
            theirs = own[first : first + BLOCK]
            yield _find_close(known[mine], members[mine], known[theirs], members[theirs], search, labels, remaining)
        yield _report_cut_short(members[mine][remaining < 0])


def _compare_between(
    known: np.ndarray,
    members: np.ndarray,
    own: np.ndarray,
    others: np.ndarray,
    search: SearchSettings,
    labels: np.ndarray | None,
) -> Iterator[Pairs]:
    """Pairs of a place in `own` with one in `others`, whichever is the better row."""
    others_remaining = np.full(len(others), search.max_neighbours)
    for start in range(0, len(own), BLOCK):
        mine = own[start : start + BLOCK]
        remaining = np.full(len(mine), search.max_neighbours)
        for first in range(0, len(others), BLOCK):
            theirs = others[first : first + BLOCK]
            theirs_remaining = others_remaining[first : first + BLOCK]
            yield _find_close(
                known[mine], members[mine], known[theirs], members[theirs], search, labels, remaining, theirs_remaining
            )
        yield _report_cut_short(members[mine][remaining < 0])
    yield _report_cut_short(members[others][others_remaining < 0])


def find_pairs_with_leaders(vectors: np.ndarray, members: np.ndarray, search: SearchSettings) -> Iterator[Pairs]:
    """Pairs of `members` with their leaders, which resemble no member before them; all other members are cut short.

    As long as the leaders are kept, the keep rule needs no other pairs. The cost is members × distinct pictures.
    No pair is in doubt: whoever resembles no leader is compared elsewhere.
    """
    leaders, search = members[:0], replace(search, doubtful_from=None)
    for start in range(0, len(members), BLOCK):
        rows = members[start : start + BLOCK]
        block = normalise(vectors[rows])
        remaining = np.full(len(rows), search.max_neighbours)
        for first in range(0, len(leaders), BLOCK):
            others = leaders[first : first + BLOCK]
            yield _find_close(block, rows, normalise(vectors[others]), others, search, None, remaining)
        alone = np.flatnonzero(remaining == search.max_neighbours)
        fresh = alone[_choose_leaders(block[alone], search.min_cosine)]
        yield _find_close(block, rows, block[fresh], rows[fresh], search, None, remaining)
        yield _report_cut_short(rows[remaining < search.max_neighbours])
        leaders = np.concatenate([leaders, rows[fresh]])


def compute_cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines `[len(a), len(b)]` of rows of length 1."""
    return np.asarray(a @ b.T)


def are_alike(a: np.ndarray, b: np.ndarray, min_cosine: float) -> np.ndarray:
    """Mask `[len(a), len(b)]` of the rows of length 1 whose cosine is at least `min_cosine`."""
    return np.asarray(compute_cosines(a, b) >= min_cosine - ROUNDING)


def _find_close(
    block: np.ndarray,
    rows: np.ndarray,
    others: np.ndarray,
    other_rows: np.ndarray,
    search: SearchSettings,
    labels: np.ndarray | None,
    remaining: np.ndarray,
    others_remaining: np.ndarray | None = None,
) -> Pairs:
    """Pairs (one of `other_rows`, a later one of `rows`) that are alike, best-ranked first, up to `remaining`.

    With `others_remaining` also those whose later row is one of `other_rows`. Then the pairs in doubt.
    """
    cosines = compute_cosines(block, others)
    mine, theirs = np.nonzero(cosines >= search.min_cosine - ROUNDING)
    a, b = rows[mine], other_rows[theirs]
    wanted = np.ones(len(mine), bool) if labels is None else labels[a] == labels[b]
    taken = take_best(mine, wanted & (b < a), remaining)
    if others_remaining is not None:
        taken |= take_best(theirs, wanted & (a < b), others_remaining)
    mine, theirs = mine[taken], theirs[taken]
    if search.doubtful_from is not None:
        places = _find_doubtful(cosines, rows, other_rows, search, labels, others_remaining is not None)
        mine, theirs = np.concatenate([mine, places[0]]), np.concatenate([theirs, places[1]])
    if not len(mine):
        return NO_PAIRS
    a, b = rows[mine], other_rows[theirs]
    cosine = np.einsum("ij,ij->i", block[mine], others[theirs])
    return np.minimum(a, b).astype(np.int64), np.maximum(a, b).astype(np.int64), cosine.clip(max=1)


def _find_doubtful(
    cosines: np.ndarray,
    rows: np.ndarray,
    other_rows: np.ndarray,
    search: SearchSettings,
    labels: np.ndarray | None,
    both_ways: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Places in `rows` and in `other_rows` of the pairs in doubt, of each later row its nearest `max_doubtful`.

    The later row is one of `rows`; with `both_ways` it may be one of `other_rows` too.
    """
    assert search.doubtful_from is not None
    doubtful = search.in_doubt(cosines) & (cosines >= search.doubtful_from - ROUNDING)
    if not doubtful.any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    if labels is not None:
        doubtful &= labels[rows][:, None] == labels[other_rows]
    later = rows[:, None] > other_rows
    mine, theirs = _take_nearest(np.where(doubtful & later, cosines, -np.inf), search.max_doubtful)
    if both_ways:
        earlier = np.where(doubtful & (rows[:, None] < other_rows), cosines, -np.inf)
        more_theirs, more_mine = _take_nearest(earlier.T, search.max_doubtful)
        mine, theirs = np.concatenate([mine, more_mine]), np.concatenate([theirs, more_theirs])
    return mine, theirs


def _take_nearest(cosines: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the `count` largest values of each row of `cosines` that are finite."""
    if cosines.shape[1] > count:
        columns = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    else:
        columns = np.broadcast_to(np.arange(cosines.shape[1]), cosines.shape)
    row, place = np.nonzero(np.isfinite(np.take_along_axis(cosines, columns, axis=1)))
    return row, columns[row, place]


def _report_cut_short(rows: np.ndarray) -> Pairs:
    return rows.astype(np.int64), rows.astype(np.int64), np.ones(len(rows), np.float32)


def _choose_leaders(block: np.ndarray, min_cosine: float) -> np.ndarray:
    """Positions in `block` of the rows that resemble none of the chosen ones before them."""
    similar = are_alike(block, block, min_cosine)
    is_alike, chosen = np.zeros(len(block), bool), []
    for position in range(len(block)):
        if not is_alike[position]:
            chosen.append(position)
            is_alike |= similar[position]
    return np.array(chosen, np.int64)
