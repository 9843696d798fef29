"""The selection on a cluster: what `spark-submit jobs/selection.py` runs. DuckDB makes the same one on one machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import broadcast

from curation.compaction.writing import publish_units
from curation.download.withdrawn import Lists
from curation.recipe import rules as rule_language
from curation.recipe.balance import Balance, bound_sql, count_entries_sql
from curation.recipe.config import Recipe
from curation.recipe.expressions import Quantile, QuantileValues
from curation.recipe.rules import DUPLICATE_COLUMNS, Rule
from curation.recipe.select_config import MixConfig
from curation.schema import SELECTION
from curation.selection.mix import allot_rows, count_passed_sql, mixed_sql
from curation.selection.rows import duplicates_files, join_unit, read_duplicates
from curation.selection.rule_set import MAX_PARTITIONS, Work, decision_sql, find_work, name_quantile, resolve_version
from curation.storage import Root
from curation.tables import SELECTION as SELECTION_TABLE
from curation.unit_streams import by_unit
from jobs.scoring.score_columns import SELECTION_READS, plan_rules
from jobs.spark.sealing import seals
from jobs.spark.slices import spread_numbers

Types = Mapping[str, pa.DataType]
_DDL = {pa.string(): "string", pa.int32(): "int", pa.int64(): "bigint", pa.float32(): "float", pa.bool_(): "boolean"}


@seals(SELECTION_TABLE, reads=SELECTION_READS)
def run_on_spark(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Write the selection, unless the current one has these rules and inputs. Raises UserError before writing."""
    rules, wanted_tables = plan_rules(recipe, root)
    version = resolve_version(root, rules, wanted_tables)
    if version.is_current:
        return
    work = find_work(version)
    manifest = join_tables(spark, root, work.units, wanted_tables, rules.columns, rules.refused)
    values = {wanted: compute_quantile(spark, manifest, rules.columns, wanted) for wanted in rules.quantiles}
    manifest = join_bounds(spark, manifest, rules.balances)
    write_units(decide(spark, manifest, rules.with_quantiles(values), rules.mix), root, version.fp, work)
    version.publish(values)


def join_tables(
    spark: SparkSession, root: Root, units: list[str], tables: Mapping[str, list[str]], types: Types, lists: Lists
) -> DataFrame:
    """The manifest's rows: `unit` (position in `units`), `uid`, and the columns of `tables`.

    The status of rows that `lists` name by now says so in the place of ok.
    """
    aligned = {name: columns for name, columns in tables.items() if name != "duplicates"}
    names = [column for columns in aligned.values() for column in columns]
    ddl = ", ".join(["unit int", "uid string", *(f"`{name}` {_DDL[types[name]]}" for name in names)])

    def scan(positions: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for position in (row for batch in positions for row in batch["id"].to_pylist()):
            table = join_unit(root, units[position], aligned, lists)
            yield from table.add_column(0, "unit", pa.array([position] * len(table), pa.int32())).to_batches()

    manifest = spread_numbers(spark, len(units)).mapInArrow(scan, ddl)
    if "duplicates" not in tables:
        return manifest
    return manifest.join(_read_duplicates(spark, root), "uid", "left")


def _read_duplicates(spark: SparkSession, root: Root) -> DataFrame:
    files = duplicates_files(root)

    def read(positions: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for position in (row for batch in positions for row in batch["id"].to_pylist()):
            yield from read_duplicates(root, files[position]).to_batches()

    types = {"uid": pa.string(), **DUPLICATE_COLUMNS}
    ddl = ", ".join(f"{name} {_DDL[dtype]}" for name, dtype in types.items())
    return spread_numbers(spark, len(files)).mapInArrow(read, ddl)


def compute_quantile(
    spark: SparkSession, manifest: DataFrame, types: Mapping[str, pa.DataType], wanted: Quantile
) -> QuantileValues:
    """Exact quantile over the rows that came; None when no such row has the value.

    Raises UserError when it goes by more than MAX_PARTITIONS combinations, which the SQL of a rule would have to name.
    """
    manifest.createOrReplaceTempView("m")
    rows = spark.sql(rule_language.quantile_sql("m", wanted, types)).limit(MAX_PARTITIONS + 1).collect()
    return name_quantile(wanted, rows)


def join_bounds(spark: SparkSession, manifest: DataFrame, balances: Iterable[Balance]) -> DataFrame:
    """`manifest` with the bounds of `balances` as columns."""
    bounds = []
    manifest.createOrReplaceTempView("m")
    for balance in balances:
        spark.sql(count_entries_sql("m", balance)).createOrReplaceTempView(balance.counts)
        bounds.append(spark.sql(bound_sql("m", balance, "uid")))
    for bound in bounds:
        manifest = manifest.join(bound, "uid", "left")
    return manifest


def decide(spark: SparkSession, manifest: DataFrame, rules: list[Rule], mix: MixConfig | None = None) -> DataFrame:
    """`unit`, `uid` and `reason` (null when kept) of every row. Raises UserError for a mix that cannot be made."""
    manifest.createOrReplaceTempView("m")
    reason = decision_sql(rules)
    if mix is None:
        return spark.sql(f"select m.unit, m.uid, {reason} as reason from m")
    allotted = allot_rows(mix, {row["source"]: row["n"] for row in spark.sql(count_passed_sql("m", reason)).collect()})
    return spark.sql(mixed_sql("m", ["unit", "uid"], reason, mix, allotted))


def write_units(decided: DataFrame, root: Root, fp: str, work: Work) -> None:
    """Publish the units of version `fp` that are left to do, each sorted by uid."""
    spark, units, written, runs = decided.sparkSession, work.units, work.written, work.runs
    parallelism = spark.sparkContext.defaultParallelism
    num_partitions = min(max(1, len(runs.starts)), max(parallelism * 4, len(units) // 64))
    if not runs.are_single(len(units)):  # those of one packed file have to meet in one task
        numbered = pa.table({"unit": pa.array(range(len(units)), pa.int32()), "run": runs.list_runs(len(units))})
        decided = decided.join(broadcast(spark.createDataFrame(numbered)), "unit").repartition(num_partitions, "run")
    else:
        decided = decided.repartition(num_partitions, "unit")
    ordered = decided.sortWithinPartitions("unit", "uid")

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for run in runs.gather(by_unit(batches)):
            left = [
                (units[position], _choose_columns(rows)) for position, rows in run if units[position] not in written
            ]
            if left:
                publish_units(root, f"{SELECTION_TABLE}/{fp}", left)
            num_rows = sum(len(rows) for _, rows in run)
            yield pa.RecordBatch.from_pydict({"rows": pa.array([num_rows], pa.int64())})

    ordered.mapInArrow(write, "rows bigint").agg({"rows": "sum"}).collect()


def _choose_columns(rows: pa.Table) -> pa.Table:
    return pa.table([rows["uid"], pc.is_null(rows["reason"]), rows["reason"]], schema=SELECTION)
