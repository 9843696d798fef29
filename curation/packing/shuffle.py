"""The global shuffle on this machine: kept rows are spread over buckets of its order, and each bucket is cut by itself.

A process holds the rows of some units, or those of two buckets; all of them lie on disk in between. A bucket is a range
of the order's keys, so the rows of a bucket come before those of the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.packing.order import order_sql
from curation.packing.rows import PACKED_BYTES, Kept, read_kept, read_kept_rows
from curation.packing.version import Version
from curation.recipe.config import PackConfig
from curation.recipe.select_config import SelectConfig
from curation.selection.place_finder import take_rows
from curation.selection.streams import Streams, open_connection

Shard = tuple[int, pa.Table]
HIGH, LOW = "key_high", "key_low"
"""Columns of a row's place in the order: the halves of the 128-bit key of `order_sql`."""
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
        """The columns of `Version.rows`, the bytes that a sample takes, and its key."""
        added = [pa.field(PACKED_BYTES, pa.int64()), pa.field(HIGH, pa.uint64()), pa.field(LOW, pa.uint64())]
        return pa.schema([*self.version.rows, *added])

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
    """Write the kept rows of `part` to its file: where each bucket begins, then the buckets as batches of Arrow."""
    version, num_buckets = shuffle.version, shuffle.num_buckets
    kept = [read_kept(version.root, file) for file in part.files]
    tables, starts = list[pa.Table](), list[np.ndarray]()
    for one, keys in zip(kept, _find_keys(shuffle, kept), strict=True):
        buckets = ((keys[:, 0] >> np.uint64(32)) * np.uint64(num_buckets)) >> np.uint64(32)
        order = np.argsort(buckets.astype(np.uint16), kind="stable")
        rows = read_kept_rows(version, one, order)
        for name, half in zip((HIGH, LOW), keys[order].T, strict=True):
            rows = rows.append_column(name, pa.array(half))
        tables.append(rows)
        starts.append(np.searchsorted(buckets[order], np.arange(num_buckets + 1)))
    found, ends = Buckets.empty(num_buckets), [8 * (num_buckets + 1)]
    with shuffle.part_file(part.number).open("wb") as file:
        file.seek(ends[0])
        for number in range(num_buckets):
            slices = [t.slice(s[number], s[number + 1] - s[number]) for t, s in zip(tables, starts, strict=True)]
            rows = pa.concat_tables(one for one in slices if len(one)) if any(map(len, slices)) else None
            if rows is not None:
                _count_bucket(found, number, rows, version.pack)
                _write_rows(file, rows)
            ends.append(file.tell())
        file.seek(0)
        file.write(np.array(ends, np.int64).tobytes())
    largest = max((_measure(rows, version.pack).max() for rows in tables if len(rows)), default=0)
    return Buckets(**{**vars(found), "max_size": int(largest)})


def _write_rows(file: BinaryIO, rows: pa.Table) -> None:
    for batch in rows.combine_chunks().to_batches():
        file.write(batch.serialize())


def _find_keys(shuffle: Shuffle, kept: Sequence[Kept]) -> Iterator[np.ndarray]:
    """(rows, 2) of uint64, the keys of each of `kept`."""
    with open_connection(shuffle.limits, shuffle.folder) as connection:
        streams = Streams(connection)
        streams.register("kept", _UIDS, (pa.table([one.uids], schema=_UIDS) for one in kept))
        batches = streams.query(f"select unhex({order_sql(shuffle.version.pack.seed)}) as k from kept")
        parts = [np.frombuffer(batch["k"].cast(pa.binary(16)).buffers()[1], ">u8") for batch in batches]
    keys = np.concatenate([*parts, np.empty(0, ">u8")]).astype(np.uint64).reshape(-1, 2)
    stops = np.cumsum([len(one.uids) for one in kept])
    return iter(np.split(keys, stops[:-1]))


def _measure(rows: pa.Table, pack: PackConfig) -> np.ndarray:
    """The size of each row, in the unit in which shards are cut."""
    return np.ones(len(rows), np.int64) if pack.num_bytes_per_shard is None else rows[PACKED_BYTES].to_numpy()


