"""Rounds: once the whole plan is through, rows that failed temporarily are tried again, minutes or days later.

A round gives a unit a whole new row file in place of the old one, in one atomic step, and puts the pictures that now
came into a shard of their own; the old shard stays as it is. Column `fetch_round` says which round ended a row, so
the table itself knows what is due and a kill at any moment needs no other memory: the old row file stands, or the new.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from curation.fetch.client import TEMPORARY
from curation.progress import bar
from curation.schema import Status
from curation.storage import Root
from curation.tables import downloads_file, metadata_file, score_tables, unit_file

TRIED_AGAIN = TEMPORARY | {Status.LOST_BY_ENGINE}
NUM_READERS = 16
Row = dict[str, Any]


def is_due(row: Row, fetch_round: int) -> bool:
    """Whether round number `fetch_round` (1, 2, …) tries this row of downloads again."""
    return row["status"] in TRIED_AGAIN and (row["fetch_round"] or 0) < fetch_round


def units_due(root: Root, units: list[str], fetch_round: int) -> dict[str, int]:
    """Those of `units` that round `fetch_round` has to try again, with the number of their rows that are due."""

    def count(unit: str) -> int:
        rows = root.read_parquet(downloads_file(unit), ["status", "fetch_round"]).to_pylist()
        return sum(is_due(row, fetch_round) for row in rows)

    found = {}
    with ThreadPoolExecutor(NUM_READERS) as pool, bar(len(units), f"plan round {fetch_round}", "unit") as progress:
        for unit, number in zip(units, pool.map(count, units), strict=True):
            progress.update()
            if number:
                found[unit] = number
    return found


def forget_derived(root: Root, unit: str) -> None:
    """Take away what was computed from the unit's pictures, before more of them appear: those stages do it again."""
    root.remove(metadata_file(unit))
    for table in score_tables(root):
        root.remove(unit_file(table, unit))


def merged(kept: Iterable[Row], tried: Iterable[Row]) -> list[Row]:
    """All rows of a unit in order of uid: those left alone and those of this round."""
    return sorted([*kept, *tried], key=lambda row: str(row["uid"]))
