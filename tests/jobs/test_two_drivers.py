"""Two drivers at once on one root: they wait for whoever holds it, and the second finds the work done."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from curation.root_lock import hold_root
from curation.storage import Root

NUM_ROWS = 300


def test_two_ingests_that_wait_for_another_plan_every_row_once(tmp_path: Path) -> None:
    rows = [{"url": f"http://h{i % 9}.example/{i}.jpg", "caption": f"number {i}"} for i in range(NUM_ROWS)]
    (tmp_path / "meta.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "r.toml").write_text('[[sources]]\nname = "one"\npaths = ["meta.jsonl"]\n')
    root = Root(tmp_path / "root")
    command = [sys.executable, "-m", "jobs.cli", "ingest", "--recipe", str(tmp_path / "r.toml"), "--root", root.path]
    with hold_root(root):
        drivers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = [driver.stderr.readline() for driver in drivers if driver.stderr is not None]
        assert len(said) == 2 and all("another run is at work on" in line for line in said)
    said = [driver.communicate(timeout=300)[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    uids = [uid for unit in root.units("samples") for uid in root.read_parquet(f"samples/{unit}.parquet")["uid"]]
    assert len(uids) == len(set(uids)) == NUM_ROWS
    assert len(root.list("plans", ".json")) == 1
