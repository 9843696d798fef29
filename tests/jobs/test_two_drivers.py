"""Two drivers at once on one root: the second waits and finds the work done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from curation.storage import Root

NUM_ROWS = 300


@pytest.mark.slow
def test_two_ingests_at_once_plan_every_row_once(tmp_path: Path) -> None:
    rows = [{"url": f"http://h{i % 9}.example/{i}.jpg", "caption": f"number {i}"} for i in range(NUM_ROWS)]
    (tmp_path / "meta.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "r.toml").write_text('[[sources]]\nname = "one"\npaths = ["meta.jsonl"]\n')
    root = Root(tmp_path / "root")
    command = [sys.executable, "-m", "jobs.cli", "ingest", "--recipe", str(tmp_path / "r.toml"), "--root", root.path]
    drivers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [driver.communicate(timeout=300)[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    assert sum("another run is at work on" in text for text in said) == 1
    uids = [uid for unit in root.units("samples") for uid in root.read_parquet(f"samples/{unit}.parquet")["uid"]]
    assert len(uids) == len(set(uids)) == NUM_ROWS
    assert len(root.list("plans", ".json")) == 1
