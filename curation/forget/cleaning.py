"""What lies beside the tables and may hold forgotten rows: old versions, logs, and files that nobody published."""

from __future__ import annotations

import contextlib
import shutil

from curation.forget.pending import Pending
from curation.forget.proof import UNREAD, list_root_files, make_wanted, scan_file
from curation.scratch import is_scratch_of
from curation.storage import Root
from curation.sums.cover import list_packable, list_unnamed_packed
from curation.sums.seal import leave_other_versions


def clean_up(root: Root, pending: Pending) -> None:
    """Delete old versions with such rows, logs in which something of them stands, and unpublished files."""
    leave_other_versions(root)
    for rel in pending.old_versions:
        root.remove(rel)
    _clean_scratch(root, pending)
    for folder in list_packable(root):
        root.delete_files(list_unnamed_packed(root, folder))
    wanted = make_wanted(pending.looked)
    for rel in list_root_files(root):
        if rel.startswith("logs/") and scan_file(root, rel, wanted) - {UNREAD}:
            root.remove(rel)


def _clean_scratch(root: Root, pending: Pending) -> None:
    """Delete what stands in the scratch folder; journals of units that are not done are begun anew.

    The folder beside a store is shared by all roots of this user: only what names a unit of this removal goes, and what
    killed stages of this root left.
    """
    folder = root.scratch_path
    if not folder.is_dir():
        return
    units = tuple(pending.units)
    for path in sorted(folder.iterdir()):
        is_mine = root.is_local or path.name.startswith(units) or is_scratch_of(root, path.name)
        if path.name == "leases" or not is_mine:
            continue
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
