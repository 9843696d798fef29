"""Carry a root to another folder or store, each file compared with its sum on the way.

    curate move ROOT NEW

Paths in the tables of a root are relative to it, so the files are copied as they are. root.json goes last: until then
the new folder is no root. Nothing of the old root is deleted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from curation.errors import UserError
from curation.files import SCRATCH
from curation.places import lies_in
from curation.plan import ADOPTED, read_plans
from curation.progress import track
from curation.records import Kinds
from curation.remedies import remedy
from curation.scratch import name_scratch
from curation.shards import file_sha256
from curation.storage import Root

RECORD = "moving.json"
"""Stands in the new folder while files are copied: an interrupted move goes on by it."""
ROOT_RECORD = "root.json"
_KINDS: Kinds = {"root": str}
CHUNK_BYTES = 4 << 20


def move(root: Root, target: Root) -> int:
    """Copy every file of `root` into `target`, or finish that; how many files there are.

    Raises UserError, before anything is written, for a target that is not empty and for adopted folders inside of the
    root; and for a file that does not hold what its ledger says.
    """
    root.check_format()
    check_adopted(root)
    _begin(root, target)
    files = list(list_moved(root))
    for rel in track(files, len(files), "move", "file"):
        _copy_file(root, target, rel)
    target.put(ROOT_RECORD, root.read_bytes(ROOT_RECORD))
    target.delete(RECORD)
    return len(files) + 1


def check_adopted(root: Root) -> None:
    """Raise UserError for an adopted folder that lies in the root: rows name its files by their full paths."""
    for item in (item for plan in read_plans(root) if plan.get(ADOPTED) for item in plan["inputs"]):
        if lies_in(str(item["path"]), {root.url()}):
            raise UserError(f"{item['path']} was adopted and lies in the root: its rows would name the old place.")


def _begin(root: Root, target: Root) -> None:
    if target.exists(RECORD):
        if target.read_record(RECORD, _KINDS)["root"] != root.url():
            raise UserError(f"{target.base} takes another root ({RECORD} says which): name a new folder for this one.")
        return
    if target.exists(ROOT_RECORD):
        raise UserError(f"{target.base} is a root already: name a new folder.")
    target.check_can_create()
    target.publish_json(RECORD, {"root": root.url()})


def list_moved(root: Root) -> Iterator[str]:
    """Every file of `root` but root.json and what nobody published."""
    for path in sorted(root.fs.find(root.path)):
        rel = path.removeprefix(f"{root.path}/")
        if rel not in (ROOT_RECORD, RECORD) and not rel.startswith(f"{SCRATCH}/"):
            yield rel


def _copy_file(root: Root, target: Root, rel: str) -> None:
    """Copy one file unless the target has it. Raises UserError when it does not hold what its ledger says."""
    expected = root.expected(rel)
    has_size = target.exists(rel) and target.size(rel) == root.size(rel)
    if has_size and file_sha256(target, rel) == file_sha256(root, rel):
        return
    name = f"{name_scratch(target, 'move')}{hashlib.sha256(rel.encode()).hexdigest()}"
    path, digest = Path(target.scratch(), name), hashlib.sha256()
    with root.open(rel) as source, open(path, "wb") as copy:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            copy.write(chunk)
    if expected is not None and expected.sha256 not in (None, digest.hexdigest()):
        path.unlink()
        raise UserError(f"{root.url(rel)} does not hold what was published: {remedy(rel)}.")
    target.put(rel, path)
