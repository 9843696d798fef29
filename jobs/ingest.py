"""Metadata of any known set into `samples`: one schema, one row a uid, grouped by registered domain into units.

    curate ingest --recipe R.toml --root ROOT
    spark-submit jobs/ingest.py --recipe R.toml --root ROOT

Every input row becomes a sample or a row of `rejects` with its reason. Files that an earlier ingest took are skipped,
so a source added to the recipe later is planned beside what is there, and repeats across both are found.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.fetch.domains import registered_domain
from curation.plan import (
    Input,
    Spread,
    batch_name,
    describe_spread,
    find_inputs,
    least_placed,
    new_inputs,
    plans,
    spread,
)
from curation.recipe.config import Recipe
from curation.recipe.rules import parse_where
from curation.schema import REJECTS, SAMPLES, UID_SQL, RejectReason
from curation.sources import column_expressions
from curation.storage import Root
from curation.tables import plan_file, rejects_file, samples_file
from jobs.spark.tasks import by_unit

NUM_LARGEST = 20
REASONS = (RejectReason.NO_URL, RejectReason.WHERE, RejectReason.REPEATED)
"""Why ingest refuses a row; an adopted folder knows one reason more."""
WRITTEN = "unit long, samples long, " + ", ".join(f"`{reason}` long" for reason in REASONS)


def check(recipe: Recipe, root: Root) -> None:
    """Raise UserError for sources that cannot be read or understood, and for a root that cannot take them."""
    found = find_inputs(recipe)
    for source in recipe.sources:
        parse_where(source.name, source.where)
    root.check_can_create()
    new_inputs(root, found)


def run(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Ingest what the recipe names and `root` does not hold yet. Raises UserError before anything is written."""
    found = find_inputs(recipe)
    conditions = {source.name: parse_where(source.name, source.where) for source in recipe.sources}
    root.create()
    fresh = new_inputs(root, found)
    if not fresh:
        return
    number = len(plans(root))
    wheres = {source.name: source.where for source in recipe.sources}
    size = recipe.download.num_rows_per_unit
    batch = batch_name(fresh, wheres, size, number)
    forget_unfinished(root, batch)
    rows = normalise(spark, fresh, conditions)
    planned, hosts = plan_units(rows, size)
    tagged = tag_repeats(rows, earlier_uids(spark, root))
    written = write_units(spark, tagged, planned, root, batch)
    plan = {"batch": batch, "hosts": hosts} | describe(fresh, written, planned, number, size)
    root.publish_json(plan_file(batch), plan)
    sys.stderr.write(describe_spread(plan))


def forget_unfinished(root: Root, batch: str) -> None:
    """Delete what ingests of other batches had written when they were killed; no plan names it."""
    known = {plan["batch"] for plan in plans(root)} | {batch}
    for table in ("samples", "rejects"):
        for name in root.list(table, ".parquet"):
            if name.rpartition("-")[0] not in known:
                root.remove(f"{table}/{name}")


def normalise(spark: SparkSession, fresh: list[Input], conditions: dict[str, str]) -> DataFrame:
    """All rows in the columns of samples, with file, row, a rank for repeats, and reason no_url or where or null.

    `conditions` has the SQL of each source's `where`, over alias `m`.
    """
    groups: dict[tuple[str, str, str], list[tuple[int, Input]]] = {}
    for position, item in enumerate(fresh):
        groups.setdefault((item.source, item.format, str(item.schema)), []).append((position, item))
    parts = [_read(spark, members, conditions[source]) for (source, _, _), members in groups.items()]
    return reduce(DataFrame.unionByName, parts)


def _read(spark: SparkSession, members: list[tuple[int, Input]], condition: str) -> DataFrame:
    item = members[0][1]
    exprs = column_expressions(item.format, item.schema, item.path)
    positions = F.create_map(*[F.lit(v) for p, i in members for v in (_file_key(i.path), p)])
    key = F.regexp_replace(F.url_decode("_metadata.file_path"), "^file:/+", "/")
    unknown = F.raise_error(F.concat(F.lit("Spark names a file that was not planned: "), key)).cast("int")
    raw = spark.read.parquet(*[_spark_path(i.path) for _, i in members])
    rows = raw.select(
        *[F.expr(sql).alias(target) for target, sql in exprs.items()],
        F.lit(item.source).alias("source"),
        key.alias("path"),
        F.col("_metadata.row_index").alias("row"),
    )
    domain = F.udf(registered_domain, "string", useArrow=True)
    rows = rows.withColumn("position", F.coalesce(positions[F.col("path")], unknown)).withColumn("uid", F.expr(UID_SQL))
    rows = rows.withColumn("file", F.element_at(F.split("path", "/"), -1)).drop("path")
    rows = rows.withColumn("domain", domain(F.coalesce("url", F.lit(""))))
    no_url = F.expr("coalesce(trim(url), '') = ''")
    refused = F.expr(f"not coalesce({condition}, false)")
    reason = F.when(no_url, RejectReason.NO_URL.value).when(refused, RejectReason.WHERE.value)
    return rows.alias("m").withColumn("reason", reason)


def _spark_path(path: str) -> str:
    """`path` as Spark's reader takes it: with a protocol, characters of glob patterns escaped."""
    full = path.replace("s3://", "s3a://", 1) if "://" in path else f"file://{Path(path).resolve()}"
    return re.sub(r"([\\\[\]{}*?])", r"\\\1", full)


