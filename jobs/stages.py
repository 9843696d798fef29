"""The stages of a run, in order: their names on the command line and the modules that hold them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from curation.errors import UserError
from curation.plan import ADOPTED, read_plans
from curation.recipe.config import Recipe
from curation.storage import Root
from jobs.spark.stage import Stage

STAGES = {
    "ingest": ("jobs.ingest", "metadata rows into samples, planned into units"),
    "download": ("jobs.download", "fetch, check, resize and store pictures"),
    "embed": ("jobs.embed", "one embedding a picture"),
    "dedupe": ("jobs.dedupe", "exact, perceptual and embedding near-duplicates"),
    "score": ("jobs.score", "one table of scores a filter"),
    "select": ("jobs.selection", "the recipe's rules in order; the first no is the reason"),
    "pack": ("jobs.pack", "train shards and their index"),
}
"""Stage → (module, what it does), in the order of a run; the flow of docs/architecture.md."""


OF_SOURCES = ("ingest", "download")
"""Stages that a root of adopted folders does without."""


def plan_stages(recipe: Recipe, root: Root) -> tuple[list[str], str]:
    """The stages of a run on `root`, and what is said of those that are left out.

    A root into which img2dataset's folders were adopted has its rows and pictures; only what a recipe names besides is
    ingested and fetched. Raises UserError when the adoption has not come to its end.
    """
    if recipe.sources or not any(plan.get(ADOPTED) for plan in read_plans(root)):
        return list(STAGES), ""
    if root.missing_units("downloads"):
        raise UserError(f"{root.base} has adopted shards left to read: run the same `curate adopt` again.")
    return [name for name in STAGES if name not in OF_SOURCES], (
        f"{root.base} was adopted and the recipe names no [[sources]]: ingest and download are left out "
        "(`curate download` would ask again for pictures that were lost for the moment).\n"
    )


def load_stages(names: Iterable[str] = STAGES) -> list[Stage]:
    """The stages called `names`. Their modules are imported here: commands that look at a root do without pyspark."""
    return [_load(name) for name in names]


def _load(name: str) -> Stage:
    module = importlib.import_module(STAGES[name][0])
    run_here, runs_here = getattr(module, "run_here", None), getattr(module, "runs_here", None)
    return Stage(name, module.check, module.run, run_here, runs_here)
