"""What a removal says to people, and the record of it, which holds hashes alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from curation.download.opt_out import digest_key
from curation.download.tombstones import uid_key
from curation.forget.pending import Pending
from curation.forget.proof import Proof
from curation.version import __version__

LOGS = "logs/forget"
NUM_NAMED = 20
"""Files, uids and entries that are named one by one; of more, their number is said."""


def name_log(pending: Pending) -> str:
    """Where the record of one removal is."""
    return f"{LOGS}/{pending.date}-{pending.id}.json"


def describe_log(pending: Pending, proof: Proof) -> dict[str, Any]:
    """The record: who was asked for as hashes, what changed as counts, and what the scan found."""
    return {
        "id": pending.id,
        "date": pending.date,
        "reason": pending.reason,
        "version": __version__,
        **count_removal(pending),
        "tombstones": [sha256 for _, sha256 in pending.tombstones],
        "still_removed_duplicates": [digest_key(uid_key(uid)).hex() for uid in pending.follow],
        "outside": [_hash(path) for path in pending.outside],
        "proof": {**describe_proof(proof), **_hide_names(proof)},
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _hide_names(proof: Proof) -> dict[str, Any]:
    """What was found, without the names that say something themselves."""
    names = {rel: _hash(rel) if rel in proof.hidden else rel for rel in (*proof.found, *proof.unread)}
    found = {names[rel]: count for rel, count in proof.found.items()}
    return {"found": found, "unread": [names[rel] for rel in proof.unread]}


def describe_proof(proof: Proof) -> dict[str, Any]:
    """What was read and what was found, by file."""
    return {
        "holds": proof.holds,
        "num_files": proof.num_files,
        "num_bytes": proof.num_bytes,
        "found": dict(proof.found),
        "unread": list(proof.unread),
        "shared_with_rows_that_stay": dict(proof.num_shared),
    }


def count_removal(pending: Pending) -> dict[str, Any]:
    """The counts of one removal."""
    return {
        "num_rows": sum(map(len, pending.units.values())),
        "num_units": len(pending.units),
        "num_requests": dict(pending.num_requests),
        "num_unknown_requests": pending.num_unknown,
        "num_train_shards": len(pending.shards),
        "num_old_versions": len(pending.old_versions),
        "num_outside": len(pending.outside),
    }


def describe_removal(pending: Pending, unknown: Sequence[str], *, is_done: bool) -> str:
    """What was, or would be, taken out, in lines for people."""
    counts = count_removal(pending)
    verb = "forgotten" if is_done else "to be forgotten"
    lines = [
        f"{_count(counts['num_rows'], 'row')} in {_count(counts['num_units'], 'unit')} {verb}; train shards with them: "
        f"{counts['num_train_shards']:,}; tombstones that keep them out: {len(pending.tombstones):,}.",
        *_name("matches no row now, and is kept out from now on", unknown),
        *_name(
            "was removed as a duplicate of a forgotten row and stays removed (--with-copies forgets it)", pending.follow
        ),
        *_name("holds such rows in an old version, which is deleted", pending.old_versions),
        *_name("is a file of an adopted folder with such pictures: this command does not touch it", pending.outside),
    ]
    return "\n".join(lines) + "\n"


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _name(sentence: str, names: Sequence[str]) -> list[str]:
    lines = [f"  {name} {sentence}." for name in names[:NUM_NAMED]]
    return [*lines, f"  … and {len(names) - NUM_NAMED:,} more."] if len(names) > NUM_NAMED else lines


def describe_result(pending: Pending, proof: Proof) -> str:
    """What the scan found."""
    read = f"{proof.num_files:,} files of {proof.num_bytes:,} bytes were read"
    if proof.holds:
        shared = _describe_shared(proof.num_shared)
        return f"{read}: no picture, URL or caption of theirs is left.{shared} {name_log(pending)}\n"
    lines = [
        f"{read}, and these stand against the proof:",
        *_name("still holds something of them", list(proof.found)),
        *_name("cannot be decoded, so that nothing is known of it", proof.unread),
    ]
    lines.append(
        "Delete them, or take the rows out of them, and run `curate forget ROOT` again, which looks once more."
    )
    return "\n".join(lines) + "\n"


def _describe_shared(shared: Mapping[str, int]) -> str:
    named = [_count(count, kind.removesuffix("s")) for kind, count in shared.items() if count]
    return f" Rows that stay have {' and '.join(named)} in common with them (--with-copies)." if named else ""
