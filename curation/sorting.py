"""Rows sorted by several columns, and which of them are equal in all: few bytes a row, whatever the columns hold.

The most significant bits of the columns make one word of 64 bits a row, by which all rows are sorted. Only rows that
are equal there are looked at again: the number of their group and the next bits make their next word. Many rows are
first put into ranges of words, each of which is then sorted by itself: fewer bytes, and most of them in the cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

WORD_BITS = 64
PIECE_ROWS = 1 << 18
"""Rows of a column that are read at a time."""
RANGE_ROWS = 1 << 20
"""Rows that are sorted at a time, about."""
MAX_RANGES = 256
LEADING_BITS = 16
"""Bits of a word that say its range."""


class Values(Protocol):
    """Numbers that are read where they are asked for: an array, or what makes one of a slice or of row numbers."""

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class Column:
    """Numbers from 0 and below 2 ** `bits`, of any kind of integer `[n]`; smaller ones come first."""

    values: Values
    bits: int = WORD_BITS


@dataclass(frozen=True)
class Sorted:
    """The order of rows, and those of them that equal others in all columns."""

    order: np.ndarray
    """Numbers of the rows, the first one first, `[n]` of `number_type(n)`; of equal rows any comes first."""
    places: np.ndarray
    """Places in `order` of the rows that equal another one, int64 `[m]`, rising."""
    groups: np.ndarray
    """For each of `places` the number of its group of equal rows, uint64 `[m]`, from 0 and rising."""

    @property
    def equal(self) -> np.ndarray:
        """The rows at `places`."""
        return np.asarray(self.order[self.places])


def count_bits(largest: int) -> int:
    """Bits that numbers up to `largest` take."""
    return int(largest).bit_length()


def number_type(count: int) -> type[np.uint32] | type[np.int64]:
    """The type of the numbers of `count` rows, and of `count` itself: uint32 where they fit, else int64."""
    return np.uint32 if count < 1 << 32 else np.int64


def list_pieces(num_rows: int) -> Iterator[slice]:
    """Slices of PIECE_ROWS, one after the other."""
    return (slice(start, min(start + PIECE_ROWS, num_rows)) for start in range(0, num_rows, PIECE_ROWS))


def sort_rows(columns: Iterable[Column], num_rows: int) -> Sorted:
    """Sort `num_rows` rows. `columns` are taken one after the other, the later ones only while rows are equal."""
    bits = _Bits(columns)
    parts = bits.take(WORD_BITS) if num_rows > 1 else []
    if not parts:
        order = np.arange(num_rows, dtype=number_type(num_rows))
        places = np.arange(num_rows if num_rows > 1 else 0)
        return Sorted(order, places, np.zeros(len(places), np.uint64))
    order, words = _sort_words(parts, num_rows)
    is_equal, groups = _find_equal(words)
    places = np.flatnonzero(is_equal)
    del words, is_equal
    while len(places) and (parts := bits.take(WORD_BITS - count_bits(int(groups[-1])))):
        rows = order[places]
        words = _join_bits(parts, rows, groups)
        by = np.argsort(words)
        order[places] = rows[by]
        is_equal, groups = _find_equal(words[by])
        places = places[is_equal]
    return Sorted(order, places, groups)


@dataclass(frozen=True)
class _Part:
    """`count` bits of `values` from bit `start` on."""

    values: Values
    start: int
    count: int

    def cut(self, key: Any) -> np.ndarray:
        values = np.asarray(self.values[key]).astype(np.uint64, copy=False)
        if self.count == WORD_BITS:
            return values
        return (values >> np.uint64(self.start)) & np.uint64((1 << self.count) - 1)


class _Bits:
    """The bits of `columns` that were not taken yet, the most significant ones first."""

    def __init__(self, columns: Iterable[Column]) -> None:
        self._coming = iter(columns)
        self._column: Column | None = None
        self._left = 0

    def take(self, count: int) -> list[_Part]:
        """The next `count` bits, or all that are left."""
        parts = list[_Part]()
        while count:
            if not self._left:
                self._column = next(self._coming, None)
                if self._column is None:
                    break
                self._left = self._column.bits
            elif self._column is not None:
                taken = min(self._left, count)
                self._left, count = self._left - taken, count - taken
                parts.append(_Part(self._column.values, self._left, taken))
        return parts


def _join_bits(parts: list[_Part], key: Any, groups: np.ndarray | None = None) -> np.ndarray:
    """`groups`, if there are any, and behind them the bits of `parts` of the rows `key`; uint64."""
    first, *others = parts
    words = first.cut(key)
    if groups is not None and first.count < WORD_BITS:
        words = (groups << np.uint64(first.count)) | words
    for part in others:
        words = (words << np.uint64(part.count)) | part.cut(key)
    return words


def _find_equal(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of sorted `words` which ones equal another one, bool, and the number of the group of each of those, uint64."""
    is_repeated = np.zeros(len(words), bool)
    np.equal(words[1:], words[:-1], out=is_repeated[1:])
    is_equal = is_repeated.copy()
    is_equal[:-1] |= is_repeated[1:]
    return is_equal, np.cumsum(~is_repeated[is_equal], dtype=np.uint64) - np.uint64(1)


def _sort_words(parts: list[_Part], num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows in the order of the words that `parts` make, of `number_type(num_rows)`, and the words in this order."""
    if num_rows <= RANGE_ROWS:
        words = _join_bits(parts, slice(0, num_rows))
        order = np.argsort(words).astype(number_type(num_rows))
        return order, words[order]
    order, words, sizes = _split_into_ranges(parts, num_rows)
    start = 0
    for size in sizes:
        one = slice(start, start + size)
        by = np.argsort(words[one])
        words[one], order[one] = words[one][by], order[one][by]
        start += size
    return order, words


def _split_into_ranges(parts: list[_Part], num_rows: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Rows and words as `_sort_words` gives them, but sorted by ranges only, and the number of rows of each range."""
    given = np.empty(num_rows, np.uint64)
    num_bits = sum(part.count for part in parts)
    shift, counts = np.uint64(max(0, num_bits - LEADING_BITS)), np.zeros(1 << min(LEADING_BITS, num_bits), np.int64)
    for piece in list_pieces(num_rows):
        given[piece] = _join_bits(parts, piece)
        counts += np.bincount((given[piece] >> shift).astype(np.int64), minlength=len(counts))
    before = np.cumsum(counts) - counts
    range_of = (before // max(RANGE_ROWS, -(-num_rows // MAX_RANGES))).astype(np.uint8)
    sizes = np.zeros(int(range_of.max()) + 1, np.int64)
    np.add.at(sizes, range_of, counts)
    ends = np.cumsum(sizes) - sizes
    order, words = np.empty(num_rows, number_type(num_rows)), np.empty(num_rows, np.uint64)
    for piece in list_pieces(num_rows):
        ranges = range_of[given[piece] >> shift]
        by = np.argsort(ranges, kind="stable")
        moved, start = given[piece][by], 0
        by += piece.start
        for number, size in enumerate(np.bincount(ranges, minlength=len(sizes)).tolist()):
            end = int(ends[number])
            words[end : end + size], order[end : end + size] = moved[start : start + size], by[start : start + size]
            start, ends[number] = start + size, end + size
    return order, words, sizes.tolist()
