"""Processes side by side: they start when they are needed, keep the order, and end with whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from curation.errors import UserError
from curation.workers import Workers
from tests.support.demo_run import REPOSITORY

SCRIPT = """
import os, sys, time
from curation.workers import Workers

def stay(number):
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    with Workers(2) as workers:
        list(workers.map(stay, range(4)))
"""
LIMIT_S = 120.0


def identify(number: int) -> tuple[int, int]:
    return number, os.getpid()


def end_itself(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(number: int) -> None:
    raise UserError(f"number {number} is wrong")


def test_several_items_go_to_processes_and_come_back_in_order() -> None:
    with Workers(2) as workers:
        found = list(workers.map(identify, iter(range(20))))
    assert [number for number, _ in found] == list(range(20))
    assert os.getpid() not in {pid for _, pid in found}


@pytest.mark.parametrize(("num_processes", "num_items"), [(2, 1), (2, 0), (1, 3)])
def test_one_item_or_one_process_starts_none(num_processes: int, num_items: int) -> None:
    with Workers(num_processes) as workers:
        found = list(workers.map(identify, range(num_items)))
    assert found == [(number, os.getpid()) for number in range(num_items)]


def test_a_refusal_comes_through_and_a_process_that_was_ended_is_one_sentence() -> None:
    with Workers(2) as workers, pytest.raises(UserError, match="number 0 is wrong"):
        list(workers.map(refuse, range(3)))
    with Workers(2) as workers, pytest.raises(UserError, match=r"ended from outside.*select\.threads"):
        list(workers.map(end_itself, range(3)))


@pytest.mark.skipif(sys.platform != "linux", reason="it looks for processes in /proc")
def test_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "stay.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        assert len(set(pids)) == 2 and parent.pid not in pids
        parent.kill()
        deadline = time.monotonic() + LIMIT_S
        while any(Path(f"/proc/{pid}/stat").exists() for pid in pids):
            assert time.monotonic() < deadline, "they live on"
            time.sleep(0.05)
