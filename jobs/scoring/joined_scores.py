"""Scores of one's own, `[scores.NAME]`: parquet files of uid or url and columns become a table as a filter's is.

`curate score` joins them with the pictures that came and checks how many it covers before anything is written; the
columns are then columns of the manifest, for rules, queries and the trainer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.errors import UserError
from curation.paths import open_file
from curation.schema import SAMPLES, Status
from curation.storage import Root
from curation.tables import downloads_file, samples_file, unit_file
from curation.unit_streams import by_unit
from jobs.scoring.coverage import check_covered, check_known
from jobs.scoring.joined_columns import JoinedScores, said_as_sentence
from jobs.spark.errors import unwrap_task_errors
from jobs.spark.slices import cut_slices, read_slices


def join_scores(spark: SparkSession, root: Root, item: JoinedScores) -> str:
    """Publish the table of `item` for every downloaded unit that lacks it; what is said of it, empty without work.

    Raises UserError before anything is written: another content than the table was begun with, a key that stands twice
    with different scores, no key that the root knows, or fewer pictures covered than `min_coverage`.
    """
    done = set(root.units(item.table))
    units = [unit for unit in root.units("downloads") if unit not in done]
    if not units:
        return ""
    described = item.describe()
    with unwrap_task_errors():
        pictures = _read_pictures(spark, root, units)
        scores = _read_scores(spark, item)
        _check_keys(scores, item)
        said = _check_known(scores, _read_keys(spark, root, item.key), item)
        joined = pictures.join(scores.withColumn("found", F.lit(True)), item.key, "left").persist(
            StorageLevel.DISK_ONLY
        )
        try:
            said += _check_coverage(joined, item)
            root.begin_stage(item.table, described)
            _write_units(joined, root, units, item)
        finally:
            joined.unpersist()
    return said


def _read_pictures(spark: SparkSession, root: Root, units: Sequence[str]) -> DataFrame:
    """`unit` (position in `units`), `uid` and `url` of each picture that came."""
    schema = pa.schema([("unit", pa.int32()), SAMPLES.field("uid"), SAMPLES.field("url")])

    def read(numbers: list[int]) -> Iterator[pa.RecordBatch]:
        for number in numbers:
            downloads = root.read_parquet(downloads_file(units[number]), ["uid", "status"])
            ok = downloads.filter(pc.equal(downloads["status"], Status.OK.value)).select(["uid"])
            rows = ok.join(root.read_parquet(samples_file(units[number]), ["uid", "url"]), "uid")
            yield from rows.add_column(0, "unit", pa.array([number] * len(rows), pa.int32())).cast(schema).to_batches()

    return read_slices(spark, cut_slices(range(len(units))), read, schema)


def _read_keys(spark: SparkSession, root: Root, key: str) -> DataFrame:
    """The `key` of every sample, whether its picture came or not."""
    units, schema = root.units("samples"), pa.schema([SAMPLES.field(key)])

    def read(share: list[str]) -> Iterator[pa.RecordBatch]:
        for unit in share:
            yield from root.read_parquet(samples_file(unit), [key]).to_batches()

    return read_slices(spark, cut_slices(units), read, schema).distinct()


def _read_scores(spark: SparkSession, item: JoinedScores) -> DataFrame:
    """The key and the columns of all files, one task a row group; rows without a key are left out."""
    schema = pa.schema([(item.key, pa.string()), *item.columns])
    slices = [(file, group) for file in item.files for group in range(_count_groups(file))]

    def read(place: tuple[str, int]) -> Iterator[pa.RecordBatch]:
        with said_as_sentence(f"[scores.{item.name}]", place[0]), open_file(place[0]) as stream:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            table = file.read_row_group(place[1], columns=schema.names)
        yield from table.select(schema.names).cast(schema).to_batches()

    return read_slices(spark, slices, read, schema).where(F.col(item.key).isNotNull()).distinct()


def _count_groups(file: str) -> int:
    with open_file(file) as stream:
        return int(pq.ParquetFile(stream).num_row_groups)


def _check_keys(scores: DataFrame, item: JoinedScores) -> None:
    twice = scores.groupBy(item.key).count().where("count > 1").orderBy(item.key).first()
    if twice is not None:
        raise UserError(
            f"[scores.{item.name}] has {item.key} {twice[item.key]} with {twice['count']} different scores."
        )


def _check_known(scores: DataFrame, keys: DataFrame, item: JoinedScores) -> str:
    """How many of the scores are of no sample, if any are. Raises UserError when all are."""
    marked = scores.join(keys.withColumn("known", F.lit(True)), item.key, "left")
    num_scores, num_known = marked.selectExpr("count(*)", "count(known)").collect()[0]
    num_unknown = num_scores - num_known
    example = None if num_known else scores.agg(F.min(item.key)).collect()[0][0]
    check_known(item, num_scores, num_unknown, example)
    if not num_unknown:
        return ""
    return f"scores.{item.name} has {num_unknown:,} of {num_scores:,} {item.key}s that are of no sample of this root\n"


def _check_coverage(joined: DataFrame, item: JoinedScores) -> str:
    (num_pictures, num_found) = joined.selectExpr("count(*)", "count(found)").collect()[0]
    check_covered(item, num_found, num_pictures)
    return f"scores.{item.name} covers {num_found:,} of {num_pictures:,} pictures\n"


def _write_units(joined: DataFrame, root: Root, units: Sequence[str], item: JoinedScores) -> None:
    schema = pa.schema([SAMPLES.field("uid"), *item.columns])
    ordered = joined.select("unit", *schema.names).repartition(min(len(units), 200), "unit")

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number, table in by_unit(batches):
            root.publish_parquet(unit_file(item.table, units[number]), table.select(schema.names).cast(schema))
            yield pa.RecordBatch.from_pydict({"unit": pa.array([number], pa.int32())})

    written = ordered.sortWithinPartitions("unit", "uid").mapInArrow(write, "unit int").collect()
    for number in set(range(len(units))) - {row["unit"] for row in written}:  # no picture of these units came
        root.publish_parquet(unit_file(item.table, units[number]), schema.empty_table())
