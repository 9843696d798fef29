"""Join the files of consecutive units into files of about a million rows, and take them apart again.

    curate compact ROOT
    curate compact ROOT --undo

A packed file is written beside the files of its units, read again and compared with them. One write of root.json then
makes it count, and only after that the small files are deleted. Killed at any moment, every unit stands in one of its
two places or in both with the same bytes, and the next `curate compact` goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow.parquet as pq

from curation.compaction.joining import Joining, parse_parts
from curation.errors import UserError
from curation.plan import group_by_rows, read_plans
from curation.progress import bar
from curation.scratch import name_scratch
from curation.shards import file_sha256
from curation.storage import Root
from curation.sums.cover import list_packable, list_unnamed_packed
from curation.sums.ledger import Sum, sum_bytes, table_of
from curation.sums.packed import list_packed_units, packed_file
from curation.sums.seal import (
    check_own_tables,
    enter_packed,
    is_sealed,
    leave_other_versions,
    leave_packed,
    seal_tables,
)
from curation.tables import NUM_READERS, SAMPLES, SCORES

MAX_ROWS = 1_000_000
MAX_UNITS = 256
"""Units of one packed file: its footer describes each column of each of them."""
FILES_PER_WRITE = 64
"""Packed files that one write of root.json lets count."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Files of consecutive units in one folder, which become the packed file `target`."""

    target: str
    units: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """What was done: files of units that were joined, and the packed files that they became."""

    num_joined: int
    num_packed: int


def compact(root: Root, wanted: Callable[[str], bool] = lambda table: True) -> Compacted:
    """Join the files of units in every table of `root` that is `wanted`. Hold the root (curation.root_lock) meanwhile.

    Raises UserError, before anything is joined, for a root without sums and for a damaged file.
    """
    _check_sealed(root)
    folders = [folder for folder in list_packable(root) if wanted(folder.partition("/")[0])]
    tables = sorted({folder.partition("/")[0] for folder in folders})
    check_own_tables(root, tables)
    seal_tables(root, tables, {})
    for folder in folders:
        _remove_leftovers(root, folder)
    runs = [run for folder in folders for run in plan_runs(root, folder)]
    num_units = sum(len(run.units) for run in runs)
    num_threads = root.count_readers(os.cpu_count() or 1)
    with bar(num_units, "compact", "unit") as progress, ThreadPoolExecutor(num_threads) as pool:
        for several in _batch_by_table(runs):
            found = dict(pool.map(lambda run: (run.target, join_units(root, run)), several))
            enter_packed(root, several[0].target.partition("/")[0], found)
            joined = [unit for run in several for unit in run.units]
            root.delete_files(joined)
            progress.update(len(joined))
    return Compacted(num_joined=num_units, num_packed=len(runs))


def join_units_of_scores(root: Root) -> None:
    """Join new files of scores where those of samples were joined: a table keeps to what its root has come to."""
    if root.places(SAMPLES):
        compact(root, lambda table: table.startswith(SCORES))


def _check_sealed(root: Root) -> None:
    root.check_format()
    if not is_sealed(root):
        raise UserError(f"{root.base} has no sums of its files, by which they are joined: run `curate seal` first.")


def _remove_leftovers(root: Root, folder: str) -> None:
    """Delete what an interrupted `compact` left: packed files that do not count, and units that were joined.

    Raises UserError before it would delete the last copy of a unit.
    """
    for rel in list_unnamed_packed(root, folder):
        if holds_last_copy(root, rel):
            raise UserError(f"{root.url(rel)} holds units that stand nowhere else: run `curate seal`, which enters it.")
        root.delete(rel)
    places = root.places(folder.partition("/")[0])
    beside = [rel for rel in _list_own(root, folder) if rel in places]
    for rel in beside:
        if sum_bytes(root.own_bytes(rel)) != root.expected(rel):
            raise UserError(f"{root.url(rel)} is not what {places[rel].file} holds of this unit: delete the former.")
    root.delete_files(beside)


