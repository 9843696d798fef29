"""Frames that our own code reads: Spark hands out the numbers of slices and learns of no file."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

from curation.storage import Root

Slice = TypeVar("Slice")
FILES_PER_TASK = 16


def read_slices(
    spark: SparkSession,
    slices: Sequence[Slice],
    read: Callable[[Slice], Iterator[pa.RecordBatch]],
    schema: pa.Schema,
) -> DataFrame:
    """What `read` yields of each of `slices`, one task a slice, as a frame with the columns of `schema`."""
    # Pickled one by one: a worker unpickles its own slice alone.
    packed = spark.sparkContext.broadcast([pickle.dumps(one) for one in slices])

    def read_numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column("id").to_pylist():
                yield from read(pickle.loads(packed.value[number]))

    numbers = spark.range(0, len(slices), 1, max(1, len(slices)))
    return numbers.mapInArrow(read_numbered, from_arrow_schema(schema))


def read_files(spark: SparkSession, root: Root, files: Sequence[str], schema: pa.Schema) -> DataFrame:
    """The columns of `schema` of the parquet `files` of `root`, read by tasks: no row passes through the driver.

    A file that is not there has no rows; whoever needs it looks before.
    """

    def read(share: Sequence[str]) -> Iterator[pa.RecordBatch]:
        for name in share:
            if root.exists(name):
                yield from root.read_parquet(name, schema.names).to_batches()

    slices = [list(files[i : i + FILES_PER_TASK]) for i in range(0, len(files), FILES_PER_TASK)]
    return read_slices(spark, slices, read, schema)
