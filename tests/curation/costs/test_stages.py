"""Estimates: against what img2dataset published, and what must grow or shrink with what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from curation.costs import slopes
from curation.costs.amounts import Amounts
from curation.costs.cluster import Assumptions, Cluster, Gpus, Machines, Storage
from curation.costs.stages import GB, StageCost, estimate_stages, find_warnings, price_stage
from curation.recipe.config import DedupeConfig, DownloadConfig, EmbedConfig, Recipe

DAY_H = 24.0
WORKERS = Machines(nodes=10, cores=16, disk_gb=1_000, network_gbit=12.5, price_per_hour=0.68)
"""What img2dataset's authors used for LAION-5B: ten c6i.4xlarge."""
FREE = Storage(price_per_gb_month=0, price_per_million_puts=0, price_per_million_gets=0, months=1)
CLUSTER = Cluster(machines=WORKERS, storage=FREE)
IMPOLITE = 1_000_000
"""Requests to one host at a time: img2dataset has no limit a host."""


def estimate(recipe: Recipe, rows: float = 1e9, cluster: Cluster = CLUSTER) -> dict[str, StageCost]:
    """The stages by their names."""
    return {cost.stage: cost for cost in estimate_stages(rows, recipe, cluster, tflops=989.0)}


def test_img2dataset_s_5_8_billion_in_7_days_are_met_within_a_factor_of_two() -> None:
    laion_5b = DownloadConfig(
        image_size=384, only_if_bigger=True, measure=False, max_concurrency=64, max_per_host=IMPOLITE
    )
    cost = estimate(Recipe(download=laion_5b), rows=5.86e9)["download"]
    assert 7 / 2 <= cost.hours / DAY_H <= 7 * 2
    assert cost.bound_by == "requests in flight"
    assert 220e12 / 1.5 <= cost.tables["raw"] <= 240e12 * 1.5


def test_img2dataset_s_400_million_on_one_machine_are_met_in_time_and_size() -> None:
    one = replace(CLUSTER, machines=replace(WORKERS, nodes=1, network_gbit=2.0))
    laion_400m = DownloadConfig(image_size=256, measure=False, max_concurrency=128, max_per_host=IMPOLITE)
    cost = estimate(Recipe(download=laion_400m), rows=4e8, cluster=one)["download"]
    assert cost.hours / DAY_H == pytest.approx(3.5, rel=0.1)
    assert 10e12 / 1.5 <= cost.tables["raw"] <= 10e12 * 1.5


def test_a_large_host_at_a_polite_rate_sets_the_time_whatever_the_cluster() -> None:
    polite = Recipe(download=DownloadConfig(host_interval_s=0.1))
    ten, thousand = (
        estimate(polite, cluster=replace(CLUSTER, machines=replace(WORKERS, nodes=nodes)))["download"]
        for nodes in (10, 1_000)
    )
    assert ten.bound_by == thousand.bound_by == "largest host" and ten.hours == thousand.hours
    assert ten.hours == pytest.approx(1e9 * 0.067 * 0.1 / 3_600)
    (said,) = find_warnings([ten], polite, CLUSTER)
    assert "waits for one host" in said and "0.89 days" in said


def test_one_machine_ingests_by_processes_and_a_cluster_by_spark() -> None:
    one, two = (
        estimate(Recipe(), cluster=replace(CLUSTER, machines=replace(WORKERS, nodes=nodes)))["ingest"]
        for nodes in (1, 2)
    )
    assert one.slopes == (slopes.INGEST_HERE,) and two.slopes == (slopes.INGEST,)
    assert one.cpu_hours == pytest.approx(1e9 * slopes.INGEST_HERE.value / 3_600) and one.cpu_hours < two.cpu_hours


@pytest.mark.parametrize("stage", ["ingest", "embed", "dedupe", "pack"])
def test_twice_the_nodes_halve_a_stage_and_a_faster_core_does_as_much(stage: str) -> None:
    recipe = Recipe()
    once = estimate(recipe)[stage]
    twice = estimate(recipe, cluster=replace(CLUSTER, machines=replace(WORKERS, nodes=20)))[stage]
    assert twice.hours == pytest.approx(once.hours / 2)
    fast = estimate(recipe, cluster=replace(CLUSTER, machines=replace(WORKERS, speed=2.0)))[stage]
    assert fast.limits["CPU"] == pytest.approx(once.limits["CPU"] / 2)


