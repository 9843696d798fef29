"""Rows numbered in the order of the keep rule, and exact copies folded into their best row.

A row's `place` is where it was read; its `row` is its number in the order of the keep rule, the best one 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from curation.deduplication.scan import UNKNOWN, Columns
from curation.duplicates.keep import Term
from curation.sorting import Column, count_bits, list_pieces, sort_rows

_ONES = np.uint64(2**64 - 1)


def split_terms(terms: Sequence[Term]) -> tuple[list[Term], bool]:
    """`terms` before the first uid, which leaves no ties, and whether larger uids come first."""
    end = next(number for number, term in enumerate(terms) if term.column == "uid")
    return list(terms[:end]), terms[end].descending


def order_rows(columns: Columns, terms: Sequence[Term], uid_descending: bool) -> np.ndarray:
    """The places of all rows in the order of `terms` and then of the uid, `[n]` of `number_type(n)`."""
    keys = _list_keys(columns, terms, uid_descending)
    return sort_rows(keys, columns.num_rows).order


@dataclass(frozen=True)
class _Stored:
    """The column `name`, each piece of it read from its file and put into other numbers by `change`."""

    columns: Columns
    name: str
    change: Callable[[np.ndarray], np.ndarray]

    def __getitem__(self, key: Any, /) -> np.ndarray:
        return self.change(self.columns.map(self.name)[key])


def _list_keys(columns: Columns, terms: Sequence[Term], uid_descending: bool) -> Iterator[Column]:
    for number, term in enumerate(terms):
        change: Callable[[np.ndarray], np.ndarray] = np.asarray
        if term.column == "source":
            change = partial(_replace_sources, _rank_sources(columns.sources, term.descending))
        yield _narrow(_Stored(columns, f"key-{number}", change))
    for half in (0, 1):
        yield Column(_Stored(columns, "uid", partial(_take_half, half, uid_descending)))


def _take_half(half: int, descending: bool, values: np.ndarray) -> np.ndarray:
    """One half of numbers of 128 bits, uint64 `[n, 2]`; larger ones become smaller ones where they are `descending`."""
    return _ONES - values[:, half] if descending else np.array(values[:, half])


def _list_halves(columns: Columns, name: str) -> list[Column]:
    return [Column(_Stored(columns, name, partial(_take_half, half, False))) for half in (0, 1)]


def _replace_sources(ranks: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.asarray(ranks[values.view(np.int64)])


def _rank_sources(sources: Mapping[str, int], descending: bool) -> np.ndarray:
    """For each number of a source its place in the order, uint64 `[n]`; behind them that of no source."""
    places = np.full(len(sources) + 1, UNKNOWN)
    for place, source in enumerate(sorted(sources, reverse=descending)):
        places[sources[source]] = place
    return places


def _narrow(stored: _Stored) -> Column:
    """`stored` in as few bits as keep its order."""
    least, largest = UNKNOWN, None
    for piece in list_pieces(stored.columns.num_rows):
        values = stored[piece]
        known = values != UNKNOWN
        if known.any():
            least = min(least, values.min())  # UNKNOWN is the largest of all
            largest = max(largest or np.uint64(0), values.max(initial=0, where=known))
    if largest is None:
        return Column(stored, 0)
    change = partial(_count_from, least, largest - least + np.uint64(1))
    return Column(
        replace(stored, change=lambda values: change(stored.change(values))), count_bits(int(largest - least) + 1)
    )


def _count_from(least: np.uint64, unknown: np.uint64, values: np.ndarray) -> np.ndarray:
    return np.where(values == UNKNOWN, unknown, values - least)


def fold_exact_copies(columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are exact copies of a better row, int64 `[m]`, and for each of them the best one.

    Copies have the same bytes or pixels, and with a column `text` the same caption. The column `row` has the row of
    each place. The column `content` names bytes and pixels afterwards.
    """
    _name_contents(columns)
    keys = _list_halves(columns, "content")
    if columns.has("text"):
        keys.append(Column(_Stored(columns, "text", lambda values: values.view(np.uint64))))
    found = sort_rows(keys, columns.num_rows)
    equal = columns.map("row")[found.equal].astype(np.int64)
    by = np.lexsort((equal, found.groups))
    equal, groups = equal[by], found.groups[by]
    is_best = np.ones(len(equal), bool)
    is_best[1:] = groups[1:] != groups[:-1]
    best = equal[is_best][groups.astype(np.int64)]
    return equal[~is_best], best[~is_best]


def _name_contents(columns: Columns) -> None:
    """Let the column `content` name what each picture shows: of all with the same bytes the largest name of pixels.

    Where no pixels are named, the name of the bytes.
    """
    equal, largest = _find_largest_pixels(columns)
    for piece in list_pieces(columns.num_rows):
        contents = columns.map("content", "r+")[piece]
        unnamed = np.flatnonzero((contents[:, 0] | contents[:, 1]) == 0)
        contents[unnamed] = columns.map("sha256")[piece][unnamed]
    is_named = largest.any(axis=1)
    columns.map("content", "r+")[equal[is_named]] = largest[is_named]


def _find_largest_pixels(columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """The places of bytes that came several times, and for each the largest name of pixels, uint64 `[m, 2]`."""
    found = sort_rows(_list_halves(columns, "sha256"), columns.num_rows)
    equal = found.equal
    pixels = columns.map("content")[equal]
    by = np.lexsort((pixels[:, 1], pixels[:, 0], found.groups))
    equal, pixels, groups = equal[by], pixels[by], found.groups[by]
    last = np.ones(len(groups), bool)
    last[:-1] = groups[1:] != groups[:-1]
    return equal, pixels[last][groups.astype(np.int64)]
