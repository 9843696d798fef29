"""Fetch, check and store the pictures of every planned unit, then try again what failed for the moment.

    curate download --recipe R.toml --root ROOT
    spark-submit jobs/download.py --recipe R.toml --root ROOT

A unit whose row file stands is done. Kill it anywhere and run it again. Once the whole plan is through come the
recipe's `rounds`; run it on a later day with `--set download.rounds=2` for one more.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pyspark.sql import SparkSession

from curation.adopt import list_unfinished
from curation.compaction.compact import take_apart
from curation.compaction.reading import group_by_file
from curation.download.native_engine import fetch_rows
from curation.download.opt_out import check_opt_out, load_opt_out
from curation.download.progress import DownloadBar
from curation.download.rounds import count_due_rows, list_rewritten
from curation.download.unit import download_unit, resolve_opt_out_paths
from curation.download.unit_rows import Engine
from curation.errors import UserError
from curation.plan import Lane, count_unit_rows, plan_lanes, read_plans
from curation.recipe.config import DownloadConfig, Recipe
from curation.settings import content_settings
from curation.storage import Root
from curation.sums.cover import EVERY_EMBEDDING, expand_tables
from curation.sums.seal import forget_deleted, lost_files, open_files
from curation.tables import DOWNLOADS, NUM_READERS, SCORES, downloads_file
from jobs.spark.sealing import seals
from jobs.spark.tasks import cut_runs, map_units, watch_tasks

UNITS_PER_READ = 64
"""Units with files of their own whose rows one task reads to find those that are due."""
MAX_READS_HERE = 16
"""So many times as many units are read on the driver: beginning tasks would take longer."""


def check(recipe: Recipe, root: Root) -> None:
    """Raise UserError for opt-out lists that cannot be read, an engine that is not installed, and a setting that would
    make other pictures than those that `root` has.
    """
    check_opt_out(resolve_opt_out_paths(recipe).opt_out, root.scratch_path)
    root.check_stage("downloads", content_settings(recipe.download))
    load_engine(recipe.download.engine)


@seals("downloads", reads=("plans", "samples"))
def run(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Download every unit that is not done, then the rounds. Raises UserError before anything is fetched."""
    if not root.list("plans", ".json"):
        raise UserError(f"{root.base} has no finished plan: run `curate ingest` first.")
    config = resolve_opt_out_paths(recipe)
    load_opt_out(config.opt_out, root.scratch())
    root.check_stage("downloads", content_settings(config))
    load_engine(config.engine)
    missing = set(root.missing_units("downloads"))
    unread = missing & set(list_unfinished(root))
    if unread:
        raise UserError(
            f"{root.base} has {len(unread)} adopted shards left to read: run the same `curate adopt` again."
        )
    due = find_due(spark, root, config.rounds) if config.rounds and not missing else {}
    if not missing and not due and not lost_files(root, DOWNLOADS):
        return
    root.begin_stage("downloads", content_settings(config))
    plans = read_plans(root)
    rows = count_unit_rows(plans)
    # One plan after the other: two plans may name the same host, the units of one never do at the same time.
    for plan in plans:
        download_round(spark, root, config, plan, {u: rows[u] for u in missing if u.startswith(f"{plan['batch']}-")}, 0)
    for fetch_round in range(1, config.rounds + 1):
        due = find_due(spark, root, fetch_round)
        take_apart(root, list_rewritten(root, due))
        open_files(root, map(downloads_file, due))
        for plan in plans:
            again = {unit: count for unit, count in due.items() if unit.startswith(f"{plan['batch']}-")}
            download_round(spark, root, config, plan, again, fetch_round)
        forget_deleted(root, expand_tables(root, [EVERY_EMBEDDING, SCORES]), due)


def find_due(spark: SparkSession, root: Root, fetch_round: int) -> dict[str, int]:
    """The units that round `fetch_round` has to try again, each with the number of its due rows; tasks read many."""
    groups = group_by_file(root, DOWNLOADS, root.units("samples"), UNITS_PER_READ)

    def count(group: Sequence[str]) -> dict[str, int]:
        return count_due_rows(root, group, fetch_round)

    if len(groups) <= MAX_READS_HERE:
        with ThreadPoolExecutor(NUM_READERS) as pool:
            found = list(pool.map(count, groups))
    else:
        found = map_units(spark, f"plan round {fetch_round}", groups, count, noun="part")
    return {unit: count for counts in found for unit, count in counts.items()}


def load_engine(name: str) -> Engine:
    """What ends the rows of a unit. Raises UserError when the engine's package is not installed."""
    if name == "native":
        return fetch_rows
    # Only looked for: importing it takes seconds, opens threads and asks the internet for updates.
    if importlib.util.find_spec("img2dataset") is None:
        raise UserError('download.engine = "img2dataset" needs img2dataset: pip install img2dataset, or use "native".')
    from jobs.engines.img2dataset_engine import fetch_rows as by_img2dataset

    return by_img2dataset


def download_round(
    spark: SparkSession,
    root: Root,
    config: DownloadConfig,
    plan: Mapping[str, object],
    units: Mapping[str, int],
    fetch_round: int,
) -> None:
    """One round over `units` (with the rows that each has to end) of one plan."""
    if not units:
        return

    def work(lanes: Sequence[Lane]) -> None:
        for lane in lanes:
            shared = share_limits(config, lane.share)
            for unit in lane.units:
                download_unit(root, unit, shared, fetch_round, load_engine(config.engine))

    tasks = cut_lanes(plan_lanes(plan, units, config.max_per_host), units)
    with DownloadBar(root, fetch_round, units) as show:
        watch_tasks(spark, "download", tasks, work, show)


def cut_lanes(lanes: Sequence[Lane], num_rows: Mapping[str, int]) -> list[list[Lane]]:
    """What each task does: one lane, or of very many the lanes of several units that own their hosts.

    `num_rows` are those of each unit.
    """
    shared, own = (
        [lane for lane in lanes if (len(lane.units) > 1 or lane.share > 1) is wanted] for wanted in (True, False)
    )
    return [[lane] for lane in shared] + cut_runs(own, [num_rows[lane.units[0]] for lane in own])


def share_limits(config: DownloadConfig, parts: int) -> DownloadConfig:
    """`config` for one of `parts` lanes that ask the same hosts at once: its part of connections and rate."""
    per_host, interval = max(1, config.max_per_host // parts), config.host_interval_s * parts
    return replace(config, max_per_host=per_host, host_interval_s=interval)


if __name__ == "__main__":
    from jobs.spark.stage import main

    main("download", check, run)
