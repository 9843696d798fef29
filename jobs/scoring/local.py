"""Filters on this machine: processes score units, side by side.

The files are the same, byte for byte, as those that jobs/spark_score.py makes on a cluster. A process keeps the models
that filters load from unit to unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from curation.plan import group_by_rows, measure_units
from curation.progress import bar
from curation.recipe.select_config import SelectConfig
from curation.selection.streams import count_threads
from curation.workers import Workers
from filters.base import IMAGE
from jobs.scoring.flow import Work
from jobs.scoring.unit_scores import score_units

ROWS_PER_CALL = 32_768
"""Small units are given to a process together, up to so many rows; one with pictures takes long enough alone."""
CALLS_PER_PROCESS = 4
"""At least so many, where there are units enough: the processes then end at about the same time."""
Missing = Sequence[tuple[str, Sequence[str]]]


def score_here(work: Work, limits: SelectConfig) -> None:
    """Compute and publish what is left of `work`. Raises UserError for damage, and when a process was ended."""
    num_processes = count_threads(limits)
    runs = list(cut_runs(work, num_processes))
    score = partial(score_units, work.root, work.filters)  # alone: a call need not carry the names of all units
    with Workers(num_processes) as workers, bar(len(work.missing), "score", "unit") as progress:
        for run, published in zip(runs, workers.map(score, runs), strict=True):
            work.root.note_published(published)
            progress.update(len(run))


def cut_runs(work: Work, num_processes: int) -> Iterator[Missing]:
    """The units of `work` in their order, those of each call of a process together."""
    least = CALLS_PER_PROCESS * num_processes
    if len(work.missing) <= least or any(IMAGE.name in item.reads for item in work.filters.values()):
        return ([one] for one in work.missing)
    sizes = measure_units(work.root, work.units)
    most = min(ROWS_PER_CALL, sum(sizes) // least)
    return group_by_rows(zip(work.missing, sizes, strict=True), most)
