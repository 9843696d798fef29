"""The packing on a cluster: what `spark-submit jobs/pack.py` runs. One machine packs the same shards by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import LongType, StructType

from curation.download.withdrawn import resolve_lists
from curation.packing.difference import is_another, report_difference
from curation.packing.order import order_sql
from curation.packing.rows import PACKED_BYTES, read_kept, read_kept_rows
from curation.packing.shard import write_shard
from curation.packing.version import Version, Work, check_any, check_largest, find_work, publish_version
from curation.recipe.config import PackConfig, Recipe
from curation.schema import SELECTION
from curation.storage import Root
from curation.unit_streams import by_unit
from jobs.packing.difference import count_difference
from jobs.scoring.score_columns import PACKING_READS, PACKING_WRITES
from jobs.spark.sealing import seals
from jobs.spark.slices import read_files, spread_numbers

ROWS_PER_BUCKET = 100_000
KEY_BITS = 32
SHARD_DDL = "shard bigint, num_samples bigint, num_bytes bigint, sha256 string"


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """One part of the shuffle's range of keys: how many rows and bytes lie in it, and how large the largest is."""

    num_rows: int = 0
    num_bytes: int = 0
    max_bytes: int = 0


@seals(*PACKING_WRITES, reads=PACKING_READS)
def run_on_spark(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Pack the current selection, unless the current train shards are its. Raises UserError when nothing is kept."""
    work = find_work(root, recipe.pack, resolve_lists(recipe))
    if work is None:
        return
    kept = find_kept_rows(spark, work)
    buckets = count_buckets(kept, recipe.pack.seed, count_selection_rows(spark, root, work.selection_files))
    check_any(sum(bucket.num_rows for bucket in buckets))
    publish_version(work, write_shards(kept, buckets, work.version))
    if work.previous is not None and is_another(root, work.previous):
        files = (root.current("train_index") or {})["files"]
        report_difference(root, work.previous, count_difference(spark, root, work.previous["files"], files))


def find_kept_rows(spark: SparkSession, work: Work) -> DataFrame:
    """Kept rows of all units, with what is known of them and the bytes that they take in a shard."""
    version, files = work.version, work.selection_files

    def scan(positions: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for position in (row for batch in positions for row in batch["id"].to_pylist()):
            yield from read_kept_rows(version, read_kept(version.root, files[position])).to_batches()

    return spread_numbers(spark, len(files)).mapInArrow(scan, _row_type(version))


def _row_type(version: Version) -> StructType:
    return StructType([*from_arrow_schema(version.rows).fields]).add(PACKED_BYTES, LongType())


def count_selection_rows(spark: SparkSession, root: Root, files: Sequence[str]) -> int:
    """An upper bound of the kept rows, for choosing the number of buckets; the files are read by tasks."""
    return read_files(spark, root, files, pa.schema([SELECTION.field("uid")])).count()


def count_buckets(kept: DataFrame, seed: int, at_most: int) -> list[Bucket]:
    """What each bucket of the shuffle holds, in order; buckets divide the range of keys evenly."""
    bits = max(0, (at_most // ROWS_PER_BUCKET).bit_length())
    size = F.col(PACKED_BYTES)
    grouped = kept.groupBy(_bucket(seed, bits).alias("bucket"))
    summed = grouped.agg(F.count("*").alias("num_rows"), F.sum(size).alias("num_bytes"), F.max(size).alias("max_bytes"))
    buckets = {row.pop("bucket"): Bucket(**row) for row in map(_as_dict, summed.collect())}
    return [buckets.get(number, Bucket()) for number in range(1 << bits)]


def _as_dict(row: Any) -> dict[str, Any]:
    values: dict[str, Any] = row.asDict()
    return values


def _bucket(seed: int, bits: int) -> Any:
    leading = F.conv(F.substring(F.expr(order_sql(seed)), 1, KEY_BITS // 4), 16, 10).cast("bigint")
    return F.shiftright(leading, KEY_BITS - bits)


def cut_shards(buckets: list[Bucket], pack: PackConfig) -> tuple[list[int], int, int]:
    """(measure of the rows before each bucket, measure of a shard, number of shards); rows or bytes are measured.

    The sample at which a multiple of the measure is passed begins a shard. Raises UserError when one sample is larger.
    """
    if pack.num_bytes_per_shard is None:
        sizes, per_shard = [bucket.num_rows for bucket in buckets], pack.num_samples_per_shard
    else:
        sizes, per_shard = [bucket.num_bytes for bucket in buckets], pack.num_bytes_per_shard
        check_largest(pack, max(bucket.max_bytes for bucket in buckets))
    return list(accumulate(sizes, initial=0))[:-1], per_shard, -(-sum(sizes) // per_shard)


def write_shards(kept: DataFrame, buckets: list[Bucket], version: Version) -> list[dict[str, Any]]:
    """Number the rows in shuffled order, send each to its shard, write the shards; what each one holds."""
    seed, by_bytes = version.pack.seed, version.pack.num_bytes_per_shard is not None
    starts, per_shard, num_shards = cut_shards(buckets, version.pack)
    bits = (len(buckets) - 1).bit_length()
    keyed = kept.withColumn("key", F.expr(order_sql(seed))).withColumn("unit", _bucket(seed, bits))
    sorted_rows = keyed.repartition(len(buckets), "unit").sortWithinPartitions("unit", "key")

    def number(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for bucket, table in by_unit(batches):
            sizes = table[PACKED_BYTES].to_numpy() if by_bytes else np.ones(len(table), np.int64)
            before = starts[bucket] + np.cumsum(sizes) - sizes
            numbers = pa.array(before // per_shard, pa.int64())
            yield from table.drop_columns(["key", "unit"]).append_column("unit", numbers).to_batches()

    numbered = sorted_rows.mapInArrow(number, _row_type(version).add("unit", LongType()))
    by_shard = numbered.repartition(num_shards, "unit").sortWithinPartitions("unit", "uid")

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for shard, table in by_unit(batches):
            held = write_shard(version, shard, table.drop_columns("unit"))
            yield pa.RecordBatch.from_pylist([{"shard": shard, **held}])

    return list(map(_as_dict, by_shard.mapInArrow(write, SHARD_DDL).collect()))
