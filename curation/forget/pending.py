"""What one `curate forget` has to do, written down before it begins, so that a kill at any moment costs nothing.

`forget/pending.json` names the rows, the files that they concern, and what the proof looks for. Every step that follows
from it can be taken again: it finds its work done, or does it. While the file stands, no other command works on the
root. When all files are without the rows it becomes `forget/unproven-ID.json`, which nobody waits for, and is deleted
once the proof holds.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from curation.errors import UserError
from curation.remedies import remedy
from curation.settings import from_dict
from curation.storage import PENDING_REMOVAL, Root

FOLDER = "forget"
UNPROVEN = f"{FOLDER}/unproven-"


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What the proof looks for. Nothing of it is written anywhere else."""

    uids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """URLs and captions."""
    sums: list[str] = field(default_factory=list)
    """sha256 of pictures as fetched, as stored, and of their pixels."""
    pictures: list[str] = field(default_factory=list)
    """sha256 of the pictures as stored."""
    pieces: dict[str, list[str]] = field(default_factory=dict)
    """A few bytes (hex) of each picture that has any by which it can be recognised → the sums of the picture."""
    vectors: list[str] = field(default_factory=list)
    """sha256 of the bytes of each vector."""


@dataclass(frozen=True, kw_only=True)
class Pending:
    """See the module. Paths are relative to ROOT, uids are in clear."""

    id: str
    date: str
    reason: str
    tombstones: list[list[str]]
    """Kind and sha256 of each tombstone to be added."""
    num_requests: dict[str, int]
    num_unknown: int
    units: dict[str, list[str]]
    """Unit → the uids of its samples that are forgotten."""
    listed: dict[str, list[str]]
    """Unit of an adopted folder → those of its files whose rows are all forgotten."""
    rejects: dict[str, list[str]]
    """Unit → the sources of all its forgotten rejects in the end."""
    plans: dict[str, Any]
    """Path of each plan that changes → what it holds in the end."""
    parts: list[str]
    """Files of train_index with such rows."""
    shards: dict[str, str]
    """Train shard with such rows → its name in the end."""
    versions: dict[str, list[str]]
    """Versioned table → those of its inputs that were what it was made from before anything was forgotten."""
    old_versions: list[str]
    """Folders of versions that are not current and hold such rows."""
    files: list[str]
    """Every file under a sum that changes or goes."""
    outside: list[str]
    """Files of adopted folders that hold such pictures."""
    follow: list[str]
    """Uids of rows that stay and were removed as duplicates of forgotten ones."""
    looked: Looked

    @property
    def uids(self) -> frozenset[str]:
        """The forgotten uids."""
        return frozenset(self.looked.uids)


def name_unproven(pending: Pending) -> str:
    """Where what was not proven yet is kept."""
    return f"{UNPROVEN}{pending.id}.json"


def write_pending(root: Root, rel: str, pending: Pending) -> None:
    """Publish `pending` in one step."""
    root.put(rel, json.dumps(dataclasses.asdict(pending), sort_keys=True).encode())


def read_pending(root: Root, rel: str = PENDING_REMOVAL) -> Pending | None:
    """What is left to do; None when nothing is. Raises UserError when the file is damaged."""
    if not root.exists(rel):
        return None
    try:
        return from_dict(Pending, json.loads(root.read_bytes(rel)), rel)
    except (ValueError, RecursionError, UserError) as error:
        raise UserError(f"{root.url(rel)} is damaged ({error}): {remedy(rel)}.") from error


def list_unproven(root: Root) -> list[str]:
    """The files of earlier requests whose proof did not hold."""
    return [f"{FOLDER}/{name}" for name in root.list(FOLDER, ".json") if name.startswith("unproven-")]
