"""The wall: pictures of a condition, a page at a time, without counting those before it.

Without an order a page is looked for unit by unit, and ends as soon as it is full: the first page of ten million rows
reads one unit; the number of units that are asked together doubles as long as they hold nothing. With an order, a page
is the rows behind the last one shown, in the order of (value, uid).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from curation.browse.conditions import Condition
from curation.browse.desk import Desk
from curation.browse.ordered import MAX_UNITS, read_best
from curation.errors import UserError
from curation.manifest.manifest import UNIT_ROWS, Manifest
from curation.manifest.quoting import quote_identifier, quote_text
from curation.report.safety import SAFETY_COLUMNS

PAGE_ROWS = 60
PLACE_COLUMNS = ("status", "detail", "shard", "offset", "size", "stored_sha256", "stored_width", "stored_height")
SHOWN_COLUMNS = ("uid", "caption", "source", "width", "height", *PLACE_COLUMNS, "kept", "reason")
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Rows in their order, and where the next page begins, None behind the last one.

    `num_units` of all units have been looked through so far.
    """

    rows: list[Row] = field(default_factory=list)
    cursor: str | None
    num_units: int


def list_columns(manifest: Manifest, names: Sequence[str] = ()) -> list[str]:
    """The columns of each row on the wall: those it always has, those that say whether a picture is safe, `names`."""
    known = {name.lower(): name for table in manifest.columns_by_table().values() for name in table}
    wanted = [*SHOWN_COLUMNS, *SAFETY_COLUMNS, *names]
    return list(dict.fromkeys(known[name.lower()] for name in wanted if name.lower() in known))


def read_page(desk: Desk, condition: Condition, cursor: str | None, seconds: float) -> Page:
    """The page of `condition` that begins at `cursor`. After `seconds` it is what was found by then.

    Raises UserError for a condition that DuckDB refuses, and a cursor of no page.
    """
    if condition.order:
        return _read_ordered(desk, condition, _parse_cursor(cursor, [(bool, int, float, str), (str,)]))
    return _read_stored(desk, condition, _parse_cursor(cursor, [(int,), (int,), (str,)]), seconds)


def _parse_cursor(cursor: str | None, kinds: Sequence[tuple[type, ...]]) -> list[Any] | None:
    """The values of a cursor, which are of `kinds`."""
    if cursor is None:
        return None
    try:
        found = json.loads(cursor)
        if [isinstance(value, kind) for value, kind in zip(found, kinds, strict=True)] == [True] * len(kinds):
            return list(found)
    except (ValueError, TypeError, RecursionError):
        pass
    raise UserError("This page begins at a place that the wall does not have: ask again.")


def _read_stored(desk: Desk, condition: Condition, start: list[Any] | None, seconds: float) -> Page:
    units, until = desk.manifest.root.units("samples"), time.monotonic() + seconds
    columns = ", ".join(map(quote_identifier, list_columns(desk.manifest, condition.names)))
    first, number, after = start or (0, 1, "")
    rows = list[Row]()
    while first < len(units) and len(rows) < PAGE_ROWS and time.monotonic() < until and not desk.is_stopped:
        wanted = PAGE_ROWS - len(rows)
        behind = f" and uid > {quote_text(after)}" if after else ""
        sql = f"select {columns} from {UNIT_ROWS} as manifest where {condition.sql}{behind} order by uid limit {wanted}"
        found = desk.fetch(desk.manifest.query_units(sql, units[first : first + number]))
        rows += found
        if len(found) == wanted:
            after = found[-1]["uid"]
        else:
            first, after = first + number, ""
            number = min(MAX_UNITS, 2 * number) if len(found) < PAGE_ROWS // 4 else number
    done = min(first, len(units))
    return Page(rows=rows, cursor=json.dumps([first, number, after]) if first < len(units) else None, num_units=done)


def _read_ordered(desk: Desk, condition: Condition, start: list[Any] | None) -> Page:
    found, units = read_best(desk, condition, start, PAGE_ROWS)
    last = json.dumps([found[-1]["v"], found[-1]["uid"]], default=str) if len(found) == PAGE_ROWS else None
    rows = find_rows(desk, [row["uid"] for row in found], condition.names, units)
    return Page(rows=rows, cursor=last, num_units=len(desk.manifest.root.units("samples")))


def find_rows(
    desk: Desk, uids: Sequence[str], names: Sequence[str] = (), units: Sequence[str] | None = None
) -> list[Row]:
    """The rows of `uids` in their order; those that the root does not have are left out.

    Where they are known to lie in a few `units`, no other is asked.
    """
    if not uids:
        return []
    columns = ", ".join(map(quote_identifier, list_columns(desk.manifest, names)))
    wanted = f"where uid in ({', '.join(map(quote_text, uids))})"
    if units is None or len(units) > 2 * MAX_UNITS:
        found = desk.fetch(desk.manifest.query(f"select {columns} from manifest {wanted}"))
    else:
        sql = f"select {columns} from {UNIT_ROWS} as manifest {wanted}"
        found = desk.fetch(desk.manifest.query_units(sql, units))
    by_uid = {row["uid"]: row for row in found}
    return [by_uid[uid] for uid in uids if uid in by_uid]
