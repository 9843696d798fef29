"""One table of scores a filter, computed once: `scores_FILTER/UNIT.parquet`, rows only for pictures that came.

    curate score --recipe R.toml --root ROOT                 on this machine, by processes and DuckDB, without Java
    spark-submit jobs/score.py --recipe R.toml --root ROOT   on a cluster

Both write the same files. A unit is scored at once by every filter that it still lacks, and each of its pictures is
read once for all of them. Sections `[scores.NAME]` join scores of one's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curation.compaction.compact import join_units_of_scores
from curation.errors import UserError
from curation.recipe.config import Recipe
from curation.schema import is_further_caption, name_captions
from curation.storage import Root
from curation.sums.cover import expand_tables
from curation.sums.recorder import sealing
from curation.sums.seal import check_own_tables, check_tables, is_sealed
from filters.base import Filter
from jobs.scoring.coverage import check_joined_scores
from jobs.scoring.flow import READS, WRITES, plan_scores
from jobs.scoring.joined_scores import join_scores
from jobs.scoring.local import score_here
from jobs.scoring.score_columns import build_filters, check_owners, resolve_num_captions
from jobs.scoring.vector_columns import check_models


def check(recipe: Recipe, root: Root) -> None:
    """Raise UserError for filters that are unknown, badly configured, or lack a file, a package or a model,
    and for scores of one's own that are of other rows than those of `root`.
    """
    wanted = build_filters(recipe)
    for item in wanted.values():
        item.config()
        item.check_ready()
    check_models(recipe, root, wanted)
    check_owners(recipe)
    _check_captions(wanted, resolve_num_captions(recipe, root))
    check_joined_scores(recipe, root)


def _check_captions(wanted: Mapping[str, Filter], num_captions: int) -> None:
    known = name_captions(num_captions)
    for name, item in wanted.items():
        lacking = sorted(column for column in item.reads if is_further_caption(column) and column not in known)
        if lacking:
            raise UserError(
                f"Filter {name} reads {lacking[0]}, and samples have {', '.join(known)} alone: name more captions in "
                f"columns of [[sources]], or leave the filter out."
            )


def run_here(recipe: Recipe, root: Root) -> None:
    """As `run`, on this machine."""
    if is_sealed(root):
        check_tables(root, READS)
        check_own_tables(root, expand_tables(root, WRITES))
    with sealing(root, WRITES) as recording:
        limits = recipe.select
        score_here(plan_scores(recipe, recording, lambda at, item: join_scores(at, item, limits)), limits)
    join_units_of_scores(root)


def run(spark: Any, recipe: Recipe, root: Root) -> None:
    """Score every downloaded unit that lacks a filter of the recipe. Raises UserError before anything is written."""
    from jobs.spark_score import run_on_spark  # pyspark need not be there where this machine scores by itself

    run_on_spark(spark, recipe, root)
    join_units_of_scores(root)


if __name__ == "__main__":
    from jobs.spark.stage import main

    main("score", check, run)
