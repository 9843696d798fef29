"""`curate forget`: removal requests, from the command line to the proof."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from curation.errors import UserError
from curation.forget import Removal, forget, plan, resume
from curation.forget.messages import count_removal, describe_proof, describe_removal, describe_result, name_log
from curation.forget.requests import Requests, parse_requests
from curation.root_lock import hold_root
from curation.storage import Root
from curation.terminal import write_error, write_out
from jobs.commands.root_commands import write_json
from trainer.checkpoint import META, read_progress


def forget_rows(arguments: argparse.Namespace) -> int:
    """`curate forget`; exit status 1 when something is left of what was to be forgotten."""
    root = Root(arguments.root)
    root.check_layout()
    named = (arguments.uid, arguments.url, arguments.host, arguments.sha256, arguments.list)
    requests = None if arguments.resume or not any(named) else _parse(arguments)
    runs = [*arguments.runs, *([root.path] if root.is_local else [])]
    checkpoints = list(find_checkpoints(runs))
    with hold_root(root):
        if arguments.dry_run:
            removals = _plan(root, requests, arguments)
        else:
            removals = resume(root, with_proofs=requests is None)
            removals += _forget(root, requests, arguments) if requests is not None else []
    if requests is None and not removals:
        raise UserError("Nothing is named to be forgotten, and nothing was interrupted: give --uid, --url, --host …")
    _say(arguments, root, removals, checkpoints)
    return 1 if any(one.proof is not None and not one.proof.holds for one in removals) else 0


def _parse(arguments: argparse.Namespace) -> Requests:
    return parse_requests(
        uids=arguments.uid, urls=arguments.url, hosts=arguments.host, sums=arguments.sha256, lists=arguments.list
    )


def _plan(root: Root, requests: Requests | None, arguments: argparse.Namespace) -> list[Removal]:
    root.check_format()
    if requests is None:
        raise UserError("--dry-run plans requests: give --uid, --url, --host, --sha256 or --list FILE.")
    options: dict[str, Any] = {"reason": arguments.reason, "date": _today(), "with_copies": arguments.with_copies}
    planned = plan(root, requests, **options)
    return [] if planned is None else [planned]


def _forget(root: Root, requests: Requests, arguments: argparse.Namespace) -> list[Removal]:
    done = forget(root, requests, reason=arguments.reason, date=_today(), with_copies=arguments.with_copies)
    return [] if done is None else [done]


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def find_checkpoints(folders: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """Every checkpoint below `folders` that may have seen rows, with what is known of it: none that took no step.

    One that cannot be read may have seen any. Raises UserError for what is no folder.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise UserError(f"--runs: there is no folder {folder}.")
        for meta in sorted(Path(folder).glob(f"**/step-*/{META}")):
            try:
                progress = read_progress(meta.parent)
            except UserError:
                yield meta.parent, "its record cannot be read"
                continue
            if progress.step:
                yield meta.parent, f"{progress.model}, step {progress.step:,}"


def _say(
    arguments: argparse.Namespace, root: Root, removals: Sequence[Removal], checkpoints: Sequence[tuple[Path, str]]
) -> None:
    if arguments.json:
        write_json(
            {"removals": [_describe(one) for one in removals], "checkpoints": [str(path) for path, _ in checkpoints]}
        )
        return
    if not removals:
        write_out(f"Nothing in {root.base} is named that was not forgotten before; nothing was written.\n")
        return
    for one in removals:
        write_out(describe_removal(one.pending, one.unknown, is_done=one.proof is not None))
        if one.proof is not None:
            (write_out if one.proof.holds else write_error)(describe_result(one.pending, one.proof))
    for path, known in checkpoints:
        write_out(f"  {path} ({known}) may have seen them: train anew without them.\n")


def _describe(one: Removal) -> dict[str, Any]:
    proof = None if one.proof is None else describe_proof(one.proof)
    named = {
        "unknown": list(one.unknown),
        "still_removed_duplicates": one.pending.follow,
        "outside": one.pending.outside,
    }
    return {"id": one.pending.id, **count_removal(one.pending), **named, "log": name_log(one.pending), "proof": proof}
