"""The packing on this machine: processes spread the rows over buckets of the shuffle, then write the shards of each.

The files are the same, byte for byte, as those that jobs/spark_pack.py makes on a cluster.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from curation.packing.shard import write_shard
from curation.packing.shuffle import Buckets, Part, Shard, Shuffle, Task, cut_bucket, spread_rows
from curation.packing.version import Version, Work, check_any, check_largest, publish_version
from curation.progress import bar
from curation.recipe.select_config import SelectConfig
from curation.scratch import open_folder
from curation.selection.rows import read_ahead
from curation.selection.streams import count_threads
from curation.sums.ledger import Sum
from curation.sums.recorder import TaskRecorder
from curation.workers import Workers, map_ahead

Written = TypeVar("Written")
ROWS_PER_PART = 262_144
"""Rows of the selection that a process reads at a time."""
ROWS_PER_BUCKET = 131_072
MIN_BUCKET_ROWS = 10_000
"""Fewer rows are not divided any further for the sake of the processes."""
MAX_BUCKETS = 4_096
BUCKETS_PER_PROCESS = 4
NUM_READERS = 16


def pack_here(work: Work, limits: SelectConfig) -> None:
    """Write the shards of `work` and their index, and make them current. Raises UserError before the first shard."""
    written = []
    for held, published in write_shards(work, limits, partial(_write_in_process, work.version)):
        work.version.root.note_published(published)
        written.append(held)
    publish_version(work, written)


def write_shards(work: Work, limits: SelectConfig, write: Callable[[Shard], Written]) -> Iterator[Written]:
    """What `write`, which processes call, says of each shard. Raises UserError before the first shard."""
    version, num_threads = work.version, count_threads(limits)
    with Workers(num_threads) as workers, _plan_shuffle(work, limits, num_threads) as (shuffle, parts):
        buckets = Buckets.empty(shuffle.num_buckets)
        with bar(len(work.selection_files), "pack, rows", "unit") as progress:
            for part, found in zip(parts, workers.map(partial(spread_rows, shuffle), parts), strict=True):
                buckets += found
                progress.update(len(part.files))
        check_any(int(buckets.num_rows.sum()))
        check_largest(version.pack, buckets.max_size)
        tasks = buckets.list_tasks(shuffle.shard_size)
        with bar(buckets.count_shards(shuffle.shard_size), "pack, written", "shard") as progress:
            for written in workers.map(partial(_write_bucket, shuffle, write), tasks):
                yield from written
                progress.update(len(written))


@contextlib.contextmanager
def _plan_shuffle(work: Work, limits: SelectConfig, num_threads: int) -> Iterator[tuple[Shuffle, list[Part]]]:
    """The shuffle of `work`, in a folder that is deleted, and what is read for each of its files."""
    version, files = work.version, work.selection_files
    counts = list(read_ahead(version.root.count_rows, files, NUM_READERS))
    num_rows = sum(counts)
    parts = _divide(files, counts, min(ROWS_PER_PART, -(-num_rows // num_threads)))
    wanted = min(BUCKETS_PER_PROCESS * num_threads, num_rows // MIN_BUCKET_ROWS)
    num_buckets = min(MAX_BUCKETS, max(1, wanted, -(-num_rows // ROWS_PER_BUCKET)))
    with open_folder(version.root, "pack") as folder:
        yield (
            Shuffle(
                version=version,
                folder=folder,
                num_parts=len(parts),
                num_buckets=num_buckets,
                limits=replace(limits, threads=1),
            ),
            parts,
        )


def _divide(files: Sequence[str], counts: Sequence[int], num_rows: int) -> list[Part]:
    """`files`, which have so many rows, in their order, in parts of at least `num_rows`, the last one apart."""
    parts, some, rows = list[Part](), list[str](), 0
    for file, count in zip(files, counts, strict=True):
        some, rows = [*some, file], rows + count
        if rows >= num_rows:
            parts.append(Part(len(parts), tuple(some)))
            some, rows = [], 0
    return [*parts, Part(len(parts), tuple(some))] if some else parts


def _write_bucket(shuffle: Shuffle, write: Callable[[Shard], Written], task: Task) -> list[Written]:
    """Write the shards of one bucket; the next one is put together while one is written, which waits for the disk."""
    with ThreadPoolExecutor(1) as pool:
        return list(map_ahead(pool, write, cut_bucket(shuffle, task), 1))


def _write_in_process(version: Version, shard: Shard) -> tuple[dict[str, Any], dict[str, Sum]]:
    """Write one shard; what it holds, and the sums of what was published."""
    recorder, number = TaskRecorder(), shard[0]
    told = replace(version, root=version.root.recording(recorder))
    return {"shard": number, **write_shard(told, *shard)}, recorder.published
