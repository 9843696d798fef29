"""The stages of a run, in order: their names on the command line and the modules that hold them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

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


def load_stages(names: Iterable[str] = STAGES) -> list[Stage]:
    """The stages called `names`. Their modules are imported here: commands that look at a root do without pyspark."""
    return [_load(name) for name in names]


def _load(name: str) -> Stage:
    module = importlib.import_module(STAGES[name][0])
    return Stage(name, module.check, module.run)
