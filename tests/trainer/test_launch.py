"""Which rank this process is, under every launcher, and what a machine without a GPU is told."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from trainer.launch import Rank, has_gpu, prepare_environment, read_rank, warn_of_lock

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_SIZE")
SLURM = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")


@pytest.mark.parametrize(
    ("variables", "rank"),
    [
        ({}, Rank()),
        ({"RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}, Rank(9, 1, 16, 8)),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_SIZE": "2"}, Rank(1, 1, 2, 2)),
        (dict(zip(SLURM, ("359", "7", "360", "8"), strict=True)), Rank(359, 7, 360, 8)),
        # A launcher inside a slurm job knows better, and an interactive slurm shell is one process.
        ({"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "5", "SLURM_NTASKS": "9"}, Rank(0, 0, 2, 2)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, Rank()),
    ],
)
def test_the_rank_is_read_from_the_launcher(
    variables: dict[str, str], rank: Rank, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*VARIABLES, *SLURM):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert read_rank() == rank
    assert rank.is_first == (rank.rank == 0)


def test_a_machine_without_a_gpu_trains_on_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PATH", os.environ["PATH"])
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    monkeypatch.delenv("OMP_NUM_THREADS")
    prepare_environment(Rank(0, 0, 2, 2))
    assert not has_gpu()
    assert int(os.environ["OMP_NUM_THREADS"]) == max(1, len(os.sched_getaffinity(0)) // 2)


def test_the_lock_of_a_build_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    with caplog.at_level(logging.WARNING, "trainer"):
        warn_of_lock()
        assert not caplog.messages
        (tmp_path / "deepspeed_shm_comm" / "lock").touch()
        warn_of_lock()
    (message,) = caplog.messages
    assert str(tmp_path) in message and "delete that file" in message
