"""A run goes on at another number of ranks or another ZeRO stage with exactly the state that it had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from curation.errors import UserError
from tests.support.trainer.ranks import run_ranks
from trainer import zero_files

WORKER = "tests.support.trainer.partitions_worker"


@pytest.mark.slow
def test_more_ranks_than_the_temperature_has_elements(tmp_path: Path) -> None:
    few = {"optimizers": ["adamw"], "temperatures": ["learned"], "precision": "fp32", "folder": str(tmp_path)}
    run_ranks(1, f"{WORKER}:save", stages=[1], **few)
    run_ranks(2, f"{WORKER}:restore", stages=[2], **few)


@pytest.mark.slow
def test_a_run_goes_on_from_stage_0_at_2_and_from_3_at_0(tmp_path: Path) -> None:
    run_ranks(2, f"{WORKER}:cross", folder=str(tmp_path), pairs=[[0, 2], [3, 0]], optimizer="adamw", precision="bf16")


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "precision"), [("lamb", "bf16"), ("lion", "fp32"), ("adamw", "fp32")])
def test_a_run_goes_on_from_and_to_stage_0(optimizer: str, precision: str, tmp_path: Path) -> None:
    pairs = [[0, 1], [0, 2], [0, 3], [1, 0], [2, 0], [3, 0], [0, 0]]
    run_ranks(2, f"{WORKER}:cross", folder=str(tmp_path), pairs=pairs, optimizer=optimizer, precision=precision)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "precision", "temperature", "saving", "restoring"),
    [
        ("adamw", "fp32", "learned", 3, 2),
        ("lamb", "bf16", "learned", 2, 3),
        ("lion", "bf16", "fixed", 1, 3),
        ("lamb", "fp32", "fixed", 3, 1),
    ],
)
def test_a_run_goes_on_at_another_number_of_ranks_at_every_stage(
    optimizer: str, precision: str, temperature: str, saving: int, restoring: int, tmp_path: Path
) -> None:
    """Every stage to every other; `make soak` has all optimizers, precisions, temperatures and numbers of ranks."""
    arguments = {
        "folder": str(tmp_path), "precision": precision, "stages": [1, 2, 3], "optimizers": [optimizer],
        "temperatures": [temperature],
    }  # fmt: skip
    run_ranks(saving, f"{WORKER}:save", **arguments)
    run_ranks(restoring, f"{WORKER}:restore", **arguments)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "lion"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_number_of_ranks_and_stage_goes_on_at_every_other(optimizer: str, precision: str, tmp_path: Path) -> None:
    arguments = {
        "folder": str(tmp_path), "precision": precision, "stages": [1, 2, 3], "optimizers": [optimizer],
        "temperatures": ["learned", "fixed"],
    }  # fmt: skip
    for num_ranks in (1, 2, 3):
        run_ranks(num_ranks, f"{WORKER}:save", timeout_s=1_700, **arguments)
    assert len(list(tmp_path.glob("*/latest"))) == 3 * 3 * 2
    for num_ranks in (1, 2, 3):
        run_ranks(num_ranks, f"{WORKER}:restore", timeout_s=1_700, **arguments)


def test_a_missing_rank_is_told(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    with pytest.raises(UserError, match="the optimizer's file of rank 1 is missing"):
        zero_files.read_pieces(tmp_path, stage=1, world_size=2)
