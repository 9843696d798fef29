"""The funnel: counts that add up and lie between none and all, whatever state a root is in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from curation.manifest.manifest import Manifest
from curation.report import FunnelRow, funnel, status_text
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot


def _stages(rows: list[FunnelRow]) -> dict[str, int]:
    return {row.stage: row.count for row in rows if row.reason is None}


def _lost(rows: list[FunnelRow], stage: str) -> dict[str, int]:
    return {row.reason: row.count for row in rows if row.stage == stage and row.reason is not None}


def test_counts_are_those_of_the_rows(made: SmallRoot) -> None:
    rows = funnel(Manifest(made.root))
    statuses = [row["status"] for row in made.downloads.values()]
    wide = sum(row["status"] == "ok" and row["width"] / row["height"] < 1.2 for row in made.downloads.values())
    assert _stages(rows) == {
        "metadata": 42,
        "samples": 40,
        "pictures": statuses.count("ok"),
        "kept": statuses.count("ok") - wide,
        "packed": statuses.count("ok") - wide,
    }
    assert _lost(rows, "metadata") == {"no_url": 1, "where": 1}
    assert _lost(rows, "samples") == {s: statuses.count(s) for s in set(statuses) - {"ok"}}
    assert _lost(rows, "pictures") == {"wide": wide} and wide > 0
    assert all(row.share == row.count / 42 for row in rows)


@pytest.mark.parametrize("removed", [[], ["train_index/current.json"], [f"downloads/{UNITS[1]}.parquet"]])
def test_each_stage_is_the_next_one_and_what_was_lost(made: SmallRoot, removed: list[str]) -> None:
    for rel in removed:
        Path(made.root.full(rel)).unlink()
    rows = funnel(Manifest(made.root))
    stages = list(_stages(rows).items())
    if removed == [f"downloads/{UNITS[1]}.parquet"]:
        stages = stages[:3]  # the selection was made of more than what is left
    for (stage, count), (_, following) in zip(stages, stages[1:], strict=False):
        assert count == following + sum(_lost(rows, stage).values()), stage


def test_what_is_undecided_is_pending(made: SmallRoot) -> None:
    Path(made.root.full(f"downloads/{UNITS[1]}.parquet")).unlink()
    made.root.remove("selection")
    rows = funnel(Manifest(made.root))
    assert _lost(rows, "samples")["pending"] == 20 and list(_stages(rows)) == ["metadata", "samples", "pictures"]


def test_an_empty_root_has_a_status(root: Root) -> None:
    assert status_text(root) == "metadata  0  0.00 %\nsamples   0  0.00 %\n"


def test_status_is_aligned_and_names_the_rule(made: SmallRoot) -> None:
    text = status_text(made.root)
    lines = text.splitlines()
    assert len({line.index("%") for line in lines}) == 1 and all(line == line.rstrip() for line in lines)
    assert re.search(r"^  - wide +\d+ +\d+\.\d\d %  width / height >= 1\.2$", text, re.MULTILINE)


def _adds_up(rows: list[FunnelRow]) -> None:
    stages = list(_stages(rows).items())
    for (stage, count), (_, following) in zip(stages, stages[1:], strict=False):
        assert count == following + sum(_lost(rows, stage).values()), stage
    assert all(row.count >= 0 and 0 <= row.share <= 1 for row in rows), rows


def test_a_stricter_selection_than_what_is_packed_gives_no_negative_count(made: SmallRoot) -> None:
    before = _stages(funnel(Manifest(made.root)))
    kept = small_root.select(made, min_aspect=1.6)
    rows = funnel(Manifest(made.root))
    _adds_up(rows)
    assert _stages(rows)["kept"] == _stages(rows)["packed"] == len(kept) < before["kept"]
    assert _lost(rows, "kept") == {}
    left = before["packed"] - len(kept)
    assert f"and {left} that are no longer kept: run `curate pack`" in status_text(made.root)


def test_a_wider_selection_than_what_is_packed_is_pending(made: SmallRoot) -> None:
    before = _stages(funnel(Manifest(made.root)))
    kept = small_root.select(made, min_aspect=0.1)
    rows = funnel(Manifest(made.root))
    _adds_up(rows)
    assert _lost(rows, "kept") == {"pending": len(kept) - before["packed"]} and "no longer" not in status_text(
        made.root
    )


@pytest.mark.parametrize("removed", ["samples", "downloads"])
def test_a_root_that_lacks_a_file_gives_no_count_below_zero_or_above_all(made: SmallRoot, removed: str) -> None:
    Path(made.root.full(f"{removed}/{UNITS[1]}.parquet")).unlink()
    rows = funnel(Manifest(made.root))
    _adds_up(rows)
    assert _stages(rows)["samples"] == 40


def test_downloads_of_rows_that_are_no_samples_do_not_count(made: SmallRoot) -> None:
    Path(made.root.full(f"samples/{UNITS[1]}.parquet")).unlink()
    Path(made.root.full("plans/0a1b2c3d.json")).write_text(
        Path(made.root.full("plans/0a1b2c3d.json")).read_text().replace('"samples": 40', '"samples": 20')
    )
    _adds_up(funnel(Manifest(made.root)))
