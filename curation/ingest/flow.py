"""The steps of an ingest: units that were lost are made again, then what the root does not hold yet is planned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curation.compaction.compact import take_apart
from curation.download.tombstones import read_tombstones
from curation.ingest.engine import Engine, Rows, UnitTarget, UnitWork
from curation.ingest.record import check_totals, describe_plan, take_counts
from curation.metadata.inputs import Input, find_inputs
from curation.metadata.known import sum_inputs
from curation.plan import (
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
from curation.storage import Root
from curation.sums.seal import lost_files
from curation.tables import PLANS, plan_file, rejects_file, samples_file
from curation.terminal import write_error

TABLES = ("plans", "samples", "rejects")
"""What an ingest publishes."""


def check_inputs(recipe: Recipe, root: Root) -> None:
    """Raise UserError for sources that cannot be read or understood, and for a root that cannot take them."""
    select_new_inputs(root, _find_inputs(recipe, root))


def _find_inputs(recipe: Recipe, root: Root) -> list[Input]:
    found = find_inputs(recipe)
    for source in recipe.sources:
        parse_where(source.name, source.where, source.num_captions)
    root.check_can_create()
    return found


def ingest(engine: Engine, recipe: Recipe, root: Root) -> None:
    """Ingest what the recipe names and `root` does not hold yet. Raises UserError before anything is written."""
    found = _find_inputs(recipe, root)
    restore_units(engine, root, found, [(source.name, source.where) for source in recipe.sources])
    chosen = select_new_inputs(root, found)
    write_error(chosen.describe_repeated())
    if not chosen.fresh:
        check_lost_plans(root)
        root.create(sealed=True)
        return
    sum_inputs(chosen.fresh)
    with engine.open_rows(chosen.fresh) as rows:
        counted = take_counts(chosen.fresh, rows.count_by_file())
        root.create(sealed=True)
        plan = _write_plan(rows, counted, recipe, root)
    write_error(describe_spread(plan))


def _write_plan(rows: Rows, fresh: list[Input], recipe: Recipe, root: Root) -> dict[str, Any]:
    """Publish samples and rejects of `rows`, then the plan that makes them count."""
    number, size = first_free_number(root), recipe.download.num_rows_per_unit
    batch = name_batch(fresh, {source.name: source.where for source in recipe.sources}, size, number)
    check_lost_plans(root, batch)
    forget_unfinished(root, batch)
    work = plan_units(rows, root, batch, number, size)
    written = rows.write_units(work)
    plan = {"batch": batch} | describe_plan(fresh, written, work.spread, number, size)
    check_totals(plan)
    root.publish_json(plan_file(batch), plan)
    return plan


def plan_units(
    rows: Rows, root: Root, batch: str, number: int, size: int, only: frozenset[int] | None = None
) -> UnitWork:
    """Units of about `size` rows: where each domain lies, and what was planned before plan `number`."""
    counts = rows.count_domains(least_placed(size))
    spread = spread_rows(counts.num_rows, counts.placed, size)
    named = frozenset([*counts.largest, *spread.large])
    target = UnitTarget(root=root, batch=batch, named=named, tombstones=read_tombstones(root))
    return UnitWork(target=target, spread=spread, earlier=list_earlier_files(root, number), only=only)


def list_earlier_files(root: Root, number: int) -> list[str]:
    """The samples of the finished plans before `number`."""
    batches = {plan["batch"] for plan in read_plans(root) if plan["number"] < number}
    return [samples_file(unit) for unit in root.units("samples") if unit.rpartition("-")[0] in batches]


def restore_units(engine: Engine, root: Root, found: list[Input], wheres: list[tuple[str, str]]) -> None:
    """Make samples and rejects again that a plan has and that do not stand any more; the same bytes.

    Raises UserError, before anything is written, when the metadata or the recipe are not what they were.
    """
    for plan in read_plans(root):
        lost = find_lost_units(root, plan)
        if lost:
            with engine.open_rows(find_plan_inputs(plan, found, wheres)) as rows:
                batch, size = plan["batch"], plan["num_rows_per_unit"]
                work = plan_units(rows, root, batch, plan["number"], size, frozenset(lost))
                names = [f"{batch}-{number:06d}" for number in lost]
                take_apart(root, [file for name in names for file in (samples_file(name), rejects_file(name))])
                rows.write_units(work)
            write_error(f"Plan {batch}: {len(lost)} units that were missing are made again.\n")


def forget_unfinished(root: Root, batch: str) -> None:
    """Delete what ingests of other batches had written when they were killed; no plan names it."""
    known = {plan["batch"] for plan in read_plans(root)} | {batch}
    known |= {Path(rel).stem for rel in lost_files(root, PLANS)}
    for table in ("samples", "rejects"):
        for name in root.list(table, ".parquet"):
            if name.rpartition("-")[0] not in known:
                root.remove(f"{table}/{name}")
