"""All pairs of 64-bit hashes within a Hamming distance k, none missed, without comparing all pairs.

Two hashes at most k bits apart agree on at least B - k of B blocks (Manku, Jain, Das Sarma, "Detecting near-duplicates
for web crawling", WWW 2007, section 3). For each choice of B - k blocks the hashes are sorted with those blocks in
front, and only runs that agree on all of them are compared. Each table stands alone, so a Spark task can take one; or
all tables with the same first block, on the hashes that have one value there.

Where hashes crowd, all pairs would be the square of the crowd. Given the rank of each hash, a run of more than MAX_RUN
is therefore compared best-ranked first, and each hash takes at most MAX_NEIGHBOURS better neighbours from it. A hash
that has more is reported as cut short; the pairs of all other hashes with each other are complete.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from curation.duplicates.limit import take_best

BITS = 64
CHUNK = 1 << 16
"""Hashes rearranged and compared at a time, so that temporaries stay in the cache."""
FEW = 16
"""Where only one of so many hashes still has the wanted neighbour, these are picked out before they are compared."""
SORT_COST, PAIR_COST = 60.0, 4.0
"""Nanoseconds to put one hash into a sorted table and to compare one pair, as measured; they only choose B."""
MAX_BLOCKS = 12
MAX_RUN = 256
"""Hashes that agree on a table's blocks up to which all pairs among them are wanted."""
MAX_NEIGHBOURS = 64
"""Better-ranked neighbours that a hash of a longer run takes from it."""
CROWD_BLOCK = 512

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(smaller hash uint64, larger hash uint64, distance uint8), `[pairs]` each. A pair of a hash with itself says that the
hash was cut short."""


@dataclass(frozen=True)
class Classes:
    """What is compared where hashes crowd, in order of `hashes`: uint64 `[n]`, each with a text (int64) at most once.

    Only equal `texts` make pairs there, and smaller `ranks` (integers) are better.
    """

    hashes: np.ndarray
    texts: np.ndarray
    ranks: np.ndarray

    def of(self, hashes: np.ndarray) -> Classes:
        """The classes that have one of `hashes` (unique), best-ranked first."""
        first = np.searchsorted(self.hashes, hashes)
        counts = np.searchsorted(self.hashes, hashes, side="right") - first
        rows = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        rows = rows[np.argsort(self.ranks[rows], kind="stable")]
        return Classes(self.hashes[rows], self.texts[rows], self.ranks[rows])


@dataclass(frozen=True)
class Table:
    """One way of agreeing: the `equal` ones of `num_blocks` blocks lead the sort."""

    num_blocks: int
    equal: tuple[int, ...]

    @property
    def order(self) -> list[int]:
        """Blocks from the most significant of the rearranged hash to the least."""
        others = set(range(self.num_blocks)).difference(self.equal)
        return [*sorted(self.equal, reverse=True), *sorted(others, reverse=True)]

    @property
    def key_bits(self) -> int:
        """Bits of the leading blocks."""
        return sum(_edges(self.num_blocks)[b + 1] - _edges(self.num_blocks)[b] for b in self.equal)

    def rearrange(self, hashes: np.ndarray) -> np.ndarray:
        """`hashes` (uint64) with the leading blocks in the most significant bits."""
        return _move_fields(hashes, self._fields())

    def restore(self, rearranged: np.ndarray) -> np.ndarray:
        """The inverse of `rearrange`."""
        return _move_fields(rearranged, [(target, source, width) for source, target, width in self._fields()])

    def _fields(self) -> list[tuple[int, int, int]]:
        """Runs of bits that stay together: where each begins in a hash, where in the rearranged one, and its bits."""
        edges, end, fields = _edges(self.num_blocks), BITS, list[tuple[int, int, int]]()
        for block in self.order:
            start, width = edges[block], edges[block + 1] - edges[block]
            end -= width
            if fields and fields[-1][0] == start + width:
                width += fields.pop()[2]
            fields.append((start, end, width))
        return fields


def _move_fields(hashes: np.ndarray, fields: Sequence[tuple[int, int, int]]) -> np.ndarray:
    result = np.zeros_like(hashes)
    for start in range(0, len(hashes), CHUNK):
        given, made = hashes[start : start + CHUNK], result[start : start + CHUNK]
        for source, target, width in fields:
            part = given & np.uint64(((1 << width) - 1) << source)
            shift, distance = (
                (np.left_shift, target - source) if target >= source else (np.right_shift, source - target)
            )
            shift(part, np.uint64(distance), out=part)
            np.bitwise_or(made, part, out=made)
    return result


def _edges(num_blocks: int) -> list[int]:
    return [BITS * block // num_blocks for block in range(num_blocks + 1)]


def block_value(hashes: np.ndarray, num_blocks: int, block: int) -> np.ndarray:
    """Bits of one block of each hash, int64: hashes that a table compares have the same in its first block."""
    edges = _edges(num_blocks)
    mask = np.uint64((1 << (edges[block + 1] - edges[block])) - 1)
    return ((hashes >> np.uint64(edges[block])) & mask).astype(np.int64)


def make_tables(num_hashes: int, max_distance: int) -> list[Table]:
    """The tables that together find every pair of `num_hashes` hashes at most `max_distance` apart.

    More blocks mean more tables with fewer accidental agreements; the count with the least expected work is taken.
    From 13 bits on, all pairs are as fast: 100,000 random hashes on one core took 10.8 s so, and by tables 4.3 s at 11
    bits, 7.5 s at 12, 11.1 s at 13, 17.8 s at 14.
    """
    choices = range(max_distance + 1, max(MAX_BLOCKS, max_distance + 2) + 1)

    def cost(num_blocks: int) -> float:
        agreeing = num_blocks - max_distance
        accidental = num_hashes**2 / 2 ** (BITS * agreeing / num_blocks + 1)
        return math.comb(num_blocks, agreeing) * (num_hashes * SORT_COST + accidental * PAIR_COST)

    return make_tables_of(min(choices, key=cost), max_distance)


def make_tables_of(num_blocks: int, max_distance: int) -> list[Table]:
    """The tables of `num_blocks` blocks that together find every pair at most `max_distance` apart."""
    return [Table(num_blocks, equal) for equal in itertools.combinations(range(num_blocks), num_blocks - max_distance)]


def sort_different(hashes: np.ndarray) -> np.ndarray:
    """The different values of `hashes` (uint64 `[n]`), rising.

    What `np.unique` gives, which puts numbers into a hash table first: 7 million took it 9 s, on one core.
    """
    values = np.sort(hashes)
    is_first = np.ones(len(values), bool)
    is_first[1:] = values[1:] != values[:-1]
    return values[is_first]


def find_near_values(hashes: np.ndarray, max_distance: int, *, num_threads: int = 1) -> Pairs:
    """Every pair of different values among `hashes` (uint64 `[n]`) at most `max_distance` apart, sorted."""
    values = sort_different(hashes)

    def search_table(table: Table) -> list[Pairs]:
        return list(search(values, table, max_distance))

    with ThreadPoolExecutor(num_threads) as pool:
        batches = [pairs for part in pool.map(search_table, make_tables(len(values), max_distance)) for pairs in part]
    batches.append((values[:0], values[:0], np.zeros(0, np.uint8)))
    smaller, larger, distance = (np.concatenate(column) for column in zip(*batches, strict=True))
    order = np.lexsort((larger, smaller))
    return smaller[order], larger[order], distance[order]


def search(
    values: np.ndarray,
    table: Table,
    max_distance: int,
    classes: Callable[[], Classes] | None = None,
    about: np.ndarray | None = None,
) -> Iterator[Pairs]:
    """The pairs of different `values` (uint64 `[n]`) that `table` is the first one to find, in batches.

    With `classes`, which gives those of all values when it is needed, hashes that crowd are cut short as the module
    says; without, values must be unique. With `about` (uint64) only runs are compared that one of these hashes would be
    in. Memory stays O(n + CHUNK).
    """
    ordered = table.rearrange(values)
    shift = np.uint64(BITS - table.key_bits)
    if about is not None:
        ordered = ordered[_have_key(ordered, sort_different(table.rearrange(about) >> shift), shift)]
    ordered.sort()
    if classes is not None and _has_equal(ordered, 1, np.uint64(1)):
        ordered = ordered[np.r_[True, ordered[1:] != ordered[:-1]]]
    if classes is not None and _has_equal(ordered, MAX_RUN, np.uint64(1) << shift):
        ends = _find_ends(ordered, np.uint64(1) << shift)
        lengths, ranked = np.diff(ends, prepend=0), classes()
        for end, length in zip(*(column[lengths > MAX_RUN].tolist() for column in (ends, lengths)), strict=True):
            run = np.sort(table.restore(ordered[end - length : end]))
            yield from _search_crowd(ranked.of(run), table, max_distance)
        ordered = ordered[np.repeat(lengths <= MAX_RUN, lengths)]
    for start in range(0, len(ordered), CHUNK):
        for a, b in _search_chunk(ordered, np.uint64(1) << shift, start, max_distance):
            yield from _report_first(table.restore(a), table.restore(b), table)


def _has_equal(ordered: np.ndarray, step: int, beyond: np.uint64) -> bool:
    """Whether two of `ordered`, `step` apart, have the same leading bits: their difference is below `beyond`."""
    for start in range(0, len(ordered) - step, CHUNK):
        one = ordered[start : min(start + CHUNK, len(ordered) - step)]
        if ((one ^ ordered[start + step : start + step + len(one)]) < beyond).any():
            return True
    return False


def _have_key(hashes: np.ndarray, keys: np.ndarray, shift: np.uint64) -> np.ndarray:
    """Mask of the `hashes` whose bits from `shift` on are one of `keys`, which rise."""
    mask = np.zeros(len(hashes), bool)
    for start in range(0, len(hashes) if len(keys) else 0, CHUNK):
        own = hashes[start : start + CHUNK] >> shift
        mask[start : start + CHUNK] = keys[np.minimum(np.searchsorted(keys, own), len(keys) - 1)] == own
    return mask


def _find_ends(ordered: np.ndarray, beyond: np.uint64) -> np.ndarray:
    """The place behind each run of `ordered`, int64: inside a run the difference of two is below `beyond`."""
    ends = list[np.ndarray]()
    for start in range(0, len(ordered) - 1, CHUNK):
        one = ordered[start : min(start + CHUNK, len(ordered) - 1)]
        ends.append(np.flatnonzero((one ^ ordered[start + 1 : start + 1 + len(one)]) >= beyond) + start + 1)
    return np.concatenate([*ends, np.array([len(ordered)])])


def _search_chunk(
    ordered: np.ndarray, beyond: np.uint64, start: int, max_distance: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Close pairs whose first member lies in `ordered[start : start + CHUNK]`, at most 2 × CHUNK at a time.

    Of a pair the leading bits are equal: its difference is below `beyond`.
    """
    found_a, found_b, num_found = [ordered[:0]], [ordered[:0]], 0
    rows: np.ndarray | None = None
    for step in itertools.count(1):
        if rows is None:
            a = ordered[start : min(start + CHUNK, len(ordered) - step)]
            b = ordered[start + step : start + step + len(a)]
        else:
            rows = rows[rows < len(ordered) - step]
            a, b = ordered[rows], ordered[rows + step]
        difference = a ^ b
        has_key = difference < beyond
        num_left = np.count_nonzero(has_key)
        if not num_left:
            break
        close = np.bitwise_count(difference) <= max_distance
        close &= has_key
        found_a.append(a[close])
        found_b.append(b[close])
        num_found += len(found_a[-1])
        if num_found >= CHUNK:
            yield np.concatenate(found_a), np.concatenate(found_b)
            found_a, found_b, num_found = [], [], 0
        if rows is not None:
            rows = rows[has_key]
        elif num_left < len(a) // FEW:
            rows = np.flatnonzero(has_key) + start
    if num_found:
        yield np.concatenate(found_a), np.concatenate(found_b)


