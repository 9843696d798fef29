"""The counts of one pass: each picture once, whatever the batches are, and balancing before and after."""

from __future__ import annotations

import random
from contextlib import closing

import pyarrow as pa
import pytest

from curation.manifest.manifest import Manifest
from curation.report import tally, text_counts
from curation.report.facts import Facts
from curation.report.histograms import NUM_BINS, Distribution
from curation.report.tally import CAPTION_LENGTH, Tally
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot


def count(root: Root) -> Tally:
    with closing(Manifest(root)) as manifest:
        return Facts(manifest).tally


def by_column(found: Tally) -> dict[str, Distribution]:
    return {chart.column: chart for chart in found.distributions}


def pictures_of(made: SmallRoot, unit: str) -> list[str]:
    return sorted(uid for uid, row in made.downloads.items() if row["status"] == "ok" and made.units[uid] == unit)


def write_scores(made: SmallRoot, name: str, **columns: pa.Array) -> None:
    """Each column of `columns` has a value for each picture of a unit; longer ones are cut."""
    for unit in UNITS:
        uids = pictures_of(made, unit)
        cut = {column: values.slice(0, len(uids)) for column, values in columns.items()}
        made.root.publish_parquet(f"scores_{name}/{unit}.parquet", pa.table({"uid": uids, **cut}))


def test_distributions_count_every_picture_once(root: Root) -> None:
    """Bins, categories and unknown rows add up to the pictures; outliers fall into the end bins."""
    made = small_root.build(root, 60)
    random_ = random.Random(3)
    score = [random_.choice([None, float("nan"), 6016.0, random_.random()]) for _ in range(60)]
    language = [random_.choice([None, "en", "de", "<b>"]) for _ in range(60)]
    write_scores(made, "mixed", score=pa.array(score, pa.float32()), language=pa.array(language))
    small_root.select(made)
    found = by_column(count(root))
    assert {"score", "language", "clip_similarity", "width", "num_bytes", CAPTION_LENGTH} <= set(found)
    for chart in found.values():
        assert sum(chart.counts) + chart.num_unknown == len(made.images)
        assert all(0 <= kept <= of for of, kept in zip(chart.counts, chart.kept, strict=True))
    assert found["score"].counts[-1] > 0 and found["language"].num_unknown > 0
    assert sum(found["width"].kept) == sum(
        row["status"] == "ok" and row["width"] / row["height"] >= 1.2 for row in made.downloads.values()
    )


