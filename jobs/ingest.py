"""Metadata of any known set into `samples`: one schema, one row a uid, grouped by registered domain into units.

    curate ingest --recipe R.toml --root ROOT
    spark-submit jobs/ingest.py --recipe R.toml --root ROOT

Every input row becomes a sample or a row of `rejects` with its reason. Files that an earlier ingest took are skipped,
so a source added to the recipe later is planned beside what is there, and repeats across both are found.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.compaction.compact import take_apart
from curation.download.tombstones import Tombstones, append_forgotten, find_forgotten, read_tombstones
from curation.errors import UserError
from curation.metadata.inputs import Input, find_inputs
from curation.metadata.known import describe_input, sum_inputs
from curation.metadata.rows import divide, read_shares, rows_schema
from curation.plan import (
    Spread,
    check_lost_plans,
    describe_spread,
    find_lost_units,
    find_plan_inputs,
    first_free_number,
    least_placed,
    name_batch,
    read_plans,
    select_new_inputs,
    spread_rows,
)
from curation.recipe.config import Recipe
from curation.recipe.rules import parse_where
from curation.recipe.sql import string_sql
from curation.schema import REJECTS, SAMPLES, RejectReason, count_captions, samples_schema
from curation.storage import Root
from curation.sums.seal import lost_files
from curation.tables import PLANS, plan_file, rejects_file, samples_file
from curation.terminal import write_error
from jobs.spark.errors import unwrap_task_errors
from jobs.spark.sealing import seals
from jobs.spark.slices import read_slices
from jobs.spark.tasks import by_unit

NUM_LARGEST = 20
MIN_ROWS_PER_TASK = 20_000
MAX_ROWS_PER_TASK = 250_000
UNITS_PER_TASK = 16
REASONS = (
    RejectReason.NO_URL,
    RejectReason.WHERE,
    RejectReason.REPEATED,
    RejectReason.NOT_TEXT,
    RejectReason.MALFORMED,
    RejectReason.FORGOTTEN,
)
"""Why ingest refuses a row; an adopted folder knows two more."""
UNCOMMON = (RejectReason.NOT_TEXT, RejectReason.MALFORMED, RejectReason.FORGOTTEN)
"""Reasons that a plan names only where they occur."""
WRITTEN = "unit long, samples long, num_others long, hosts string, " + ", ".join(
    f"`{reason}` long" for reason in REASONS
)


def check(recipe: Recipe, root: Root) -> None:
    """Raise UserError for sources that cannot be read or understood, and for a root that cannot take them."""
    found = find_inputs(recipe)
    for source in recipe.sources:
        parse_where(source.name, source.where, source.num_captions)
    root.check_can_create()
    select_new_inputs(root, found)


@seals("plans", "samples", "rejects")
def run(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Ingest what the recipe names and `root` does not hold yet. Raises UserError before anything is written."""
    found = find_inputs(recipe)
    conditions = {source.name: parse_where(source.name, source.where, source.num_captions) for source in recipe.sources}
    root.check_can_create()
    restore_units(spark, root, found, [(source.name, source.where) for source in recipe.sources])
    chosen = select_new_inputs(root, found)
    write_error(chosen.describe_repeated())
    fresh = chosen.fresh
    if not fresh:
        check_lost_plans(root)
        root.create(sealed=True)
        return
    sum_inputs(fresh)
    wheres = {source.name: source.where for source in recipe.sources}
    size = recipe.download.num_rows_per_unit
    rows = normalise(spark, fresh, conditions).persist(StorageLevel.DISK_ONLY)
    try:
        with unwrap_task_errors():
            counted = count_rows(rows, fresh)
            root.create(sealed=True)
            plan = write_plan(spark, root, counted, rows, wheres, size)
    finally:
        rows.unpersist()
    write_error(describe_spread(plan))


def write_plan(
    spark: SparkSession, root: Root, fresh: list[Input], rows: DataFrame, wheres: Mapping[str, str], size: int
) -> dict[str, Any]:
    """Publish samples and rejects of `rows` in units of about `size` rows, then the plan that makes them count."""
    number = first_free_number(root)
    batch = name_batch(fresh, wheres, size, number)
    check_lost_plans(root, batch)
    forget_unfinished(root, batch)
    planned, largest = plan_units(rows, size)
    tagged = tag_repeats(rows, read_earlier_uids(spark, root, number))
    written = write_units(spark, tagged, planned, root, batch, frozenset(largest))
    hosts = describe_hosts(written)
    plan = {"batch": batch, "hosts": hosts} | describe_plan(fresh, written, planned, number, size)
    check_totals(plan)
    root.publish_json(plan_file(batch), plan)
    return plan


def count_rows(rows: DataFrame, fresh: list[Input]) -> list[Input]:
    """Read every file to its end, and say how many rows each one had that had not said so itself.

    Raises UserError when a file has not given the rows that it has.
    """
    counts = {r["position"]: r["count"] for r in rows.groupBy("position").count().collect()}
    for position, item in enumerate(fresh):
        if item.num_rows is not None and counts.get(position, 0) != item.num_rows:
            raise UserError(
                f"{item.path} has {item.num_rows:,} rows and {counts.get(position, 0):,} were read: nothing was "
                f"ingested; it may have changed meanwhile, so run `curate ingest` again."
            )
    return [replace(item, num_rows=counts.get(position, 0)) for position, item in enumerate(fresh)]


