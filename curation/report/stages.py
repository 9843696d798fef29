"""The stages of a run in `curate status`: which one is at work, and how many units each one has done and waits for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tqdm import tqdm

from curation.plan import read_plans
from curation.progress import Step
from curation.stage_log import RunningStage, read_running_stage
from curation.storage import CONFIG, Root
from curation.tables import DOWNLOADS, METADATA, SAMPLES, embedded_units, score_tables

HEADER = ("units of", "done", "waiting", "for")


@dataclass(frozen=True, kw_only=True)
class UnitCount:
    """Units of the plans of which `table` has what stage `command` makes, and those that still wait for it."""

    table: str
    command: str
    num_done: int
    num_waiting: int


def count_units(root: Root) -> list[UnitCount]:
    """Each table of units that has begun, in the order of a run. Nothing but names of files is read, and plans."""
    planned = {f"{plan['batch']}-{unit}" for plan in read_plans(root) for unit in plan["units"]}
    planned |= set(root.units(SAMPLES))
    return [
        UnitCount(table=table, command=command, num_done=len(planned & done), num_waiting=len(planned - done))
        for table, command, done in _list_done(root)
    ]


def _list_done(root: Root) -> Iterator[tuple[str, str, set[str]]]:
    yield SAMPLES, "ingest", set(root.units(SAMPLES))
    yield DOWNLOADS, "download", set(root.units(DOWNLOADS))
    embedded = set(embedded_units(root))
    if embedded or root.exists(f"{METADATA}/{CONFIG}"):
        yield "embeddings", "embed", embedded
    for table in score_tables(root):
        done = set(root.units(table))
        if done or root.exists(f"{table}/{CONFIG}"):
            yield table, "score", done


def render_stages(root: Root) -> str:
    """The stage that is at work, and the tables of units when one of them is not complete; else empty."""
    running = read_running_stage(root)
    counts = count_units(root)
    waiting = any(count.num_waiting for count in counts)
    lines = [*(_render_running(running) if running else ()), *(_render_counts(counts) if waiting else ())]
    return "".join(f"{line}\n" for line in lines)


def _render_running(stage: RunningStage) -> Iterator[str]:
    yield f"{stage.name} has been at work for {_format_time(stage.seconds)}{':' if stage.steps else '.'}"
    yield from (f"  {_describe_step(step)}" for step in stage.steps)


def _describe_step(step: Step) -> str:
    left = "" if step.seconds_left is None else f", {_format_time(step.seconds_left)} left"
    return f"{step.desc}: {step.done:,} of {step.total:,} {step.unit}s, {step.per_s:,.2f} a second{left}"


def _format_time(seconds: float) -> str:
    return str(tqdm.format_interval(seconds))


def _render_counts(counts: list[UnitCount]) -> Iterator[str]:
    cells = [HEADER, *((c.table, f"{c.num_done:,}", f"{c.num_waiting:,}", f"curate {c.command}") for c in counts)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEADER))]
    for row in cells:
        yield f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}"
