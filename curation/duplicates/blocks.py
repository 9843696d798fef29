"""Rows of one cluster compared with each other, a block against a block at a time.

Rows are numbered in the order of the keep rule, so of a pair the smaller number is the row that would stay. No step
holds more than BLOCK × BLOCK similarities, whatever the size of the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from curation.duplicates.clustering import normalised

BLOCK = 256
ROUNDING = 1e-6
"""What float32 may take from the cosine of a vector with itself."""
NO_PAIRS = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(left int64, right int64, cosine float32) `[pairs]` each, left < right."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How pairs are searched. `min_cosine` is τ; a row keeps its `max_neighbours` best-ranked neighbours a cluster."""

    min_cosine: float
    num_centroids: int | None = None
    num_probes: int = 4
    num_passes: int = 2
    max_cluster_rows: int = 20_000
    max_neighbours: int = 64
    seed: int = 0

    def passes(self, num_centroids: int) -> int:
        """How many clusterings are searched: one cluster needs no second look."""
        return self.num_passes if num_centroids > 1 else 1


def all_pairs(
    vectors: np.ndarray, members: np.ndarray, search: Search, labels: np.ndarray | None = None
) -> Iterator[Pairs]:
    """Pairs among `members`, rising row numbers of `vectors` `[n, d]`; holds the members' vectors in float32."""
    known = normalised(vectors[members])
    for start in range(0, len(members), BLOCK):
        own = slice(start, start + BLOCK)
        room = np.full(len(members[own]), search.max_neighbours)
        for first in range(0, start + 1, BLOCK):
            other = slice(first, first + BLOCK)
            yield _close(known[own], members[own], known[other], members[other], search, labels, room)


def with_leaders(vectors: np.ndarray, members: np.ndarray, search: Search) -> Iterator[Pairs]:
    """Pairs of `members` with those of them that nothing before them resembles.

    That is what the keep rule needs of them, and costs members × distinct pictures.
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
        leaders = np.concatenate([leaders, rows[fresh]])


def alike(a: np.ndarray, b: np.ndarray, min_cosine: float) -> np.ndarray:
    """Mask `[len(a), len(b)]` of the rows of length 1 whose cosine is at least `min_cosine`."""
    return a @ b.T >= min_cosine - ROUNDING


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
    found = alike(block, others, search.min_cosine)
    found &= other_rows[None, :] < rows[:, None]
    if labels is not None:
        found &= labels[rows][:, None] == labels[other_rows][None, :]
    mine, theirs = np.nonzero(found)
    counts = np.bincount(mine, minlength=len(rows))
    place = np.arange(len(mine)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = place < room[mine]
    mine, theirs = mine[taken], theirs[taken]
    room -= np.minimum(counts, room)
    cosine = np.einsum("ij,ij->i", block[mine], others[theirs])
    return other_rows[theirs].astype(np.int64), rows[mine].astype(np.int64), cosine.clip(max=1)


def _first_of_their_kind(block: np.ndarray, min_cosine: float) -> np.ndarray:
    """Positions in `block` of the rows that resemble none of the chosen ones before them."""
    similar = alike(block, block, min_cosine)
    gone, chosen = np.zeros(len(block), bool), []
    for position in range(len(block)):
        if not gone[position]:
            chosen.append(position)
            gone |= similar[position]
    return np.array(chosen, np.int64)