def check_totals(plan: dict[str, Any]) -> None:
    """Raise UserError unless each row that was read became a sample or a reject."""
    num_rows, accounted = sum(i["num_rows"] for i in plan["inputs"]), sum(plan["totals"].values())
    if num_rows != accounted:
        raise UserError(
            f"{num_rows:,} rows were read and {accounted:,} became samples or rejects: nothing of it counts; run "
            f"`curate ingest` again, and report it if this stays."
        )


def restore_units(
    spark: SparkSession,
    root: Root,
    found: list[Input],
    wheres: list[tuple[str, str]],
) -> None:
    """Make samples and rejects again that a plan has and that do not stand any more; the same bytes.

    Raises UserError, before anything is written, when the metadata or the recipe are not what they were.
    """
    for plan in read_plans(root):
        lost = find_lost_units(root, plan)
        if lost:
            inputs = find_plan_inputs(plan, found, wheres)
            rows = normalise(
                spark, inputs, {item.source: parse_where(item.source, item.where, item.num_captions) for item in inputs}
            )
            planned, largest = plan_units(rows, plan["num_rows_per_unit"])
            tagged = tag_repeats(rows, read_earlier_uids(spark, root, plan["number"]))
            names = [f"{plan['batch']}-{number:06d}" for number in lost]
            take_apart(root, [file for name in names for file in (samples_file(name), rejects_file(name))])
            write_units(spark, tagged, planned, root, plan["batch"], frozenset(largest), lost)
            write_error(f"Plan {plan['batch']}: {len(lost)} units that were missing are made again.\n")


def forget_unfinished(root: Root, batch: str) -> None:
    """Delete what ingests of other batches had written when they were killed; no plan names it."""
    known = {plan["batch"] for plan in read_plans(root)} | {batch}
    known |= {Path(rel).stem for rel in lost_files(root, PLANS)}
    for table in ("samples", "rejects"):
        for name in root.list(table, ".parquet"):
            if name.rpartition("-")[0] not in known:
                root.remove(f"{table}/{name}")


