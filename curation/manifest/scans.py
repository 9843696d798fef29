"""What DuckDB scans for the files of a table: DuckDB reads a packed file whole, or the rows of some of its units."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import pyarrow.parquet as pq

from curation.compaction.joining import parse_parts
from curation.manifest.quoting import quote_path
from curation.storage import Root
from curation.sums.packed import list_packed_units, packed_folder


def find_packed(root: Root, tables: Iterable[str]) -> dict[str, str]:
    """Unit's file → the packed file that holds it, of `tables` as their ledgers say."""
    return {rel: place.file for table in tables for rel, place in root.places(table).items()}


def find_packed_by_name(root: Root, folder: str) -> dict[str, str]:
    """As `find_packed`, of a version of which no ledger speaks any more: nothing in it changes, so names suffice."""
    packed = packed_folder(folder)
    files = [f"{packed}/{name}" for name in root.list(packed, ".parquet")]
    return {rel: file for file in files for rel in list_packed_units(file)}


class Scans:
    """SQL that reads files of units: `packed` says in which packed file those lie that do not stand by themselves."""

    def __init__(self, root: Root, packed: Mapping[str, str]) -> None:
        self._root, self._packed = root, packed
        self._rows: dict[str, Mapping[str, tuple[int, int]]] = {}

    def stored(self, files: Iterable[str]) -> list[str]:
        """The files that stand in the folder and hold `files`: packed ones where those were joined."""
        return list(dict.fromkeys(self._packed.get(rel, rel) for rel in files))

    def sql(self, files: Sequence[str]) -> str:
        """FROM and WHERE that give the rows of `files`, at least one, all with the same columns."""
        packed: dict[str, list[str]] = {}
        whole = []
        for rel in files:
            if rel in self._packed:
                packed.setdefault(self._packed[rel], []).append(rel)
            else:
                whole.append(rel)
        partly = {file: units for file, units in packed.items() if len(units) < len(list_packed_units(file))}
        whole += [file for file in packed if file not in partly]
        parts = [f"from read_parquet([{self._quote(whole)}], union_by_name = false)"] if whole else []
        parts += [self._rows_sql(file, units) for file, units in partly.items()]
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
