"""The scoring on a cluster: what `spark-submit jobs/score.py` runs. One machine scores the same units by itself.

A Spark task takes one unit, or several where there are very many of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from pyspark.sql import SparkSession

from curation.plan import measure_units
from curation.recipe.config import Recipe
from curation.storage import Root
from curation.tables import scores_table, unit_file
from filters.base import Filter
from jobs.scoring.flow import READS, WRITES, plan_scores
from jobs.scoring.spark_joined_scores import join_scores
from jobs.scoring.unit_scores import score_unit
from jobs.spark.sealing import seals
from jobs.spark.tasks import is_repeated, map_units


@seals(*WRITES, reads=READS)
def run_on_spark(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Score every downloaded unit that lacks a filter of the recipe. Raises UserError before anything is written."""
    work = plan_scores(recipe, root, partial(join_scores, spark))
    filters = work.filters  # alone: tasks need not carry the names of all units
    map_units(
        spark,
        "score",
        work.missing,
        lambda item: score_missing(root, item[0], {name: filters[name] for name in item[1]}),
        lambda: measure_units(root, work.units),
    )


def score_missing(root: Root, unit: str, wanted: Mapping[str, Filter]) -> None:
    """As `score_unit`, without what an earlier attempt of the same Spark task has published."""
    done = {n for n in wanted if is_repeated() and root.exists(unit_file(scores_table(n), unit))}
    if wanted.keys() - done:
        score_unit(root, unit, {name: wanted[name] for name in wanted if name not in done})
