"""All pairs of 64-bit hashes within a Hamming distance k, none missed, without comparing all pairs.

Two hashes at most k bits apart agree on at least B - k of B blocks (Manku, Jain, Das Sarma, "Detecting near-duplicates
for web crawling", WWW 2007, section 3). For each choice of B - k blocks the hashes are sorted with those blocks in
front, and only runs that agree on all of them are compared. Each table stands alone, so a Spark task can take one; or
all tables with the same first block, on the hashes that have one value there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

BITS = 64
CHUNK = 1 << 18
"""Rows of a sorted table compared at a time, so that temporaries stay in the cache."""
SORT_COST, PAIR_COST = 60.0, 4.0
"""Nanoseconds to put one hash into a sorted table and to compare one pair, as measured; they only choose B."""
MAX_BLOCKS = 12

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(smaller hash uint64, larger hash uint64, distance uint8), `[pairs]` each."""


@dataclass(frozen=True)
class Table:
    """One way of agreeing: the `equal` ones of `num_blocks` blocks lead the sort."""

    num_blocks: int
    equal: tuple[int, ...]

    @property
    def order(self) -> list[int]:
        """Blocks from the most significant of the rearranged hash to the least."""
        return [*self.equal, *(block for block in range(self.num_blocks) if block not in self.equal)]

    @property
    def key_bits(self) -> int:
        """Bits of the leading blocks."""
        return sum(_edges(self.num_blocks)[b + 1] - _edges(self.num_blocks)[b] for b in self.equal)

    def rearranged(self, hashes: np.ndarray) -> np.ndarray:
        """`hashes` (uint64) with the leading blocks in the most significant bits."""
        return _moved(hashes, self.num_blocks, self.order)

    def restored(self, rearranged: np.ndarray) -> np.ndarray:
        """The inverse of `rearranged`."""
        edges, order = _edges(self.num_blocks), self.order
        result, used = np.zeros_like(rearranged), 0
        for block in reversed(order):
            width = edges[block + 1] - edges[block]
            part = (rearranged >> np.uint64(used)) & np.uint64((1 << width) - 1)
            result |= part << np.uint64(edges[block])
            used += width
        return result


def _edges(num_blocks: int) -> list[int]:
    return [BITS * block // num_blocks for block in range(num_blocks + 1)]


def block_value(hashes: np.ndarray, num_blocks: int, block: int) -> np.ndarray:
    """Bits of one block of each hash, int64: hashes that a table compares have the same in its first block."""
    edges = _edges(num_blocks)
    mask = np.uint64((1 << (edges[block + 1] - edges[block])) - 1)
    return ((hashes >> np.uint64(edges[block])) & mask).astype(np.int64)


def _moved(hashes: np.ndarray, num_blocks: int, order: Sequence[int]) -> np.ndarray:
    edges = _edges(num_blocks)
    result = np.zeros_like(hashes)
    for block in order:
        width = edges[block + 1] - edges[block]
        part = (hashes >> np.uint64(edges[block])) & np.uint64((1 << width) - 1)
        result = (result << np.uint64(width)) | part
    return result


def tables(num_hashes: int, max_distance: int) -> list[Table]:
    """The tables that together find every pair of `num_hashes` hashes at most `max_distance` apart.

    More blocks mean more tables with fewer accidental agreements; the count with the least expected work is taken.
    """
    choices = range(max_distance + 1, max(MAX_BLOCKS, max_distance + 1) + 1)

    def cost(num_blocks: int) -> float:
        agreeing = num_blocks - max_distance
        accidental = num_hashes**2 / 2 ** (BITS * agreeing / num_blocks + 1)
        return math.comb(num_blocks, agreeing) * (num_hashes * SORT_COST + accidental * PAIR_COST)

    num_blocks = min(choices, key=cost)
    return [Table(num_blocks, equal) for equal in itertools.combinations(range(num_blocks), num_blocks - max_distance)]


def near_values(hashes: np.ndarray, max_distance: int, *, num_threads: int = 1) -> Pairs:
    """Every pair of different values among `hashes` (uint64 `[n]`) at most `max_distance` apart, sorted."""
    values = np.unique(hashes)
    with ThreadPoolExecutor(num_threads) as pool:
        found = list(pool.map(lambda table: search(values, table, max_distance), tables(len(values), max_distance)))
    smaller, larger, distance = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((larger, smaller))
    return smaller[order], larger[order], distance[order]


def search(values: np.ndarray, table: Table, max_distance: int) -> Pairs:
    """The pairs of different `values` (uint64 `[n]`, unique) that `table` is the first one to find."""
    ordered = np.sort(table.rearranged(values))
    keys = ordered >> np.uint64(BITS - table.key_bits)
    found = [_chunk(ordered, keys, start, max_distance) for start in range(0, len(ordered), CHUNK)]
    a, b = (table.restored(np.concatenate(side)) for side in zip(*found, strict=True)) if found else (ordered, ordered)
    first = _is_first(a ^ b, table)
    a, b = a[first], b[first]
    return np.minimum(a, b), np.maximum(a, b), np.bitwise_count(a ^ b)


def _chunk(ordered: np.ndarray, keys: np.ndarray, start: int, max_distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Close pairs whose first member lies in `ordered[start : start + CHUNK]`; memory stays O(CHUNK + pairs)."""
    rows = np.arange(start, min(start + CHUNK, len(ordered) - 1))
    found_a, found_b = [ordered[:0]], [ordered[:0]]
    step = 1
    while len(rows := rows[rows < len(ordered) - step]):
        rows = rows[keys[rows] == keys[rows + step]]
        a, b = ordered[rows], ordered[rows + step]
        close = np.bitwise_count(a ^ b) <= max_distance
        found_a.append(a[close])
        found_b.append(b[close])
        step += 1
    return np.concatenate(found_a), np.concatenate(found_b)


def _is_first(difference: np.ndarray, table: Table) -> np.ndarray:
    """Mask of the pairs whose first agreeing blocks are those of `table`, so that one table reports each pair."""
    edges = _edges(table.num_blocks)
    masks = [((1 << (edges[b + 1] - edges[b])) - 1) << edges[b] for b in range(table.num_blocks)]
    agree = (difference[:, None] & np.array(masks, np.uint64)) == 0
    leading = agree & (np.cumsum(agree, axis=1) <= len(table.equal))
    wanted = np.isin(np.arange(table.num_blocks), table.equal)
    return (leading == wanted).all(axis=1)
