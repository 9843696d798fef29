"""Removal requests: rows are taken out of a root, and a scan of all its files proves that nothing of them is left.

    curate forget ROOT --url URL

What is to be done is written down first (curation/forget/pending.py), then every file is rewritten beside the old one
and put in its place in one step. Killed at any moment, the same command goes on and ends in the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from curation.compaction.compact import take_apart
from curation.errors import UserError
from curation.forget.cleaning import clean_up
from curation.forget.messages import describe_log, name_log
from curation.forget.pending import (
    Pending,
    list_unproven,
    name_unproven,
    read_pending,
    write_pending,
)
from curation.forget.planning import plan_removal
from curation.forget.proof import Proof, prove_removal
from curation.forget.requests import Requests
from curation.forget.rewriting import (
    rewrite_duplicates,
    rewrite_plans,
    rewrite_rejects,
    rewrite_unit,
    write_tombstones,
)
from curation.forget.versions import renew_versions, rewrite_train
from curation.progress import track
from curation.storage import PENDING_REMOVAL, Root
from curation.sums.cover import summed_tables
from curation.sums.ledger import table_of
from curation.sums.recorder import sealing
from curation.sums.seal import drop_entries, open_files
from curation.tables import FORGOTTEN, REJECTS

MAX_REASON = 200


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What was done, or with `proof` None would be, and what those requests were called by that name no row."""

    pending: Pending
    unknown: tuple[str, ...] = ()
    proof: Proof | None = None


def check_reason(reason: str, requests: Requests) -> None:
    """Raise UserError for a reason that says what is to be forgotten, or says too much."""
    if len(reason) > MAX_REASON or any(ord(letter) < 32 for letter in reason):
        raise UserError(f"--reason must be one line of up to {MAX_REASON} characters.")
    if any(label.lower() in reason.lower() for label in requests.labels.values()):
        raise UserError("--reason names what is to be forgotten, and would stay: say why instead.")


def plan(root: Root, requests: Requests, *, reason: str, date: str, with_copies: bool = False) -> Removal | None:
    """What `forget` would do; None when nothing is left to forget. Writes nothing. Raises UserError."""
    check_reason(reason, requests)
    pending, unknown = plan_removal(root, requests, reason=reason, date=date, with_copies=with_copies)
    return None if pending is None else Removal(pending=pending, unknown=tuple(unknown))


def forget(root: Root, requests: Requests, *, reason: str, date: str, with_copies: bool = False) -> Removal | None:
    """Take the rows that `requests` name out of `root`, and prove it; None when nothing was left to forget.

    Hold the root (curation.root_lock) meanwhile. Raises UserError, before anything is written, for damaged tables.
    """
    planned = plan(root, requests, reason=reason, date=date, with_copies=with_copies)
    if planned is None:
        return None
    write_pending(root, PENDING_REMOVAL, planned.pending)
    return Removal(pending=planned.pending, unknown=planned.unknown, proof=finish(root, planned.pending))


def resume(root: Root, *, with_proofs: bool = True) -> list[Removal]:
    """Finish what was interrupted and, `with_proofs`, try every proof again that did not hold; what was done."""
    pending = read_pending(root)
    done = [Removal(pending=pending, proof=finish(root, pending))] if pending is not None else []
    for rel in list_unproven(root) if with_proofs else ():
        earlier = read_pending(root, rel)
        if earlier is not None and all(earlier.id != one.pending.id for one in done):
            done.append(Removal(pending=earlier, proof=prove(root, earlier)))
    return done


def finish(root: Root, pending: Pending) -> Proof:
    """Do what `pending` says, as far as it is not done, and prove it."""
    rewrite(root, pending)
    write_pending(root, name_unproven(pending), pending)
    root.delete(PENDING_REMOVAL)
    return prove(root, pending)


def rewrite(root: Root, pending: Pending) -> None:
    """Take the rows out of every file; each step finds what is done already."""
    made = {FORGOTTEN, REJECTS}  # they may have no file yet
    tables = sorted({*summed_tables(root), *filter(None, map(table_of, pending.files)), *made})
    take_apart(root, pending.files)
    open_files(root, pending.files)
    with sealing(root, tables) as recording:
        write_tombstones(recording, pending)
        for unit in pending.rejects:
            rewrite_rejects(recording, unit, pending)
        for unit in track(pending.units, len(pending.units), "forget", "unit"):
            rewrite_unit(recording, unit, pending)
        rewrite_duplicates(recording, pending)
        rewrite_train(recording, pending)
        rewrite_plans(recording, pending)
        renew_versions(recording, pending)
        clean_up(root, pending)
    drop_entries(root, pending.files)


def prove(root: Root, pending: Pending) -> Proof:
    """Look for everything once more. When nothing is found, what was looked for is forgotten too."""
    proof = prove_removal(root, pending, name_log(pending))
    root.publish_json(name_log(pending), describe_log(pending, proof))
    if proof.holds:
        root.delete(name_unproven(pending))
    return proof
