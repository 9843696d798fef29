"""Spark tasks over units: one task a unit, streams sorted by unit, and frames that are computed once."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar, cast

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import AccumulatorParam, StorageLevel
from pyspark.sql import DataFrame, SparkSession

from curation.errors import UserError
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
    if not items:
        return []
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
    if not items:  # Spark would start a Python process for a job without tasks
        return []
    context = spark.sparkContext
    group = f"{desc}-{uuid.uuid4().hex}"
    refusals = context.accumulator(list[str](), _Lists())

    def refuse(item: Item) -> Result | None:
        # Spark would try it again on every failure, and a sentence about bad input stays what it is.
        try:
            return function(item)
        except UserError as error:
            refusals.add([str(error)])
            return None

    def collect() -> list[Result | None]:
        context.setJobGroup(group, desc, interruptOnCancel=True)
        return context.parallelize(items, max(1, len(items))).map(refuse).collect()

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(collect)
        try:
            while wait([job], POLL_S).not_done:
                watch()
                _raise_first(refusals.value)
        except BaseException:  # an interrupt must not leave the tasks running
            with contextlib.suppress(Py4JError, ConnectionError):  # Java may be what has gone
                context.cancelJobGroup(group)
            raise
        with unwrap_task_errors():
            results = job.result()
    _raise_first(refusals.value)
    return cast("list[Result]", results)


def _raise_first(refusals: list[str]) -> None:
    if refusals:
        raise UserError(refusals[0])


class _Lists(AccumulatorParam[list[str]]):
    def zero(self, value: list[str]) -> list[str]:
        return []

    def addInPlace(self, value1: list[str], value2: list[str]) -> list[str]:  # noqa: N802  # Spark's name
        return [*value1, *value2]


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
