"""The recipe's rules in order over the whole manifest: each uid is kept, or carries the first rule that said no.

    curate select --recipe R.toml --root ROOT
    spark-submit jobs/selection.py --recipe R.toml --root ROOT

A unit's tables cover the same rows, so each Spark task joins them by itself and only the columns that rules use
leave it. What concerns all rows is Spark's: the duplicates, `count(*) over (partition by …)`, quantiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession

from curation.download.unit import resolve_opt_out_paths
from curation.download.withdrawn import REASON, describe_opt_out, find_withdrawn
from curation.errors import UserError
from curation.freshness import Fingerprints, check_fresh
from curation.recipe import rules as rule_language
from curation.recipe.config import Recipe
from curation.recipe.expressions import Quantile, QuantileValues
from curation.recipe.rules import DUPLICATE_COLUMNS, Rule
from curation.recipe.sql import string_sql
from curation.schema import DOWNLOADS, DUPLICATES, SAMPLES, SELECTION
from curation.storage import Root, fingerprint
from curation.sums.seal import is_whole
from curation.tables import samples_file, selection_file, unit_file
from jobs.score import build_score_schemas
from jobs.spark.sealing import seals
from jobs.spark.tasks import by_unit

_DDL = {pa.string(): "string", pa.int32(): "int", pa.int64(): "bigint", pa.float32(): "float", pa.bool_(): "boolean"}
TABLE = "selection"
WITHDRAWN = "withdrawn"
"""Stands for ok in the status of a row whose picture came before it was put on an opt-out list."""
MAX_PARTITIONS = 1_000


def check(recipe: Recipe, root: Root) -> None:
    """Raise UserError for a filter or rule that is wrong."""
    columns = rule_language.manifest_columns(build_score_schemas(recipe).values())
    rule_language.parse(recipe.rules, columns, resolve=recipe.resolve)


@seals("selection", reads=("samples", "downloads", "duplicates"))
def run(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Write the selection, unless the current one has these rules and inputs. Raises UserError before writing."""
    scores = build_score_schemas(recipe)
    columns = rule_language.manifest_columns(scores.values())
    rules = rule_language.parse(recipe.rules, columns, resolve=recipe.resolve)
    tables = _tables(rules, scores)
    _check_complete(root, tables)
    known = Fingerprints(root)
    if "duplicates" in tables:
        check_fresh(known, "duplicates")
    inputs = {table: known.of(table) for table in tables}
    opt_out = resolve_opt_out_paths(recipe).opt_out
    inputs |= describe_opt_out(opt_out, root)
    # Their own section would change what earlier versions of these rules are called.
    lists = {"lists": {name: fingerprint(list(entries)) for name, entries in _lists(rules).items()}}
    decides = {"rules": list(recipe.rules.items()), "inputs": inputs} | (lists if lists["lists"] else {})
    fp = fingerprint(decides)
    config: dict[str, Any] = {"rules": dict(recipe.rules), "order": list(recipe.rules)}
    if known.is_current(TABLE, {**config, "lists": lists["lists"] or None}, inputs) and is_whole(root, TABLE):
        return
    units, written = root.units("samples"), set(root.units(f"{TABLE}/{fp}"))
    # A rule about all rows needs them all; otherwise what an interrupted run has written stays unread.
    scanned = units if any(rule.is_global for rule in rules) else [unit for unit in units if unit not in written]
    manifest = join_tables(spark, root, scanned, tables, columns, opt_out)
    values = {wanted: compute_quantile(spark, manifest, columns, wanted) for wanted in _quantiles(rules)}
    rules = rule_language.parse(recipe.rules, columns, values, resolve=recipe.resolve)
    write_units(decide(spark, manifest, rules), root, fp, scanned, written)
    found = [entry for wanted in sorted(values) for entry in _describe_quantile(wanted, values[wanted])]
    config |= {"quantiles": found} | (lists if lists["lists"] else {})
    root.publish_current(TABLE, fp, [selection_file(fp, unit) for unit in units], config, inputs)


def _describe_quantile(wanted: Quantile, values: QuantileValues) -> Iterator[dict[str, Any]]:
    """What is recorded of a quantile: its value, or the value for each combination of the columns that it goes by."""
    for texts, value in values.items():
        by = {"by": dict(zip(wanted.by, texts, strict=True))} if wanted.by else {}
        yield {"column": wanted.column, "share": wanted.share, "value": value, **by}


def _lists(rules: Iterable[Rule]) -> dict[str, tuple[str, ...]]:
    return {name: entries for rule in rules for name, entries in rule.lists.items()}


def _quantiles(rules: Iterable[Rule]) -> list[Quantile]:
    return sorted({wanted for rule in rules for wanted in rule.quantiles})


def _tables(rules: list[Rule], scores: Mapping[str, pa.Schema]) -> dict[str, list[str]]:
    """Tables that the rules need, each with the columns they need of it."""
    used = frozenset().union(*(rule.columns for rule in rules))
    tables = {"samples": [f.name for f in SAMPLES if f.name != "uid" and f.name in used]}
    tables["downloads"] = [f.name for f in DOWNLOADS if f.name == "status" or (f.name != "uid" and f.name in used)]
    tables |= {table: names for table, s in scores.items() if (names := [n for n in s.names if n in used])}
    if used & set(DUPLICATE_COLUMNS):
        tables["duplicates"] = [name for name in DUPLICATE_COLUMNS if name in used]
    return tables


def _check_complete(root: Root, tables: Mapping[str, list[str]]) -> None:
    if not root.units("samples"):
        raise UserError(f"{root.base} has no samples: run `curate ingest` first.")
    for table in tables:
        if table == "duplicates":
            if root.current(table) is None:
                raise UserError("The rules use duplicates, and there are none yet: run `curate dedupe` first.")
            continue
        missing = root.missing_units(table)
        if missing:
            stage = "score" if table.startswith("scores_") else "download"
            raise UserError(f"{table} lacks {len(missing)} units ({missing[0]} first): run `curate {stage}` first.")


