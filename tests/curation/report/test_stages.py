"""The stages in `curate status`: the one that is at work and its steps, and the units that wait."""

from __future__ import annotations

import time
from typing import Any

import pytest

from curation import progress, stage_log
from curation.report import status_text
from curation.report.stages import count_units, render_stages
from curation.stage_log import FILE, STALE_S, log_stage, read_running_stage
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_log, "INTERVAL_S", 0.01)


def wait_for_log(root: Root) -> None:
    deadline = time.monotonic() + 60
    while not root.exists(FILE) or not root.read_json(FILE)["steps"]:
        assert time.monotonic() < deadline, "no log was written"
        time.sleep(0.01)


@pytest.mark.parametrize("is_quiet", [False, True])
def test_a_stage_that_is_at_work_says_how_far_it_is(root: Root, is_quiet: bool) -> None:
    progress.be_quiet(is_quiet)
    try:
        with log_stage(root, "dedupe"), progress.bar(1_200, "dedupe, step 3", "task") as bar:
            bar.update(300)
            wait_for_log(root)
            said = status_text(root)
    finally:
        progress.be_quiet(False)
    assert "\ndedupe has been at work for 00:" in said
    assert "\n  dedupe, step 3: 300 of 1,200 tasks, " in said and said.endswith(" left\n")
    assert read_running_stage(root) is None
    assert "at work" not in status_text(root)


def test_a_driver_that_was_killed_is_not_at_work(root: Root) -> None:
    log = {"stage": "pack", "steps": [], "running": True, "seconds": 5, "at": time.time()}
    root.publish_json(FILE, log)
    assert render_stages(root) == "pack has been at work for 00:05.\n"
    root.publish_json(FILE, log | {"at": time.time() - STALE_S - 1})
    assert render_stages(root) == ""


def test_a_stage_without_work_touches_no_file(root: Root) -> None:
    with log_stage(root, "embed"):
        time.sleep(0.1)
    assert not root.exists(FILE)


@pytest.mark.parametrize("damage", [{"stage": 7}, {"steps": "none"}, {"at": "now"}, {"steps": [{"desc": "a"}, 5]}])
def test_a_damaged_log_is_passed_over(root: Root, damage: dict[str, Any]) -> None:
    log = {"stage": "pack", "steps": [], "running": True, "seconds": 5, "at": time.time()}
    root.publish_json(FILE, log | damage)
    assert "None" not in render_stages(root)
    root.publish(FILE, b'{"stage": ')
    assert render_stages(root) == ""


def test_a_log_that_cannot_be_written_does_not_end_the_stage(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Root, "publish_json", full)
    with log_stage(root, "pack"):
        time.sleep(0.05)
    assert not root.exists(FILE)


def test_units_that_wait_are_counted_for_each_stage_that_has_begun(root: Root) -> None:
    made = small_root.build(root)
    assert render_stages(root) == ""
    root.begin_stage("embeddings/metadata", {"model": "clip"})
    root.remove(f"downloads/{UNITS[1]}.parquet")
    root.publish_parquet(f"scores_words/{UNITS[0]}.parquet", root.read_parquet(f"samples/{UNITS[0]}.parquet", ["uid"]))
    assert [line.split() for line in render_stages(root).splitlines()] == [
        ["units", "of", "done", "waiting", "for"],
        ["samples", "2", "0", "curate", "ingest"],
        ["downloads", "1", "1", "curate", "download"],
        ["embeddings", "0", "2", "curate", "embed"],
        ["scores_words", "1", "1", "curate", "score"],
    ]
    root.remove(f"samples/{UNITS[0]}.parquet")
    assert (count_units(root)[0].num_done, count_units(root)[0].num_waiting) == (1, 1)
    assert made.root is root
