"""What DuckDB scans for the files of a table: DuckDB reads a packed file whole, or the rows of some of its units."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import pyarrow.parquet as pq

from curation.compaction.joining import parse_parts
from curation.manifest.quoting import quote_path
from curation.storage import Root
from curation.sums.ledger import table_of
from curation.sums.packed import Place, list_packed_units


class Scans:
    """SQL that reads the `files` of tables, by where they lay when this was made."""

    def __init__(self, root: Root, files: Iterable[str]) -> None:
        self._root = root
        named = list(files)
        self._places: dict[str, Place] = {}
        for table in {table for rel in named if (table := table_of(rel)) is not None}:
            self._places |= root.places(table)
        self._rows: dict[str, Mapping[str, tuple[int, int]]] = {}

    def stored(self, files: Iterable[str]) -> list[str]:
        """The files that stand in the folder and hold `files`: packed ones where those were joined."""
        return list(dict.fromkeys(place.file if (place := self._places.get(rel)) else rel for rel in files))

    def sql(self, files: Sequence[str]) -> str:
        """FROM and WHERE that give the rows of `files`, at least one, all with the same columns."""
        packed: dict[str, list[str]] = {}
        whole = []
        for rel in files:
            place = self._places.get(rel)
            if place is None:
                whole.append(rel)
            else:
                packed.setdefault(place.file, []).append(rel)
        whole += [file for file, units in packed.items() if len(units) == len(list_packed_units(file))]
        parts = [f"from read_parquet([{self._quote(whole)}], union_by_name = false)"] if whole else []
        parts += [self._rows_sql(file, units) for file, units in packed.items() if file not in set(whole)]
        return parts[0] if len(parts) == 1 else f"from ({' union all '.join(f'select * {part}' for part in parts)})"

    def _quote(self, files: Iterable[str]) -> str:
        return ", ".join(quote_path(self._root.url(file)) for file in files)

    def _rows_sql(self, file: str, units: Sequence[str]) -> str:
        """The rows of `units` of one packed file; DuckDB reads no other row groups."""
        if file not in self._rows:
            self._rows[file] = self._read_rows(file)
        spans = [self._rows[file][rel] for rel in units]
        wanted = " or ".join(f"file_row_number between {start} and {stop - 1}" for start, stop in _merge(spans))
        scan = f"read_parquet([{self._quote([file])}], file_row_number = true)"
        return f"from (select * exclude (file_row_number) from {scan} where {wanted or 'false'})"

    def _read_rows(self, file: str) -> dict[str, tuple[int, int]]:
        """Unit → its first row in the packed file, and the row after its last."""
        with contextlib.closing(self._root.open(file)) as opened:
            metadata = pq.read_metadata(opened).metadata
        stops = list(accumulate(rows for _, rows in parse_parts(metadata)))
        return dict(zip(list_packed_units(file), zip([0, *stops], stops, strict=False), strict=True))


def _merge(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that follow each other as one; empty ones are left out."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if start == stop:
            continue
        if merged and merged[-1][1] == start:
            merged[-1] = merged[-1][0], stop
        else:
            merged.append((start, stop))
    return merged
