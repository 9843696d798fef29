"""Edges between pictures with near perceptual hashes: one Spark task a table of curation/duplicates/hamming.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from curation.duplicates import hamming
from curation.storage import Root
from jobs.work import load_npy, save_npy

ROWS_PER_PART = 20_000_000
"""Hashes that one task sorts: 0.5 GB with temporaries."""
SPLIT_ROWS = 1_000_000
"""Below it, tables share tasks: a task costs more than a table."""
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
    num_parts = -(-num_hashes // ROWS_PER_PART)
    searches = [(table, part) for table in hamming.tables(num_hashes, max_hamming) for part in range(num_parts)]
    cores = spark.sparkContext.defaultParallelism
    num_tasks = len(searches) if num_hashes > SPLIT_ROWS else min(len(searches), cores)

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in (n for batch in batches for n in batch["id"].to_pylist()):
            table, part = searches[number]
            values = [v[table.part(v, num_parts) == part] for v in (load_npy(root, file) for file in files)]
            a, b, distance = hamming.search(np.concatenate(values), table, max_hamming)
            columns = [a.view(np.int64), b.view(np.int64), distance.astype(np.int32)]
            yield pa.RecordBatch.from_arrays([pa.array(c) for c in columns], ["a", "b", "distance"])

    return spark.range(0, len(searches), 1, max(1, num_tasks)).mapInArrow(search, "a bigint, b bigint, distance int")


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