def _list_own(root: Root, folder: str) -> list[str]:
    """The files of units that stand in `folder` by themselves."""
    return [f"{folder}/{name}" for name in sorted(root.own_sizes(folder)) if name.endswith(".parquet")]


def plan_runs(root: Root, folder: str) -> Iterator[Run]:
    """What is to be joined in `folder`: where the plans draw the lines, whatever was joined before.

    Of rejects and listings not every unit has a file. In any other table a group waits until all of its units stand.
    """
    ledger = root.ledger(folder.partition("/")[0])
    own = set(_list_own(root, folder))
    ready = {rel for rel in own if rel in ledger and ledger[rel].sha256 is not None}
    has_all = folder not in ("rejects", "listings")
    standing = {f"{folder}/{name}" for name in root.list(folder, ".parquet")} if has_all else set()
    for plan in read_plans(root):
        for group in plan_groups(plan["units"]):
            rels = {number: f"{folder}/{plan['batch']}-{number:06d}.parquet" for number in group}
            if has_all and not standing.issuperset(rels.values()):
                continue
            for numbers in split_consecutive(number for number in group if rels[number] in ready):
                if len(numbers) > 1:
                    target = packed_file(folder, plan["batch"], numbers[0], numbers[-1])
                    yield Run(target=target, units=tuple(rels[number] for number in numbers))


def plan_groups(units: Mapping[str, int]) -> Iterator[list[int]]:
    """The numbers of `units` (with the rows of each), in order, as groups of at most MAX_ROWS rows and MAX_UNITS."""
    return group_by_rows(sorted((int(name), rows) for name, rows in units.items()), MAX_ROWS, MAX_UNITS)


