"""Edges between pictures with near perceptual hashes, by the tables of curation/duplicates/hamming.py.

Up to ROWS_PER_TASK hashes, each task searches one table. Above, hashes are sent to tasks by the value of a block, once
for each block that is the first one of a table, and a task searches all tables of its block.

Pictures of one hash and one text form a class. A row is linked with the best rows of its class and of near classes, at
most MAX_NEIGHBOURS. A row is cut short when it has more of them, or when its hash was cut short.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from curation.deduplication.near import MAX_NEIGHBOURS, NUM_HUBS
from curation.duplicates import hamming
from curation.duplicates.hamming import Classes
from curation.storage import Root
from jobs.duplicates.arrays import load_npy, save_npy
from jobs.spark.tasks import materialise

ROWS_PER_TASK = 50_000_000
"""Hashes that one task sorts: 1.2 GB with temporaries."""
SPLIT_ROWS = 1_000_000
"""Below it, tables share tasks: a task costs more than a table."""
ROWS_PER_BATCH = 100_000
_PAIRS_DDL = "a bigint, b bigint, distance int"


@dataclass(frozen=True)
class PerceptualSearch:
    """Search of `rows` (`row`, `phash` bigint, `text`) for hashes at most `max_hamming` bits apart."""

    spark: SparkSession
    root: Root
    work: str
    rows: DataFrame
    max_hamming: int

    def search(self, kept: DataFrame | None = None, cut: DataFrame | None = None) -> DataFrame:
        """`left`, `right`, `similarity` (the share of equal bits): each pair once; left = right is a row cut short.

        Compares all rows; or the rows in `kept` (`row`), when a row of `cut` (`row`) is among those of a comparison.
        """
        rows = self.rows if kept is None else self.rows.join(kept, "row", "left_semi")
        about = None if cut is None else self.rows.join(cut.select("row").distinct(), "row", "left_semi")
        classes = Window.partitionBy("phash", "text").orderBy("row")
        best = rows.withColumn("place", F.row_number().over(classes)).where(f"place <= {NUM_HUBS + 1}")
        best = materialise(best.groupBy("phash", "text").agg(F.sort_array(F.collect_list("row")).alias("best")))
        near = materialise(find_near_hashes(self.spark, self.root, self.work, best, self.max_hamming, about))
        apart = near.where("a != b")
        linked = apart.unionAll(apart.select("b", "a", "distance")).toDF("a", "phash", "distance")
        linked = linked.join(best.withColumnRenamed("phash", "a"), "a")
        own = best.where("size(best) > 1").selectExpr("phash as a", "phash", "0 as distance", "text", "best")
        linked = linked.select(own.columns).unionAll(own).join(best.select("phash", "text"), ["phash", "text"])
        linked = linked.withColumn("beyond", F.get("best", F.lit(NUM_HUBS)))
        linked = linked.withColumn("one", F.explode(F.slice("best", 1, NUM_HUBS)))
        seen = linked.groupBy("phash", "text").agg(
            F.array_sort(F.collect_list(F.struct("one", "distance"))).alias("better"), F.min("beyond").alias("beyond")
        )
        # Better rows from this one on may be missing.
        missing = f"least(beyond, get(better, {MAX_NEIGHBOURS}).one)"
        seen = seen.selectExpr("phash", "text", f"slice(better, 1, {MAX_NEIGHBOURS}) as better", f"{missing} as beyond")
        cut_short = "if(row > beyond, array(struct(row as one, 0 as distance)), array())"
        pairs = rows.join(seen, ["phash", "text"]).selectExpr(
            "row", f"explode(concat(filter(better, e -> e.one < row), {cut_short})) as e"
        )
        crowded = near.where("a = b").selectExpr("a as phash").distinct()
        crowded = rows.join(crowded, "phash").selectExpr("row as left", "row as right", "1D as similarity")
        similarity = f"1 - e.distance / {hamming.BITS}D as similarity"
        return pairs.selectExpr("e.one as left", "row as right", similarity).unionAll(crowded)


def find_near_hashes(
    spark: SparkSession, root: Root, work: str, classes: DataFrame, max_hamming: int, about: DataFrame | None = None
) -> DataFrame:
    """`a`, `b`, `distance` of near, different values of `classes` (`phash` bigint, `text`, `best` rows); rarely twice.

    All pairs, unless hashes crowd (see curation/duplicates/hamming.py): a = b is a hash that was cut short. With
    `about` (`phash`), only hashes that are compared with one of those.
    """
    folder = f"{work}/phash"
    files = _write_classes(root, folder, classes.selectExpr("phash", "text", "best[0] as row"))
    asked = None if about is None else _write_classes(root, folder, about.selectExpr("phash", "text", "row"))
    if not files:
        return spark.createDataFrame([], _PAIRS_DDL)
    num_hashes = sum(files.values())
    tables = hamming.make_tables(num_hashes, max_hamming)
    if num_hashes > ROWS_PER_TASK:
        num_tasks = -(-num_hashes * (max_hamming + 1) // ROWS_PER_TASK)
        return _search_by_block(spark, root, list(files), tables, max_hamming, num_tasks, asked)
    cores = spark.sparkContext.defaultParallelism
    num_tasks = len(tables) if num_hashes > SPLIT_ROWS else min(len(tables), cores)

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in _read_numbers(batches):
            values = np.concatenate([load_npy(root, file)[0] for file in files]).view(np.uint64)
            pairs = hamming.search(
                values, tables[number], max_hamming, lambda: _read_classes(root, files), _read_hashes(root, asked)
            )
            yield from _to_batches(pairs)

    return spark.range(0, len(tables), 1, max(1, num_tasks)).mapInArrow(search, _PAIRS_DDL)


def _search_by_block(
    spark: SparkSession,
    root: Root,
    files: Sequence[str],
    tables: Sequence[hamming.Table],
    max_hamming: int,
    num_tasks: int,
    asked: Mapping[str, int] | None,
) -> DataFrame:
    num_blocks = tables[0].num_blocks
    leading = sorted({table.equal[0] for table in tables})

    def move(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in _read_numbers(batches):
            values = _read_classes(root, [files[number]])
            for block in leading:
                group = block << 32 | hamming.block_value(values.hashes, num_blocks, block)
                columns = [pa.array(c) for c in (group, values.hashes.view(np.int64), values.texts, values.ranks)]
                yield from pa.Table.from_arrays(columns, _MOVED).to_batches(ROWS_PER_BATCH)

    def search(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        about = _read_hashes(root, asked)
        for group, values in _split_by_group(batches):
            for table in tables:
                if table.equal[0] == group >> 32:
                    yield from _to_batches(
                        hamming.search(values.hashes, table, max_hamming, partial(_identity, values), about)
                    )

    moved = spark.range(0, len(files), 1, len(files)).mapInArrow(move, ", ".join(f"{name} bigint" for name in _MOVED))
    return moved.repartition(num_tasks, "group").sortWithinPartitions("group").mapInArrow(search, _PAIRS_DDL)


_MOVED = ["group", "phash", "text", "row"]


def _split_by_group(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, Classes]]:
    """The classes of each group of a stream sorted by group."""
    group, parts = -1, list[pa.RecordBatch]()
    for batch in batches:
        numbers = batch["group"].to_numpy()
        starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, stop in zip(starts, starts[1:], strict=False):
            if start < stop and numbers[start] != group and parts:
                yield group, _gather_classes(parts)
                parts = []
            if start < stop:
                group = int(numbers[start])
                parts.append(batch.slice(start, stop - start))
    if parts:
        yield group, _gather_classes(parts)


def _gather_classes(batches: Sequence[pa.RecordBatch]) -> Classes:
    """`phash`, `text` and `row` of `batches`, by hash."""
    columns = [np.concatenate([batch[name].to_numpy() for batch in batches]) for name in ("phash", "text", "row")]
    return _sort_classes(columns[0].view(np.uint64), columns[1], columns[2])


def _sort_classes(hashes: np.ndarray, texts: np.ndarray, rows: np.ndarray) -> Classes:
    order = np.argsort(hashes, kind="stable")
    return Classes(hashes[order], texts[order], rows[order])


def _identity(classes: Classes) -> Classes:
    return classes


def _read_numbers(batches: Iterable[pa.RecordBatch]) -> Iterator[int]:
    yield from (number for batch in batches for number in batch["id"].to_pylist())


def _to_batches(pairs: Iterable[hamming.Pairs]) -> Iterator[pa.RecordBatch]:
    for a, b, distance in pairs:
        columns = [a.view(np.int64), b.view(np.int64), distance.astype(np.int32)]
        yield pa.RecordBatch.from_arrays([pa.array(c) for c in columns], ["a", "b", "distance"])


def _write_classes(root: Root, folder: str, classes: DataFrame) -> dict[str, int]:
    """Write `classes` (`phash`, `text`, `row`) into .npy files (int64 `[3, n]`) of `folder`: path → n, by path."""

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = [batch for batch in batches if len(batch)]
        if parts:
            own = _gather_classes(parts)
            path = save_npy(root, folder, np.stack([own.hashes.view(np.int64), own.texts, own.ranks]))
            yield pa.RecordBatch.from_pydict({"path": [path], "rows": [len(own.hashes)]})

    written = classes.mapInArrow(write, "path string, rows bigint").collect()
    return dict(sorted((row["path"], row["rows"]) for row in written))


def _read_classes(root: Root, files: Iterable[str]) -> Classes:
    parts = [load_npy(root, file) for file in files]
    if len(parts) == 1:
        return Classes(parts[0][0].view(np.uint64), parts[0][1], parts[0][2])
    together = np.concatenate([np.zeros((3, 0), np.int64), *parts], axis=1)
    return _sort_classes(together[0].view(np.uint64), together[1], together[2])


def _read_hashes(root: Root, files: Iterable[str] | None) -> np.ndarray | None:
    return None if files is None else hamming.sort_different(_read_classes(root, files).hashes)
