"""Metadata of any known set into `samples`: one schema, one row a uid, grouped by registered domain into units.

    curate ingest --recipe R.toml --root ROOT                    on this machine, by DuckDB and processes, without Java
    spark-submit jobs/ingest.py --recipe R.toml --root ROOT      on a cluster

Both write the same files. Every input row becomes a sample or a row of `rejects` with its reason. Files that an earlier
ingest took are skipped, so a source added to the recipe later is planned beside what is there, and repeats across both
are found.
"""

from __future__ import annotations

from typing import Any

from curation.ingest.flow import TABLES, check_inputs, ingest
from curation.ingest.local import LocalEngine
from curation.recipe.config import Recipe
from curation.storage import Root
from curation.sums.recorder import sealing
from curation.sums.seal import check_own_tables, is_sealed


def check(recipe: Recipe, root: Root) -> None:
    """Raise UserError for sources that cannot be read or understood, and for a root that cannot take them."""
    check_inputs(recipe, root)


def run_here(recipe: Recipe, root: Root) -> None:
    """As `run`, on this machine."""
    if is_sealed(root):
        check_own_tables(root, TABLES)
    with sealing(root, TABLES) as recording:
        ingest(LocalEngine(recording, recipe.select), recipe, recording)


def run(spark: Any, recipe: Recipe, root: Root) -> None:
    """Ingest what the recipe names and `root` does not hold yet. Raises UserError before anything is written."""
    from jobs.spark_ingest import run_on_spark  # pyspark need not be there where this machine ingests by itself

    run_on_spark(spark, recipe, root)


if __name__ == "__main__":
    from jobs.spark.stage import main

    main("ingest", check, run)
