"""The global shuffle on this machine: kept rows are spread over buckets of its order, and each bucket is cut by itself.

A process holds the rows of some units, or those of two buckets; all of them lie on disk in between. A bucket is a range
of the order's keys, so the rows of a bucket come before those of the next one. Rows are put into an order twice, all of
a file and all of a bucket at a time: a bucket's shards are slices of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.packing.order import order_sql
from curation.packing.rows import PACKED_BYTES, Kept, read_kept, read_kept_rows
from curation.packing.version import Version
from curation.recipe.config import PackConfig
from curation.recipe.select_config import SelectConfig
from curation.selection.streams import Streams, open_connection

Shard = tuple[int, pa.Table]
HIGH, LOW = "key_high", "key_low"
"""Columns of a row's place in the order: the halves of the 128-bit key of `order_sql`."""
_MEASURED = pa.schema([(PACKED_BYTES, pa.int64()), (HIGH, pa.uint64()), (LOW, pa.uint64())])
_WRITE = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
"""A third of the bytes less: what exceeds the dirty pages that the kernel allows waits for the disk."""
_READ = pa.ipc.IpcReadOptions(use_threads=False)
_UIDS = pa.schema([("uid", pa.string())])


class Part(NamedTuple):
    """Some files of the selection, whose rows go to one file; its `number` names that."""

    number: int
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Shuffle:
    """The rows of `version`, in `num_buckets` buckets of each of the `num_parts` files in `folder`."""

    version: Version
    folder: Path
    num_parts: int
    num_buckets: int
    limits: SelectConfig

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of `Version.rows`, and the bytes that a sample takes."""
        return self.version.rows.append(pa.field(PACKED_BYTES, pa.int64()))

    @property
    def shard_size(self) -> int:
        """The samples, or the bytes, of one shard."""
        return self.version.pack.num_bytes_per_shard or self.version.pack.num_samples_per_shard

    def part_file(self, number: int) -> Path:
        return self.folder / f"{number:06d}"


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """What the buckets hold, arrays with one element each: rows, their sizes together, the key and size of the last.

    Sizes are samples, or bytes where shards are cut by them; `max_size` is that of the largest sample.
    """

    num_rows: np.ndarray
    sizes: np.ndarray
    last_keys: np.ndarray
    """(buckets, 2), the high halves first."""
    last_sizes: np.ndarray
    max_size: int

    @classmethod
    def empty(cls, num_buckets: int) -> Buckets:
        counts = np.zeros((3, num_buckets), np.int64)
        keys = np.zeros((num_buckets, 2), np.uint64)
        return cls(num_rows=counts[0], sizes=counts[1], last_keys=keys, last_sizes=counts[2], max_size=0)

    def __add__(self, other: Buckets) -> Buckets:
        (high, low), (other_high, other_low) = self.last_keys.T, other.last_keys.T
        is_later = (other_high > high) | ((other_high == high) & (other_low >= low))
        return Buckets(
            num_rows=self.num_rows + other.num_rows,
            sizes=self.sizes + other.sizes,
            last_keys=np.where(is_later[:, None], other.last_keys, self.last_keys),
            last_sizes=np.where(is_later & (other.num_rows > 0), other.last_sizes, self.last_sizes),
            max_size=max(self.max_size, other.max_size),
        )

    def count_shards(self, shard_size: int) -> int:
        """How many shards the rows make; one more, perhaps, than they do where shards are cut by bytes."""
        return -(-int(self.sizes.sum()) // shard_size)

    def list_tasks(self, shard_size: int) -> list[Task]:
        """The buckets in which shards begin."""
        tasks, before, begun = list[Task](), 0, -1
        for number in np.flatnonzero(self.num_rows).tolist():
            end = before + int(self.sizes[number])
            last = (end - int(self.last_sizes[number])) // shard_size
            if last > begun:
                tasks.append(Task(number, before, begun))
            before, begun = end, last
        return tasks


class Task(NamedTuple):
    """A bucket whose shards are to be written: the sizes of all rows `before` it, and the last shard that has `begun`
    there, -1 for none.
    """

    bucket: int
    before: int
    begun: int


def spread_rows(shuffle: Shuffle, part: Part) -> Buckets:
    """Write the kept rows of `part` to its file, in the order of their keys: what `_read_rows` reads."""
    version = shuffle.version
    kept = [read_kept(version.root, file) for file in part.files]
    keys = _find_keys(shuffle, kept)
    order = sort_keys(*keys.T)
    keys = keys[order]
    rows = _take(pa.concat_tables(read_kept_rows(version, one) for one in kept), order)
    for name, half in zip((HIGH, LOW), keys.T, strict=True):
        rows = rows.append_column(name, pa.array(half))
    buckets = ((keys[:, 0] >> np.uint64(32)) * np.uint64(shuffle.num_buckets)) >> np.uint64(32)
    starts = np.searchsorted(buckets, np.arange(shuffle.num_buckets + 1))
    _write_rows(shuffle.part_file(part.number), rows, starts)
    return _count_buckets(keys, _measure(rows, version.pack), starts)


def _take(rows: pa.Table, places: np.ndarray) -> pa.Table:
    """The rows at `places`. A column without any value has the type null then, and takes no memory."""
    order = pa.array(places)
    columns = [
        pa.nulls(len(places)) if column.null_count == len(column) else column.combine_chunks().take(order)
        for column in rows.columns
    ]
    return pa.table(columns, rows.column_names)


def _write_rows(path: Path, rows: pa.Table, starts: np.ndarray) -> None:
    """Where each bucket begins and the last one ends, then the buckets, each as a compressed stream of Arrow."""
    ends = [8 * len(starts)]
    with path.open("wb") as file:
        file.seek(ends[0])
        for start, stop in itertools.pairwise(starts.tolist()):
            if start < stop:
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, rows.schema, options=_WRITE) as writer:
                    writer.write_table(rows.slice(start, stop - start))
                file.write(sink.getvalue())
            ends.append(file.tell())
        file.seek(0)
        file.write(np.array(ends, np.int64).tobytes())


def _count_buckets(keys: np.ndarray, sizes: np.ndarray, starts: np.ndarray) -> Buckets:
    """What buckets hold, of rows in the order of their `keys`; they begin at `starts`, the last of which is an end."""
    before, num_rows = np.cumsum([0, *sizes]), np.diff(starts)
    found = Buckets.empty(len(num_rows))
    is_filled = num_rows > 0
    last = starts[1:][is_filled] - 1
    found.last_keys[is_filled], found.last_sizes[is_filled] = keys[last], sizes[last]
    return replace(found, num_rows=num_rows, sizes=np.diff(before[starts]), max_size=int(sizes.max(initial=0)))


def _find_keys(shuffle: Shuffle, kept: Sequence[Kept]) -> np.ndarray:
    """(rows, 2) of uint64, the keys of all of `kept`, the high halves first."""
    with open_connection(shuffle.limits, shuffle.folder) as connection:
        streams = Streams(connection)
        streams.register("kept", _UIDS, (pa.table([one.uids], schema=_UIDS) for one in kept))
        batches = streams.query(f"select unhex({order_sql(shuffle.version.pack.seed)}) as k from kept")
        parts = [np.frombuffer(batch["k"].cast(pa.binary(16)).buffers()[1], ">u8") for batch in batches]
    return np.concatenate([*parts, np.empty(0, ">u8")]).astype(np.uint64).reshape(-1, 2)


def _measure(rows: pa.Table, pack: PackConfig) -> np.ndarray:
    """The size of each row, in the unit in which shards are cut."""
    return np.ones(len(rows), np.int64) if pack.num_bytes_per_shard is None else rows[PACKED_BYTES].to_numpy()


class Bucket(NamedTuple):
    """The rows of one bucket, a table for each file; `order` puts them all into that of the shuffle.

    `numbers` are then their shards, and `end` is the size of all rows up to the last one.
    """

    tables: list[pa.Table]
    order: np.ndarray
    numbers: np.ndarray
    end: int


def read_bucket(shuffle: Shuffle, number: int, before: int) -> Bucket:
    """One bucket; `before` are the sizes of all rows before it."""
    read = (_read_rows(shuffle, part, number) for part in range(shuffle.num_parts))
    tables = [table for table in read if table is not None]
    measured = pa.concat_tables([_MEASURED.empty_table(), *(table.select(_MEASURED.names) for table in tables)])
    order = sort_keys(measured[HIGH].to_numpy(), measured[LOW].to_numpy())
    sizes = _measure(measured, shuffle.version.pack)[order]
    ends = before + np.cumsum(sizes)
    end = int(ends[-1]) if len(ends) else before
    return Bucket(tables, order, (ends - sizes) // shuffle.shard_size, end)


def sort_keys(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """The places of keys, given by their halves, from the least on."""
    order = np.argsort(high)
    # Hardly ever are two high halves the same, and looking at both takes several times as long.
    return np.lexsort((low, high)) if (np.diff(high[order]) == 0).any() else order


def _read_rows(shuffle: Shuffle, part: int, number: int) -> pa.Table | None:
    """The rows of one bucket in one file, in the order of their keys; None without any."""
    with pa.OSFile(str(shuffle.part_file(part))) as file:
        file.seek(8 * number)
        start, stop = np.frombuffer(file.read_buffer(16), np.int64)
        if start == stop:
            return None
        file.seek(start)
        return pa.ipc.open_stream(file.read_buffer(stop - start), options=_READ).read_all()


def cut_bucket(shuffle: Shuffle, task: Task) -> Iterator[Shard]:
    """The shards that begin in one bucket, their rows sorted by uid.

    The sample at which a multiple of the samples, or of the bytes, of a shard is passed begins the next one.
    """
    bucket = read_bucket(shuffle, task.bucket, task.before)
    rows = _join(bucket.tables)
    starts = np.flatnonzero(np.diff(bucket.numbers, prepend=task.begun))
    slices = [slice(*ends) for ends in itertools.pairwise([*starts, len(bucket.numbers)])]
    rows = _take(rows, sort_slices(rows["uid"], bucket.order, slices))
    for one in slices:
        number, shard = int(bucket.numbers[one.start]), rows.slice(one.start - starts[0], one.stop - one.start)
        if one is slices[-1]:
            shard = _join([shard, *_read_rest(shuffle, number, task.bucket + 1, bucket.end)])
            shard = shard.sort_by("uid")
        yield number, shard.select(shuffle.schema.names).cast(shuffle.schema)


def _read_rest(shuffle: Shuffle, shard: int, number: int, before: int) -> Iterator[pa.Table]:
    """The rows of `shard` in the buckets from `number` on."""
    while number < shuffle.num_buckets and before // shuffle.shard_size == shard:
        bucket = read_bucket(shuffle, number, before)
        # The rows of each file are in the order of the shuffle, so that those of the shard come first.
        wanted = bucket.order[: np.searchsorted(bucket.numbers, shard, side="right")]
        starts = np.cumsum([0, *map(len, bucket.tables)])
        counts, _ = np.histogram(wanted, starts)
        yield from (table.slice(0, count) for table, count in zip(bucket.tables, counts, strict=True))
        number, before = number + 1, bucket.end


def _join(tables: list[pa.Table]) -> pa.Table:
    """All rows of `tables`; a column has the type null where none has a value."""
    return pa.concat_tables(tables, promote_options="default")


def sort_slices(uids: pa.ChunkedArray, order: np.ndarray, slices: Sequence[slice]) -> np.ndarray:
    """The places of `uids` that `order` has in `slices`, one after the other, each sorted by uid.

    Uids are hexadecimal digits of a hash, so hardly ever are the first eight of two the same.
    """
    uids = uids.combine_chunks()
    leading = pc.binary_slice(uids.cast(pa.binary()), 0, 8).cast(pa.binary(8))
    numbers = np.frombuffer(leading.buffers()[1], ">u8").astype(np.uint64)
    found = []
    for one in slices:
        places = order[one]
        sorted_places = places[np.argsort(numbers[places])]
        if (np.diff(numbers[sorted_places]) == 0).any():
            sorted_places = places[pc.sort_indices(uids.take(pa.array(places))).to_numpy()]
        found.append(sorted_places)
    return np.concatenate(found)
