"""Near-duplicates of four tiers as one graph, and which row of each group is kept.

    curate dedupe --recipe R.toml --root ROOT                    without vectors on this machine, without Java
    spark-submit jobs/dedupe.py --recipe R.toml --root ROOT      on a cluster

Both write the same files. Rows are numbered in the order of the recipe's keep rule, so the better row is the one with
the smaller number. Exact copies are folded into their best row first. Perceptual and embedding edges between these best
rows are united over all units and sources. A row is removed only when it has an edge to a row that is kept.

Bytes, pixels and perceptual hashes are compared by `curation.deduplication`. Vectors and evaluation sets are compared
by Spark, on one machine too.
"""

from __future__ import annotations

from typing import Any

from curation.deduplication.local import Target, dedupe_units
from curation.recipe.config import Recipe
from curation.storage import Root
from curation.sums.recorder import sealing
from curation.sums.seal import check_own_tables, check_tables, is_sealed, is_whole
from jobs.duplicates.arrays import remove_stale_work
from jobs.duplicates.plan import READS, ROWS_PER_FILE, TABLE, check_dedupe, plan_dedupe

BY_METADATA = frozenset({"exact", "perceptual"})
"""Tiers that need no vectors."""


def check(recipe: Recipe, root: Root) -> None:
    """Raise UserError for a wrong keep rule, model, cosine or evaluation set; writes nothing and needs no tables."""
    check_dedupe(recipe, root)


def runs_here(recipe: Recipe) -> bool:
    """Whether this machine does without Spark what `recipe` asks for."""
    return BY_METADATA.issuperset(recipe.dedupe.tiers) and not recipe.dedupe.against


def run_here(recipe: Recipe, root: Root) -> None:
    """As `run`, on this machine. Only for a recipe that `runs_here`."""
    if is_sealed(root):
        check_tables(root, READS)
        check_own_tables(root, [TABLE])
    with sealing(root, [TABLE]) as recording:
        plan = plan_dedupe(recipe, recording)
        remove_stale_work(recording, TABLE, plan.fp)
        if plan.is_done and is_whole(recording, TABLE):
            return
        version = f"{TABLE}/{plan.fp}"
        recording.remove(version)
        target = Target(root=recording, fp=plan.fp, rows_per_file=ROWS_PER_FILE)
        files, statistics = dedupe_units(target, plan.units, plan.config, plan.lists, recipe.select)
        recording.publish_json(f"{version}/statistics.json", statistics)
        recording.publish_current(TABLE, plan.fp, files, plan.recorded, plan.inputs)


def run(spark: Any, recipe: Recipe, root: Root) -> None:
    """Write the duplicates, unless the current ones have this config and these inputs. Raises UserError."""
    from jobs.spark_dedupe import run_on_spark  # pyspark need not be there where this machine compares by itself

    run_on_spark(spark, recipe, root)


if __name__ == "__main__":
    from jobs.spark.stage import main

    main("dedupe", check, run)