def join_tables(
    spark: SparkSession,
    root: Root,
    units: list[str],
    tables: Mapping[str, list[str]],
    types: Mapping[str, pa.DataType],
    opt_out: Sequence[str] = (),
) -> DataFrame:
    """The manifest's rows: `unit` (position in `units`), `uid`, and the columns of `tables`.

    The status of rows that the lists `opt_out` name by now is WITHDRAWN in the place of ok.
    """
    aligned = {name: columns for name, columns in tables.items() if name != "duplicates"}
    names = [column for columns in aligned.values() for column in columns]
    ddl = ", ".join(["unit int", "uid string", *(f"`{name}` {_DDL[types[name]]}" for name in names)])

    def scan(positions: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for position in (row for batch in positions for row in batch["id"].to_pylist()):
            table = mark_withdrawn(root, units[position], join_unit(root, units[position], aligned), opt_out)
            yield from table.add_column(0, "unit", pa.array([position] * len(table), pa.int32())).to_batches()

    manifest = spark.range(0, len(units), 1, max(1, len(units))).mapInArrow(scan, ddl)
    if "duplicates" not in tables:
        return manifest
    return manifest.join(_read_duplicates(spark, root), "uid", "left")


def join_unit(root: Root, unit: str, tables: Mapping[str, list[str]]) -> pa.Table:
    """Samples of one unit with the wanted columns of its other tables, in the order of `tables`."""
    rows = root.read_parquet(samples_file(unit), ["uid", *tables["samples"]])
    for table, columns in tables.items():
        if table != "samples":
            rows = rows.join(root.read_parquet(unit_file(table, unit), ["uid", *columns]), "uid")
    return rows


def mark_withdrawn(root: Root, unit: str, rows: pa.Table, opt_out: Sequence[str]) -> pa.Table:
    """`rows` of one unit with WITHDRAWN as the status of those that the lists name by now."""
    withdrawn = pc.is_in(rows["uid"], find_withdrawn(root, unit, opt_out))
    place = rows.column_names.index("status")
    return rows.set_column(place, "status", pc.if_else(withdrawn, WITHDRAWN, rows["status"]))


def _read_duplicates(spark: SparkSession, root: Root) -> DataFrame:
    files = (root.current("duplicates") or {})["files"]
    names = ["uid", *DUPLICATE_COLUMNS]

    def read(positions: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for position in (row for batch in positions for row in batch["id"].to_pylist()):
            table = root.read_parquet(files[position], ["uid", "kept_uid", "tier", "similarity"])
            yield from table.cast(_DUPLICATES).rename_columns(names).to_batches()

    ddl = ", ".join(f"{name} {_DDL[field.type]}" for name, field in zip(names, _DUPLICATES, strict=True))
    return spark.range(0, len(files), 1, max(1, len(files))).mapInArrow(read, ddl)


_DUPLICATES = pa.schema([DUPLICATES.field(name) for name in ("uid", "kept_uid", "tier", "similarity")])


def compute_quantile(
    spark: SparkSession, manifest: DataFrame, types: Mapping[str, pa.DataType], wanted: Quantile
) -> QuantileValues:
    """Exact quantile over the rows that came; None when no such row has the value.

    Raises UserError when it goes by more than MAX_PARTITIONS combinations, which the SQL of a rule would have to name.
    """
    manifest.createOrReplaceTempView("m")
    rows = spark.sql(rule_language.quantile_sql("m", wanted, types)).limit(MAX_PARTITIONS + 1).collect()
    if len(rows) > MAX_PARTITIONS:
        raise UserError(
            f"quantile({wanted.column}, {wanted.share}) goes over more than {MAX_PARTITIONS:,} partitions by "
            f"{', '.join(wanted.by)}: name columns with fewer values, such as source."
        )
    keys = [f"k{number}" for number in range(len(wanted.by))]
    values = {tuple(row[key] for key in keys): row["v"] for row in rows}
    return dict(sorted(values.items(), key=lambda item: [(text is not None, text or "") for text in item[0]]))


def decide(spark: SparkSession, manifest: DataFrame, rules: list[Rule]) -> DataFrame:
    """`unit`, `uid` and `reason` (null when kept) of every row."""
    manifest.createOrReplaceTempView("m")
    withdrawn = string_sql(WITHDRAWN)
    reason = f"case when m.status = {withdrawn} then {string_sql(REASON)} else {rule_language.reason_sql(rules)} end"
    return spark.sql(f"select m.unit, m.uid, {reason} as reason from m")


def write_units(decided: DataFrame, root: Root, fp: str, units: list[str], written: set[str]) -> None:
    """Publish the units of version `fp` that are not `written` yet, each sorted by uid."""
    parallelism = decided.sparkSession.sparkContext.defaultParallelism
    num_partitions = min(max(1, len(units)), max(parallelism * 4, len(units) // 64))
    ordered = decided.repartition(num_partitions, "unit").sortWithinPartitions("unit", "uid")

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for position, table in by_unit(batches):
            if units[position] not in written:
                kept = pc.is_null(table["reason"])
                columns = [table["uid"], kept, table["reason"]]
                root.publish_parquet(selection_file(fp, units[position]), pa.table(columns, schema=SELECTION))
            yield pa.RecordBatch.from_pydict({"rows": pa.array([len(table)], pa.int64())})

    ordered.mapInArrow(write, "rows bigint").agg({"rows": "sum"}).collect()


if __name__ == "__main__":
    from jobs.spark.stage import main

    main("select", check, run)
