"""Spark tasks over units: one task a unit, streams sorted by unit, and frames that are computed once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession

from curation.progress import bar
from jobs.spark.errors import unwrap_task_errors

POLL_S = 0.5
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_units(
    spark: SparkSession, desc: str, items: Sequence[Item], function: Callable[[Item], Result]
) -> list[Result]:
    """`function` of each of `items`, in their order; each is a task of its own, scheduled as executors become free.

    `toLocalIterator` would show progress too, but runs two tasks at a time. Raises UserError or
    OSError when a task did, and what Spark raises for any other failed task.
    """
    finished = spark.sparkContext.accumulator(0)

    def counted(item: Item) -> Result:
        result = function(item)
        finished.add(1)
        return result

    with bar(len(items), desc, "unit") as progress:
        results = watch_tasks(spark, desc, items, counted, lambda: progress.update(finished.value - progress.n))
        progress.update(len(items) - progress.n)
    return results


def watch_tasks(
    spark: SparkSession,
    desc: str,
    items: Sequence[Item],
    function: Callable[[Item], Result],
    watch: Callable[[], object],
) -> list[Result]:
    """As `map_units`; `watch` is called on the driver every POLL_S while the tasks run."""
    context = spark.sparkContext
    group = f"{desc}-{uuid.uuid4().hex}"

    def collect() -> list[Result]:
        context.setJobGroup(group, desc, interruptOnCancel=True)
        return context.parallelize(items, max(1, len(items))).map(function).collect()

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(collect)
        try:
            while wait([job], POLL_S).not_done:
                watch()
        except BaseException:  # an interrupt must not leave the tasks running
            context.cancelJobGroup(group)
            raise
        with unwrap_task_errors():
            return job.result()


def by_unit(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    """Group a stream sorted by `unit` into one table a unit, holding one unit at a time."""
    unit, parts = -1, list[pa.RecordBatch]()
    for batch in batches:
        values = batch.column("unit").to_numpy()
        start = 0
        while start < len(values):
            stop = int(values.searchsorted(values[start], side="right"))
            if values[start] != unit and parts:
                yield unit, pa.Table.from_batches(parts)
                parts = []
            unit = int(values[start])
            parts.append(batch.slice(start, stop - start))
            start = stop
    if parts:
        yield unit, pa.Table.from_batches(parts)


def materialise(frame: DataFrame) -> DataFrame:
    """`frame`, computed now and kept on the executors' disks until nobody refers to it, without its history.

    A persisted frame drags its whole plan along; the plans of rounds that are made from each other would double with
    every join until the driver is full. An executor that is lost takes its share with it, as in
    jobs/duplicates/components.py.
    """
    return frame.localCheckpoint(storageLevel=StorageLevel.DISK_ONLY)
