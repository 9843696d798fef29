"""Packed files: the files of consecutive units, joined into TABLE/packed/BATCH-FIRST-LAST.parquet.

A packed file holds the bytes of its units one after the other (curation/compaction/joining.py). The ledger of the table
has an entry for it and keeps those of its units, so the sums and the names of units stay what they were, and the ledger
alone tells where in which file a unit lies. A packed file that no ledger names does not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from curation.sums.ledger import Ledger

PACKED = "packed"
_NAME = re.compile(rf"(.+)/{PACKED}/([^/]+)-(\d{{6,}})-(\d{{6,}})\.parquet")
NUM_RECENT = 32


class Place(NamedTuple):
    """`size` bytes from `offset` of the packed file `file`, a path relative to ROOT."""

    file: str
    offset: int
    size: int


Places = Mapping[str, Place]
"""Path of a unit's file → where it lies."""


def packed_folder(folder: str) -> str:
    """Where the packed files of the units in `folder` lie."""
    return f"{folder}/{PACKED}"


def packed_file(folder: str, batch: str, first: int, last: int) -> str:
    """The packed file of units `first` to `last` of `batch`."""
    return f"{packed_folder(folder)}/{batch}-{first:06d}-{last:06d}.parquet"


def is_packed(rel: str) -> bool:
    """Whether `rel` is called like a packed file."""
    return _NAME.fullmatch(rel) is not None


def list_packed_units(rel: str) -> list[str]:
    """The files of the units that lie in the packed file `rel`, in their order; none for another file."""
    named = _NAME.fullmatch(rel)
    if named is None:
        return []
    folder, batch, first, last = named.groups()
    return [f"{folder}/{batch}-{number:06d}.parquet" for number in range(int(first), int(last) + 1)]


def find_places(ledger: Ledger) -> dict[str, Place]:
    """Where each unit of the packed files in `ledger` lies. An open entry is of a packed file that is gone."""
    return {rel: place for rel in ledger if ledger[rel].sha256 for rel, place in _find_places_in(ledger, rel)}


def _find_places_in(ledger: Ledger, file: str) -> Iterator[tuple[str, Place]]:
    units, offset = list_packed_units(file), 0
    if all(rel in ledger for rel in units):
        for rel in units:
            yield rel, Place(file, offset, ledger[rel].size)
            offset += ledger[rel].size


def load_places(sha256: str, read: Callable[[], Ledger]) -> Places:
    """As `find_places`, of the ledger with that `sha256`; `read` gives it when it was not asked lately."""
    known = _recent.get(sha256)
    if known is None:
        known = find_places(read())
        while len(_recent) >= NUM_RECENT:
            _recent.pop(next(iter(_recent)), None)
        _recent[sha256] = known
    return known


_recent: dict[str, Places] = {}
