"""Rounds: once the whole plan is downloaded, rows that failed temporarily are tried again, minutes or days later.

A round replaces the row file of a unit in one atomic step, and writes the pictures that came this time into a shard of
their own; the old shard is not changed. Column `fetch_round` says which round ended a row, so the table itself says
which rows are due. After a kill at any moment either the old row file stands or the new one.

A picture that is cut may be cut on its way, or be cut where it lies. Its row says by a hash what came; a picture that
comes cut in the same way a second time is cut where it lies, and no later round asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from curation.compaction.reading import read_units
from curation.fetch.client import TEMPORARY
from curation.images.probe import PictureError
from curation.schema import DownloadRow, Status
from curation.storage import Root
from curation.tables import DOWNLOADS, embedding_tables, metadata_file, score_tables, unit_file

TRIED_AGAIN = TEMPORARY | {Status.LOST_BY_ENGINE}
_TRIED_AGAIN = pa.array(sorted(str(status) for status in TRIED_AGAIN), pa.string())
MAX_REASON = 120
"""Characters of a reason that are kept before the hash, so that a row's detail is never cut inside the hash."""
_CAME_CUT = re.compile(r"; sha256 [0-9a-f]{16}$")
TWICE = ", twice"
"""End of the detail of a picture that came cut in the same way in two rounds."""


def explain_failure(error: PictureError, sha256: str) -> str:
    """The detail of a picture with `sha256` that cannot be stored; of a picture that is cut it names the hash."""
    if error.status is not Status.TRUNCATED:
        return error.detail
    return f"{error.detail[:MAX_REASON]}; sha256 {sha256[:16]}"


def mark_repeated(row: DownloadRow, earlier: DownloadRow | None) -> DownloadRow:
    """`row` with TWICE in its detail if an `earlier` round got the same cut picture."""
    cut = row["status"] == Status.TRUNCATED and _CAME_CUT.search(row["detail"] or "")
    if not cut or earlier is None or (row["status"], row["detail"]) != (earlier["status"], earlier["detail"]):
        return row
    return {**row, "detail": f"{row['detail']}{TWICE}"}


def is_due(row: DownloadRow, fetch_round: int) -> bool:
    """Whether round number `fetch_round` (1, 2, …) tries this row of downloads again."""
    if row["status"] == Status.TRUNCATED and (row["detail"] or "").endswith(TWICE):
        return False
    return row["status"] in TRIED_AGAIN and (row["fetch_round"] or 0) < fetch_round


def count_due_rows(root: Root, units: Sequence[str], fetch_round: int) -> dict[str, int]:
    """The units that round `fetch_round` has to try again, each with the number of its due rows.

    `units` are a group that `curation.compaction.reading.group_by_file` made.
    """
    columns = ["status", "detail", "fetch_round"]
    counts = {unit: _count_due(rows, fetch_round) for unit, rows in read_units(root, DOWNLOADS, units, columns)}
    return {unit: count for unit, count in counts.items() if count}


def _count_due(rows: pa.Table, fetch_round: int) -> int:
    """The rows of which `is_due` holds."""
    tried = rows.filter(pc.is_in(rows["status"], _TRIED_AGAIN))
    ended_before = pc.less(pc.fill_null(tried["fetch_round"], 0), fetch_round)
    marked = pc.fill_null(pc.ends_with(tried["detail"], TWICE), False)
    lies_cut = pc.and_(pc.equal(tried["status"], Status.TRUNCATED.value), marked)
    return int(pc.sum(pc.and_not(ended_before, lies_cut)).as_py() or 0)


def list_rewritten(root: Root, units: Iterable[str]) -> list[str]:
    """The files of `units` that a round replaces or removes."""
    tables = [DOWNLOADS, *score_tables(root)]
    return [unit_file(table, unit) for unit in units for table in tables]


def remove_derived(root: Root, unit: str) -> None:
    """Remove what was computed from the unit's pictures before more pictures appear, so that those stages run again."""
    for table in embedding_tables(root):
        root.remove(metadata_file(unit, table))
    for table in score_tables(root):
        root.remove(unit_file(table, unit))


def merge_rows(kept: Iterable[DownloadRow], tried: Iterable[DownloadRow]) -> list[DownloadRow]:
    """All rows of a unit in the order of their uids: the rows `kept` from earlier rounds and those of this round."""
    return sorted([*kept, *tried], key=lambda row: row["uid"])
