"""Rows sorted by several columns, and which of them are equal in all: few bytes a row, whatever the columns hold.

The most significant bits of the columns make one word of 64 bits a row, by which all rows are sorted. Only rows that
are equal there are looked at again: the number of their group and the next bits make their next word.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

WORD_BITS = 64


@dataclass(frozen=True)
class Column:
    """Numbers below 2 ** `bits`, uint64 `[n]`; smaller ones come first."""

    values: np.ndarray
    bits: int = WORD_BITS


@dataclass(frozen=True)
class Sorted:
    """The order of rows, and those of them that equal others in all columns."""

    order: np.ndarray
    """Numbers of the rows, the first one first, int64 `[n]`; of equal rows any comes first."""
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


def sort_rows(columns: Iterable[Column], num_rows: int) -> Sorted:
    """Sort `num_rows` rows. `columns` are taken one after the other, the later ones only while rows are equal."""
    coming, column, left = iter(columns), Column(np.zeros(0, np.uint64), 0), 0
    order = places = np.arange(num_rows)
    groups, used = np.zeros(num_rows, np.uint64), 0
    is_first = True
    if num_rows < 2:
        return Sorted(order, places[:0], groups[:0])
    while len(places):
        rows = None if is_first else order[places]
        word, free = groups, WORD_BITS - used
        while free:
            if not left:
                following = next(coming, None)
                if following is None:
                    break
                column, left = following, following.bits
                continue
            take = min(left, free)
            part = _cut_bits(column.values if rows is None else column.values[rows], left - take, take)
            word = part if free == WORD_BITS else (word << np.uint64(take)) | part
            left, free = left - take, free - take
        if free == WORD_BITS - used:
            break  # no column is left
        by = np.argsort(word)
        word = word[by]
        if rows is None:
            order = by
        else:
            order[places] = rows[by]
        is_repeated = np.zeros(len(word), bool)
        is_repeated[1:] = word[1:] == word[:-1]
        is_equal = is_repeated.copy()
        is_equal[:-1] |= is_repeated[1:]
        places = places[is_equal]
        groups = np.cumsum(~is_repeated[is_equal], dtype=np.uint64) - np.uint64(1)
        used = count_bits(int(groups[-1])) if len(groups) else 0
        is_first = False
    return Sorted(order, places, groups)


def _cut_bits(values: np.ndarray, start: int, count: int) -> np.ndarray:
    """`count` bits of `values` from bit `start` on."""
    if count == WORD_BITS:
        return values
    return (values >> np.uint64(start)) & np.uint64((1 << count) - 1)
