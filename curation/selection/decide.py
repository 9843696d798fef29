"""The selection on this machine, by DuckDB: the same files, byte for byte, that jobs/selection.py writes by Spark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.progress import track
from curation.recipe.expressions import Quantile, QuantileValues
from curation.recipe.select_config import SelectConfig
from curation.schema import SELECTION
from curation.scratch import open_folder
from curation.selection.engine import PLACE_BITS, Engine, open_engine
from curation.selection.mix import allot_rows, count_passed_sql, mixed_sql
from curation.selection.rows import read_ahead
from curation.selection.rule_set import RuleSet, decision_sql, find_work, resolve_version
from curation.storage import Root
from curation.tables import samples_file, selection_file

NUM_WRITERS = 2


def select(root: Root, rules: RuleSet, tables: Mapping[str, Sequence[str]], limits: SelectConfig) -> None:
    """Write the selection, unless the current one has these rules and inputs. Raises UserError before writing."""
    version = resolve_version(root, rules, tables)
    if version.is_current:
        return
    work = find_work(version)
    with open_folder(root, "select") as folder, open_engine(root, rules, work.units, limits, folder) as engine:
        values = engine.compute_quantiles(tables)
        engine.balance(tables)
        batches = engine.query(f"{_decided_sql(engine, rules, tables, values)} order by m.place")

        def write(decided: tuple[int, pa.Array]) -> None:
            unit = work.units[decided[0]]
            if unit not in work.written:
                root.publish_parquet(selection_file(version.fp, unit), decide_unit(root, unit, decided[1]))

        for _ in track(
            read_ahead(write, split_units(batches), NUM_WRITERS), len(work.units), "select, written", "unit"
        ):
            pass
    version.publish(values)


def _decided_sql(
    engine: Engine, rules: RuleSet, tables: Mapping[str, Sequence[str]], values: Mapping[Quantile, QuantileValues]
) -> str:
    """A query for `place` and `reason` of every row."""
    reason, asks_uid = decision_sql(rules.with_quantiles(values)), rules.asks_uid
    if rules.mix is None:
        return f"select m.place, {reason} as reason from {engine.rows_sql(tables, with_uid=asks_uid)} as m"
    counting = count_passed_sql(engine.rows_sql(tables, with_uid=asks_uid, step="mix"), reason)
    passed = {row["source"]: row["n"] for batch in engine.query(counting) for row in batch.to_pylist()}
    allotted = allot_rows(rules.mix, passed)
    return mixed_sql(engine.rows_sql(tables, with_uid=True), ["place"], reason, rules.mix, allotted)


def decide_unit(root: Root, unit: str, reasons: pa.Array) -> pa.Table:
    """The selection of one unit, sorted by uid; `reasons` are in the order of its samples."""
    uids = root.read_parquet(samples_file(unit), ["uid"])["uid"]
    return pa.table([uids, pc.is_null(reasons), reasons], schema=SELECTION).sort_by("uid")


def split_units(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Array]]:
    """Number and reasons of each unit, from batches of `place` and `reason` sorted by place."""
    number, parts = -1, list[pa.Array]()
    for batch in batches:
        units = batch["place"].to_numpy() >> PLACE_BITS
        starts = [0, *(np.flatnonzero(np.diff(units)) + 1).tolist(), len(units)]
        for start, stop in zip(starts, starts[1:], strict=False):
            if stop > start and units[start] != number:
                if parts:
                    yield number, pa.concat_arrays(parts)
                number, parts = int(units[start]), []
            parts.append(batch["reason"].slice(start, stop - start))
    if parts:
        yield number, pa.concat_arrays(parts)
