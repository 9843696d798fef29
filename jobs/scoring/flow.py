"""The steps of scoring, the same on every engine: scores of one's own are joined, then filters score units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from curation.errors import UserError
from curation.recipe.config import Recipe
from curation.storage import CONFIG, Root
from curation.tables import scores_table
from curation.terminal import write_error
from filters.base import Filter
from jobs.embedders import resolve_models
from jobs.scoring.joined_columns import JoinedScores, plan_joined_scores
from jobs.scoring.score_columns import build_filters
from jobs.scoring.vector_columns import (
    bind_prompts,
    check_models,
    check_texts_there,
    check_vectors_there,
    describe_scores,
)

READS = ("samples", "downloads")
"""Tables that every scoring reads; filters of vectors read embeddings besides."""
WRITES = ("scores_",)
"""Stands for every table of scores."""
Join = Callable[[Root, JoinedScores], str]
"""Publishes the table of a section [scores.NAME] and returns what is to be said of it."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is left to score: units, and of each the names of the filters that it lacks."""

    root: Root
    filters: Mapping[str, Filter]
    """By name; their prompts are embedded already."""
    missing: Sequence[tuple[str, Sequence[str]]]

    @property
    def units(self) -> list[str]:
        """The units in their order."""
        return [unit for unit, _ in self.missing]


def plan_scores(recipe: Recipe, root: Root, join: Join) -> Work:
    """Join what `[scores.NAME]` name, begin the tables of the filters, and say what is left to score.

    Raises UserError before anything is written.
    """
    wanted = build_filters(recipe)
    downloaded = root.units("downloads")
    if not downloaded:
        raise UserError(f"{root.base} has no downloads to score: run `curate download` first.")
    check_vectors_there(root, wanted, downloaded)
    for item in wanted.values():
        item.check_ready()
    check_models(recipe, root, wanted)
    check_texts_there(root, wanted, downloaded)
    for joined in plan_joined_scores(recipe):
        write_error(join(root, joined))
    configs = {name: describe_scores(root, item, f"{scores_table(name)}/{CONFIG}") for name, item in wanted.items()}
    for name, config in configs.items():
        root.begin_stage(scores_table(name), config)
    done = {name: set(root.units(scores_table(name))) for name in wanted}
    missing = [(unit, lacking) for unit in downloaded if (lacking := [n for n in wanted if unit not in done[n]])]
    filters = bind_prompts(resolve_models(recipe), wanted) if missing else wanted
    return Work(root=root, filters=filters, missing=missing)
