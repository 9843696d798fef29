"""The packing on this machine: DuckDB puts the rows in order, out of core, and processes write the shards.

The files are the same, byte for byte, as those that jobs/spark_pack.py makes on a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.packing.order import order_sql
from curation.packing.rows import PACKED_BYTES, read_kept_rows
from curation.packing.shard import write_shard
from curation.packing.version import Version, Work, check_any, check_largest, publish_version
from curation.progress import track
from curation.recipe.config import PackConfig
from curation.recipe.select_config import SelectConfig
from curation.selection.rows import read_ahead
from curation.selection.streams import Streams, open_connection
from curation.sums.ledger import Sum
from curation.sums.recorder import TaskRecorder
from curation.workers import Workers

Shard = tuple[int, pa.Table]


@dataclass
class Totals:
    """What has been read of the kept rows so far."""

    num_rows: int = 0
    num_bytes: int = 0
    max_bytes: int = 0

    def add(self, table: pa.Table) -> None:
        if len(table):
            sizes = table[PACKED_BYTES].to_numpy()
            self.num_rows += len(sizes)
            self.num_bytes += int(sizes.sum())
            self.max_bytes = max(self.max_bytes, int(sizes.max()))

    def count_shards(self, pack: PackConfig) -> int:
        """How many shards they make; one more, perhaps, than they do where shards are cut by bytes."""
        measure = self.num_rows if pack.num_bytes_per_shard is None else self.num_bytes
        return -(-measure // (pack.num_bytes_per_shard or pack.num_samples_per_shard))


def pack_here(work: Work, limits: SelectConfig) -> None:
    """Write the shards of `work` and their index, and make them current. Raises UserError before the first shard."""
    version = work.version
    with open_connection(limits, version.root.scratch(), "pack") as connection:
        streams = Streams(connection)
        with Workers(streams.num_threads) as workers:
            publish_version(work, list(_write_shards(work, streams, workers)))


def _write_shards(work: Work, streams: Streams, workers: Workers) -> Iterator[dict[str, Any]]:
    """What each shard holds, in their order, as soon as it is written."""
    version, pack = work.version, work.version.pack
    batches, totals = order_rows(work, streams, workers)
    # Nothing comes before all rows are read: what is said of them here concerns them all.
    first = next(batches, None)
    check_any(totals.num_rows)
    check_largest(pack, totals.max_bytes)
    shards = cut_shards(chain([first] if first is not None else [], batches), pack)
    found = workers.map(partial(_write_in_process, version), shards)
    for held, published in track(found, totals.count_shards(pack), "pack, written", "shard"):
        for rel, one in published.items():
            if version.root.recorder is not None:
                version.root.recorder.end(rel, one)
        yield held


def order_rows(work: Work, streams: Streams, workers: Workers) -> tuple[Iterator[pa.RecordBatch], Totals]:
    """The kept rows in the order of the shuffle, and their totals, which are whole when the first of them comes."""
    version, totals = work.version, Totals()

    def count(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        for table in tables:
            totals.add(table)
            yield table

    read, files = partial(read_kept_rows, version), work.selection_files
    # The size of a sample is that of its texts, which Python makes: threads would wait for each other.
    by_bytes = version.pack.num_bytes_per_shard is not None
    found = workers.map(read, files) if by_bytes else read_ahead(read, files, streams.num_threads)
    shown = track(found, len(files), "pack, rows", "unit")
    streams.register("kept_rows", version.rows.append(pa.field(PACKED_BYTES, pa.int64())), count(shown))
    return streams.query(f"select * from kept_rows order by {order_sql(version.pack.seed)}"), totals


def cut_shards(batches: Iterable[pa.RecordBatch], pack: PackConfig) -> Iterator[Shard]:
    """The rows of each shard, sorted by uid, from those of all of them in order.

    The sample at which a multiple of the samples, or of the bytes, of a shard is passed begins the next one.
    """
    before, number, parts = 0, 0, list[pa.RecordBatch]()
    for batch in batches:
        by_bytes = pack.num_bytes_per_shard is not None
        sizes = batch[PACKED_BYTES].to_numpy() if by_bytes else np.ones(batch.num_rows, np.int64)
        numbers = (before + np.cumsum(sizes) - sizes) // (pack.num_bytes_per_shard or pack.num_samples_per_shard)
        before += int(sizes.sum())
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, stop in zip(starts, starts[1:], strict=False):
            if start == stop:  # an empty batch
                continue
            if parts and numbers[start] != number:
                yield number, _sort_rows(parts)
                parts = []
            number = int(numbers[start])
            parts.append(batch.slice(start, stop - start))
    if parts:
        yield number, _sort_rows(parts)


def _sort_rows(parts: list[pa.RecordBatch]) -> pa.Table:
    """The rows by uid, in memory of their own: a process is sent these alone, and not the batches they were cut of."""
    table = pa.Table.from_batches(parts)
    return table.take(pc.sort_indices(table["uid"])).combine_chunks()


def _write_in_process(version: Version, shard: Shard) -> tuple[dict[str, Any], dict[str, Sum]]:
    """Write one shard; what it holds, and the sums of what was published."""
    recorder, number = TaskRecorder(), shard[0]
    told = replace(version, root=version.root.recording(recorder))
    return {"shard": number, **write_shard(told, *shard)}, recorder.published
