"""One selection by two engines: DuckDB on this machine and Spark write the same files, byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from curation.errors import UserError
from curation.recipe.config import DownloadConfig, Recipe, load_recipe
from curation.recipe.select_config import BlocklistConfig, MixConfig, SelectConfig
from curation.storage import Root
from jobs import selection
from tests.support import small_root
from tests.support.command import contents
from tests.support.demo_run import REPOSITORY
from tests.support.scored_root import build_scored_root, shipped_recipes
from tests.support.small_root import BATCH, LOST, UNITS, SmallRoot

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

WHOLE = {
    "deduplicated": "duplicate_of is null",
    "close": "duplicate_similarity is null or duplicate_similarity < 0.99",
    "rare": "count(*) over (partition by aesthetic) <= 40",
    "likely": "clip_similarity >= quantile(clip_similarity, 0.2) over (partition by source)",
    "wide": "aspect_ratio >= quantile(aspect_ratio, 0.1)",
    "first": "row_number() over (partition by pwatermark, source order by aspect_ratio desc, caption) <= 12",
    "named": "lower(trim(caption)) not in file('words.txt')",
}

BALANCED = {
    "likely": "clip_similarity >= quantile(clip_similarity, 0.1)",
    "even": "balance(matched_entries, 40, 't')",
    "wide": "aspect_ratio is null or aspect_ratio > 0.1",
    "first": "balance(case when duplicate_of is null then matched_entries end, 20 + 30 * width / width, 'u')",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallRoot:
    root = Root(tmp_path_factory.mktemp("engines") / "root")
    root.create()
    return build_scored_root(root)


def _recipes() -> dict[str, Recipe]:
    words, entries = str(REPOSITORY / "tests" / "filters"), {"entries": "words.txt"}
    return {
        "whole": Recipe(filters={"aspect_ratio": {}}, rules=WHOLE, folder=words),
        "balanced": Recipe(filters={"aspect_ratio": {}, "matched_entries": entries}, rules=BALANCED, folder=words),
        **{
            name: _for_small_pictures(load_recipe(name))
            for name in ("coyo-700m", "datacomp-1b", "metaclip", "metaclip-all-entries", "demo")
        },
    }


def _for_small_pictures(recipe: Recipe) -> Recipe:
    """The recipe without the rules that no picture of this root passes."""
    return replace(recipe, rules={k: text for k, text in recipe.rules.items() if k not in ("bytes", "min_side")})


@pytest.mark.parametrize("name", _recipes())
def test_duckdb_and_spark_write_the_same_bytes(spark: SparkSession, made: SmallRoot, name: str) -> None:
    reasons = _select_by_both(spark, made.root, _recipes()[name])
    assert reasons & {*_recipes()[name].rules} and {None, "download:timeout"} < reasons
    assert name != "whole" or len(reasons & {*WHOLE}) > 4
    assert name != "balanced" or {"likely", "even", "first"} < reasons


def test_pictures_of_an_opt_out_list_are_withdrawn_by_both(
    spark: SparkSession, made: SmallRoot, tmp_path: Path
) -> None:
    (tmp_path / "gone.txt").write_text("host1.test\n")
    whole = _recipes()["whole"]
    recipe = replace(whole, download=DownloadConfig(opt_out=(str(tmp_path / "gone.txt"),)))
    assert {None, "opted_out", "wide", "deduplicated"} < _select_by_both(spark, made.root, recipe)


def test_pictures_of_blocklists_carry_the_name_of_their_list_in_both(
    spark: SparkSession, made: SmallRoot, tmp_path: Path
) -> None:
    uid = min(made.images)
    (tmp_path / "hosts.txt").write_text("host1.test\n")
    (tmp_path / "hashes.txt").write_text(f"{int(made.downloads[uid]['phash'], 16) ^ 3:016x}\n")
    lists = {
        "hosts": BlocklistConfig(paths=(str(tmp_path / "host*.txt"),)),
        "close": BlocklistConfig(paths=(str(tmp_path / "hashes.txt"),), max_hamming=2),
    }
    recipe = replace(_recipes()["whole"], blocklists=lists)
    assert {None, "blocklist:hosts", "blocklist:close", "wide"} < _select_by_both(spark, made.root, recipe)
    by_uid = {row["uid"]: row["reason"] for unit in UNITS for row in _read_selection(made.root, unit)}
    assert by_uid[uid] == "blocklist:close"
    version = (made.root.current("selection") or {})["fingerprint"]
    table = selection.preview_rules(recipe, recipe, made.root).split("\n\n")[0]
    listed = [line.split() for line in table.splitlines() if "blocklist:" in line]
    counts = Counter(reason for reason in by_uid.values() if reason and reason.startswith("blocklist:"))
    assert listed == [[reason, str(count)] for reason, count in sorted(counts.items())]
    selection.run_here(recipe, made.root)
    assert (made.root.current("selection") or {})["fingerprint"] == version
    (tmp_path / "hosts.txt").write_text("host1.test # another comment\nhost2.test\n")
    selection.run_here(recipe, made.root)
    assert (made.root.current("selection") or {})["fingerprint"] != version


def test_what_if_counts_what_a_balance_and_a_mix_leave_out(spark: SparkSession, made: SmallRoot) -> None:
    mix = MixConfig(weights={"laion": 1.0, "coyo": 1.0}, rows=40)
    recipe = replace(_recipes()["balanced"], select=SelectConfig(mix=mix))
    assert {None, "even", "mix:laion", "mix:coyo"} < _select_by_both(spark, made.root, recipe)
    reasons = Counter(row["reason"] for unit in UNITS for row in _read_selection(made.root, unit))
    table = selection.preview_rules(recipe, recipe, made.root, num_examples=2)
    lines = [line.split() for line in table.split("\n\n")[0].splitlines()[2:]]
    in_order = {line[0]: int(line[1] if ":" in line[0] else line[2]) for line in lines}
    assert in_order == {name: reasons[name] for name in (*BALANCED, "mix:coyo", "mix:laion")}
    assert "matched_entries=" in table.partition("even: balance")[2].splitlines()[1]


def test_a_mix_keeps_the_same_rows_in_both_and_what_if_knows_it(spark: SparkSession, made: SmallRoot) -> None:
    whole = _recipes()["whole"]
    mix = MixConfig(weights={"laion": 3.0, "coyo": 1.0}, rows=16)
    recipe = replace(whole, rules={"likely": "clip_similarity > 0.2"}, select=SelectConfig(mix=mix))
    assert {None, "likely", "mix:laion", "mix:coyo"} < _select_by_both(spark, made.root, recipe)
    reasons = [row["reason"] for unit in UNITS for row in _read_selection(made.root, unit)]
    kept = Counter(made.samples[uid]["source"] for uid in _kept(made.root))
    assert kept == {"laion": 12, "coyo": 4}
    table = selection.preview_rules(recipe, recipe, made.root).split("\n\n")[0].splitlines()
    assert table[0].endswith(" 16 kept")
    listed = {line.split()[0]: int(line.split()[1]) for line in table if "mix:" in line}
    assert listed == {name: reasons.count(name) for name in ("mix:coyo", "mix:laion")}
    version = (made.root.current("selection") or {})["fingerprint"]
    fewer = replace(recipe, select=SelectConfig(mix=replace(mix, rows=8)))
    before = _kept(made.root)
    selection.run_here(fewer, made.root)
    assert _kept(made.root) < before and (made.root.current("selection") or {})["fingerprint"] != version
    selection.run_here(replace(recipe, select=SelectConfig()), made.root)
    assert _kept(made.root) > before


def test_a_mix_of_what_rules_over_partitions_let_pass_is_the_same_in_both(spark: SparkSession, made: SmallRoot) -> None:
    whole, mix = _recipes()["whole"], MixConfig(weights={"laion": 3.0, "coyo": 1.0}, rows=8)
    rules = {name: WHOLE[name] for name in ("first", "close")}
    recipe = replace(whole, rules=rules, select=SelectConfig(mix=mix))
    assert {None, "first", "mix:laion", "mix:coyo"} < _select_by_both(spark, made.root, recipe)
    assert len(_kept(made.root)) == 8


def test_a_mix_that_cannot_be_made_is_refused_before_anything_is_written(spark: SparkSession, made: SmallRoot) -> None:
    made.root.remove("selection")
    mix = MixConfig(weights={"laion": 3.0})
    for run in (
        lambda recipe: selection.run_here(recipe, made.root),
        lambda recipe: selection.run(spark, recipe, made.root),
    ):
        with pytest.raises(UserError, match="no weight for source 'coyo'"):
            run(Recipe(rules={"any": "width > 0"}, select=SelectConfig(mix=mix)))
    assert made.root.current("selection") is None


def _kept(root: Root) -> set[str]:
    return {row["uid"] for unit in UNITS for row in _read_selection(root, unit) if row["kept"]}


def test_a_selection_that_was_killed_is_ended_with_the_same_bytes(made: SmallRoot, tmp_path: Path) -> None:
    (tmp_path / "hosts.txt").write_text("host1.test\n")
    lists = {"hosts": BlocklistConfig(paths=(str(tmp_path / "hosts.txt"),))}
    recipe = Recipe(rules={"likely": "clip_similarity >= 0.3"}, blocklists=lists)
    made.root.remove("selection")
    selection.run_here(recipe, made.root)
    whole, files = contents(Path(made.root.full("selection"))), (made.root.current("selection") or {})["files"]
    made.root.remove("selection/current.json")
    made.root.remove(files[-1])
    selection.run_here(recipe, made.root)
    assert contents(Path(made.root.full("selection"))) == whole


def test_a_rule_reads_a_further_caption_that_some_batches_have(spark: SparkSession, root: Root) -> None:
    made = small_root.build(root)
    further = f"{BATCH[::-1]}-000000"
    _move_unit(made, UNITS[1], further)
    table = root.read_parquet(f"samples/{further}.parquet")
    second = pa.array([f"second of {uid}" for uid in table["uid"].to_pylist()])
    root.publish_parquet(f"samples/{further}.parquet", table.append_column("caption_2", second))
    recipe = Recipe(rules={"second": "caption_2 like 'second of %'"})
    selection.check(recipe, root)
    assert _select_by_both(spark, root, recipe) == {None, "second", *(f"download:{lost}" for lost in LOST)}
    kept = {row["uid"]: row["kept"] for unit in (UNITS[0], further) for row in _read_selection(root, unit)}
    assert kept == {uid: uid in made.images and made.units[uid] == UNITS[1] for uid in made.samples}
    with pytest.raises(UserError, match="no column 'caption_3'.* mean caption_2"):
        selection.check(Recipe(rules={"third": "caption_3 is not null"}), root)


def _move_unit(made: SmallRoot, unit: str, other: str) -> None:
    """Make `unit` one of another batch, with a plan of its own."""
    for table in ("samples", "downloads"):
        made.root.publish_parquet(f"{table}/{other}.parquet", made.root.read_parquet(f"{table}/{unit}.parquet"))
        made.root.remove(f"{table}/{unit}.parquet")
    plan = made.root.read_json(f"plans/{BATCH}.json")
    batch, number = other.split("-")
    moved = {**plan, "batch": batch, "number": 1, "units": {number: plan["units"].pop(unit.partition("-")[2])}}
    made.root.publish_json(f"plans/{BATCH}.json", plan)
    made.root.publish_json(f"plans/{batch}.json", moved)


def _read_selection(root: Root, unit: str) -> list[dict[str, Any]]:
    (rel,) = (rel for rel in (root.current("selection") or {})["files"] if rel.endswith(f"/{unit}.parquet"))
    rows: list[dict[str, Any]] = root.read_parquet(rel).to_pylist()
    return rows


def _select_by_both(spark: SparkSession, root: Root, recipe: Recipe) -> set[str | None]:
    """The reasons of the selection, which both engines make in the same bytes."""
    folder = Path(root.full("selection"))
    root.remove("selection")
    selection.run(spark, recipe, root)
    by_spark = contents(folder)
    root.remove("selection")
    selection.run_here(recipe, root)
    assert contents(folder) == by_spark
    files = (root.current("selection") or {})["files"]
    return {reason for rel in files for reason in root.read_parquet(rel)["reason"].to_pylist()}


def test_there_are_recipes_with_each_kind_of_global_rule() -> None:
    assert {"coyo-700m", "datacomp-1b", "metaclip", "demo"} < set(shipped_recipes())
    text = " ".join(rule for recipe in _recipes().values() for rule in recipe.rules.values())
    assert all(word in text for word in ("count(*) over", "row_number() over", "quantile(", "duplicate_of", "file("))


def test_select_and_what_if_run_where_there_is_no_pyspark(made: SmallRoot, tmp_path: Path) -> None:
    made.root.remove("selection")
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text('import sys\nsys.modules["pyspark"] = None\nsys.modules["py4j"] = None\n')
    call = [sys.executable, "-m", "jobs.cli", "select", "--recipe", "coyo-700m", "--root", made.root.path]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PATH": "/nowhere"}
    for more in (["--what-if", "coyo-700m"], []):
        ended = subprocess.run(
            [*call, *more], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
    assert made.root.current("selection") is not None


def test_what_if_refuses_duplicates_that_are_older_than_what_they_were_made_from(made: SmallRoot) -> None:
    recipe = load_recipe("coyo-700m")
    current = made.root.read_json("duplicates/current.json")
    made.root.publish_json("duplicates/current.json", {**current, "inputs": {"downloads": "another"}})
    try:
        with pytest.raises(UserError, match="curate dedupe"):
            selection.preview_rules(recipe, recipe, made.root)
    finally:
        made.root.publish_json("duplicates/current.json", current)


def test_select_looks_for_no_java(made: SmallRoot, tmp_path: Path) -> None:
    made.root.remove("selection")
    asked = tmp_path / "asked"
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\ntouch {asked}\nexit 1\n")
    java.chmod(0o755)
    call = [sys.executable, "-m", "jobs.cli", "select", "--recipe", "coyo-700m", "--root", made.root.path]
    environment = os.environ | {"PATH": str(java.parent), "JAVA_HOME": str(tmp_path)}
    ended = subprocess.run(call, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and ended.stderr.startswith("select "), ended.stderr
    assert made.root.current("selection") is not None and not asked.exists()