def test_dedupe_grows_faster_than_its_rows_and_a_tier_less_costs_less() -> None:
    small, large = (estimate(Recipe(), rows=rows)["dedupe"] for rows in (1e8, 1e9))
    assert large.cpu_hours > 10.5 * small.cpu_hours
    hashes = estimate(Recipe(dedupe=DedupeConfig(tiers=("exact", "perceptual"))), rows=1e9)["dedupe"]
    assert hashes.cpu_hours < large.cpu_hours and hashes.scratch_bytes < large.scratch_bytes / 10


def test_clusters_that_the_sample_cannot_train_are_said_and_make_dedupe_dearer() -> None:
    few, many = Recipe(), Recipe(dedupe=DedupeConfig(max_training_rows=400_000_000))
    capped, trained = (estimate(recipe, rows=1e9)["dedupe"] for recipe in (few, many))
    assert capped.cpu_hours > 10 * trained.cpu_hours
    (said,) = find_warnings([capped], few, replace(CLUSTER, machines=replace(WORKERS, disk_gb=1e6)))
    assert "into 125,000 clusters" in said and "6,000 rows" in said
    small = estimate(few, rows=5e6)["dedupe"]
    assert small.cpu_hours == estimate(many, rows=5e6)["dedupe"].cpu_hours
    assert find_warnings([small], few, CLUSTER) == []


def test_gpus_embed_what_a_clip_is_and_cores_what_they_have_a_slope_of() -> None:
    with_gpus = replace(CLUSTER, gpus=Gpus(count=8, kind="H100", price_per_hour=2.5))
    clip = Recipe(embed=EmbedConfig(model="clip.pt"))
    on_gpus = estimate(clip, cluster=with_gpus)["embed"]
    assert on_gpus.bound_by == "GPUs" and on_gpus.gpu_hours == pytest.approx(8 * on_gpus.hours)
    assert on_gpus.hours == pytest.approx(0.75e9 * 175e9 / (989e12 * 0.3) / 8 / 3_600)
    assert estimate(clip)["embed"].gpu_hours == 0 < estimate(clip)["embed"].cpu_hours
    assert estimate(Recipe(), cluster=with_gpus)["embed"].gpu_hours == 0


def test_windows_in_a_rule_make_select_dearer() -> None:
    plain = estimate(Recipe(rules={"small": "width > 10"}))["select"]
    windows = estimate(Recipe(rules={"seldom": "count(*) over (partition by caption) <= 10"}))["select"]
    assert windows.hours > plain.hours


def test_money_is_hours_requests_and_storage_and_select_pays_for_one_machine() -> None:
    prices = Storage(price_per_gb_month=0.02, price_per_million_puts=5, price_per_million_gets=0.4, months=3)
    priced = replace(CLUSTER, storage=prices)
    cost = estimate(Recipe())["pack"]
    expected = cost.hours * 10 * 0.68 + cost.puts * 5e-6 + cost.gets * 0.4e-6 + cost.num_bytes / GB * 0.02 * 3
    assert price_stage(cost, priced) == pytest.approx(expected)
    select = estimate(Recipe())["select"]
    assert price_stage(select, CLUSTER) == pytest.approx(select.hours * 0.68)


def test_disks_that_are_too_small_for_a_shuffle_are_said() -> None:
    recipe = Recipe(download=DownloadConfig(max_per_host=IMPOLITE), dedupe=DedupeConfig(max_training_rows=400_000_000))
    costs = list(estimate(recipe, rows=1e9).values())
    (said,) = find_warnings(costs, recipe, CLUSTER)
    assert said.startswith("dedupe needs") and "10,000" in said
    large = replace(CLUSTER, machines=replace(WORKERS, disk_gb=1e6))
    assert find_warnings(costs, recipe, large) == []


def test_amounts_follow_the_recipe() -> None:
    few = Amounts(rows=1e6, recipe=Recipe(download=DownloadConfig(num_rows_per_unit=100_000)), assume=Assumptions())
    many = Amounts(rows=1e6, recipe=Recipe(), assume=Assumptions())
    assert (few.units, many.units) == (10, 100)
    assert few.table_files()["downloads"] == 10 and few.table_bytes() == many.table_bytes()
    assert many.kept == pytest.approx(1e6 * 0.75 * 0.5)
    as_they_came = Amounts(rows=1e6, recipe=Recipe(download=DownloadConfig(resize_mode="no")), assume=Assumptions())
    assert as_they_came.picture_bytes == 130_000 > many.picture_bytes
