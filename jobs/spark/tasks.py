"""Spark tasks over units, of which a task takes a run, and frames that are computed once."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar, cast

from py4j.protocol import Py4JError
from pyspark import AccumulatorParam, StorageLevel, TaskContext
from pyspark.sql import DataFrame, SparkSession

from curation.errors import UserError
from curation.plan import group_by_rows
from curation.progress import bar
from jobs.spark.errors import unwrap_task_errors

POLL_S = 0.5
MAX_TASKS = 4_096
"""Up to so many units each is a task of its own; more of them share about as many tasks."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def map_units(
    spark: SparkSession,
    desc: str,
    items: Sequence[Item],
    function: Callable[[Item], Result],
    measure: Callable[[], Sequence[int]] | None = None,
    noun: str = "unit",
) -> list[Result]:
    """`function` of each of `items`, in their order; tasks take runs of them, scheduled as executors become free.

    `measure` gives the rows of each item, by which runs of several are balanced; of fewer items nobody asks it. The bar
    counts items and calls each a `noun`.
    A task that Spark begins again takes its whole run again: `is_repeated` lets `function` see what is done.

    `toLocalIterator` would show progress too, but runs two tasks at a time. Raises UserError or
    OSError when a task did, and what Spark raises for any other failed task.
    """
    if not items:
        return []
    finished = spark.sparkContext.accumulator(0)

    def counted(run: list[Item]) -> list[Result]:
        results = []
        for item in run:
            results.append(function(item))
            finished.add(1)
        return results

    with bar(len(items), desc, noun) as progress:
        runs = cut_runs(items, measure() if measure is not None and len(items) > MAX_TASKS else None)
        results = watch_tasks(spark, desc, runs, counted, lambda: progress.update(finished.value - progress.n))
        progress.update(len(items) - progress.n)
    return [result for run in results for result in run]


def cut_runs(items: Sequence[Item], sizes: Sequence[int] | None = None) -> list[list[Item]]:
    """`items` in their order as runs of about equal size, each for one task: one a run, or more beyond MAX_TASKS.

    There are at most twice MAX_TASKS runs, as an item that is larger than the mean is a run of its own.
    """
    if len(items) <= MAX_TASKS:
        return [[item] for item in items]
    known = [max(1, size) for size in sizes] if sizes else [1] * len(items)
    return list(group_by_rows(zip(items, known, strict=True), -(-sum(known) // MAX_TASKS)))


def is_repeated() -> bool:
    """Whether this task was begun before, by an attempt that failed or is still at work (speculation)."""
    task = TaskContext.get()
    return task is not None and task.attemptNumber() > 0


def watch_tasks(
    spark: SparkSession,
    desc: str,
    items: Sequence[Item],
    function: Callable[[Item], Result],
    watch: Callable[[], object],
) -> list[Result]:
    """As `map_units`, each of `items` in a task of its own; `watch` is called on the driver every POLL_S meanwhile."""
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


def materialise(frame: DataFrame) -> DataFrame:
    """`frame`, computed now and kept on the executors' disks until nobody refers to it, without its history.

    A persisted frame drags its whole plan along; the plans of rounds that are made from each other would double with
    every join until the driver is full. An executor that is lost takes its share with it, as in
    jobs/duplicates/components.py.
    """
    return frame.localCheckpoint(storageLevel=StorageLevel.DISK_ONLY)
