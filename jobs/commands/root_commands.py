"""The commands that look at a root, or keep it in order: status, verify, seal, gc, compact."""

from __future__ import annotations

import argparse
import json
from itertools import islice
from typing import Any

from curation.root_lock import hold_root
from curation.storage import Root
from curation.terminal import write_error, write_out

MAX_MISSING = 5
"""Missing files that `curate status` names; `curate verify --all` names every one."""


def open_root(url: str) -> Root:
    """The root at `url`. Raises UserError for what is none."""
    root = Root(url)
    root.check_format()
    return root


def write_json(value: dict[str, Any]) -> None:
    """Write `value` as one line of JSON, which `--json` asks for."""
    write_out(f"{json.dumps(value, ensure_ascii=False)}\n")


def show_status(arguments: argparse.Namespace) -> None:
    """`curate status`."""
    from curation.report import describe_status, status_text
    from curation.verify.sums import find_missing_files

    root = open_root(arguments.root)
    if arguments.json:
        write_json({**describe_status(root), "missing": [*find_missing_files(root)]})
        return
    write_out(status_text(root))
    write_out("".join(f"{sentence}\n" for sentence in islice(find_missing_files(root), MAX_MISSING)))


def verify_root(arguments: argparse.Namespace) -> int:
    """`curate verify`; exit status 1 for a difference."""
    from curation.verify import find_differences

    found = find_differences(open_root(arguments.root), arguments.quick)
    said = [*found] if arguments.all else [*islice(found, 1)]
    if arguments.json:
        write_json({"right": not said, "quick": arguments.quick, "differences": said})
        return 1 if said else 0
    write_error("".join(f"curate verify: {difference}\n" for difference in said))
    if said:
        return 1
    everything = "Every row is accounted for once; every checksum, offset and size is right.\n"
    quickly = "Every file stands with its size, and small files hold what was published; no row was read.\n"
    write_out(quickly if arguments.quick else everything)
    return 0


def seal_root(arguments: argparse.Namespace) -> int:
    """`curate seal`; exit status 1 for a difference."""
    from curation.sums.ledger import SUMS
    from curation.verify.sealing import seal

    root = Root(arguments.root)
    if not root.exists("root.json") and not root.exists(SUMS):
        root.check_format()  # says that this is no root
    with hold_root(root):
        difference = seal(root)
    if difference:
        write_error(f"curate seal: {difference}\n")
        return 1
    write_out(f"{root.base} is sealed: `curate verify` compares every file with its sum from now on.\n")
    return 0


def collect_garbage(arguments: argparse.Namespace) -> None:
    """`curate gc`."""
    from curation.garbage import delete_versions, describe_versions, find_old_versions

    root = open_root(arguments.root)
    if not arguments.yes:
        write_out(describe_versions(find_old_versions(root), deleted=False))
        return
    with hold_root(root):
        versions = find_old_versions(root)
        delete_versions(root, versions)
    write_out(describe_versions(versions, deleted=True))


def compact_root(arguments: argparse.Namespace) -> int:
    """`curate compact`; exit status 1 when `--undo` finds damaged units."""
    from curation.compaction.compact import compact, undo
    from curation.remedies import remedy

    root = open_root(arguments.root)
    with hold_root(root):
        if not arguments.undo:
            done = compact(root)
            write_out(f"{done.num_joined:,} files of units were joined into {done.num_packed:,}.\n")
            return 0
        damaged = undo(root)
    for rel in damaged:
        write_error(f"curate compact: {rel} was damaged and is missing now: {remedy(rel, is_there=False)}.\n")
    write_out("Every sound unit has a file of its own.\n" if damaged else "Every unit has a file of its own.\n")
    return 1 if damaged else 0
