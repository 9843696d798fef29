"""kill -9 at five random moments of one root, and a run to the end: the same bytes as an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from curation.verify import verify
from jobs import demo
from tests.support.demo_run import REPOSITORY, DemoRun, contents, curate, environment, files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SEED = 20261125
TABLES = ("samples", "downloads", "embeddings/metadata", "duplicates", "scores_", "selection", "train_index")
"""One a stage, in order: a moment is a number of files in one of them."""
NUM_KILLS = 5
LIMIT_S = 800


def count(folder: Path, table: str) -> int:
    return sum(name.startswith(table) and name.endswith(".parquet") for name in files(folder)) if folder.exists() else 0


def start(folder: Path, log: Path) -> subprocess.Popen[bytes]:
    with open(log, "ab") as sink:
        command = curate("demo", "--no-train", "--root", folder)
        return subprocess.Popen(
            command, cwd=REPOSITORY, env=environment(), stdout=sink, stderr=sink, start_new_session=True
        )


def kill_when(process: subprocess.Popen[bytes], folder: Path, table: str, num_files: int, delay_s: float) -> bool:
    """SIGKILL to the process group once `table` has more than `num_files` files; whether it was still at work."""
    deadline = time.monotonic() + LIMIT_S
    while process.poll() is None and time.monotonic() < deadline and count(folder, table) <= num_files:
        time.sleep(0.02)
    time.sleep(delay_s)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def test_five_kills_change_no_byte(demo_run: DemoRun, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    folder, log = tmp_path / "killed", tmp_path / "log"
    for table in sorted(rng.sample(TABLES, NUM_KILLS), key=TABLES.index):
        moment = rng.randrange(count(demo_run.folder, table))
        delay_s = 0.0 if table == TABLES[-1] else rng.uniform(0, 0.5)
        assert kill_when(start(folder, log), folder, table, moment, delay_s), log.read_text()
    assert start(folder, log).wait(LIMIT_S) == 0, log.read_text()
    assert verify(demo.Root(folder)) is None
    found, undisturbed = contents(folder), contents(demo_run.folder)
    assert {name for name in undisturbed if name not in found} == set()
    # A kill between a shard and its row file leaves a shard that no row names; by contract it does not exist.
    assert all(name.startswith("raw/") for name in found if name not in undisturbed)
    assert [name for name, data in undisturbed.items() if found[name] != data] == []
    assert any(name.startswith("train/") and name.endswith(".tar") for name in found)
