"""Two versions of the selection side by side: the current one, and the newest of those that still lie beside it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from curation.errors import UserError
from curation.garbage import list_other_versions
from curation.manifest.manifest import Manifest
from curation.manifest.scans import Scans, find_packed_by_name
from curation.storage import Root
from curation.sums.packed import packed_folder
from curation.tables import SAMPLES, SELECTION, selection_file

UNITS_TOGETHER = 64
NEW = "not in the root then"
GONE = "not in the root now"
_KEPT = "kept"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Rows that the current selection keeps and the version `before` did not (by the reason then), rows that it does
    not keep any more (by the reason now), and rows that neither keeps, for two reasons.
    """

    before: str
    num_kept_before: int
    num_kept: int
    gained: dict[str, int]
    lost: dict[str, int]
    num_moved: int


def find_changes(manifest: Manifest, current: str) -> Changes | str:
    """The changes from the version before to `current`, or a sentence why there are none to be had."""
    root = manifest.root
    before = _find_version_before(root)
    if before is None:
        return "No earlier selection lies beside the current one: it is the first, or `curate gc` deleted the others."
    try:
        counts = _count_moves(manifest, before, current)
    except UserError as error:
        return f"The earlier selection {before} cannot be read: {error}"
    kept, kept_before = (sum(n for move, n in counts.items() if move[side] == _KEPT) for side in (1, 0))
    return Changes(
        before=before,
        num_kept_before=kept_before,
        num_kept=kept,
        gained={then: n for (then, now), n in counts.items() if now == _KEPT and then != _KEPT},
        lost={now: n for (then, now), n in counts.items() if then == _KEPT and now != _KEPT},
        num_moved=sum(n for (then, now), n in counts.items() if _KEPT not in (then, now) and then != now),
    )


def _find_version_before(root: Root) -> str | None:
    """The version of the selection that was written last, apart from the current one."""
    folders = [rel for rel in list_other_versions(root) if rel.partition("/")[0] == SELECTION]
    dated = [(_date(root, rel), rel.rpartition("/")[2]) for rel in folders if _has_files(root, rel)]
    return max(dated)[1] if dated else None


def _has_files(root: Root, folder: str) -> bool:
    return bool(root.own_sizes(folder) or root.own_sizes(packed_folder(folder)))


def _date(root: Root, folder: str) -> float:
    """When the last file of `folder` was written; 0 of a store that does not say it."""
    files = [f"{one}/{name}" for one in (folder, packed_folder(folder)) for name in sorted(root.own_sizes(one))[-1:]]
    with contextlib.suppress(OSError, NotImplementedError):  # fsspec raises the second where a store has no dates
        return max(float(root.fs.modified(root.full(file)).timestamp()) for file in files)
    return 0.0


def _count_moves(manifest: Manifest, before: str, current: str) -> Counter[tuple[str, str]]:
    """Rows by (reason then, reason now), of units that the earlier version had finished or that are new since."""
    counts = Counter[tuple[str, str]]()
    units = manifest.root.units(SAMPLES)
    for start in range(0, len(units), UNITS_TOGETHER):
        sql = _moves_sql(manifest.root, before, current, units[start : start + UNITS_TOGETHER])
        try:
            for then, now, count in manifest.query(sql).fetchall():
                counts[then, now] += count
        except duckdb.Error as error:
            raise UserError(f"{manifest.root.url(f'{SELECTION}/{before}')} is damaged.") from error
    return counts


def _moves_sql(root: Root, before: str, current: str, units: Sequence[str]) -> str:
    sides = [_scan(root, version, units) for version in (before, current)]
    then, now = (
        f"case when {side}.uid is null then '{absent}' when {side}.kept then '{_KEPT}' else {side}.reason end"
        for side, absent in (("b", NEW), ("c", GONE))
    )
    return (
        f"select {then} as was, {now} as is_now, count(*) from ({sides[0]}) b full join ({sides[1]}) c using (uid) "
        "group by was, is_now"
    )


def _scan(root: Root, version: str, units: Sequence[str]) -> str:
    """A query for uid, kept and reason of those of `units` that `version` has."""
    folder = f"{SELECTION}/{version}"
    packed = find_packed_by_name(root, folder)
    standing = {f"{folder}/{name}" for name in root.own_sizes(folder)} | packed.keys()
    files = [rel for unit in units if (rel := selection_file(version, unit)) in standing]
    empty = "select null::varchar as uid, null::boolean as kept, null::varchar as reason where false"
    return f"select uid, kept, reason {Scans(root, packed).sql(files)}" if files else empty
