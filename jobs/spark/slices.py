"""Frames that our own code reads: Spark hands out the numbers of slices and learns of no file."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from curation.storage import Root
from jobs.spark.tasks import MAX_TASKS

Item = TypeVar("Item")
Slice = TypeVar("Slice")
FILES_PER_TASK = 16
"""At least so many files are read by one task."""


def spread_numbers(spark: SparkSession, count: int) -> DataFrame:
    """`id` from 0 to `count` - 1, spread evenly over tasks: one number a task, or more beyond MAX_TASKS."""
    return spark.range(0, count, 1, min(max(1, count), MAX_TASKS))


def cut_slices(items: Sequence[Item], least: int = FILES_PER_TASK) -> list[list[Item]]:
    """`items` in their order, in slices of `least` of them, or of more where they would be over MAX_TASKS."""
    size = max(least, -(-len(items) // MAX_TASKS))
    return [list(items[first : first + size]) for first in range(0, len(items), size)]


def read_slices(
    spark: SparkSession,
    slices: Sequence[Slice],
    read: Callable[[Slice], Iterator[pa.RecordBatch]],
    schema: pa.Schema,
) -> DataFrame:
    """What `read` yields of each of `slices`, as a frame with the columns of `schema`; a task takes one, or a few."""
    # Pickled one by one: a worker unpickles its own slice alone.
    packed = spark.sparkContext.broadcast([pickle.dumps(one) for one in slices])

    def read_numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column("id").to_pylist():
                yield from read(pickle.loads(packed.value[number]))

    return spread_numbers(spark, len(slices)).mapInArrow(read_numbered, from_arrow_schema(schema))


def read_files(spark: SparkSession, root: Root, files: Sequence[str], schema: pa.Schema) -> DataFrame:
    """The columns of `schema` of the parquet `files` of `root`, read by tasks: no row passes through the driver.

    A file that is not there has no rows; whoever needs it looks before.
    """

    def read(share: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for name in share:
            if root.exists(name):
                yield from root.read_parquet(name, schema.names).to_batches()

    return read_slices(spark, cut_slices(files), read, schema)
