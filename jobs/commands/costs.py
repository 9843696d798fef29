"""`curate plan`: days, storage, requests, GPU hours and money of a run before its first request, and why it says so."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict, replace
from typing import Any

from curation.costs.cluster import Cluster, Gpus, load_cluster
from curation.costs.slopes import Slope
from curation.costs.stages import GB, HOUR_S, StageCost, estimate_stages, find_warnings, price_stage
from curation.errors import UserError
from curation.recipe.config import Recipe, load_recipe
from curation.terminal import write_out
from jobs.commands.root_commands import write_json
from trainer import dry_run
from trainer.columns import align
from trainer.config import load_config
from trainer.metrics import DENSE_BF16_TFLOPS

DAY_H = 24.0
MAX_ROWS = 1e12
HEAD = ("stage", "rows", "days", "bound by", "CPU hours", "GPU hours", "GB", "PUTs", "GETs", "web requests", "money")


def plan_costs(arguments: argparse.Namespace) -> None:
    """`curate plan`. Raises UserError for whatever is wrong in its options, the recipe or the cluster's file."""
    rows = parse_rows(arguments.rows)
    recipe, cluster = load_recipe(arguments.recipe, arguments.set), load_cluster(arguments.cluster)
    stages, notes = plan_run(rows, recipe, cluster)
    if arguments.json:
        write_json(describe_costs(rows, stages, cluster, notes))
        return
    write_out(render_costs(rows, stages, cluster, notes))


def parse_rows(text: str) -> float:
    """The whole number of rows in `text`, such as 2.3e9. Raises UserError."""
    try:
        rows = float(text)
    except ValueError:
        rows = math.nan
    if not 1 <= rows <= MAX_ROWS or rows != int(rows):
        raise UserError(f"--rows must be a whole number from 1 to {MAX_ROWS:g}, such as 2.3e9, not {text!r}.")
    return rows


def plan_run(rows: float, recipe: Recipe, cluster: Cluster) -> tuple[list[StageCost], list[str]]:
    """All stages with their money, training last where the cluster's file names one; and what will not fit."""
    gpus = cluster.gpus
    tflops = _find_tflops(gpus) if gpus else 0.0
    stages = estimate_stages(rows, recipe, cluster, tflops)
    notes = find_warnings(stages, recipe, cluster)
    if cluster.training.config and gpus:
        training, does_not_fit = estimate_training(cluster, gpus)
        stages.append(training)
        notes += does_not_fit
    return [replace(cost, money=price_stage(cost, cluster)) for cost in stages], notes


def _find_tflops(gpus: Gpus) -> float:
    if gpus.kind not in DENSE_BF16_TFLOPS:
        raise UserError(f"[gpus] kind is {gpus.kind!r}; known are {', '.join(sorted(DENSE_BF16_TFLOPS))}.")
    return DENSE_BF16_TFLOPS[gpus.kind]


def estimate_training(cluster: Cluster, gpus: Gpus) -> tuple[StageCost, list[str]]:
    """What the trainer's dry run says of all phases, and a sentence where the model does not fit into the GPUs."""
    settings = load_config(cluster.training.config, cluster.training.set)
    samples = sum(phase.samples for phase in settings.phases)
    seconds = sum(
        phase.samples / dry_run.samples_per_s(settings, phase, gpus.count, gpus.kind) for phase in settings.phases
    )
    mfu, source = dry_run.choose_mfu(settings, gpus.kind)
    slope = Slope(
        name="train",
        value=seconds * gpus.count / samples,
        unit="GPU s a sample",
        source=f"the dry run of {cluster.training.config}: {mfu:.0%} MFU of a {gpus.kind}, {source}",
    )
    cost = StageCost(
        stage="train",
        rows=samples,
        limits={"GPUs": seconds / HOUR_S},
        gpu_hours=seconds * gpus.count / HOUR_S,
        gets=samples,
        slopes=(slope,),
    )
    if dry_run.fits(settings, gpus.count, gpus.kind):
        return cost, []
    return cost, [
        f"{cluster.training.config} does not fit into {gpus.count} × {gpus.kind}: "
        "`python -m trainer.train --dry-run` says what would."
    ]


def describe_costs(rows: float, stages: list[StageCost], cluster: Cluster, notes: list[str]) -> dict[str, Any]:
    """Everything that is said, for programs; hours, bytes and money are numbers."""
    listed = [
        asdict(cost) | {"hours": cost.hours, "bound_by": cost.bound_by, "num_bytes": cost.num_bytes} for cost in stages
    ]
    return {
        "rows": int(rows),
        "stages": listed,
        "total": sum_costs(stages),
        "assumptions": {
            name: {"value": value, "source": source} for name, (value, source) in cluster.assume.sources().items()
        },
        "notes": notes,
    }


def sum_costs(stages: list[StageCost]) -> dict[str, float]:
    """Sums over all stages, one after the other."""
    names = ("hours", "cpu_hours", "gpu_hours", "num_bytes", "puts", "gets", "web_requests", "money")
    return {name: sum(getattr(cost, name) for cost in stages) for name in names}


def render_costs(rows: float, stages: list[StageCost], cluster: Cluster, notes: list[str]) -> str:
    """The table, what will not fit, then every slope and assumption with its source; ends in a newline."""
    machines, gpus = cluster.machines, cluster.gpus
    there = f"{machines.nodes:,} nodes × {machines.cores:,} cores" + (f", {gpus.count:,} × {gpus.kind}" if gpus else "")
    total = sum_costs(stages)
    last = ["all", "", f"{total['hours'] / DAY_H:,.2f}", "", *_cells(total)]
    lines = [
        f"{rows:,.0f} rows on {there}; the root is kept for {cluster.storage.months:g} months",
        "",
        *align([HEAD, *map(_row, stages), last]),
        "",
        *notes,
        *([""] if notes else []),
        "Measured slopes:",
        *(f"  {slope.name}: {slope.value:.3g} {slope.unit}; {slope.source}" for c in stages for slope in c.slopes),
        "Assumptions, which [assume] of the cluster's file changes:",
        *(f"  {name} = {value:g}: {source}" for name, (value, source) in cluster.assume.sources().items()),
        "Beyond the rows that were measured these are extrapolations; docs/scaling.md says how far they were checked.",
    ]
    return "\n".join(lines) + "\n"


def _row(cost: StageCost) -> list[str]:
    head = [cost.stage, f"{cost.rows:,.0f}", f"{cost.hours / DAY_H:,.2f}", cost.bound_by]
    return head + _cells(sum_costs([cost]))


def _cells(values: dict[str, float]) -> list[str]:
    numbers = [values["cpu_hours"], values["gpu_hours"], values["num_bytes"] / GB, values["puts"], values["gets"]]
    return [f"{value:,.0f}" for value in [*numbers, values["web_requests"], values["money"]]]
