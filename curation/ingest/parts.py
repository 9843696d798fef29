"""What processes of this machine do to the rows of an ingest: they read them, sort them into buckets, and write units.

Rows lie in parts, Arrow files of a private folder, each of so many rows that one process holds them. A part is written
as its rows are read, and written again in the order of buckets, so that a bucket is one batch of each part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.hexadecimal import DIGITS, read_numbers
from curation.ingest.engine import SORTED_BY, UnitCounts, UnitTarget
from curation.ingest.placing import Numbers, place_rows
from curation.ingest.unit import write_unit
from curation.metadata.rows import Share, read_shares
from curation.plan import Spread
from curation.schema import RejectReason
from curation.sorting import Column, count_bits, sort_rows
from curation.sums.ledger import Sum
from curation.sums.recorder import TaskRecorder

OF_INPUT = ("source", "file")
"""Columns that the number of the input says."""
MAX_PART_BYTES = 256_000_000
"""Of the rows of a part in memory, about; captions may be pages long."""
PLACE_BITS = 32
"""Bits of a row's number inside its part in `place`; the bits above are the part's number."""
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of rows, in the order in which they were read."""

    path: Path
    by_position: Counter[int]
    """Rows of each input."""


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """The file of a part whose rows are in the order of buckets; batch `i` of it holds those of `buckets[i]`."""

    path: Path
    buckets: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Where rows go: units, of which so many that follow each other are one bucket; `only` some units, if it says."""

    spread: Spread
    num_units: int
    only: frozenset[int] | None


def read_part_files(folder: Path, max_rows: int, numbered: tuple[int, Sequence[Share]]) -> list[tuple[Part, pa.Table]]:
    """Read the rows of `numbered` shares into parts of `max_rows` or a few more. Raises UserError for a bad file.

    Beside each part stand `domain` and `n`, the rows of it that are not refused.
    """
    number, shares = numbered
    batches = (batch for batch in read_shares(shares) if len(batch))
    parts = list[tuple[Part, pa.Table]]()
    for first in batches:
        path = folder / f"read-{number:06d}-{len(parts):06d}.arrow"
        parts.append(_write_part(path, _take_rows(first, batches, max_rows)))
    return parts


def _take_rows(first: pa.RecordBatch, others: Iterator[pa.RecordBatch], max_rows: int) -> Iterator[pa.RecordBatch]:
    """`first`, and as many of `others` as are needed for `max_rows` rows or MAX_PART_BYTES."""
    num_rows, num_bytes = len(first), first.nbytes
    yield first
    while num_rows < max_rows and num_bytes < MAX_PART_BYTES and (batch := next(others, None)) is not None:
        num_rows, num_bytes = num_rows + len(batch), num_bytes + batch.nbytes
        yield batch


def _write_part(path: Path, batches: Iterable[pa.RecordBatch]) -> tuple[Part, pa.Table]:
    by_position, accepted, writer = Counter[int](), list[pa.Array](), None
    try:
        for batch in batches:
            narrow = batch.drop_columns(list(OF_INPUT))
            if writer is None:
                writer = pa.ipc.new_file(path, narrow.schema, options=_OPTIONS)
            writer.write_batch(narrow)
            by_position[batch["position"][0].as_py()] += len(batch)
            accepted.append(batch["domain"].filter(batch["reason"].is_null()))
    finally:
        if writer is not None:
            writer.close()
    counts = pc.value_counts(pa.chunked_array(accepted, pa.string()))
    return Part(path=path, by_position=by_position), pa.table(counts.flatten(), ["domain", "n"])


def read_uids(numbered: tuple[int, Part]) -> pa.Table:
    """`uid` and `place` of the rows of a part that are not refused; places rank rows in the order of the ingest."""
    number, part = numbered
    with pa.memory_map(str(part.path)) as source:
        schema = pa.ipc.open_file(source).schema
        wanted = [schema.get_field_index(name) for name in ("uid", "reason")]
        options = pa.ipc.IpcReadOptions(included_fields=wanted, use_threads=False)
        rows = pa.ipc.open_file(source, options=options).read_all()
    places = pa.array(np.arange(len(rows)) + (number << PLACE_BITS))
    return pa.table({"uid": rows["uid"], "place": places}).filter(pc.is_null(rows["reason"]))


def sort_part(buckets: Buckets, given: tuple[Part, Numbers]) -> Sorted:
    """Write the rows of a part in the order of their buckets, with `unit`, those at the given numbers as repeated."""
    part, repeated = given
    with pa.memory_map(str(part.path)) as source:
        rows = pa.ipc.open_file(source).read_all()
    rows = _place(_mark_repeats(rows, repeated), buckets)
    numbers = rows["unit"].to_numpy() // buckets.num_units
    order = np.argsort(numbers, kind="stable")
    rows, numbers = rows.take(pa.array(order)), numbers[order]  # one copy: a part is not joined before
    starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)] if len(numbers) else []
    path = part.path.with_name(part.path.name.replace("read-", "sorted-"))
    with pa.ipc.new_file(path, rows.schema, options=_OPTIONS) as writer:
        for start, stop in zip(starts, starts[1:], strict=False):
            (batch,) = rows.slice(start, stop - start).to_batches()
            writer.write_batch(batch)
    part.path.unlink()
    return Sorted(path=path, buckets=tuple(numbers[starts[:-1]].tolist()))


def _mark_repeats(rows: pa.Table, repeated: Numbers) -> pa.Table:
    if not len(repeated):
        return rows
    is_repeated = np.zeros(len(rows), bool)
    is_repeated[repeated] = True
    reasons = pc.if_else(pa.array(is_repeated), RejectReason.REPEATED.value, rows["reason"])
    return rows.set_column(rows.column_names.index("reason"), "reason", reasons)


def _place(rows: pa.Table, buckets: Buckets) -> pa.Table:
    """`rows` with their `unit`; of the units that are wanted."""
    units = place_rows(rows["domain"].combine_chunks(), rows["uid"].combine_chunks(), buckets.spread)
    placed = rows.append_column("unit", pa.array(units))
    if buckets.only is None:
        return placed
    return placed.filter(pa.array(np.isin(units, list(buckets.only))))


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """The batches of one bucket: files, each with the number of the batch in it."""

    batches: tuple[tuple[Path, int], ...]


def write_bucket(target: UnitTarget, inputs: pa.Table, bucket: Bucket) -> tuple[list[UnitCounts], dict[str, Sum]]:
    """Publish the units of a bucket; what each one holds, and the sums of what was published.

    `inputs` has the columns OF_INPUT of each input, by its position.
    """
    recorder = TaskRecorder()
    told = replace(target, root=target.root.recording(recorder))
    return [
        write_unit(told, unit, rows) for unit, rows in _split_units(_read_bucket(inputs, bucket))
    ], recorder.published


def _read_bucket(inputs: pa.Table, bucket: Bucket) -> pa.Table:
    """The rows of a bucket in the order of SORTED_BY."""
    rows = pa.Table.from_batches([_read_batch(*place) for place in bucket.batches])
    named = inputs.take(rows["position"].combine_chunks())
    for name in OF_INPUT:
        rows = rows.append_column(name, named[name])
    return rows.take(pa.array(order_rows(rows)))


def order_rows(rows: pa.Table) -> Numbers:
    """The numbers of `rows` in the order of SORTED_BY, int64 `[n]`.

    Units and uids are compared as numbers, which is several times as fast as text. Only rows that are equal in both,
    repeats and rows without a uid, are compared by what follows. Raises ValueError for a uid that is no md5 sum.
    """
    units, uids = rows["unit"].to_numpy(), rows["uid"].combine_chunks()
    known = uids.is_valid().to_numpy(zero_copy_only=False)  # nulls come first on every engine
    named = read_numbers(uids.drop_null(), DIGITS, DIGITS)
    if named is None:
        raise ValueError("A uid is not 32 digits of small hexadecimal.")
    numbers = np.zeros((len(rows), 2), np.uint64)
    numbers[known] = named
    first = int(units.min(initial=0))
    keys = [Column((units - first).view(np.uint64), count_bits(int(units.max(initial=0)) - first))]
    keys += [Column(known.astype(np.uint64), 1), *(Column(np.ascontiguousarray(half)) for half in numbers.T)]
    found = sort_rows(keys, len(rows))
    order: Numbers = found.order
    if len(found.places):
        equal = rows.select(SORTED_BY[2:]).take(pa.array(found.equal)).append_column("group", pa.array(found.groups))
        by = pc.sort_indices(equal, [(name, "ascending") for name in ("group", *SORTED_BY[2:])])
        order[found.places] = found.equal[by.to_numpy()]
    return order


def _read_batch(path: Path, number: int) -> pa.RecordBatch:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).get_batch(number)


def _split_units(rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    units = rows["unit"].to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(units)) + 1).tolist(), len(units)]
    for start, stop in zip(starts, starts[1:], strict=False):
        yield int(units[start]), rows.slice(start, stop - start)
