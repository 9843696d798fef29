"""docs/tutorial.md, pasted line for line into one shell, as a newcomer does it."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest

from curation import Manifest
from tests.support.demo_run import environment
from tests.support.documents import PROJECT, SHELL, page


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_tutorial_runs_by_pasting(tmp_path: Path) -> None:
    activate = "source .venv/bin/activate\n"
    blocks = [block.text for block in page("docs/tutorial.md").blocks if block.language == SHELL]
    assert blocks[0].startswith(activate)
    script = "\n".join(["set -e", *blocks]).replace(activate, "")
    (tmp_path / "curation").symlink_to(PROJECT / "curation")
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    with open(tmp_path / "doubles.csv", newline="") as file:
        listed = [row["source_id"] for row in csv.DictReader(file)]
    with Manifest(tmp_path / "own") as manifest:
        assert manifest.query("select count(*) from samples").fetchall() == [(216,)]
        rest = manifest.query("select source_id from manifest where not kept order by 1").fetchall()
    assert [(name,) for name in listed] == rest
    assert all((tmp_path / page_of_pictures).stat().st_size > 10_000 for page_of_pictures in ("pairs.html", "own.html"))
    assert "recall@1" in done.stdout + done.stderr
    assert (tmp_path / "own-training-large" / "model.safetensors").exists()