def _count_bucket(found: Buckets, number: int, rows: pa.Table, pack: PackConfig) -> None:
    sizes, keys = _measure(rows, pack), np.stack([rows[HIGH].to_numpy(), rows[LOW].to_numpy()], axis=1)
    last = sort_keys(*keys.T)[-1]
    found.num_rows[number], found.sizes[number] = len(rows), sizes.sum()
    found.last_keys[number], found.last_sizes[number] = keys[last], sizes[last]


class Bucket(NamedTuple):
    """The rows of one bucket, in no order; `order` puts them into that of the shuffle, `numbers` are then their shards.

    `end` is the size of all rows up to its last one.
    """

    rows: pa.Table
    order: np.ndarray
    numbers: np.ndarray
    end: int


def read_bucket(shuffle: Shuffle, number: int, before: int) -> Bucket:
    """One bucket; `before` are the sizes of all rows before it."""
    batches = [batch for part in range(shuffle.num_parts) for batch in _read_batches(shuffle, part, number)]
    rows = pa.Table.from_batches(batches, shuffle.schema).combine_chunks()
    order = sort_keys(rows[HIGH].to_numpy(), rows[LOW].to_numpy())
    sizes = _measure(rows, shuffle.version.pack)[order]
    ends = before + np.cumsum(sizes)
    end = int(ends[-1]) if len(ends) else before
    return Bucket(rows.drop_columns([HIGH, LOW]), order, (ends - sizes) // shuffle.shard_size, end)


def sort_keys(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """The places of keys, given by their halves, from the least on."""
    order = np.argsort(high)
    # Hardly ever are two high halves the same, and looking at both takes several times as long.
    return np.lexsort((low, high)) if (np.diff(high[order]) == 0).any() else order


def _read_batches(shuffle: Shuffle, part: int, number: int) -> Iterator[pa.RecordBatch]:
    with shuffle.part_file(part).open("rb") as file:
        file.seek(8 * number)
        start, stop = np.frombuffer(file.read(16), np.int64)
        file.seek(start)
        data = pa.BufferReader(file.read(stop - start))
    while data.tell() < data.size():
        yield pa.ipc.read_record_batch(pa.ipc.read_message(data), shuffle.schema)


def cut_bucket(shuffle: Shuffle, task: Task) -> Iterator[Shard]:
    """The shards that begin in one bucket, their rows sorted by uid.

    The sample at which a multiple of the samples, or of the bytes, of a shard is passed begins the next one.
    """
    bucket = read_bucket(shuffle, task.bucket, task.before)
    starts = np.flatnonzero(np.diff(bucket.numbers, prepend=task.begun))
    for start, stop in zip(starts, [*starts[1:], len(bucket.numbers)], strict=True):
        number = int(bucket.numbers[start])
        parts = [_take(bucket.rows, bucket.order[start:stop])]
        if stop == len(bucket.numbers):
            parts += _read_rest(shuffle, number, task.bucket + 1, bucket.end)
        yield number, parts[0] if len(parts) == 1 else _take(pa.concat_tables(parts), None)


def _read_rest(shuffle: Shuffle, shard: int, number: int, before: int) -> Iterator[pa.Table]:
    """The rows of `shard` in the buckets from `number` on."""
    while number < shuffle.num_buckets and before // shuffle.shard_size == shard:
        bucket = read_bucket(shuffle, number, before)
        yield _take(bucket.rows, bucket.order[: np.searchsorted(bucket.numbers, shard, side="right")])
        number, before = number + 1, bucket.end


def _take(rows: pa.Table, places: np.ndarray | None) -> pa.Table:
    """The rows at `places`, all of them for None, sorted by uid."""
    uids = rows["uid"] if places is None else rows["uid"].take(pa.array(places))
    order = pc.sort_indices(uids)
    return take_rows(rows, order if places is None else pa.array(places).take(order)).combine_chunks()
