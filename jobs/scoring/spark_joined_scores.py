"""The join of `[scores.NAME]` on a cluster: the files are those of jobs/scoring/joined_scores.py, byte for byte."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.storage import Root
from curation.unit_streams import by_unit
from jobs.scoring.joined_columns import JoinedScores, list_groups
from jobs.scoring.joined_rows import (
    KEYS,
    PICTURES,
    describe_covered,
    describe_known,
    find_units,
    publish_empty,
    publish_unit,
    read_group,
    read_keys,
    read_pictures,
    refuse_key,
    score_schema,
)
from jobs.spark.errors import unwrap_task_errors
from jobs.spark.slices import cut_slices, read_slices


def join_scores(spark: SparkSession, root: Root, item: JoinedScores) -> str:
    """As `jobs.scoring.joined_scores.join_scores`, by Spark."""
    units = find_units(root, item)
    if not units:
        return ""
    described = item.describe()
    with unwrap_task_errors():
        scores = _read_scores(spark, item)
        _check_keys(scores, item)
        said = _compare_keys(scores, _read_keys(spark, root, item), item)
        joined = _read_pictures(spark, root, units, item).join(scores.withColumn("found", F.lit(True)), "key", "left")
        joined = joined.persist(StorageLevel.DISK_ONLY)
        try:
            num_pictures, num_found = joined.selectExpr("count(*)", "count(found)").collect()[0]
            said += describe_covered(item, num_found, num_pictures)
            root.begin_stage(item.table, described)
            _write_units(joined, root, units, item)
        finally:
            joined.unpersist()
    return said


def _read_pictures(spark: SparkSession, root: Root, units: Sequence[str], item: JoinedScores) -> DataFrame:
    """The pictures of `units`."""

    def read(numbers: list[int]) -> Iterator[pa.RecordBatch]:
        for number in numbers:
            yield from read_pictures(root, units[number], number, item).to_batches()

    return read_slices(spark, cut_slices(range(len(units))), read, PICTURES)


def _read_keys(spark: SparkSession, root: Root, item: JoinedScores) -> DataFrame:
    """The key of every sample."""

    def read(share: list[str]) -> Iterator[pa.RecordBatch]:
        for unit in share:
            yield from read_keys(root, unit, item).to_batches()

    return read_slices(spark, cut_slices(root.units("samples")), read, KEYS).distinct()


def _read_scores(spark: SparkSession, item: JoinedScores) -> DataFrame:
    """The key and the columns of all files, one task a row group."""
    return read_slices(
        spark, list_groups(item), lambda place: iter(read_group(item, place).to_batches()), score_schema(item)
    ).distinct()


def _check_keys(scores: DataFrame, item: JoinedScores) -> None:
    twice = scores.groupBy("key").count().where("count > 1").orderBy("key").first()
    if twice is not None:
        raise refuse_key(item, twice["key"], twice["count"])


def _compare_keys(scores: DataFrame, keys: DataFrame, item: JoinedScores) -> str:
    marked = scores.join(keys.withColumn("known", F.lit(True)), "key", "left")
    num_scores, num_known = marked.selectExpr("count(*)", "count(known)").collect()[0]
    example = None if num_known else scores.agg(F.min("key")).collect()[0][0]
    return describe_known(item, num_scores, num_known, example)


def _write_units(joined: DataFrame, root: Root, units: Sequence[str], item: JoinedScores) -> None:
    names = ["unit", "uid", *score_schema(item).names[1:]]
    ordered = joined.select(*names).repartition(min(len(units), 200), "unit")

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number, table in by_unit(batches):
            publish_unit(root, units[number], item, table)
            yield pa.RecordBatch.from_pydict({"unit": pa.array([number], pa.int32())})

    written = ordered.sortWithinPartitions("unit", "uid").mapInArrow(write, "unit int").collect()
    came = {row["unit"] for row in written}
    publish_empty(root, [unit for number, unit in enumerate(units) if number not in came], item)