def _search_crowd(run: Classes, table: Table, max_distance: int) -> Iterator[Pairs]:
    """Pairs of each class of `run`, best-ranked first, with its MAX_NEIGHBOURS best; then the hashes with more."""
    count = len(run.hashes)
    for start in range(0, count, CROWD_BLOCK):
        mine = np.arange(start, min(start + CROWD_BLOCK, count))
        remaining = np.full(len(mine), MAX_NEIGHBOURS)
        for first in range(0, start + 1, CROWD_BLOCK):
            waiting = np.flatnonzero(remaining >= 0)
            if not len(waiting):
                break
            later, better = mine[waiting, None], np.arange(first, min(first + CROWD_BLOCK, count))
            close = np.bitwise_count(run.hashes[later] ^ run.hashes[better]) <= max_distance
            close &= (run.texts[later] == run.texts[better]) & (better < later)
            row, column = np.nonzero(close)
            taken = take_best(waiting[row], np.ones(len(row), bool), remaining)
            a, b = run.hashes[mine[waiting[row[taken]]]], run.hashes[better[column[taken]]]
            smaller, larger = np.unique(np.stack([np.minimum(a, b), np.maximum(a, b)]), axis=1)
            yield from _report_first(smaller, larger, table)
        cut = np.unique(run.hashes[mine[remaining < 0]])
        if len(cut):
            yield cut, cut, np.zeros(len(cut), np.uint8)


def _report_first(a: np.ndarray, b: np.ndarray, table: Table) -> Iterator[Pairs]:
    """The pairs (a, b) that `table` is the first one to find, unless there are none."""
    first = _is_first(a ^ b, table)
    if first.any():
        a, b = a[first], b[first]
        yield np.minimum(a, b), np.maximum(a, b), np.bitwise_count(a ^ b)


def _is_first(difference: np.ndarray, table: Table) -> np.ndarray:
    """Mask of the pairs whose first agreeing blocks are those of `table`, so that one table reports each pair."""
    edges = _edges(table.num_blocks)
    masks = [((1 << (edges[b + 1] - edges[b])) - 1) << edges[b] for b in range(table.num_blocks)]
    agree = (difference[:, None] & np.array(masks, np.uint64)) == 0
    leading = agree & (np.cumsum(agree, axis=1) <= len(table.equal))
    wanted = np.isin(np.arange(table.num_blocks), table.equal)
    return np.asarray((leading == wanted).all(axis=1))
