"""Pictures that came before they were put on an opt-out list or a blocklist: every later version of duplicates and
selection, and so of train shards, is made without them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.download.blocklist import Blocklist, BlocklistFiles, check_blocklist, load_blocklist, sort_lists
from curation.download.opt_out import OptOut, load_opt_out
from curation.download.unit import resolve_opt_out_paths
from curation.errors import UserError
from curation.paths import find_listed
from curation.recipe.config import Recipe
from curation.recipe.select_config import BlocklistConfig
from curation.schema import Status
from curation.shards import read_member
from curation.storage import Root
from curation.tables import downloads_file, samples_file

OPT_OUT = "opt_out"
"""Names the opt-out lists among the inputs of a version."""
BLOCKLIST = "blocklist:"
"""With its name behind, a blocklist among the inputs of a version, and why the selection does not keep a row."""
REASON = "opted_out"
"""Why the selection does not keep a row that an opt-out list names."""
_WITHDRAWN = pa.schema([("uid", pa.string()), ("reason", pa.string())])
_PLACE = ("shard", "offset", "size", "stored_sha256")


@dataclass(frozen=True, kw_only=True)
class Lists:
    """The full paths of all lists of a recipe, ready to be sent to a task."""

    opt_out: tuple[str, ...] = ()
    blocklists: tuple[BlocklistFiles, ...] = ()
    """Sorted by name."""


NO_LISTS = Lists()


def resolve_lists(recipe: Recipe) -> Lists:
    """The lists that `recipe` names. Raises UserError when a pattern names no list."""
    found = [_resolve_blocklist(recipe, name, config) for name, config in recipe.blocklists.items()]
    return Lists(opt_out=resolve_opt_out_paths(recipe).opt_out, blocklists=sort_lists(found))


def _resolve_blocklist(recipe: Recipe, name: str, config: BlocklistConfig) -> BlocklistFiles:
    subject = f"blocklists.{name}.paths"
    paths = tuple(path for pattern in config.paths for path in find_listed(recipe.resolve(pattern), subject))
    return BlocklistFiles(name=name, paths=paths, max_hamming=config.max_hamming)


def check_blocklists(recipe: Recipe, root: Root) -> None:
    """Raise UserError for a blocklist that is not there or has a wrong line; writes nothing."""
    for files in resolve_lists(recipe).blocklists:
        check_blocklist(files, root.scratch_path)


def describe_lists(lists: Lists, root: Root) -> dict[str, str]:
    """The inputs of a version that say what the lists hold; nothing without lists.

    Raises UserError for a blocklist with md5 sums where the root cannot know those of its pictures.
    """
    file = load_opt_out(lists.opt_out, root.scratch()).file
    described = {}
    if file is not None:
        with open(file, "rb") as f:
            described[OPT_OUT] = hashlib.file_digest(f, "sha256").hexdigest()[:12]
    loaded = {files: load_blocklist(files, root.scratch()) for files in lists.blocklists}
    for files, blocklist in loaded.items():
        if blocklist.has_md5:
            _check_stored_as_fetched(root, files)
    return described | {f"{BLOCKLIST}{files.name}": blocklist.digest() for files, blocklist in loaded.items()}


def _check_stored_as_fetched(root: Root, files: BlocklistFiles) -> None:
    for unit in root.units("downloads"):
        rows = root.read_parquet(downloads_file(unit), ["status", "sha256", "stored_sha256"])
        rows = rows.filter(pc.equal(rows["status"], Status.OK.value))
        if pc.any(pc.not_equal(rows["sha256"], rows["stored_sha256"])).as_py():
            raise UserError(
                f"The {files.what} has md5 sums, and pictures of unit {unit} are not stored as they were fetched, so "
                f'that theirs is not known: give sha256 or perceptual hashes, or download with resize_mode = "no".'
            )


def find_withdrawn(root: Root, unit: str, lists: Lists) -> pa.Table:
    """Those pictures of `unit` that came and that a list names by now: `uid`, and as `reason` what the selection says.

    The reason is that of the opt-out lists before that of a blocklist, and that of a blocklist before a later one's.
    """
    opt_out = load_opt_out(lists.opt_out, root.scratch())
    if opt_out.file is None and not lists.blocklists:
        return _WITHDRAWN.empty_table()
    rows = _read_rows(root, unit)
    reasons: dict[str, str] = dict.fromkeys(_list_opted_out(rows, opt_out), REASON)
    for files in lists.blocklists:
        for uid in _list_blocked(root, rows, load_blocklist(files, root.scratch())):
            reasons.setdefault(uid, f"{BLOCKLIST}{files.name}")
    return pa.table([list(reasons), list(reasons.values())], schema=_WITHDRAWN)


def _read_rows(root: Root, unit: str) -> pa.Table:
    """Of the pictures that came: addresses, sums and hashes, and where they are stored."""
    rows = root.read_parquet(downloads_file(unit), ["uid", "status", "sha256", "phash", *_PLACE])
    rows = rows.filter(pc.equal(rows["status"], Status.OK.value))
    return rows.join(root.read_parquet(samples_file(unit), ["uid", "url", "claimed_sha256", "claimed_phash"]), "uid")


def _list_opted_out(rows: pa.Table, listed: OptOut) -> Iterator[str]:
    if listed.file is None:
        return
    for row in rows.select(["uid", "url", "sha256", "claimed_sha256"]).to_pylist():
        if listed.refuses_url(row["url"]) or _lists_sums(row, listed):
            yield row["uid"]


def _lists_sums(row: dict[str, str], listed: OptOut) -> bool:
    return listed.refuses_sha256(row["sha256"]) or listed.refuses_sha256(row["claimed_sha256"])


def _list_blocked(root: Root, rows: pa.Table, listed: Blocklist) -> Iterator[str]:
    if not listed.addresses.is_empty:
        addresses = rows.select(["uid", "url"]).to_pylist()
        yield from (row["uid"] for row in addresses if listed.addresses.refuses_url(row["url"]))
    if not listed.sums.is_empty:
        sums = rows.select(["uid", "sha256", "claimed_sha256"]).to_pylist()
        yield from (row["uid"] for row in sums if _lists_sums(row, listed.sums))
    if listed.has_md5:
        for uid, *place in zip(*(rows[name].to_pylist() for name in ("uid", *_PLACE)), strict=True):
            if listed.has_md5_of(read_member(root, *place)):
                yield uid
    if listed.has_hashes:
        for name in ("phash", "claimed_phash"):
            known = rows.select(["uid", name]).filter(pc.is_valid(rows[name]))
            hashes = np.array([int(text, 16) for text in known[name].to_pylist()], np.uint64)
            yield from known["uid"].filter(pa.array(listed.has_near(hashes))).to_pylist()
