"""A list of known 64-bit hashes, and which of many others lie within k bits of one of them; none is missed.

As in `curation.duplicates.hamming`, two hashes at most k bits apart agree on at least B - k of B blocks. For each
choice of those the list is sorted once with the blocks in front, and a hash is compared with what agrees with it there
only.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np

from curation.duplicates.hamming import BITS, MAX_BLOCKS, Table, make_tables_of, sort_different

MAX_BYTES = 1 << 29
"""Of the sorted copies of one list; fewer blocks take fewer copies."""
SEARCH_COST, COMPARE_COST = 300.0, 6.0
"""Nanoseconds to find a place in a sorted copy and to compare one pair, as measured; they only choose B."""
CHUNK = 1 << 18
"""Pairs compared at a time."""


class HashList:
    """`values` uint64 `[n]`, and the bits `max_distance` in which another hash may differ from one of them."""

    def __init__(self, values: np.ndarray, max_distance: int) -> None:
        self._values, self._max_distance = sort_different(values), max_distance

    def has_near(self, hashes: np.ndarray) -> np.ndarray:
        """Whether each of `hashes`, uint64 `[m]`, lies within `max_distance` bits of one of the list; bool `[m]`."""
        asked, places = np.unique(hashes, return_inverse=True)
        near = np.zeros(len(asked), bool)
        for table, ordered in self._copies if len(self._values) else ():
            left = np.flatnonzero(~near)
            near[left] = _find_near(table, ordered, asked[left], self._max_distance)
        return near[places]

    @functools.cached_property
    def _copies(self) -> list[tuple[Table, np.ndarray]]:
        tables = make_tables_of(_choose_blocks(len(self._values), self._max_distance), self._max_distance)
        return [(table, np.sort(table.rearrange(self._values))) for table in tables]


def _choose_blocks(num_values: int, max_distance: int) -> int:
    """The number of blocks by which a hash is looked up with the least expected work."""

    def cost(num_blocks: int) -> float:
        agreeing = num_blocks - max_distance
        accidental = num_values / 2 ** (BITS * agreeing / num_blocks)
        return math.comb(num_blocks, agreeing) * (SEARCH_COST + accidental * COMPARE_COST)

    choices = range(max_distance + 1, max(MAX_BLOCKS, max_distance + 1) + 1)
    fitting = [n for n in choices if math.comb(n, max_distance) * 8 * num_values <= MAX_BYTES]
    return min(fitting or choices[:1], key=cost)


def _find_near(table: Table, ordered: np.ndarray, asked: np.ndarray, max_distance: int) -> np.ndarray:
    """Whether each of `asked` is close to one of `ordered`, the list as `table` sorts it, that agrees in its blocks."""
    wanted = table.rearrange(asked)
    rest = np.uint64((1 << (BITS - table.key_bits)) - 1)
    first = np.searchsorted(ordered, wanted & ~rest)
    counts = np.searchsorted(ordered, wanted | rest, side="right") - first
    near = np.zeros(len(asked), bool)
    for start, stop in _cut(counts):
        part = np.arange(start, stop)
        rows = np.repeat(part, counts[part])
        offsets = np.arange(len(rows)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        close = np.bitwise_count(wanted[rows] ^ ordered[first[rows] + offsets]) <= max_distance
        near[rows[close]] = True
    return near


def _cut(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of rows with about CHUNK of `counts` each, one row at least."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + CHUNK, side="right")))
        yield start, stop
        start = stop