def split_consecutive(numbers: Iterable[int]) -> list[list[int]]:
    """Ascending `numbers` as runs without a gap."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] + 1 == number:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _batch_by_table(runs: Sequence[Run]) -> Iterator[Sequence[Run]]:
    """`runs` in batches of one table each."""
    by_table: dict[str, list[Run]] = {}
    for run in runs:
        by_table.setdefault(run.target.partition("/")[0], []).append(run)
    for same in by_table.values():
        yield from (same[first : first + FILES_PER_WRITE] for first in range(0, len(same), FILES_PER_WRITE))


def join_units(root: Root, run: Run) -> Sum:
    """Publish the packed file of `run`, which does not count yet; its sum. Raises UserError for a damaged unit."""
    path = Path(root.scratch(), f"{name_scratch(root, 'compact')}{hashlib.sha256(run.target.encode()).hexdigest()}")
    try:
        with open(path, "wb+") as sink:
            found = _write_joined(root, run, sink)
            check_joined(sink, [root.expected(rel) for rel in run.units], run.target)
        root.put(run.target, path)
        return found
    finally:
        path.unlink(missing_ok=True)


def _write_joined(root: Root, run: Run, sink: IO[bytes]) -> Sum:
    joining, digest = Joining(), hashlib.sha256()
    for rel in run.units:
        data = root.read_whole(rel)
        try:
            joining.add(data)
        except ValueError as error:
            raise UserError(f"{root.url(rel)} cannot be joined with the units before it ({error}).") from error
        digest.update(data)
        sink.write(data)
    footer = joining.footer()
    digest.update(footer)
    sink.write(footer)
    sink.flush()
    return Sum(joining.size + len(footer), digest.hexdigest())


def check_joined(opened: IO[bytes], units: Sequence[Sum | None], name: str) -> None:
    """Raise RuntimeError unless the joined file gives the rows of its `units`, and their bytes in their ranges."""
    opened.seek(0)
    joined = pq.ParquetFile(opened, page_checksum_verification=True)
    offset = group = 0
    for expected in units:
        size = expected.size if expected else 0
        opened.seek(offset)
        data = opened.read(size)
        own = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        groups = range(group, group + own.num_row_groups)
        # Files are joined side by side: threads for each of their columns would only wait for each other.
        read = joined.read_row_groups([*groups], use_threads=False)
        if sum_bytes(data) != expected or not read.equals(own.read(use_threads=False)):
            raise RuntimeError(f"{name} does not hold what its units hold")
        offset, group = offset + size, groups.stop
    if joined.num_row_groups != group:
        raise RuntimeError(f"{name} has {joined.num_row_groups} row groups, its units have {group}")


def take_apart(root: Root, rels: Iterable[str]) -> None:
    """Give the units `rels` files of their own, with all others of their packed files, because they are to be changed.

    Raises UserError for a unit that is damaged.
    """
    wanted = set(rels)
    root.renew_places()
    tables = sorted({table for rel in wanted if (table := table_of(rel)) is not None})
    places = [root.places(table) for table in tables]
    named = {place.file for known in places for rel, place in known.items() if rel in wanted}
    files = {file for file in named if root.own_exists(file)}

    def restore(file: str) -> None:
        for rel in list_packed_units(file):
            root.put(rel, root.read_whole(rel))

    with ThreadPoolExecutor(NUM_READERS) as pool:
        list(pool.map(restore, sorted(files)))
    _drop_packed(root, files)


def undo(root: Root) -> list[str]:
    """Take every packed file apart; the units that are damaged, and so are missing now. Hold the root meanwhile."""
    _check_sealed(root)
    seal_tables(root, [], {})  # deletes ledgers that an interrupted run left
    leave_other_versions(root)
    damaged = []
    for folder in list_packable(root):
        places = root.places(folder.partition("/")[0])
        files = sorted({place.file for rel, place in places.items() if rel.startswith(f"{folder}/")})
        for file in files:
            damaged += [rel for rel in list_packed_units(file) if not _restore_unit(root, rel)]
        _drop_packed(root, files)
        _remove_leftovers(root, folder)
    return damaged


def _restore_unit(root: Root, rel: str) -> bool:
    """Give one unit a file of its own, unless it is damaged."""
    if root.own_exists(rel):
        return True
    try:
        root.put(rel, root.read_whole(rel))
    except (UserError, FileNotFoundError):
        return False
    return True


def restore_packed(root: Root) -> None:
    """Let packed files count again whose ledger was lost: their units stand nowhere else.

    Raises UserError for a damaged one.
    """
    for folder in list_packable(root):
        for rel in list_unnamed_packed(root, folder):
            if holds_last_copy(root, rel):
                enter_packed(root, folder.partition("/")[0], sum_packed(root, rel))


def holds_last_copy(root: Root, rel: str) -> bool:
    """Whether the packed file `rel`, which does not count, has units that stand nowhere else.

    Not so when one of its units stands with other bytes: then it is older than they are. Raises UserError for a damaged
    file.
    """
    units = list_packed_units(rel)
    standing = [unit for unit in units if root.exists(unit)]
    if len(standing) == len(units):
        return False
    sums = sum_packed(root, rel)
    return all(sum_bytes(root.read_bytes(unit)) == sums[unit] for unit in standing)


def sum_packed(root: Root, rel: str) -> dict[str, Sum]:
    """Sums of a packed file and of each of its units, as they stand. Raises UserError for a damaged one."""
    units = list_packed_units(rel)
    root.read_parquet(rel)
    with contextlib.closing(root.open(rel)) as opened:
        parts = parse_parts(pq.read_metadata(opened).metadata)
        opened.seek(0)
        found = {unit: sum_bytes(opened.read(size)) for unit, (size, _) in zip(units, parts, strict=True)}
    return found | {rel: Sum(root.size(rel), file_sha256(root, rel))}


def _drop_packed(root: Root, files: Iterable[str]) -> None:
    """Let the packed `files`, whose units stand by themselves, count no more, then delete them."""
    by_table: dict[str, list[str]] = {}
    for file in sorted(files):
        by_table.setdefault(file.partition("/")[0], []).append(file)
    for table, same in by_table.items():
        leave_packed(root, table, same)
    root.delete_files([file for same in by_table.values() for file in same])
