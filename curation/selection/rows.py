"""The rows that rules are asked about: tables of one unit side by side, and the stream of all units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.download.withdrawn import NO_LISTS, REASON, Lists, find_withdrawn
from curation.recipe.rules import DUPLICATE_COLUMNS
from curation.schema import DUPLICATES, Status
from curation.selection.place_finder import PlaceFinder, take_rows
from curation.storage import Root
from curation.tables import DOWNLOADS, read_keyed_samples, unit_file
from curation.workers import map_ahead

Item = TypeVar("Item")
Result = TypeVar("Result")
IN_PLACE_OF_OK = {REASON: "withdrawn"}
"""Status of a row whose picture came before a list named it; that of a blocklist is its reason."""
LostRows = Counter[tuple[str | None, str | None]]
"""Source and status of rows without a picture → how many there are; those that a list names have its reason."""
UNITS_AHEAD = 2
"""Units that are read ahead for each thread."""
PLACE = "place"
"""Column of where a row stands in its unit, or among all rows."""
_APART = ("samples", "duplicates")
"""Tables that are joined in another way."""
_STORED = ["uid", "kept_uid", "tier", "similarity"]
_AS_IN_MANIFEST = ["uid", *DUPLICATE_COLUMNS]


def join_unit(root: Root, unit: str, tables: Mapping[str, Sequence[str]], lists: Lists = NO_LISTS) -> pa.Table:
    """Samples of one unit with the wanted columns of its other tables, in the order of samples; null where one lacks.

    Columns: `uid`, then those of `tables` in their order. Duplicates are of no unit and are left out.
    The status of rows that `lists` name by now says so in the place of ok.
    """
    rows, stored = read_keyed_samples(root, unit, tables["samples"])
    finder = PlaceFinder(rows["uid"], {stored: None})
    rows = append_columns(root, unit, rows, {name: tables[name] for name in tables if name not in _APART}, finder)
    return _mark_withdrawn(root, unit, rows, lists)


def join_pictures(
    root: Root, unit: str, tables: Mapping[str, Sequence[str]], lists: Lists = NO_LISTS
) -> tuple[pa.Table, LostRows]:
    """As `join_unit`, of the rows whose picture came, with the column `place` before the others: the row in the unit.

    And how many rows without a picture there are. `tables` have the source and the status of each. Scores are those of
    pictures alone, so that they are joined without a search.
    """
    rows, stored = read_keyed_samples(root, unit, tables["samples"])
    rows = rows.add_column(0, PLACE, pa.array(np.arange(len(rows))))
    finder = PlaceFinder(rows["uid"], {stored: None})
    rows = append_columns(root, unit, rows, {DOWNLOADS: tables[DOWNLOADS]}, finder)
    rows = _mark_withdrawn(root, unit, rows, lists)
    came = pc.fill_null(pc.equal(rows["status"], Status.OK.value), False)
    lost = rows.select(["source", "status"]).filter(pc.invert(came))
    counts = lost.group_by(["source", "status"], use_threads=False).aggregate([([], "count_all")]).to_pylist()
    scores = {name: tables[name] for name in tables if name not in (*_APART, DOWNLOADS)}
    found = LostRows({(row["source"], row["status"]): row["count_all"] for row in counts})
    pictures = rows.filter(came)
    return append_columns(root, unit, pictures, scores, PlaceFinder(pictures["uid"])), found


def append_columns(
    root: Root, unit: str, rows: pa.Table, tables: Mapping[str, Sequence[str] | None], finder: PlaceFinder
) -> pa.Table:
    """`rows` with the columns of other tables of `unit`, all of them for None; null where one lacks the uid.

    Columns that the rows have already are left out. `finder` is that of their uids.
    """
    fields, arrays = list(rows.schema), list(rows.columns)
    for table, columns in tables.items():
        others, stored = root.read_keyed(unit_file(table, unit), columns, finder.places)
        places, names = finder.find(stored, others), {field.name for field in fields}
        others = others.drop_columns([name for name in others.column_names if name in names])
        fields += others.schema
        arrays += others.columns if places is None else take_rows(others, places).columns
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _mark_withdrawn(root: Root, unit: str, rows: pa.Table, lists: Lists) -> pa.Table:
    if lists == NO_LISTS:
        return rows
    withdrawn = find_withdrawn(root, unit, lists)
    statuses = pa.array([IN_PLACE_OF_OK.get(reason, reason) for reason in withdrawn["reason"].to_pylist()], pa.string())
    found = statuses.take(pc.index_in(rows["uid"], withdrawn["uid"].combine_chunks()))
    return rows.set_column(rows.column_names.index("status"), "status", pc.coalesce(found, rows["status"]))


def duplicates_files(root: Root) -> list[str]:
    """The files of the current duplicates."""
    return list((root.current("duplicates") or {})["files"])


def read_duplicates(root: Root, file: str) -> pa.Table:
    """One file of the duplicates: `uid` and the columns that the manifest has of them."""
    schema = pa.schema([DUPLICATES.field(name) for name in _STORED])
    return root.read_parquet(file, _STORED).cast(schema).rename_columns(_AS_IN_MANIFEST)


def read_ahead(function: Callable[[Item], Result], items: Iterable[Item], num_threads: int) -> Iterator[Result]:
    """`function` of each of `items`, in their order, by threads that are a few items ahead of whoever takes them."""
    with ThreadPoolExecutor(num_threads) as pool:
        yield from map_ahead(pool, function, items, UNITS_AHEAD * num_threads)