def _file_key(path: str) -> str:
    """What Spark says of this file in `_metadata.file_path`, after its `url_decode`, which takes + for a blank."""
    full = path.replace("s3://", "s3a://", 1) if "://" in path else str(Path(path).resolve())
    return full.replace("+", " ")


def plan_units(rows: DataFrame, num_rows_per_unit: int) -> tuple[Spread, dict[str, Any]]:
    """Count rows a domain and plan the units; what the plan records of its hosts.

    Only domains that are placed by themselves and the largest NUM_LARGEST reach the driver.
    """
    counts = rows.filter("reason is null").groupBy("domain").count().persist()
    try:
        num_rows, num_domains = counts.agg(F.sum("count"), F.count("*")).collect()[0]
        least = least_placed(num_rows_per_unit)
        placed = {r["domain"]: r["count"] for r in counts.filter(F.col("count") >= least).collect()}
        largest = counts.orderBy(F.desc("count"), "domain").limit(NUM_LARGEST).collect()
    finally:
        counts.unpersist()
    hosts = {"num_rows": num_rows or 0, "num_domains": num_domains}
    return spread(num_rows or 0, placed, num_rows_per_unit), hosts | {
        "largest": {r["domain"]: r["count"] for r in largest}
    }


def earlier_uids(spark: SparkSession, root: Root) -> DataFrame | None:
    """Uids of finished plans; None before the first."""
    files = [samples_file(unit) for unit in root.units("samples")]
    if not files:
        return None
    return (
        spark.read.parquet(*[_spark_path(root.url(f)) for f in files]).select("uid").withColumn("earlier", F.lit(True))
    )


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


def write_units(
    spark: SparkSession, tagged: DataFrame, planned: Spread, root: Root, batch: str
) -> list[dict[str, int]]:
    """Shuffle rows to their units and publish samples and rejects; the counts of each unit, in order."""
    columns = [*SAMPLES.names, "unit", "reason", "file", "row"]
    placed = place(spark, tagged, planned).select(*columns)
    num_partitions = min(planned.num_units, max(spark.sparkContext.defaultParallelism * 4, planned.num_units // 64))
    sorted_rows = placed.repartition(num_partitions, "unit").sortWithinPartitions("unit", "uid", "file", "row")

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for unit, table in by_unit(batches):
            yield pa.RecordBatch.from_pylist([write_unit(root, batch, unit, table)])

    return sorted((r.asDict() for r in sorted_rows.mapInArrow(write, WRITTEN).collect()), key=lambda r: r["unit"])


def place(spark: SparkSession, rows: DataFrame, planned: Spread) -> DataFrame:
    """Add each row's `unit`: where the plan places its domain (in pieces by uid), else by the hash of the domain."""
    shared = F.expr(f"cast(conv(substr(md5(domain), 1, 8), 16, 10) as bigint) % {planned.num_shared}")
    if not planned.placed:
        return rows.withColumn("unit", shared)
    placed = [(domain, first, pieces) for domain, (first, pieces) in planned.placed.items()]
    table = F.broadcast(spark.createDataFrame(placed, "domain string, first long, pieces long"))
    piece = F.expr("first + cast(conv(substr(uid, 1, 8), 16, 10) as bigint) % pieces")
    return rows.join(table, "domain", "left").withColumn("unit", F.coalesce(piece, shared))


def write_unit(root: Root, batch: str, unit: int, table: pa.Table) -> dict[str, int]:
    """Publish the rejects, then the samples of one unit."""
    reasons = table.column("reason").to_pylist()
    accepted = pa.array([r is None for r in reasons])
    rejected = table.filter(pa.array([r is not None for r in reasons]))
    name = f"{batch}-{unit:06d}"
    if rejected.num_rows:
        root.publish_parquet(rejects_file(name), rejected.select(REJECTS.names).cast(REJECTS))
    samples = table.filter(accepted).select(SAMPLES.names).cast(SAMPLES)
    if samples.num_rows:
        root.publish_parquet(samples_file(name), samples)
    counts = Counter(r for r in reasons if r)
    return {"unit": unit, "samples": samples.num_rows, **{r.value: counts[r.value] for r in REASONS}}


def describe(
    fresh: list[Input], written: list[dict[str, int]], planned: Spread, number: int, size: int
) -> dict[str, Any]:
    """The record of the plan: inputs, totals by reason, units with their rows, and how the hosts were spread."""
    batch_inputs = [
        {"source": i.source, "path": i.path, "format": i.format, "fingerprint": i.fingerprint, "num_rows": i.num_rows}
        for i in fresh
    ]
    totals = {key: sum(w.get(key, 0) for w in written) for key in ("samples", *(r.value for r in REASONS))}
    return {
        "number": number,
        "inputs": batch_inputs,
        "totals": totals,
        "num_rows_per_unit": size,
        "units": {f"{w['unit']:06d}": w["samples"] for w in written if w["samples"]},
        "large_domains": {d: {"first_unit": u, "num_units": n} for d, (u, n) in planned.large.items()},
    }


if __name__ == "__main__":
    from jobs.spark.stage import main

    main("ingest", check, run)
