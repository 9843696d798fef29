"""Seal the tables of a root: write a ledger of each, and name the ledgers in root.json in one step.

A stage tells a recorder what it publishes. Before it makes a file anew that a ledger has, the entry is opened, and at
its end its tables are sealed: what was recorded is entered, and what an interrupted run left behind is read, checked
and entered too. So a kill at any moment leaves entries that hold, open entries, and files without an entry.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from curation.errors import UserError
from curation.progress import bar
from curation.remedies import remedy
from curation.schema import PACKED_FORMAT, SEALED_FORMAT
from curation.shards import file_sha256
from curation.storage import CONFIG, Root
from curation.sums.cover import VERSIONED, belonging, list_standing, read_version, unit_of
from curation.sums.ledger import SUMS, Ledger, Sum, ledger_bytes, ledger_file, sum_bytes, table_of
from curation.sums.packed import is_packed
from curation.sums.record import RootRecord
from curation.tables import train_summary_file
from curation.version import __version__

MANY_FILES = 200
"""From so many files on, reading what nobody recorded shows a bar."""


def is_sealed(root: Root) -> bool:
    """Whether the files of `root` stand under sums. False for a root that earlier versions made, or none yet."""
    return root.exists("root.json") and root.record().sums is not None


def open_entries(root: Root, concerned: Callable[[str], bool], tables: Iterable[str]) -> None:
    """Note in the ledgers of `tables` that the files for which `concerned` holds are being made anew."""
    changed: dict[str, Ledger] = {}
    for table in tables if is_sealed(root) else ():
        known = root.ledger(table)
        opened = {rel: Sum(s.size, None) for rel, s in known.items() if s.sha256 is not None and concerned(rel)}
        if opened:
            changed[table] = {**known, **opened}
    _write_ledgers(root, changed)


def open_files(root: Root, rels: Iterable[str]) -> None:
    """Note in the ledgers that the files `rels` are being made anew."""
    named = set(rels)
    open_entries(root, named.__contains__, sorted({table for rel in named if (table := table_of(rel)) is not None}))


def open_missing(root: Root, tables: Iterable[str]) -> None:
    """Open the entries of `tables` whose files are gone: the stage that makes them begins."""
    for table in tables if is_sealed(root) else ():
        open_entries(root, partial(_is_missing, list_standing(root, table)), [table])


def _is_missing(standing: Mapping[str, int], rel: str) -> bool:
    return rel not in standing


def seal_tables(root: Root, tables: Iterable[str], recorded: Ledger) -> None:
    """Bring the ledgers of `tables` to what stands, in a sealed root. Raises UserError for a damaged file.

    `recorded` is what this run published. An entry that its file does not fulfil stays as it is, so that
    `curate verify` names the file.
    """
    if is_sealed(root):
        found = {table: _make_ledger(root, table, recorded) for table in tables}
        _write_ledgers(root, {table: ledger for table, ledger in found.items() if ledger != root.ledger(table)})
        _remove_stale(root)


def enter_packed(root: Root, table: str, packed: Ledger) -> None:
    """Let the files `packed` of `table` count, in one write: from then on the units in them need no files of their own.

    The units keep their entries. Earlier versions of this project refuse the root from then on.
    """
    root.record()
    sha256 = _publish_ledger(root, table, {**root.ledger(table), **packed})
    _name_ledgers(root, {table: sha256}, PACKED_FORMAT)


def leave_packed(root: Root, table: str, packed: Iterable[str]) -> None:
    """The opposite of `enter_packed`: the units of the files `packed` stand by themselves."""
    gone = set(packed)
    root.record()
    sha256 = _publish_ledger(root, table, {r: entry for r, entry in root.ledger(table).items() if r not in gone})
    others = (name for name in root.record().sums or {} if name != table)
    stays = any(root.places(name) for name in others) or any(map(is_packed, root.ledger(table).keys() - gone))
    _name_ledgers(root, {table: sha256}, PACKED_FORMAT if stays else SEALED_FORMAT)


def leave_other_versions(root: Root) -> None:
    """Let packed files of versions count no more that an interrupted stage has not made the current ones."""
    changed = dict[str, Ledger]()
    for table in VERSIONED if is_sealed(root) else ():
        known, version = root.ledger(table), read_version(root, table)
        left = {rel: entry for rel, entry in known.items() if version is None or _is_of(version, rel)}
        if len(left) < len(known):
            changed[table] = left
    _write_ledgers(root, changed)


def seal_root(root: Root, tables: Iterable[str]) -> None:
    """Sum every file of `tables` as it stands and make `root` a sealed one. Raises UserError for a damaged file."""
    named = {}
    for table in tables:
        belongs = belonging(root, table)
        rels = sorted(rel for rel in list_standing(root, table) if belongs(rel))
        named[table] = _publish_ledger(root, table, _sum_files(root, rels))
    root.publish_record(RootRecord(format=SEALED_FORMAT, version=__version__, sums=named))
    _remove_stale(root)


def lost_files(root: Root, table: str) -> list[str]:
    """Files of `table` that its ledger has and that do not stand any more."""
    ledger = root.ledger(table)
    standing = list_standing(root, table) if ledger else {}
    return sorted(rel for rel in ledger if rel not in standing)


def is_whole(root: Root, table: str) -> bool:
    """Whether `table`, a versioned one, has a current version and each of its files stands."""
    current = root.current(table)
    if current is None or lost_files(root, table):
        return False
    folders = {name.rpartition("/")[0] for name in current["files"]}
    return set(current["files"]) <= {f"{folder}/{name}" for folder in folders for name in root.list(folder)}


def forget_deleted(root: Root, tables: Iterable[str], units: Iterable[str]) -> None:
    """Drop the entries of `units` whose files a round has deleted on purpose, since their pictures are others now."""
    concerned, changed = set(units), dict[str, Ledger]()
    for table in tables if is_sealed(root) else ():
        gone = {rel for rel in lost_files(root, table) if unit_of(rel) in concerned}
        if gone:
            changed[table] = {rel: entry for rel, entry in root.ledger(table).items() if rel not in gone}
    _write_ledgers(root, changed)


def drop_entries(root: Root, rels: Iterable[str]) -> None:
    """Drop the entries of the files `rels` that do not stand any more: they were deleted on purpose."""
    changed: dict[str, Ledger] = {}
    named = set(rels)
    for table in sorted({table for rel in named if (table := table_of(rel)) is not None}) if is_sealed(root) else ():
        gone = named.intersection(lost_files(root, table))
        if gone:
            changed[table] = {rel: entry for rel, entry in root.ledger(table).items() if rel not in gone}
    _write_ledgers(root, changed)


def check_tables(root: Root, tables: Iterable[str]) -> None:
    """Raise UserError when a file of `tables`, which a stage is about to read, is missing or has another size.

    A table of which nothing is left is none that the stage can read; it says so itself.
    """
    for table in tables:
        standing = list_standing(root, table)
        for rel in root.ledger(table) if standing else ():
            if rel not in standing and not rel.endswith(f"/{CONFIG}"):
                raise UserError(f"{root.url(rel)} is missing: {remedy(rel, is_there=False)}.")
        _check_sizes(root, table, standing)


def check_own_tables(root: Root, tables: Iterable[str]) -> None:
    """Raise UserError when a file of `tables`, which a stage is about to complete, has another size than it had.

    The stage makes what is missing, and would take a file that stands for one that is done.
    """
    for table in tables:
        _check_sizes(root, table, list_standing(root, table))


def _check_sizes(root: Root, table: str, standing: Mapping[str, int]) -> None:
    for rel, entry in root.ledger(table).items():
        size = standing.get(rel, entry.size)
        if size != entry.size and entry.sha256 is not None and not rel.endswith(f"/{CONFIG}"):
            raise UserError(f"{root.url(rel)} has {size} bytes, not {entry.size}: {remedy(rel)}.")


def _make_ledger(root: Root, table: str, recorded: Ledger) -> Ledger:
    known, standing, belongs = root.ledger(table), list_standing(root, table), belonging(root, table)
    version = read_version(root, table)
    lasting = {rel: found for rel, found in known.items() if version is None or _is_of(version, rel)}
    # The units of a packed file that was lost are made anew as files of their own.
    lasting = {rel: found for rel, found in lasting.items() if found.sha256 or not is_packed(rel) or rel in standing}
    told = {**_read_shard_sums(root, table, version), **recorded}
    mine = sorted(rel for rel in standing if belongs(rel) and (version is None or _is_of(version, rel)))
    unknown = [rel for rel in mine if rel not in told and (rel not in known or known[rel].sha256 is None)]
    return lasting | {rel: told[rel] for rel in mine if rel in told} | _sum_files(root, unknown)


def _is_of(version: str, rel: str) -> bool:
    """Whether `rel` of a versioned table is in that version, or beside all versions."""
    return rel.count("/") == 1 or rel.split("/")[1] == version


def _read_shard_sums(root: Root, table: str, version: str | None) -> Ledger:
    """The train shards of the current version, which pack summed while it wrote them."""
    rel = train_summary_file(version) if version and table == "train" else ""
    if not rel or not root.exists(rel):
        return {}
    shards = root.read_json(rel)["shards"].items()
    return {f"{table}/{version}/{name}": Sum(s["num_bytes"], s["sha256"]) for name, s in shards if "num_bytes" in s}


def _sum_files(root: Root, rels: list[str]) -> dict[str, Sum]:
    """Sums of files that nobody recorded, as they stand. Raises UserError for one whose own checksums do not hold."""
    if not rels:
        return {}
    shown = len(rels) if len(rels) >= MANY_FILES else 0
    found = {}
    with ThreadPoolExecutor(root.count_readers(os.cpu_count() or 1)) as pool, bar(shown, "seal", "file") as progress:
        for rel, one in zip(rels, pool.map(lambda rel: _sum_file(root, rel), rels), strict=True):
            found[rel] = one
            progress.update(1 if shown else 0)
    return found


def _sum_file(root: Root, rel: str) -> Sum:
    if rel.endswith(".tar"):
        return Sum(root.size(rel), file_sha256(root, rel))
    if rel.endswith(".parquet"):
        root.read_parquet(rel)
    return sum_bytes(root.read_bytes(rel))


def _write_ledgers(root: Root, changed: Mapping[str, Ledger]) -> None:
    if not changed:
        return
    named = {table: _publish_ledger(root, table, ledger) for table, ledger in changed.items()}
    _name_ledgers(root, named)


def _name_ledgers(root: Root, named: Mapping[str, str], number: int | None = None) -> None:
    """Let root.json name other ledgers, table → sha256, and with a `number` another format."""
    record = root.record()
    sums = {**(record.sums or {}), **named}
    root.publish_record(RootRecord(format=number or record.format, version=record.version, sums=sums))
    _remove_stale(root)


def _publish_ledger(root: Root, table: str, ledger: Ledger) -> str:
    data = ledger_bytes(ledger)
    sha256 = sum_bytes(data).sha256 or ""
    root.publish(ledger_file(table, sha256), data)
    return sha256


def _remove_stale(root: Root) -> None:
    """Delete the ledgers that root.json does not name any more."""
    named = {ledger_file(table, sha256) for table, sha256 in (root.record().sums or {}).items()}
    for name in root.list(SUMS):
        if f"{SUMS}/{name}" not in named:
            root.remove(f"{SUMS}/{name}")
