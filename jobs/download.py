"""Fetch, check and store the pictures of every planned unit.

    curate download --recipe R.toml --root ROOT
    spark-submit jobs/download.py --recipe R.toml --root ROOT

One Spark task a unit; a unit whose row file stands is done. Kill it anywhere and run it again.
"""

from __future__ import annotations

from pyspark.sql import SparkSession

from curation.config import Recipe
from curation.download import content_config, download_unit, resolved
from curation.errors import UserError
from curation.opt_out import load
from curation.progress import bar
from curation.storage import Root


def run(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Download every unit of the plan that is not done. Raises UserError before anything is fetched."""
    if not root.list("plans", ".json"):
        raise UserError(f"{root.base} has no finished plan: run `curate ingest` first.")
    config = resolved(recipe)
    load(config.opt_out)
    root.begin_stage("downloads", content_config(config))
    units = root.missing_units("downloads")
    if not units:
        return
    tasks = spark.sparkContext.parallelize(units, len(units))
    counted = tasks.map(lambda unit: download_unit(root, unit, config))
    with bar(len(units), "download", "unit") as progress:
        for statuses in counted.toLocalIterator(prefetchPartitions=True):
            progress.update(1)
            progress.set_postfix(ok=statuses.get("ok", 0), rows=sum(statuses.values()))


if __name__ == "__main__":
    from jobs.stage import main

    main("download", run)
