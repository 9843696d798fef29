"""The selection on this machine, by DuckDB: the same files, byte for byte, that jobs/selection.py writes by Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.compaction.writing import publish_units
from curation.errors import UserError
from curation.plan import group_by_rows, measure_units
from curation.progress import bar
from curation.recipe.expressions import Quantile, QuantileValues
from curation.recipe.rules import Rule, passes_sql
from curation.recipe.select_config import MixConfig, SelectConfig
from curation.schema import SELECTION
from curation.scratch import open_folder
from curation.selection.engine import PLACE_BITS, Engine, open_engine
from curation.selection.mix import allot_rows, count_passed_sql, mixed_sql
from curation.selection.partitions import ask_apart, has_partitions, keep_rows
from curation.selection.rows import read_ahead
from curation.selection.rule_set import RuleSet, decision_sql, find_work, resolve_version
from curation.storage import Root
from curation.tables import SELECTION as SELECTION_TABLE
from curation.tables import samples_file

NUM_WRITERS = 2
ORDERED_ROWS_PER_GB = 5_000_000
"""A sort by place holds less than 100 bytes a row; what is joined to it has the other half."""


def select(root: Root, rules: RuleSet, tables: Mapping[str, Sequence[str]], limits: SelectConfig) -> None:
    """Write the selection, unless the current one has these rules and inputs. Raises UserError before writing."""
    version = resolve_version(root, rules, tables)
    if version.is_current:
        return
    work = find_work(version)
    with open_folder(root, "select") as folder, open_engine(root, rules, work.units, limits, folder) as engine:
        values = engine.compute_quantiles(tables)
        engine.balance(tables)
        parts = split_work(_measure(root, work.units), limits.memory_gb)
        batches = _decide_in_order(engine, rules, tables, values, parts)

        def write(run: list[tuple[int, pa.Array]]) -> int:
            decided = [(work.units[number], reasons) for number, reasons in run]
            left = [(unit, decide_unit(root, unit, reasons)) for unit, reasons in decided if unit not in work.written]
            if left:
                publish_units(root, f"{SELECTION_TABLE}/{version.fp}", left)
            return len(run)

        # A run of packed units is a million rows, of which few are held.
        num_writers = root.count_readers(NUM_WRITERS) if work.runs.are_single(len(work.units)) else NUM_WRITERS
        runs = read_ahead(write, work.runs.gather(split_units(batches)), num_writers)
        with bar(len(work.units), "select, written", "unit") as progress:
            for num_units in runs:
                progress.update(num_units)
    version.publish(values)


def _measure(root: Root, units: Sequence[str]) -> list[int]:
    """The rows of each of `units`; none where nobody knows, so that all of them are one part."""
    try:
        return measure_units(root, units)
    except UserError:  # a plan is damaged, which `curate verify` says; rules need none
        return [0] * len(units)


def split_work(sizes: Sequence[int], memory_gb: float) -> list[range]:
    """The numbers of units of so many rows, in runs of which one is put in order within `memory_gb`."""
    groups = list(group_by_rows(enumerate(sizes), round(memory_gb * ORDERED_ROWS_PER_GB)))
    return [range(group[0], group[-1] + 1) for group in groups]


def _decide_in_order(
    engine: Engine,
    rules: RuleSet,
    tables: Mapping[str, Sequence[str]],
    values: Mapping[Quantile, QuantileValues],
    parts: Sequence[range],
) -> Iterator[pa.RecordBatch]:
    """`place` and `reason` of every row, sorted by place: one of `parts` after the other where rows stand alone."""
    known = rules.with_quantiles(values)
    if rules.mix is not None or rules.balances or any(rule.is_global for rule in known):
        yield from engine.query(f"{_decided_sql(engine, rules, tables, known)} order by m.place")
        return
    for units in parts:
        rows = engine.rows_sql(tables, with_uid=rules.asks_uid, units=units)
        yield from engine.query(f"select m.place, {decision_sql(known)} as reason from {rows} as m order by m.place")


def _decided_sql(engine: Engine, rules: RuleSet, tables: Mapping[str, Sequence[str]], known: Sequence[Rule]) -> str:
    """A query for `place` and `reason` of every row."""
    if has_partitions(known):
        decided = f"({_decide_apart(engine, rules, tables, known)})"
        if rules.mix is None:
            return f"select m.place, m.reason from {decided} as m"
        return _mix_sql(engine, rules.mix, lambda _: decided, "m.reason")
    reason = decision_sql(known)
    if rules.mix is None:
        return f"select m.place, {reason} as reason from {engine.rows_sql(tables, with_uid=rules.asks_uid)} as m"
    return _mix_sql(engine, rules.mix, lambda step: engine.rows_sql(tables, with_uid=True, step=step), reason)


def _mix_sql(engine: Engine, mix: MixConfig, rows: Callable[[str], str], reason: str) -> str:
    """A query for `place` and `reason` of what `rows`, given the name of a step, names, once `mix` is known."""
    counting = count_passed_sql(rows("mix"), reason)
    passed = {row["source"]: row["n"] for batch in engine.query(counting) for row in batch.to_pylist()}
    return mixed_sql(rows("rules"), ["place"], reason, mix, allot_rows(mix, passed))


def _decide_apart(engine: Engine, rules: RuleSet, tables: Mapping[str, Sequence[str]], known: Sequence[Rule]) -> str:
    """As `_decided_sql`, where rules go over partitions, and with what a mix asks for.

    What rules say of a row alone is asked as rows are read, and of them the first that says no is kept: no later one
    can be the reason.
    """
    own = [number for number, rule in enumerate(known) if not rule.is_global]
    refusals = "".join(f" when not {passes_sql(known[number])} then {number}" for number in own)
    first = f"case{refusals} else {len(known)} end" if own else f"{len(known)}"
    named = frozenset[str]().union(*(rule.columns for rule in known if rule.is_global)) - {"status"}
    drawn = [] if rules.mix is None else ["uid", "source"]
    kept = [*sorted(named - {*drawn}), *(balance.bound for balance in rules.balances)]
    # Nobody asks for these of a row without a picture, where they would take memory.
    of_pictures = [f"case when m.status = 'ok' then m.{name} end as {name}" for name in kept]
    columns = ["m.place", "m.status", f"{first} as first_own", *of_pictures, *(f"m.{name}" for name in drawn)]
    with_uid = rules.asks_uid or rules.mix is not None
    keep_rows(engine, known, ", ".join(columns), engine.rows_sql(tables, with_uid=with_uid))
    answered = [rule if rule.is_global else _answer(rule, f"m.first_own <> {n}") for n, rule in enumerate(known)]
    named_columns = ", ".join(["m.place", *(f"m.{name}" for name in drawn)])
    return ask_apart(engine, answered, lambda asked: f"{named_columns}, {decision_sql(asked)} as reason")


def _answer(rule: Rule, sql: str) -> Rule:
    """`rule` with its SQL for rows that have its answer."""
    return replace(rule, sql=f"({sql})", alone_sql=f"({sql})")


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
