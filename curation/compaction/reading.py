"""Columns of many units, by one read of a packed file where its units are small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import pyarrow as pa

from curation.compaction.joining import parse_parts
from curation.storage import Root
from curation.sums.packed import list_packed_units
from curation.tables import unit_file

MAX_BYTES = 64 << 20
"""A larger packed file is read unit by unit: its units are large enough then, and would be much to hold at once."""


def group_by_file(root: Root, table: str, units: Iterable[str], max_units: int) -> list[list[str]]:
    """`units` of `table` in their order: those that follow each other in one packed file together.

    Units with files of their own are in groups of at most `max_units`.
    """
    places = root.places(table)

    def find_file(unit: str) -> str:
        place = places.get(unit_file(table, unit))
        return place.file if place else ""

    groups = list[list[str]]()
    for file, together in groupby(units, find_file):
        same = list(together)
        size = len(same) if file else max_units
        groups += [same[first : first + size] for first in range(0, len(same), size)]
    return groups


def read_units(root: Root, table: str, units: Sequence[str], columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """Each of `units`, a group that `group_by_file` made, with its rows of the unit table `table`.

    Raises UserError for a file that does not hold what was published.
    """
    places = root.places(table)
    found = [places.get(unit_file(table, unit)) for unit in units]
    files = {place.file if place else "" for place in found}
    if len(files) == 1 and all(found) and root.size(file := files.pop()) <= MAX_BYTES:
        yield from _read_packed(root, file, set(units), columns)
    else:
        for unit in units:
            yield unit, root.read_parquet(unit_file(table, unit), columns)


def _read_packed(root: Root, file: str, units: set[str], columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    rows = root.read_parquet(file, columns)
    start = 0
    for rel, (_, num_rows) in zip(list_packed_units(file), parse_parts(rows.schema.metadata), strict=True):
        unit = rel.rpartition("/")[2].removesuffix(".parquet")
        if unit in units:
            yield unit, rows.slice(start, num_rows)
        start += num_rows
