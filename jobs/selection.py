"""The recipe's rules in order over the whole manifest: each uid is kept, or carries the first rule that said no.

    curate select --recipe R.toml --root ROOT                    on this machine, by DuckDB, without Java
    spark-submit jobs/selection.py --recipe R.toml --root ROOT   on a cluster

Both ask the same SQL and write the same files. A unit's tables cover the same rows, so each task joins them by itself
and only the columns that rules use leave it. What concerns all rows is the engine's: the duplicates,
`count(*) over (partition by …)`, quantiles.
"""

from __future__ import annotations

from typing import Any

from curation.download.withdrawn import check_blocklists, resolve_lists
from curation.recipe.config import Recipe
from curation.selection import decide as local
from curation.selection.rule_set import find_tables, read_rules
from curation.selection.what_if import count_drops, render_what_if
from curation.storage import Root
from curation.sums.recorder import sealing
from curation.sums.seal import check_own_tables, check_tables, is_sealed
from curation.tables import SELECTION
from jobs.scoring.score_columns import SELECTION_READS, build_score_schemas, plan_rules, resolve_num_captions


def check(recipe: Recipe, root: Root) -> None:
    """Raise UserError for a filter, rule or blocklist that is wrong."""
    check_blocklists(recipe, root)
    num_captions = resolve_num_captions(recipe, root)
    read_rules(recipe.rules, build_score_schemas(recipe), recipe.resolve, num_captions=num_captions)


def run_here(recipe: Recipe, root: Root) -> None:
    """As `run`, by DuckDB on this machine."""
    rules, tables = plan_rules(recipe, root)
    if is_sealed(root):
        check_tables(root, SELECTION_READS)
        check_own_tables(root, [SELECTION])
    with sealing(root, [SELECTION]) as recording:
        local.select(recording, rules, tables, recipe.select)


def preview_rules(recipe: Recipe, wanted: Recipe, root: Root, num_examples: int = 0) -> str:
    """What the rules of `wanted` would drop, as text; its filters, when it names any, stand for those of `recipe`.

    Lists that rules name lie beside `wanted`. Raises UserError, also as a selection does for tables that are damaged or
    older than what they were made from; writes nothing.
    """
    scores = build_score_schemas(wanted if wanted.filters or wanted.scores else recipe)
    refused, num_captions = resolve_lists(recipe), resolve_num_captions(recipe, root)
    rules = read_rules(
        wanted.rules, scores, wanted.resolve, refused, num_captions, wanted.select.mix or recipe.select.mix
    )
    tables = find_tables(rules, scores)
    if is_sealed(root):
        check_tables(root, SELECTION_READS)
    found = count_drops(root, rules, tables, recipe.select, num_examples)
    return render_what_if(root, rules, tables, found)


def run(spark: Any, recipe: Recipe, root: Root) -> None:
    """Write the selection, unless the current one has these rules and inputs. Raises UserError before writing."""
    from jobs.spark_selection import run_on_spark  # pyspark need not be there where DuckDB selects

    run_on_spark(spark, recipe, root)


if __name__ == "__main__":
    from jobs.spark.stage import main

    main("select", check, run)
