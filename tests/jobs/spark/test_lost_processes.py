"""Real processes that are killed: what a worker's task was is tried again, the rest is one sentence and status 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.demo_run import REPOSITORY, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run(folder: Path, way: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.support.failing_stage", str(folder), way]
    return subprocess.run(command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False)


def attempts(folder: Path, item: int) -> int:
    return len(list((folder / "attempts").glob(f"{item}-*")))


def test_a_worker_that_dies_is_tried_again(tmp_path: Path) -> None:
    done = run(tmp_path, "worker once")
    assert (done.returncode, done.stdout) == (0, "[0, 1]\n")
    assert done.stderr.startswith("units ") and done.stderr.count("\n") == 1
    assert attempts(tmp_path, 0) == attempts(tmp_path, 1) == 2


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("worker", "A Python worker of Spark died 4 times at the same task"),
        ("java", "Spark's Java process has ended in the middle of the work"),
        ("value", "This should not have happened (ValueError: a value that no code expects)"),
        ("sentence", "This unit is bad: mend it."),
    ],
)
def test_one_sentence(tmp_path: Path, way: str, said: str) -> None:
    done = run(tmp_path, way)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"curate: {said}") and done.stderr.count("\n") == 1
    logs = list(tmp_path.glob("logs/spark/*.log"))
    if way == "value":
        assert str(logs[0]) in done.stderr
        assert "in two lines" in logs[0].read_text()
    elif way == "sentence":  # is said at once: trying it again would change nothing
        assert attempts(tmp_path, 0) <= 1 and attempts(tmp_path, 1) <= 1 and not logs


def test_bad_input_that_a_task_of_a_frame_finds_is_said_at_once(tmp_path: Path) -> None:
    done = run(tmp_path, "frame")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "curate: This slice is bad: mend it.\n"
    assert attempts(tmp_path, 1) <= 2  # the second has begun when the first is known, and is not waited for


def test_a_command_that_ends_well_leaves_the_terminal_and_the_logs_clean(tmp_path: Path) -> None:
    done = run(tmp_path, "well")
    assert (done.returncode, done.stdout) == (0, "[0, 1]\n")
    assert done.stderr.startswith("units     done in ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "logs" / "spark").exists()
