"""Old versions: folders of versioned tables that no `current.json` names. `curate gc ROOT` lists and deletes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from curation.storage import Root
from curation.sums.seal import leave_other_versions
from curation.tables import DUPLICATES, SELECTION, TRAIN, TRAIN_INDEX

VERSIONED = (DUPLICATES, SELECTION, TRAIN, TRAIN_INDEX)
_VERSION = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, kw_only=True)
class OldVersion:
    """The folder `rel` of a version that is not current, with its files and their bytes."""

    rel: str
    num_files: int
    num_bytes: int


def find_old_versions(root: Root) -> list[OldVersion]:
    """Every version of a versioned table that no current.json names. Raises UserError for a damaged current.json.

    A table without a current.json has no old versions: what stands there is of a stage that was interrupted, and it
    goes on from that.
    """
    used = {table: _list_used(root, table) for table in VERSIONED}
    # Pack renews two tables one after the other: after a kill in between the index still names the shards before.
    used[TRAIN] = used[TRAIN_INDEX] = used[TRAIN] | used[TRAIN_INDEX]
    return [
        _measure(root, f"{table}/{name}")
        for table in VERSIONED
        for name in (_list_folders(root, table) if root.current(table) is not None else [])
        if _VERSION.fullmatch(name) and name not in used[table]
    ]


def list_other_versions(root: Root) -> list[str]:
    """Folders of every version that no current.json names, also of tables that have none yet."""
    used = {table: _list_used(root, table) for table in VERSIONED}
    used[TRAIN] = used[TRAIN_INDEX] = used[TRAIN] | used[TRAIN_INDEX]
    standing = (table for table in VERSIONED if root.exists(table))
    return [
        f"{table}/{name}"
        for table in standing
        for name in _list_folders(root, table)
        if _VERSION.fullmatch(name) and name not in used[table]
    ]


def _list_used(root: Root, table: str) -> set[str]:
    """The versions that current.json of `table` names, by their fingerprint or by a file in them."""
    current = root.current(table) or {"fingerprint": "", "files": []}
    return {current["fingerprint"], *(file.split("/")[1] for file in current["files"] if file.count("/") > 1)}


def _list_folders(root: Root, table: str) -> list[str]:
    entries = root.fs.ls(root.full(table), detail=True)
    return sorted(e["name"].rstrip("/").rpartition("/")[2] for e in entries if e["type"] == "directory")


def _measure(root: Root, rel: str) -> OldVersion:
    files = root.fs.find(root.full(rel), detail=True).values()
    return OldVersion(rel=rel, num_files=len(files), num_bytes=sum(file["size"] or 0 for file in files))


def delete_versions(root: Root, versions: Sequence[OldVersion]) -> None:
    """Delete `versions`, which nothing names; a kill on the way leaves the rest of a folder for the next time."""
    leave_other_versions(root)
    for version in versions:
        root.remove(version.rel)


def describe_versions(versions: Sequence[OldVersion], *, deleted: bool) -> str:
    """The versions with their files and bytes, one a line, and the sum."""
    if not versions:
        return "No old version: every version of a table is the current one.\n"
    lines = [f"{v.num_files:>9,} files  {v.num_bytes:>18,} bytes  {v.rel}" for v in versions]
    num_files, num_bytes = (sum(getattr(v, name) for v in versions) for name in ("num_files", "num_bytes"))
    end = "deleted" if deleted else "`curate gc ROOT --yes` deletes them"
    return "\n".join(
        [*lines, f"{num_files:>9,} files  {num_bytes:>18,} bytes in {len(versions):,} old versions: {end}", ""]
    )