@pytest.mark.parametrize("rows", [1, 20])
def test_a_pass_in_several_batches_counts_the_same(made: SmallRoot, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    whole = count(made.root)
    monkeypatch.setattr(tally, "BATCH_ROWS", rows)
    assert count(made.root) == whole


def test_counts_that_are_added_up_on_the_way_are_the_same(made: SmallRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = count(made.root)
    monkeypatch.setattr(tally, "BATCH_ROWS", 1)
    monkeypatch.setattr(text_counts, "MAX_PARTS", 1)
    assert count(made.root) == whole


def test_bins_of_a_sample_of_units_count_all_rows(made: SmallRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "SAMPLE_ROWS", 20)
    for chart in count(made.root).distributions:
        assert sum(chart.counts) + chart.num_unknown == len(made.images)


def test_bins_of_whole_numbers_hold_whole_numbers(root: Root) -> None:
    """Few values get a bin each, many get bins of equal whole width."""
    made = small_root.build(root, 60)
    numbers = range(60)
    write_scores(
        made,
        "n",
        few=pa.array([i % 4 for i in numbers], pa.int32()),
        many=pa.array([i * 17 for i in numbers], pa.int32()),
    )
    found = by_column(count(root))
    assert found["few"].labels == ("0 to 1", "1 to 2", "2 to 3", "3 to 4") and set(found["few"].counts) == {12}
    assert len(found["many"].labels) <= NUM_BINS and sum(found["many"].counts) == len(made.images)
    assert all(label.split(" to ")[0].isdigit() for label in found["many"].labels)


def test_thresholds_of_rules_are_counted_exactly(made: SmallRoot) -> None:
    select_by(
        made, {"pretty": "aesthetic > 5 and least(width, height) >= 40", "text": "clip_similarity between 0.25 and 0.3"}
    )
    found = by_column(count(made.root))
    pretty = [made.samples[uid]["aesthetic"] for uid in made.images]
    assert [(cut.rule, cut.operator, cut.value, cut.num_passed) for cut in found["aesthetic"].cuts] == [
        ("pretty", ">", 5.0, sum(value > 5 for value in pretty))
    ]
    wide = sum(row["status"] == "ok" and row["width"] >= 40 for row in made.downloads.values())
    assert [cut.num_passed for cut in found["width"].cuts] == [wide] and 0 < wide < len(made.images)
    assert [(cut.operator, cut.value) for cut in found["clip_similarity"].cuts] == [(">=", 0.25), ("<=", 0.3)]


def select_by(made: SmallRoot, rules: dict[str, str]) -> None:
    """Let the current selection say that it has `rules`; its rows stay as they are."""
    current = made.root.current("selection")
    assert current is not None
    config = {"rules": rules, "order": [*rules], "quantiles": []}
    made.root.publish_current("selection", current["fingerprint"], current["files"], config, {})


def test_hosts_are_counted_with_what_came_and_what_is_kept(made: SmallRoot) -> None:
    found = count(made.root)
    assert found.num_hosts == 5 and sum(host.num_rows for host in found.hosts) == found.num_rows == 40
    for host in found.hosts:
        uids = [uid for uid, row in made.samples.items() if row["domain"] == host.value]
        assert host.num_rows == len(uids) and host.pictures == sum(uid in made.images for uid in uids)
    assert sum(host.kept for host in found.hosts) == sum(by_column(found)["width"].kept)


def test_concepts_are_counted_before_and_after_the_rule_that_balances(root: Root) -> None:
    made = small_root.build(root)
    concepts = pa.array(["cat"] * 12 + ["dog"] * 3 + [None])
    write_scores(made, "concept_match", concept=concepts)
    reasons = {uid: f"download:{row['status']}" for uid, row in made.downloads.items() if row["status"] != "ok"}
    for unit in UNITS:
        uids = pictures_of(made, unit)
        reasons |= (
            dict.fromkeys(uids[:1], "first") | dict.fromkeys(uids[1:9], "balanced") | dict.fromkeys(uids[9:10], "last")
        )
    publish_reasons(made, reasons)
    rules = {
        "first": "width > 1",
        "balanced": "row_number() over (partition by concept order by uid) <= 3",
        "last": "true",
    }
    select_by(made, rules)
    found = count(root).concepts
    assert found is not None
    assert [(each.value, each.pictures, each.reached, each.passed) for each in found.largest] == [
        ("cat", 24, 22, 6),
        ("dog", 6, 6, 6),
    ]
    assert (found.num_reached, found.num_passed) == (2, 2)
    assert list(found.reached) == [(1, 22), (2, 6)] and list(found.passed) == [(1, 6), (2, 6)]


@pytest.mark.parametrize("has_both", [False, True])
def test_a_picture_counts_towards_each_entry_where_all_of_them_are_balanced(root: Root, has_both: bool) -> None:
    made = small_root.build(root)
    entries = pa.array(["cat\ndog"] * 4 + ["cat"] * 8 + ["dog"] * 3 + [None])
    write_scores(made, "matched_entries", matched_entries=entries)
    if has_both:
        write_scores(made, "concept_match", concept=pa.array(["cat"] * 16))
    reasons = {uid: f"download:{row['status']}" for uid, row in made.downloads.items() if row["status"] != "ok"}
    for unit in UNITS:
        reasons |= dict.fromkeys(pictures_of(made, unit)[2:10], "balanced")
    publish_reasons(made, reasons)
    select_by(made, {"balanced": "balance(matched_entries, 3, 't')"})
    found = count(root).concepts
    assert found is not None
    assert [(each.value, each.pictures, each.passed) for each in found.largest] == [("cat", 24, 8), ("dog", 14, 10)]


def publish_reasons(made: SmallRoot, reasons: dict[str, str]) -> None:
    """Publish a selection that removes the rows of `reasons`, each for its own, and keeps the others."""
    small_root.select(made)
    current = made.root.current("selection")
    assert current is not None
    for file in current["files"]:
        uids = made.root.read_parquet(file, ["uid"])["uid"].to_pylist()
        whys = [reasons.get(uid) for uid in uids]
        table = pa.table({"uid": uids, "kept": [why is None for why in whys], "reason": pa.array(whys, pa.string())})
        made.root.publish_parquet(file, table)


def test_sides_are_counted_by_half_powers_of_two(made: SmallRoot) -> None:
    found = count(made.root)
    assert sum(found.sides.values()) == len(made.images) and {y for _, y in found.sides} == {10}


def test_a_root_without_rows_has_nothing_to_count(root: Root) -> None:
    found = count(root)
    assert found == Tally()
