"""What Java needs is asked for before it starts."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from curation.errors import UserError
from jobs.spark import session
from jobs.spark.session import MIN_OPEN_FILES, allow_open_files
from tests.support.command import sentence


def set_limits(monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> list[tuple[int, int]]:
    chosen: list[tuple[int, int]] = []
    monkeypatch.setattr(session.resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(session.resource, "setrlimit", lambda _, limits: chosen.append(limits))
    return chosen


def test_a_low_limit_is_raised_where_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = set_limits(monkeypatch, 256, resource.RLIM_INFINITY)
    allow_open_files()
    assert chosen == [(MIN_OPEN_FILES, resource.RLIM_INFINITY)]


def test_a_limit_that_is_high_enough_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = set_limits(monkeypatch, 4096, 4096)
    allow_open_files()
    assert chosen == []


def test_a_low_limit_that_is_final_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = set_limits(monkeypatch, 256, 256)
    with pytest.raises(UserError, match="needs 1,024 open files and this shell allows 256"):
        allow_open_files()
    assert chosen == []


def test_a_shell_with_256_files_is_told_so(tmp_path: Path) -> None:
    command = f"ulimit -n 256; exec {sys.executable} -m jobs.cli demo --root {tmp_path / 'new'}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "ulimit -n" in sentence(done.stderr)
    assert not (tmp_path / "new" / "root.json").exists()
