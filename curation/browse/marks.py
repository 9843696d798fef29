"""Marks that a person sets on the page: a parquet file of `uid` and `mark`, as `[scores.NAME]` of a recipe takes it.

The file lies outside of the root, and is written anew, in one step, after each change.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import UserError
from curation.files import whole_file
from curation.manifest.rewrite import is_uid
from curation.storage import Root, parquet_bytes

MARKS = pa.schema([("uid", pa.string()), ("mark", pa.bool_())])
MAX_MARKS = 1_000_000
"""The whole file is written at each change."""


class Marks:
    """The marked uids of `file`, which need not exist yet."""

    def __init__(self, file: Path, root: Root) -> None:
        """Raises UserError for a file that holds something else, lies in the root, or has no folder."""
        self.file = file
        if root.is_local and Path(root.base).resolve() in file.resolve().parents:
            raise UserError(
                f"--marks {file} lies in the root, into which this page writes nothing: name another place."
            )
        if not file.parent.is_dir():
            raise UserError(f"--marks {file}: there is no folder {file.parent}: make it, or name another one.")
        self._uids = _read(file) if file.exists() else set[str]()

    def list(self) -> list[str]:
        """The marked uids, sorted."""
        return sorted(self._uids)

    def set(self, uid: str, is_marked: bool) -> None:
        """Mark `uid` or take its mark away, and write the file. Raises UserError for what is no uid, and OSError."""
        if not is_uid(uid):
            raise UserError(f"{uid[:64]!r} is no uid, and nothing was marked.")
        wanted = self._uids | {uid} if is_marked else self._uids - {uid}
        if len(wanted) > MAX_MARKS:
            raise UserError(f"{self.file} has {MAX_MARKS:,} marks: begin another file.")
        uids = sorted(wanted)
        with whole_file(self.file) as sink:
            sink.write(parquet_bytes(pa.table([uids, [True] * len(uids)], schema=MARKS)))
        self._uids = wanted


def _read(file: Path) -> set[str]:
    with contextlib.suppress(pa.ArrowException, OSError):
        table = pq.read_table(file)
        if table.schema.remove_metadata().equals(MARKS):
            return {uid for uid, is_marked in zip(*table.to_pydict().values(), strict=True) if is_marked and uid}
    raise UserError(
        f"--marks {file} is no file of marks (uid string, mark boolean), and is left as it is: name another."
    )
