"""Edges between pictures with near perceptual hashes, by the tables of curation/duplicates/hamming.py.

Up to ROWS_PER_TASK hashes a task takes a table. Above, hashes move to tasks by the value of a block, once for each
block that leads tables, and a task goes through all tables of its block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from curation.duplicates import hamming
from curation.storage import Root
from jobs.work import load_npy, save_npy

ROWS_PER_TASK = 50_000_000
"""Hashes that one task sorts: 1.2 GB with temporaries."""
SPLIT_ROWS = 1_000_000
"""Below it, tables share tasks: a task costs more than a table."""
ROWS_PER_BATCH = 100_000
_FOUND_DDL = "a bigint, b bigint, distance int"
NUM_HUBS = 8
"""Best-ranked rows of a hash that are linked with every other row of it, instead of all pairs."""


def perceptual_edges(spark: SparkSession, root: Root, work: str, rows: DataFrame, max_hamming: int) -> DataFrame:
    """`left`, `right`, `similarity` (the share of equal bits) of `rows` (`row`, `phash` bigint, `text`)."""
    classes = Window.partitionBy("phash", "text").orderBy("row")
    members = rows.withColumn("place", F.row_number().over(classes)).persist()
    hubs = members.where(F.col("place") <= NUM_HUBS)
    near = near_hashes(spark, root, work, members.select("phash").distinct(), max_hamming)
    linked = near.selectExpr("a", "b", "distance").unionAll(near.selectExpr("b", "a", "distance"))
    linked = linked.unionAll(hubs.selectExpr("phash as a", "phash as b", "0 as distance").distinct())
    one = hubs.selectExpr("phash as a", "text", "row as one")
    other = members.selectExpr("phash as b", "text", "row as other")
    pairs = linked.join(one, "a").join(other, ["b", "text"]).where("one != other")
    found = (
        "least(one, other) as left",
        "greatest(one, other) as right",
        f"1 - distance / {hamming.BITS}D as similarity",
    )
    return pairs.selectExpr(*found).distinct()


def near_hashes(spark: SparkSession, root: Root, work: str, hashes: DataFrame, max_hamming: int) -> DataFrame:
    """`a`, `b`, `distance` of every pair of different values of `hashes` (`phash` bigint, unique), each once."""
    files, num_hashes = _spilled(root, f"{work}/phash", hashes)
    tables = hamming.tables(num_hashes, max_hamming)
    if num_hashes > ROWS_PER_TASK:
        num_tasks = -(-num_hashes * (max_hamming + 1) // ROWS_PER_TASK)
        return _by_block(spark, root, files, tables, max_hamming, num_tasks)
    cores = spark.sparkContext.defaultParallelism
    num_tasks = len(tables) if num_hashes > SPLIT_ROWS else min(len(tables), cores)

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in _numbers(batches):
            values = np.concatenate([load_npy(root, file) for file in files])
            yield _found(values, tables[number], max_hamming)

    return spark.range(0, len(tables), 1, max(1, num_tasks)).mapInArrow(search, _FOUND_DDL)


def _by_block(
    spark: SparkSession,
    root: Root,
    files: Sequence[str],
    tables: Sequence[hamming.Table],
    max_hamming: int,
    num_tasks: int,
) -> DataFrame:
    num_blocks = tables[0].num_blocks
    leading = sorted({table.equal[0] for table in tables})

    def move(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in _numbers(batches):
            values = load_npy(root, files[number])
            for block in leading:
                group = block << 32 | hamming.block_value(values, num_blocks, block)
                columns = [pa.array(group), pa.array(values.view(np.int64))]
                yield from pa.Table.from_arrays(columns, ["group", "phash"]).to_batches(ROWS_PER_BATCH)

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for group, values in _grouped(batches):
            for table in tables:
                if table.equal[0] == group >> 32:
                    yield _found(values, table, max_hamming)

    moved = spark.range(0, len(files), 1, len(files)).mapInArrow(move, "group bigint, phash bigint")
    return moved.repartition(num_tasks, "group").sortWithinPartitions("group").mapInArrow(search, _FOUND_DDL)


def _grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, np.ndarray]]:
    """The hashes (uint64) of each group of a stream sorted by group."""
    group, held = -1, list[np.ndarray]()
    for batch in batches:
        numbers, values = batch["group"].to_numpy(), batch["phash"].to_numpy().view(np.uint64)
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, stop in zip(starts, starts[1:], strict=False):
            if start < stop and numbers[start] != group and held:
                yield group, np.concatenate(held)
                held = []
            if start < stop:
                group = int(numbers[start])
                held.append(values[start:stop].copy())
    if held:
        yield group, np.concatenate(held)


def _numbers(batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    yield from (number for batch in batches for number in batch["id"].to_pylist())


def _found(values: np.ndarray, table: hamming.Table, max_hamming: int) -> pa.RecordBatch:
    a, b, distance = hamming.search(values, table, max_hamming)
    columns = [a.view(np.int64), b.view(np.int64), distance.astype(np.int32)]
    return pa.RecordBatch.from_arrays([pa.array(c) for c in columns], ["a", "b", "distance"])


def _spilled(root: Root, folder: str, hashes: DataFrame) -> tuple[list[str], int]:
    """Write the values of `hashes` into .npy files (uint64) of `folder`, one a partition; their paths and count."""

    def spill(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        values = [batch["phash"].to_numpy() for batch in batches]
        if values:
            together = np.sort(np.concatenate(values).view(np.uint64))
            path = save_npy(root, folder, together)
            yield pa.RecordBatch.from_pydict({"path": [path], "rows": [len(together)]})

    written = hashes.mapInArrow(spill, "path string, rows bigint").collect()
    return sorted(row["path"] for row in written), sum(row["rows"] for row in written)
