"""The ingest on a cluster: what `spark-submit jobs/ingest.py` runs. One machine makes the same units by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.ingest.engine import SORTED_BY, DomainCounts, UnitCounts, UnitWork
from curation.ingest.flow import TABLES, ingest
from curation.ingest.unit import REASONS, write_unit
from curation.metadata.inputs import Input
from curation.metadata.rows import choose_share, divide, read_shares, rows_schema
from curation.plan import NUM_LARGEST, Spread
from curation.recipe.config import Recipe
from curation.schema import SAMPLES, RejectReason, count_captions, samples_schema
from curation.storage import Root
from curation.unit_streams import by_unit
from jobs.spark.errors import unwrap_task_errors
from jobs.spark.sealing import seals
from jobs.spark.slices import read_files, read_slices

WRITTEN = "unit long, samples long, num_others long, hosts string, " + ", ".join(
    f"`{reason}` long" for reason in REASONS
)


@seals(*TABLES)
def run_on_spark(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Ingest what the recipe names and `root` does not hold yet. Raises UserError before anything is written."""
    ingest(SparkEngine(spark), recipe, root)


class SparkEngine:
    """Opens rows as frames. An `Engine` of curation/ingest/engine.py."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark

    @contextmanager
    def open_rows(self, items: Sequence[Input]) -> Iterator[SparkRows]:
        """The rows of `items`, kept on the executors' disks once they were read."""
        frame = normalise(self._spark, items).persist(StorageLevel.DISK_ONLY)
        try:
            with unwrap_task_errors():
                yield SparkRows(self._spark, frame)
        finally:
            frame.unpersist()


def normalise(spark: SparkSession, items: Sequence[Input]) -> DataFrame:
    """All rows in the columns of `rows_schema`; `position` and `row` rank repeats."""
    share = choose_share(items, spark.sparkContext.defaultParallelism)
    schema = rows_schema(max((item.num_captions for item in items), default=1))
    return read_slices(spark, divide(items, share), read_shares, schema)


class SparkRows:
    """Rows that executors hold. `Rows` of curation/ingest/engine.py."""

    def __init__(self, spark: SparkSession, frame: DataFrame) -> None:
        self._spark, self._frame = spark, frame

    def count_by_file(self) -> Mapping[int, int]:
        """Rows of each input, by its position."""
        return {row["position"]: row["count"] for row in self._frame.groupBy("position").count().collect()}

    def count_domains(self, least: int) -> DomainCounts:
        """Rows by domain. Only those that are placed by themselves and the largest NUM_LARGEST reach the driver."""
        counts = self._frame.filter("reason is null").groupBy("domain").count().persist()
        try:
            (num_rows,) = counts.agg(F.sum("count")).collect()[0]
            placed = {row["domain"]: row["count"] for row in counts.filter(F.col("count") >= least).collect()}
            largest = counts.orderBy(F.desc("count"), "domain").limit(NUM_LARGEST).collect()
        finally:
            counts.unpersist()
        return DomainCounts(num_rows=num_rows or 0, placed=placed, largest=[row["domain"] for row in largest])

    def write_units(self, work: UnitWork) -> list[UnitCounts]:
        """Shuffle rows to their units and publish samples and rejects; what each unit holds, in their order."""
        tagged = tag_repeats(self._frame, read_earlier_uids(self._spark, work))
        placed = place_rows(self._spark, tagged, work.spread)
        columns = [*samples_schema(count_captions(tagged.columns)).names, "unit", "reason", "file", "row", "position"]
        chosen = placed if work.only is None else placed.where(F.col("unit").isin(list(work.only)))
        parallelism, num_units = self._spark.sparkContext.defaultParallelism, work.spread.num_units
        target = work.target  # alone: tasks need not carry the names of all earlier files
        partitioned = chosen.select(*columns).repartition(min(num_units, max(parallelism * 4, num_units // 64)), "unit")

        def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for unit, table in by_unit(batches):
                yield pa.RecordBatch.from_pylist([write_unit(target, unit, table)])

        written = partitioned.sortWithinPartitions(*SORTED_BY).mapInArrow(write, WRITTEN).collect()
        return sorted((row.asDict() for row in written), key=lambda counts: int(counts["unit"]))


def read_earlier_uids(spark: SparkSession, work: UnitWork) -> DataFrame | None:
    """Uids of the finished plans before this one; None where there are none."""
    if not work.earlier:
        return None
    uids = read_files(spark, work.target.root, work.earlier, pa.schema([SAMPLES.field("uid")]))
    return uids.withColumn("earlier", F.lit(True))


def tag_repeats(rows: DataFrame, earlier: DataFrame | None) -> DataFrame:
    """Mark all but the first of the rows with one uid (in the order of recipe, file, row) as repeated."""
    accepted = rows.filter("reason is null")
    # A minimum over a struct is one hash aggregation; a window would sort every row.
    first = accepted.groupBy("uid").agg(F.min(F.struct("position", "row")).alias("first"))
    tagged = accepted.join(first, "uid", "left")
    repeated = F.struct("position", "row") != F.col("first")
    if earlier is not None:
        tagged = tagged.join(earlier, "uid", "left")
        repeated = repeated | F.coalesce(F.col("earlier"), F.lit(False))
    tagged = tagged.withColumn("reason", F.when(repeated, RejectReason.REPEATED.value))
    return tagged.select(*rows.columns).unionByName(rows.filter("reason is not null"))


def place_rows(spark: SparkSession, rows: DataFrame, planned: Spread) -> DataFrame:
    """Add each row's `unit`: where the plan places its domain (in pieces by uid), else by the hash of the domain."""
    shared = F.expr(f"cast(conv(substr(md5(domain), 1, 8), 16, 10) as bigint) % {planned.num_shared}")
    if not planned.placed:
        return rows.withColumn("unit", shared)
    placed = [(domain, first, pieces) for domain, (first, pieces) in planned.placed.items()]
    table = F.broadcast(spark.createDataFrame(placed, "domain string, first long, pieces long"))
    piece = F.expr("first + cast(conv(substr(uid, 1, 8), 16, 10) as bigint) % pieces")
    return rows.join(table, "domain", "left").withColumn("unit", F.coalesce(piece, shared))
