"""Every file of a sealed root against its ledger: missing, another size, other bytes, a link, or under no sum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from curation.remedies import remedy, stage_of
from curation.shards import file_sha256
from curation.storage import Root
from curation.sums.cover import belonging, list_packable, list_standing, list_unnamed_packed, summed_tables
from curation.sums.ledger import SUMS, Ledger, Sum, ledger_file, sum_bytes
from curation.sums.seal import lost_files
from curation.verify.each import check_each

SMALL_BYTES = 64 << 10
"""`--quick` reads files up to this size whole, of larger ones it asks the size alone."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A sealed root's ledgers and what stands there."""

    root: Root
    ledgers: Mapping[str, Ledger]
    standing: Mapping[str, int]
    paths_of: Mapping[str, list[str]]
    """sha256 → the paths whose files have it: a file that holds another's bytes was put in its place."""


def find_differences(root: Root, quick: bool) -> Iterator[str]:
    """Differences between the files of a sealed root and its ledgers; none for a root that is not sealed."""
    sums = root.record().sums
    if sums is None:
        return
    if root.is_link("root.json"):
        yield "root.json is a link to another file: put the file itself there."
    yield from _check_ledgers(root, sums)
    known = _list_files(root, sorted({*sums, *summed_tables(root)}))
    yield from _find_unknown_files(known)
    entries = [(rel, entry) for ledger in known.ledgers.values() for rel, entry in sorted(ledger.items())]
    # The pass over train shards compares them with their sums anyway, member by member.
    reads = {rel: quick is False and not rel.endswith(".tar") for rel, _ in entries}
    yield from check_each("verify sums", [partial(_check_file, known, rel, e, reads[rel]) for rel, e in entries])


def find_missing_files(root: Root) -> Iterator[str]:
    """A sentence for each file that a ledger has and that does not stand any more; lists folders and reads no file."""
    for table in root.record().sums or {}:
        yield from (f"{rel} is missing: {remedy(rel, is_there=False)}." for rel in lost_files(root, table))


def _list_files(root: Root, tables: list[str]) -> Known:
    ledgers = {table: root.ledger(table) for table in tables}
    standing = {rel: size for table in tables for rel, size in list_standing(root, table).items()}
    paths_of: dict[str, list[str]] = {}
    for ledger in ledgers.values():
        for rel, entry in ledger.items():
            paths_of.setdefault(entry.sha256 or "", []).append(rel)
    return Known(root=root, ledgers=ledgers, standing=standing, paths_of=paths_of)


def _check_ledgers(root: Root, sums: Mapping[str, str]) -> Iterator[str]:
    """Ledgers as they lie there: this process may hold what they said before."""
    named = {ledger_file(table, sha256): sha256 for table, sha256 in sums.items()}
    for name in root.list(SUMS):
        if f"{SUMS}/{name}" not in named:
            yield f"{SUMS}/{name} is no ledger that root.json names: delete it."
    for rel, sha256 in named.items():
        if not root.exists(rel):
            yield f"{rel} is missing: {remedy(rel, is_there=False)}."
        elif root.is_link(rel):
            yield f"{rel} is a link to another file: put the file itself there."
        elif sum_bytes(root.read_bytes(rel)).sha256 != sha256:
            yield f"{rel} does not hold what root.json says: {remedy(rel)}."


def _find_unknown_files(known: Known) -> Iterator[str]:
    belongs = {table: belonging(known.root, table) for table in known.ledgers}
    for folder in list_packable(known.root):
        for rel in list_unnamed_packed(known.root, folder):
            yield f"{rel} is under no sum: an interrupted `curate compact` left it (run it again)."
    for rel in sorted(known.standing):
        table = rel.partition("/")[0]
        entry = known.ledgers[table].get(rel)
        if entry is not None and entry.sha256 is not None:
            continue
        if entry is None and not belongs[table](rel):
            yield f"{rel} is under no sum and belongs to no plan of this root: delete it."
            continue
        yield (
            f"{rel} is under no sum: an interrupted stage left it ({_name_command(rel)} again, which checks it and "
            f"enters its sum), or it came from elsewhere (delete it)."
        )


def _name_command(rel: str) -> str:
    stage = stage_of(rel)
    return f"run `curate {stage}`" if stage else "run the stage that made it"


def _check_file(known: Known, rel: str, entry: Sum, reads: bool) -> str | None:
    """What is wrong with the file `rel`, None when it is what its entry says."""
    root = known.root
    size = known.standing.get(rel)
    if size is None and not root.exists(rel):
        return f"{rel} is missing: {remedy(rel, is_there=False)}."
    if root.is_link(rel):
        return f"{rel} is a link to another file: put the file itself there, or {remedy(rel)}."
    if entry.sha256 is None:
        return None
    if size is None:
        size = root.size(rel)
    if root.known_place(rel) is not None:
        return None  # the sum of its packed file covers it
    if size != entry.size:
        return f"{rel} has {size} bytes, not the {entry.size} that were published: {remedy(rel)}."
    if not reads and (size > SMALL_BYTES or rel.endswith(".tar")):
        return None
    found = file_sha256(root, rel)
    return None if found == entry.sha256 else _describe_other(known, rel, found)


def _describe_other(known: Known, rel: str, found: str) -> str:
    others = [other for other in known.paths_of.get(found, []) if other != rel]
    if others:
        return f"{rel} holds what belongs into {others[0]}: {remedy(rel)}."
    return f"{rel} does not hold what was published, it is damaged or another version: {remedy(rel)}."
