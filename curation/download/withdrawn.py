"""Pictures that came before they were put on an opt-out list: every later version of duplicates and selection, and so
of train shards, is made without them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from curation.download.opt_out import load_opt_out
from curation.schema import Status
from curation.storage import Root
from curation.tables import downloads_file, samples_file

OPT_OUT = "opt_out"
"""Names the lists among the inputs of a version."""
REASON = "opted_out"
"""Why the selection does not keep such a row."""


def describe_opt_out(lists: Sequence[str], root: Root) -> dict[str, str]:
    """The input of a version that says what the lists (full paths) hold; nothing without lists."""
    file = load_opt_out(lists, root.scratch()).file
    if file is None:
        return {}
    with open(file, "rb") as f:
        return {OPT_OUT: hashlib.file_digest(f, "sha256").hexdigest()[:12]}


def find_withdrawn(root: Root, unit: str, lists: Sequence[str]) -> pa.Array:
    """The uids of those pictures of `unit` that came and whose URL, host or sha256 the lists name by now."""
    opt_out = load_opt_out(lists, root.scratch())
    if opt_out.file is None:
        return pa.array([], pa.string())
    rows = root.read_parquet(downloads_file(unit), ["uid", "status", "sha256"])
    rows = rows.filter(pc.equal(rows["status"], Status.OK.value))
    rows = rows.join(root.read_parquet(samples_file(unit), ["uid", "url", "claimed_sha256"]), "uid")
    listed = [
        row["uid"]
        for row in rows.to_pylist()
        if opt_out.refuses_url(row["url"])
        or opt_out.refuses_sha256(row["sha256"])
        or opt_out.refuses_sha256(row["claimed_sha256"])
    ]
    return pa.array(listed, pa.string())
