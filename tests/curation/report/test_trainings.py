"""Curves of trainings: the last record of each step, runs under the root and named ones, what evaluations measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.report import write_html
from curation.report.facts import Facts
from curation.report.sections import training
from curation.report.trainings import find_trainings
from tests.support.small_root import SmallRoot


def step(number: int, **changes: Any) -> str:
    record = {"step": number, "samples": 10 * number, "loss": 5.0 - number, "lr": 1e-3, "samples_per_s": 50.0}
    return json.dumps(record | {"grad_norm": 1.0, "num_skipped": 0, "step_time_s": 36.0, "applied": True} | changes)


def test_curves_of_a_training_are_those_of_its_last_records(made: SmallRoot, tmp_path: Path) -> None:
    run = tmp_path / "<run>"
    run.mkdir()
    lines = [
        step(1),
        step(2, loss=9.0),
        json.dumps({"step": 2, "flickr/recall@1": 0.25, "flickr/num_texts": 5}),
        "{torn",
    ]
    lines += [step(2), step(3, loss=None)]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    (found,) = find_trainings(made.root, [run])
    assert found.steps["loss"] == [(1, 4.0), (2, 3.0)] and found.steps["lr"][-1] == (3, 1e-3)
    assert found.measured == {"flickr/recall@1": [(2, 0.25)]} and (found.last_step, found.num_samples) == (3, 30)
    html = training.render(Facts(Manifest(made.root), [run]))
    assert "3 steps, 30 samples" in html and '<td>flickr/recall@1</td><td class="number">0.25</td>' in html
    assert "<run>" not in html and "learning rate" in html


def test_runs_under_the_root_are_found_once(made: SmallRoot) -> None:
    run = Path(made.root.full("training/0123456789ab"))
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text(step(1))
    assert [each.name for each in find_trainings(made.root, [])] == ["training/0123456789ab"]
    assert [each.name for each in find_trainings(made.root, [run])] == [str(run)]


def test_a_link_that_leads_out_of_a_root_is_not_followed(made: SmallRoot, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "metrics.jsonl").write_text(step(1))
    Path(made.root.full("training")).symlink_to(tmp_path / "elsewhere")
    assert find_trainings(made.root, []) == []


def test_a_folder_of_no_run_is_refused_before_a_page_is_begun(made: SmallRoot, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no metrics\.jsonl"):
        write_html(made.root, tmp_path / "report.html", [tmp_path])
    assert not (tmp_path / "report.html").exists()
