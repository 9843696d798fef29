"""Train shards of what selection kept: a seeded global shuffle, plain webdataset, an index with offsets and sha256.

    curate pack --recipe R.toml --root ROOT                 on this machine, by processes, without Java
    spark-submit jobs/pack.py --recipe R.toml --root ROOT   on a cluster

Both write the same files. A shard is done if and only if it and its part of train_index stand, so an interrupted run
goes on where it was. The order is a function of the seed and the uids alone: neither partitioning nor the number of
processes changes a byte. Another selection, seed or table of scores gives another version with shards of its own;
nothing of the earlier one is used again, and what was added and removed is said.
"""

from __future__ import annotations

from typing import Any

from curation.download.withdrawn import resolve_lists
from curation.packing.difference import count_difference, is_another, report_difference
from curation.packing.local import pack_here
from curation.packing.version import build_index_schema, find_work, read_score_schemas
from curation.recipe.config import Recipe
from curation.storage import Root
from curation.sums.cover import expand_tables
from curation.sums.recorder import sealing
from curation.sums.seal import check_own_tables, check_tables, is_sealed
from jobs.scoring.score_columns import PACKING_READS, PACKING_WRITES, build_score_schemas, resolve_num_captions


def check(recipe: Recipe, root: Root) -> None:
    """Raise UserError for caption columns that are no columns of text of samples, downloads and scores.

    Samples have the captions of the recipe's sources and those that `root` has; scores are those of the recipe's
    filters and those that `root` has.
    """
    units = root.units("samples")
    scores = build_score_schemas(recipe) | read_score_schemas(root, units)
    build_index_schema(scores, recipe.pack.captions, resolve_num_captions(recipe, root))


def run_here(recipe: Recipe, root: Root) -> None:
    """As `run`, on this machine."""
    if is_sealed(root):
        check_tables(root, expand_tables(root, PACKING_READS))
        check_own_tables(root, PACKING_WRITES)
    with sealing(root, PACKING_WRITES) as recording:
        work = find_work(recording, recipe.pack, resolve_lists(recipe))
        if work is None:
            return
        pack_here(work, recipe.select)
        if work.previous is not None and is_another(recording, work.previous):
            files = (recording.current("train_index") or {})["files"]
            counts = count_difference(recording, work.previous["files"], files, recipe.select)
            report_difference(recording, work.previous, counts)


def run(spark: Any, recipe: Recipe, root: Root) -> None:
    """Pack the current selection, unless the current train shards are its. Raises UserError when nothing is kept."""
    from jobs.spark_pack import run_on_spark  # pyspark need not be there where this machine packs by itself

    run_on_spark(spark, recipe, root)


if __name__ == "__main__":
    from jobs.spark.stage import main

    main("pack", check, run)
