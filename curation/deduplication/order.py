"""Rows numbered in the order of the keep rule, and exact copies folded into their best row.

A row's `place` is where it was read; its `row` is its number in the order of the keep rule, the best one 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from curation.deduplication.scan import UNKNOWN, Columns
from curation.duplicates.keep import Term
from curation.sorting import Column, count_bits, sort_rows

_ONES = np.uint64(2**64 - 1)


def split_terms(terms: Sequence[Term]) -> tuple[list[Term], bool]:
    """`terms` before the first uid, which leaves no ties, and whether larger uids come first."""
    end = next(number for number, term in enumerate(terms) if term.column == "uid")
    return list(terms[:end]), terms[end].descending


def order_rows(columns: Columns, terms: Sequence[Term], uid_descending: bool) -> np.ndarray:
    """The places of all rows in the order of `terms` and then of the uid, int64 `[n]`."""
    keys = _list_keys(columns, terms, uid_descending)
    return sort_rows(keys, columns.num_rows).order


def _list_keys(columns: Columns, terms: Sequence[Term], uid_descending: bool) -> Iterator[Column]:
    for number, term in enumerate(terms):
        values = columns.read(f"key-{number}")
        if term.column == "source":
            values = _rank_sources(columns.sources, term.descending)[values.view(np.int64)]
        yield _narrow(values)
    uids = columns.map("uid")
    for half in (0, 1):
        values = np.array(uids[:, half])
        yield Column(_ONES - values if uid_descending else values)


def _rank_sources(sources: Mapping[str, int], descending: bool) -> np.ndarray:
    """For each number of a source its place in the order, uint64 `[n]`; behind them that of no source."""
    places = np.full(len(sources) + 1, UNKNOWN)
    for place, source in enumerate(sorted(sources, reverse=descending)):
        places[sources[source]] = place
    return places


def _narrow(values: np.ndarray) -> Column:
    """`values` in as few bits as keep their order."""
    known = values != UNKNOWN
    if not known.any():
        return Column(np.zeros_like(values), 0)
    least = values.min()  # UNKNOWN is the largest of all
    largest = values.max(initial=0, where=known) - least
    return Column(np.where(known, values - least, largest + np.uint64(1)), count_bits(int(largest) + 1))


def fold_exact_copies(columns: Columns, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that are exact copies of a better row, int64 `[m]`, and for each of them the best one.

    Copies have the same bytes or pixels, and with a column `text` the same caption. `rows` has the row of each place.
    """
    contents = _name_contents(columns)
    keys = [Column(np.ascontiguousarray(contents[:, half])) for half in (0, 1)]
    if columns.has("text"):
        keys.append(Column(columns.read("text").view(np.uint64)))
    found = sort_rows(keys, columns.num_rows)
    equal = rows[found.equal]
    by = np.lexsort((equal, found.groups))
    equal, groups = equal[by], found.groups[by]
    is_best = np.ones(len(equal), bool)
    is_best[1:] = groups[1:] != groups[:-1]
    best = equal[is_best][groups.astype(np.int64)]
    return equal[~is_best], best[~is_best]


def _name_contents(columns: Columns) -> np.ndarray:
    """What names the content of each place, uint64 `[n, 2]`: of all with the same bytes the largest name of pixels.

    Where no pixels are named, the name of the bytes.
    """
    contents, sums = columns.read("content"), columns.map("sha256")
    unnamed = ~contents.any(axis=1)
    contents[unnamed] = sums[unnamed]
    found = sort_rows((Column(np.array(sums[:, half])) for half in (0, 1)), columns.num_rows)
    equal, pixels = found.equal, columns.map("content")[found.equal]
    by = np.lexsort((pixels[:, 1], pixels[:, 0], found.groups))
    equal, pixels, groups = equal[by], pixels[by], found.groups[by]
    last = np.ones(len(groups), bool)
    last[:-1] = groups[1:] != groups[:-1]
    largest = pixels[last][groups.astype(np.int64)]
    is_named = largest.any(axis=1)
    contents[equal[is_named]] = largest[is_named]
    return contents
