"""Pages in an order. By a column of numbers, only the units are read that can have the next rows.

The end of each parquet file says which values its columns hold. Units are asked in the order of their best value, and a
page is done when it is full of rows that are better than all that the other units hold. By anything else, each page
asks all rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from curation.browse.conditions import Condition
from curation.browse.desk import Desk
from curation.manifest.manifest import UNIT_ROWS, UNIT_TABLES
from curation.manifest.quoting import quote_text
from curation.storage import Root
from curation.tables import NUM_READERS, SCORES

MAX_UNITS = 64
"""Units that are asked together. A page of 60 rows of all lies in at most 60 of them."""
_NAME = re.compile(r'\("?([A-Za-z_]\w*)"?\)')
Value = int | float
Row = dict[str, Any]


class Bounds(NamedTuple):
    """The smallest and the largest value of a column in one unit."""

    low: Value
    high: Value


class Best(NamedTuple):
    """The next rows (uid, v) in their order, and the units in which they lie; None where that is not known."""

    rows: list[Row]
    units: list[str] | None


def read_best(desk: Desk, condition: Condition, start: Sequence[Any] | None, num_rows: int) -> Best:
    """The first `num_rows` rows of `condition` behind `start` (value, uid), in its order."""
    is_number = start is None or isinstance(start[0], int | float)
    bounds = find_bounds(desk, condition.order) if is_number else None
    sql = _write_query(condition, start, num_rows, UNIT_ROWS if bounds is not None else "manifest")
    if bounds is None:
        return Best(desk.fetch(desk.manifest.query(sql)), None)
    sign = -1 if condition.is_descending else 1
    best, asked = list[Row](), list[str]()
    for units, nearest in _list_batches(bounds, sign, None if start is None else start[0]):
        if len(best) == num_rows and sign * nearest > sign * best[-1]["v"]:
            break
        best += desk.fetch(desk.manifest.query_units(sql, units))
        best = sorted(best, key=lambda row: (sign * row["v"], row["uid"]))[:num_rows]
        asked += units
    return Best(best, asked)


def _list_batches(bounds: Mapping[str, Bounds], sign: int, start: Value | None) -> Iterator[tuple[list[str], Value]]:
    """Units that can have rows from the value `start` on, each with the value nearest to it that one of them has."""
    ends = {unit: sorted((sign * one.low, sign * one.high)) for unit, one in bounds.items()}
    ahead = sorted((nearest, unit) for unit, (nearest, last) in ends.items() if start is None or last >= sign * start)
    for first in range(0, len(ahead), MAX_UNITS):
        batch = ahead[first : first + MAX_UNITS]
        yield [unit for _, unit in batch], sign * batch[0][0]


def _write_query(condition: Condition, start: Sequence[Any] | None, num_rows: int, rows: str) -> str:
    direction, sign = ("desc", "<") if condition.is_descending else ("asc", ">")
    behind = ""
    if start is not None:
        value, uid = _write_literal(start[0]), quote_text(start[1])
        behind = f" and (v {sign} {value} or (v = {value} and uid > {uid}))"
    named = f"select uid, {condition.order} as v from {rows} as manifest where {condition.sql}"
    ordered = f"select uid, v from ({named}) as o where {is_known('v')}{behind} order by v {direction}, uid"
    return f"{ordered} limit {num_rows}"


def is_known(expression: str) -> str:
    """SQL that leaves out of an order what is null, and NaN, which would be before every number."""
    return f"coalesce({expression}::varchar <> 'nan', false)"


def _write_literal(value: bool | int | float | str) -> str:
    """A value of the order as SQL."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return (
            f"'{value!r}'::double"  # a number with a point would be a decimal, and 32-bit values would differ from it
        )
    return quote_text(value)


def find_bounds(desk: Desk, order: str) -> Mapping[str, Bounds] | None:
    """The bounds of each unit with a value, where `order` is a column of numbers in a table of units; else None."""
    named = _NAME.fullmatch(order)
    place = named and _find_place(desk, named[1].lower())
    if not place:
        return None
    if place not in desk.bounds:
        desk.bounds[place] = _read_all_bounds(desk.manifest.root, desk.manifest.files(place[0]), place[1])
    return desk.bounds[place]


def _find_place(desk: Desk, name: str) -> tuple[str, str] | None:
    """The table of units that has the column `name`, in lower case, of the manifest; and its name there."""
    for table, columns in desk.manifest.columns_by_table().items():
        if table in UNIT_TABLES or table.startswith(SCORES):
            found = next((column for column in columns if column.lower() == name), None)
            if found is not None:
                return table, found
    return None


def _read_all_bounds(root: Root, files: Sequence[str], column: str) -> Mapping[str, Bounds] | None:
    """The bounds of `column` in each of `files`, by unit; None where a file does not say them."""
    with ThreadPoolExecutor(NUM_READERS) as pool:
        found = dict(zip(files, pool.map(lambda file: _read_bounds(root, file, column), files), strict=True))
    if any(one is None for one in found.values()):
        return None
    return {Path(file).stem: Bounds(min(one), max(one)) for file, one in found.items() if one}


def _read_bounds(root: Root, file: str, column: str) -> list[Value] | None:
    """The bounds of `column` in the row groups of `file`, none where all is null; None where they are not said."""
    try:
        with root.open(file) as source:
            meta = pq.ParquetFile(source).metadata
    except (OSError, pa.ArrowException):
        return None  # the query that reads all of it says what is wrong
    names = [meta.schema.column(number).path for number in range(meta.num_columns)]
    if column not in names:
        return []
    groups = (meta.row_group(number).column(names.index(column)) for number in range(meta.num_row_groups))
    return _collect_bounds(group.statistics for group in groups)


def _collect_bounds(statistics: Iterable[Any]) -> list[Value] | None:
    bounds = list[Value]()
    for one in statistics:
        if one is None or (one.num_values and not one.has_min_max):
            return None
        if one.num_values:
            bounds += [one.min, one.max]
    is_ordered = all(isinstance(value, int | float) and not isinstance(value, bool) for value in bounds)
    return bounds if is_ordered else None
