"""The rows that rules are asked about: tables of one unit side by side, and the stream of all units."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from curation.download.withdrawn import find_withdrawn
from curation.recipe.rules import DUPLICATE_COLUMNS
from curation.schema import DUPLICATES
from curation.storage import Root
from curation.tables import read_samples, unit_file

Item = TypeVar("Item")
Result = TypeVar("Result")
WITHDRAWN = "withdrawn"
"""Stands for ok in the status of a row whose picture came before it was put on an opt-out list."""
UNITS_AHEAD = 2
"""Units that are read ahead for each thread."""
_STORED = ["uid", "kept_uid", "tier", "similarity"]
_AS_IN_MANIFEST = ["uid", *DUPLICATE_COLUMNS]


def join_unit(root: Root, unit: str, tables: Mapping[str, Sequence[str]], opt_out: Sequence[str] = ()) -> pa.Table:
    """Samples of one unit with the wanted columns of its other tables, in the order of samples; null where one lacks.

    Columns: `uid`, then those of `tables` in their order. Duplicates are of no unit and are left out.
    The status of rows that the lists `opt_out` name by now is WITHDRAWN in the place of ok.
    """
    rows = read_samples(root, unit, ["uid", *tables["samples"]])
    for table, columns in tables.items():
        if table not in ("samples", "duplicates"):
            rows = _add_columns(rows, root.read_parquet(unit_file(table, unit), ["uid", *columns]), columns)
    return _mark_withdrawn(rows, find_withdrawn(root, unit, opt_out)) if opt_out else rows


def _mark_withdrawn(rows: pa.Table, uids: pa.Array) -> pa.Table:
    place = rows.column_names.index("status")
    status = pc.if_else(pc.is_in(rows["uid"], uids), WITHDRAWN, rows["status"])
    return rows.set_column(place, "status", status)


def _add_columns(rows: pa.Table, others: pa.Table, names: Sequence[str]) -> pa.Table:
    """`rows` with the columns `names` of `others`, by uid."""
    if not rows["uid"].equals(others["uid"]):
        places = pc.index_in(rows["uid"], others["uid"].combine_chunks())
        others = others.select(names).take(places)
    for name in names:
        rows = rows.append_column(others.schema.field(name), others[name])
    return rows


def duplicates_files(root: Root) -> list[str]:
    """The files of the current duplicates."""
    return list((root.current("duplicates") or {})["files"])


def read_duplicates(root: Root, file: str) -> pa.Table:
    """One file of the duplicates: `uid` and the columns that the manifest has of them."""
    schema = pa.schema([DUPLICATES.field(name) for name in _STORED])
    return root.read_parquet(file, _STORED).cast(schema).rename_columns(_AS_IN_MANIFEST)


def read_ahead(function: Callable[[Item], Result], items: Iterable[Item], num_threads: int) -> Iterator[Result]:
    """`function` of each of `items`, in their order, by threads that are a few items ahead of whoever takes them."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > UNITS_AHEAD * num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
