"""What a step tells: a line for people, and a record that any JSON reader takes."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trainer import config
from trainer.metrics import Metrics, StepRecord

RECORD = StepRecord(
    step=3, samples=144, phase=0, loss=2.5, lr=1e-3, temperature=0.05, grad_norm=1.25, applied=True, num_skipped=0,
    step_time_s=0.5, samples_per_s=96.0, samples_per_s_per_gpu=48.0, tflops_per_gpu=0.0044, mfu=0.4, memory_gb=1.5,
    data_wait_share=0.02,
)  # fmt: skip


def _lines(folder: Path) -> list[dict[str, object]]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_one_line_says_everything() -> None:
    line = RECORD.line()
    for part in ("step 3", "loss 2.5000", "lr 1.00e-03", "temp 0.0500", "grad 1.250", "48.0 a GPU", "0.0044 TFLOP/s"):
        assert part in line
    for part in ("MFU 40.0%", "1.50 GB", "data wait 2.0%"):
        assert part in line
    assert "SKIPPED (7 so far)" in replace(RECORD, applied=False, num_skipped=7).line()
    assert "MFU -" in replace(RECORD, mfu=None).line()


def test_a_record_is_json_even_when_the_loss_is_not_a_number(tmp_path: Path) -> None:
    metrics = Metrics(config.load_config("debug"), tmp_path, is_first=True)
    metrics.write(RECORD)
    metrics.write(replace(RECORD, step=4, loss=math.nan, applied=False))
    metrics.close()
    first, second = _lines(tmp_path)
    assert first["loss"] == 2.5 and second["loss"] is None and second["applied"] is False


def test_every_record_is_written_and_every_nth_line_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="trainer")
    metrics = Metrics(config.load_config("debug", ["log.every_steps=3"]), tmp_path, is_first=True)
    for step in range(1, 7):
        metrics.write(replace(RECORD, step=step, applied=step != 4))
    metrics.close()
    assert len(_lines(tmp_path)) == 6
    assert [line.split()[1] for line in caplog.messages] == ["3", "4", "6"]


def test_other_ranks_are_silent(tmp_path: Path) -> None:
    metrics = Metrics(config.load_config("debug"), tmp_path / "none", is_first=False)
    metrics.write(RECORD)
    metrics.close()
    assert not (tmp_path / "none").exists()


def test_what_the_parent_held_is_not_of_this_process() -> None:
    asked = (
        "from trainer.metrics import memory_gb; from types import SimpleNamespace as N; print(memory_gb(N(type='cpu')))"
    )
    parent = (
        "import subprocess, sys; held = bytearray(b'1') * 1_000_000_000; "
        "sys.exit(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode)"
    )
    said = subprocess.run([sys.executable, "-c", parent, asked], capture_output=True, text=True, check=True).stdout
    assert 0.01 < float(said) < 0.9