def normalise(spark: SparkSession, fresh: list[Input], conditions: dict[str, str]) -> DataFrame:
    """All rows in the columns of `rows_schema`; `position` and `row` rank repeats.

    `conditions` has the SQL of each source's `where`, over alias `m`.
    """
    num_rows = sum(sum(item.parts) for item in fresh)
    share = max(MIN_ROWS_PER_TASK, min(MAX_ROWS_PER_TASK, num_rows // (4 * spark.sparkContext.defaultParallelism)))
    schema = rows_schema(max((item.num_captions for item in fresh), default=1))
    rows = read_slices(spark, divide(fresh, share), read_shares, schema).alias("m")
    read = {item.source for item in fresh}  # others may ask for captions that no row has here
    cases = "".join(
        f" when m.source = {string_sql(source)} and not coalesce({condition}, false) then '{RejectReason.WHERE}'"
        for source, condition in conditions.items()
        if source in read
    )
    return rows.withColumn("reason", F.expr(f"case when m.reason is not null then m.reason{cases} end"))


def plan_units(rows: DataFrame, num_rows_per_unit: int) -> tuple[Spread, list[str]]:
    """Count rows a domain, repeats included, and plan the units; the largest domains and those that are split.

    Only domains that are placed by themselves and the largest NUM_LARGEST reach the driver.
    """
    counts = rows.filter("reason is null").groupBy("domain").count().persist()
    try:
        (num_rows,) = counts.agg(F.sum("count")).collect()[0]
        least = least_placed(num_rows_per_unit)
        placed = {r["domain"]: r["count"] for r in counts.filter(F.col("count") >= least).collect()}
        largest = counts.orderBy(F.desc("count"), "domain").limit(NUM_LARGEST).collect()
    finally:
        counts.unpersist()
    spread = spread_rows(num_rows or 0, placed, num_rows_per_unit)
    return spread, [*(r["domain"] for r in largest), *spread.large]


def read_earlier_uids(spark: SparkSession, root: Root, number: int) -> DataFrame | None:
    """Uids of the finished plans before `number`; None where there are none."""
    batches = {plan["batch"] for plan in read_plans(root) if plan["number"] < number}
    units = [unit for unit in root.units("samples") if unit.rpartition("-")[0] in batches]
    if not units:
        return None

    def read(share: list[str]) -> Iterator[pa.RecordBatch]:
        for unit in share:
            yield from root.read_parquet(samples_file(unit), ["uid"]).to_batches()

    slices = [units[i : i + UNITS_PER_TASK] for i in range(0, len(units), UNITS_PER_TASK)]
    return read_slices(spark, slices, read, pa.schema([SAMPLES.field("uid")])).withColumn("earlier", F.lit(True))


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
    spark: SparkSession,
    tagged: DataFrame,
    planned: Spread,
    root: Root,
    batch: str,
    named: frozenset[str],
    only: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Shuffle rows to their units and publish samples and rejects, of all units or of `only` some.

    Returns the counts of each unit, in order. Samples are counted by domain for the domains in `named`, which are all
    that lie in more than one unit.
    """
    known, tombstones = samples_schema(count_captions(tagged.columns)).names, read_tombstones(root)
    columns = [*known, "unit", "reason", "file", "row"]
    placed = place_rows(spark, tagged, planned).select(*columns)
    if only is not None:
        placed = placed.where(F.col("unit").isin(list(only)))
    num_partitions = min(planned.num_units, max(spark.sparkContext.defaultParallelism * 4, planned.num_units // 64))
    sorted_rows = placed.repartition(num_partitions, "unit").sortWithinPartitions("unit", "uid", "file", "row")

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for unit, table in by_unit(batches):
            yield pa.RecordBatch.from_pylist([write_unit(root, batch, unit, table, named, tombstones)])

    return sorted((r.asDict() for r in sorted_rows.mapInArrow(write, WRITTEN).collect()), key=lambda r: r["unit"])


def place_rows(spark: SparkSession, rows: DataFrame, planned: Spread) -> DataFrame:
    """Add each row's `unit`: where the plan places its domain (in pieces by uid), else by the hash of the domain."""
    shared = F.expr(f"cast(conv(substr(md5(domain), 1, 8), 16, 10) as bigint) % {planned.num_shared}")
    if not planned.placed:
        return rows.withColumn("unit", shared)
    placed = [(domain, first, pieces) for domain, (first, pieces) in planned.placed.items()]
    table = F.broadcast(spark.createDataFrame(placed, "domain string, first long, pieces long"))
    piece = F.expr("first + cast(conv(substr(uid, 1, 8), 16, 10) as bigint) % pieces")
    return rows.join(table, "domain", "left").withColumn("unit", F.coalesce(piece, shared))


def write_unit(
    root: Root, batch: str, unit: int, table: pa.Table, named: frozenset[str], tombstones: Tombstones
) -> dict[str, Any]:
    """Publish the rejects, then the samples of one unit; their counts, those of domains in `named` as JSON.

    What `tombstones` name is rejected whatever else is wrong with it, so that its uid is written nowhere.
    """
    reasons = table.column("reason").to_pylist()
    forgotten = find_forgotten(tombstones, table, reasons)
    accepted = pa.array([r is None and not f for r, f in zip(reasons, forgotten, strict=True)])
    rejected = table.filter(pa.array([r is not None and not f for r, f in zip(reasons, forgotten, strict=True)]))
    sources = table.filter(pa.array(forgotten, pa.bool_()))["source"].to_pylist()
    reasons = [RejectReason.FORGOTTEN.value if f else r for r, f in zip(reasons, forgotten, strict=True)]
    name = f"{batch}-{unit:06d}"
    if rejected.num_rows or sources:
        rejects = rejected.select(REJECTS.names).cast(REJECTS)
        root.publish_parquet(rejects_file(name), append_forgotten(rejects, sources))
    schema = samples_schema(count_captions(table.column_names))
    samples = table.filter(accepted).select(schema.names).cast(schema)
    if pc.count_distinct(samples["uid"]).as_py() != samples.num_rows:
        raise UserError(f"Unit {name} would hold a uid twice: nothing of this ingest counts; please report it.")
    if samples.num_rows:
        root.publish_parquet(samples_file(name), samples)
    counts = Counter(r for r in reasons if r)
    domains = Counter(samples["domain"].to_pylist())
    hosts = {domain: count for domain, count in domains.items() if domain in named}
    described = {"num_others": len(domains) - len(hosts), "hosts": json.dumps(hosts)}
    return {"unit": unit, "samples": samples.num_rows, **described, **{r.value: counts[r.value] for r in REASONS}}


def describe_hosts(written: list[dict[str, Any]]) -> dict[str, Any]:
    """What the plan records of the hosts of its samples: a row that is a repeat is fetched from none."""
    counts: Counter[str] = Counter()
    for unit in written:
        counts.update(json.loads(unit["hosts"]))
    largest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:NUM_LARGEST]
    num_rows, num_others = (sum(unit[key] for unit in written) for key in ("samples", "num_others"))
    return {"num_rows": num_rows, "num_domains": num_others + len(counts), "largest": dict(largest)}


def describe_plan(
    fresh: list[Input], written: list[dict[str, Any]], planned: Spread, number: int, size: int
) -> dict[str, Any]:
    """The record of the plan: inputs, totals by reason, units with their rows, and how the hosts were spread."""
    batch_inputs = [describe_input(item) for item in fresh]
    totals = {key: sum(w.get(key, 0) for w in written) for key in ("samples", *(r.value for r in REASONS))}
    totals = {key: count for key, count in totals.items() if count or key not in UNCOMMON}
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
