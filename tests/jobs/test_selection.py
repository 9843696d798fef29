"""Selection: rules in order, the first reason recorded, every uid once, nothing done twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from curation.errors import UserError
from curation.recipe.config import DownloadConfig, Recipe
from curation.report import status_text
from curation.schema import SELECTION
from curation.storage import Root
from curation.tables import fingerprint_sizes, fingerprint_table
from curation.verify import verify
from curation.verify.sealing import seal
from jobs import score, selection
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RULES = {"wide": "aspect_ratio >= 1.5", "likely": "clip_similarity >= 0.25", "safe": "punsafe <= 0.5"}


@pytest.fixture
def made(root: Root) -> SmallRoot:
    return small_root.build(root)


def _recipe(**rules: str) -> Recipe:
    return Recipe(filters={"aspect_ratio": {}}, rules=rules)


def _selected(root: Root) -> dict[str, dict[str, Any]]:
    current = root.current("selection")
    assert current is not None
    tables = [root.read_parquet(rel) for rel in current["files"]]
    assert all(table.schema.equals(SELECTION) for table in tables)
    rows = [row for table in tables for row in table.to_pylist()]
    assert len({row["uid"] for row in rows}) == len(rows)
    return {row["uid"]: row for row in rows}


def _expected(made: SmallRoot, uid: str) -> str | None:
    sample, download = made.samples[uid], made.downloads[uid]
    if download["status"] != "ok":
        return f"download:{download['status']}"
    sides = download["width"], download["height"]
    if max(sides) / min(sides) < 1.5:
        return "wide"
    if round(sample["clip_similarity"], 6) < 0.25:
        return "likely"
    return "safe" if round(sample["punsafe"], 6) > 0.5 else None


def test_the_first_rule_that_says_no_is_the_reason(spark: SparkSession, made: SmallRoot) -> None:
    score.run(spark, _recipe(**RULES), made.root)
    selection.run(spark, _recipe(**RULES), made.root)
    found = _selected(made.root)
    assert {uid: row["reason"] for uid, row in found.items()} == {uid: _expected(made, uid) for uid in made.samples}
    assert all(row["kept"] == (row["reason"] is None) for row in found.values())
    assert {"wide", "likely", "safe", None} < {row["reason"] for row in found.values()}


def test_order_decides_the_reason_and_not_what_is_kept(spark: SparkSession, made: SmallRoot) -> None:
    score.run(spark, _recipe(), made.root)
    selection.run(spark, _recipe(**RULES), made.root)
    forwards = _selected(made.root)
    selection.run(spark, _recipe(**dict(reversed(RULES.items()))), made.root)
    backwards = _selected(made.root)
    assert {u for u, r in forwards.items() if r["kept"]} == {u for u, r in backwards.items() if r["kept"]}
    assert {u: r["reason"] for u, r in forwards.items()} != {u: r["reason"] for u, r in backwards.items()}


def test_duplicates_are_joined_across_units(spark: SparkSession, made: SmallRoot) -> None:
    ok = [uid for uid, row in made.downloads.items() if row["status"] == "ok"]
    removed = {ok[0]: ok[1], ok[3]: ok[2]}
    small_root.duplicates(made, removed)
    selection.run(spark, _recipe(deduplicated="duplicate_of is null"), made.root)
    found = _selected(made.root)
    assert {uid for uid, row in found.items() if row["reason"] == "deduplicated"} == set(removed)
    assert {uid for uid, row in found.items() if row["kept"]} == set(ok) - set(removed)


def test_the_same_rules_and_inputs_do_no_work(spark: SparkSession, made: SmallRoot) -> None:
    selection.run(spark, _recipe(safe=RULES["safe"]), made.root)
    files = [Path(made.root.full(rel)) for rel in (made.root.current("selection") or {})["files"]]
    before = [(f.read_bytes(), f.stat().st_mtime_ns) for f in (*files, Path(made.root.full("selection/current.json")))]
    selection.run(spark, _recipe(safe=RULES["safe"]), made.root)
    after = [(f.read_bytes(), f.stat().st_mtime_ns) for f in (*files, Path(made.root.full("selection/current.json")))]
    assert after == before


@pytest.mark.parametrize("rule", ["punsafe <= 0.5", "count(*) over (partition by aesthetic) <= 3"])
def test_an_interrupted_run_ends_in_the_same_bytes(spark: SparkSession, made: SmallRoot, rule: str) -> None:
    selection.run(spark, _recipe(it=rule), made.root)
    files = [Path(made.root.full(rel)) for rel in (made.root.current("selection") or {})["files"]]
    before, stamp = [f.read_bytes() for f in files], files[1].stat().st_mtime_ns
    files[0].unlink()
    made.root.remove("selection/current.json")
    selection.run(spark, _recipe(it=rule), made.root)
    assert [f.read_bytes() for f in files] == before and files[1].stat().st_mtime_ns == stamp
    assert {row["reason"] for row in _selected(made.root).values()} >= {None, "it"}


def test_changed_inputs_give_another_version(spark: SparkSession, made: SmallRoot) -> None:
    selection.run(spark, _recipe(safe=RULES["safe"]), made.root)
    first = made.root.current("selection")
    lost = next(uid for uid, row in made.downloads.items() if row["status"] == "ok" and made.units[uid] == UNITS[0])
    made.downloads[lost] = dict.fromkeys(made.downloads[lost]) | {"uid": lost, "status": "dns", "detail": "gone"}
    small_root.write_downloads(made, UNITS[0])
    selection.run(spark, _recipe(safe=RULES["safe"]), made.root)
    second = made.root.current("selection")
    assert first is not None and second is not None and first["fingerprint"] != second["fingerprint"]
    assert _selected(made.root)[lost]["reason"] == "download:dns"


def test_counts_and_quantiles_see_all_units_and_only_pictures_that_came(spark: SparkSession, made: SmallRoot) -> None:
    rules = {
        "rare": "count(*) over (partition by aesthetic) <= 3",
        "top": "clip_similarity >= quantile(clip_similarity, 0.7)",
    }
    selection.run(spark, _recipe(**rules), made.root)
    ok = [uid for uid, row in made.downloads.items() if row["status"] == "ok"]
    seen = Counter(made.samples[uid]["aesthetic"] for uid in ok)
    similarities = sorted(made.samples[uid]["clip_similarity"] for uid in ok)
    threshold = next(v for i, v in enumerate(similarities, 1) if i >= 0.7 * len(ok))
    for uid, row in _selected(made.root).items():
        if uid not in ok:
            continue
        rare = seen[made.samples[uid]["aesthetic"]] <= 3
        top = made.samples[uid]["clip_similarity"] >= threshold - 1e-7
        assert row["reason"] == (None if rare and top else "top" if rare else "rare")
    (value,) = (made.root.current("selection") or {})["config"]["quantiles"]
    assert value["value"] == pytest.approx(threshold) and set(seen.values()) > {4}


def test_a_quantile_by_source_is_recorded_for_each_source(spark: SparkSession, made: SmallRoot) -> None:
    rule = "clip_similarity >= quantile(clip_similarity, 0.5) over (partition by source)"
    selection.run(spark, _recipe(top=rule), made.root)
    ok = [uid for uid, row in made.downloads.items() if row["status"] == "ok"]
    limits = {}
    for source in ("coyo", "laion"):
        known = sorted(made.samples[u]["clip_similarity"] for u in ok if made.samples[u]["source"] == source)
        limits[source] = next(v for i, v in enumerate(known, 1) if i >= 0.5 * len(known))
    recorded = (made.root.current("selection") or {})["config"]["quantiles"]
    assert [(entry["by"], entry["value"]) for entry in recorded] == [
        ({"source": source}, pytest.approx(limit)) for source, limit in limits.items()
    ]
    kept = {uid for uid, row in _selected(made.root).items() if row["kept"]}
    assert kept == {
        u for u in ok if made.samples[u]["clip_similarity"] >= limits[made.samples[u]["source"]] - 1e-7
    } and kept < set(ok)


def test_a_list_that_changes_is_another_version(spark: SparkSession, made: SmallRoot, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked.txt"
    recipe = Recipe(rules={"host": "domain not in file('blocked.txt')"}, folder=str(tmp_path))
    versions = []
    for text in ("host1.test\n", "host1.test\nhost2.test\n", "# both\nhost2.test\nhost1.test"):
        blocked.write_text(text)
        selection.run(spark, recipe, made.root)
        kept = {made.samples[uid]["domain"] for uid, row in _selected(made.root).items() if row["kept"]}
        assert not kept & {line.strip() for line in text.splitlines()} and kept
        versions.append((made.root.current("selection") or {})["fingerprint"])
    assert versions[0] != versions[1] == versions[2]
    blocked.unlink()
    with pytest.raises(UserError, match="Rule host .*there is no file .*blocked.txt"):
        selection.check(recipe, made.root)


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"r": "aspct_ratio < 3"}, r"Rule r \('aspct_ratio < 3'\): there is no column.*did you mean aspect_ratio"),
        ({"r": "duplicate_of is null"}, "curate dedupe"),
        ({"r": "aspect_ratio < 3"}, "curate score"),
        ({"r": "width"}, "a boolean is needed"),
        ({"a rule": "width > 1"}, "Rule name 'a rule'"),
    ],
)
def test_bad_rules_and_missing_stages_are_refused(
    spark: SparkSession, made: SmallRoot, rules: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        selection.run(spark, _recipe(**rules), made.root)
    assert not made.root.exists("selection")


def test_rules_are_checked_before_there_is_a_root(tmp_path: Path) -> None:
    root = Root(tmp_path / "new")
    selection.check(_recipe(**RULES), root)
    with pytest.raises(UserError, match="did you mean aspect_ratio"):
        selection.check(_recipe(r="aspct_ratio < 3"), root)
    with pytest.raises(UserError, match="did you mean blur"):
        selection.check(Recipe(filters={"blurr": {}}), root)
    assert not Path(root.path).exists()


def test_units_without_downloads_are_refused(spark: SparkSession, made: SmallRoot) -> None:
    made.root.remove(f"downloads/{UNITS[1]}.parquet")
    with pytest.raises(UserError, match="downloads lacks 1 units"):
        selection.run(spark, _recipe(), made.root)


def _write_scores(made: SmallRoot, number: int) -> None:
    for unit in UNITS:
        uids = sorted(uid for uid in made.images if made.units[uid] == unit)
        table = pa.table({"uid": uids, "aspect_ratio": pa.array([number] * len(uids), pa.float32())})
        made.root.publish_parquet(f"scores_aspect_ratio/{unit}.parquet", table)


def test_scores_that_were_made_anew_give_another_selection_though_their_sizes_are_equal(
    spark: SparkSession, made: SmallRoot
) -> None:
    _write_scores(made, 2)
    selection.run(spark, _recipe(wide="aspect_ratio >= 1.5"), made.root)
    sizes = fingerprint_sizes(made.root, "scores_aspect_ratio")
    assert any(row["kept"] for row in _selected(made.root).values())
    _write_scores(made, 1)
    assert fingerprint_sizes(made.root, "scores_aspect_ratio") == sizes
    selection.run(spark, _recipe(wide="aspect_ratio >= 1.5"), made.root)
    assert not any(row["kept"] for row in _selected(made.root).values())


def test_what_is_opted_out_later_is_not_kept_and_says_why(spark: SparkSession, made: SmallRoot, tmp_path: Path) -> None:
    recipe = _recipe(likely=RULES["likely"])
    selection.run(spark, recipe, made.root)
    before = _selected(made.root)
    kept = sorted(uid for uid, row in before.items() if row["kept"])
    by_url, by_sha256 = kept[0], kept[1]
    lists = tmp_path / "opt-out.txt"
    lists.write_text(f"{made.samples[by_url]['url']}\n{made.downloads[by_sha256]['sha256']}\n")
    recipe = replace(recipe, download=DownloadConfig(opt_out=(str(lists),)))
    selection.run(spark, recipe, made.root)
    found = _selected(made.root)
    assert {uid for uid in found if found[uid] != before[uid]} == {by_url, by_sha256}
    assert found[by_url] == {"uid": by_url, "kept": False, "reason": "opted_out"}
    assert verify(made.root) is None
    assert "- opted_out" in status_text(made.root)
    version = made.root.current("selection")
    selection.run(spark, recipe, made.root)
    assert made.root.current("selection") == version


def test_duplicates_of_another_state_of_the_root_are_refused(spark: SparkSession, made: SmallRoot) -> None:
    small_root.duplicates(made, {})
    current = made.root.current("duplicates")
    assert current is not None
    inputs = {"samples": fingerprint_table(made.root, "samples"), "downloads": "sha256-0123456789ab"}
    made.root.publish_current("duplicates", current["fingerprint"], current["files"], {}, inputs)
    with pytest.raises(UserError, match=r"duplicates was made from other downloads .*: run `curate dedupe`"):
        selection.run(spark, _recipe(it="duplicate_of is null"), made.root)
    selection.run(spark, _recipe(it="punsafe <= 0.5"), made.root)


def test_a_damaged_file_of_the_current_selection_is_not_taken_for_done(made: SmallRoot) -> None:
    assert seal(made.root) is None
    recipe = Recipe(rules={"safe": "punsafe <= 0.5"})
    selection.run_here(recipe, made.root)
    rel = (made.root.current("selection") or {})["files"][0]
    before = made.root.read_bytes(rel)
    Path(made.root.full(rel)).write_bytes(before[:-9])
    with pytest.raises(UserError, match=f"{rel} has .* delete it and run `curate select` again"):
        selection.run_here(recipe, made.root)
    made.root.remove(rel)
    selection.run_here(recipe, made.root)
    assert made.root.read_bytes(rel) == before
