"""Optimizers: LAMB is the same under every ZeRO stage and world size, groups, schedule, bounds."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.trainer import lamb_worker
from tests.trainer.ranks import run_ranks
from trainer.config import OptimConfig, TowerConfig
from trainer.models.clip import LayerGroup
from trainer.optim import Lamb, Lion, Segments, build, parameter_groups, set_learning_rate, warmup_cosine

QUICK = {(3, 2), (1, 2)}


def _largest_gap(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    assert found.keys() == wanted.keys()
    return max(float((found[name] - wanted[name]).abs().max()) for name in wanted)


@pytest.mark.parametrize(
    ("stage", "num_ranks"),
    [
        pytest.param(stage, ranks, marks=() if (stage, ranks) in QUICK else pytest.mark.slow)
        for stage, ranks in itertools.product(range(4), (1, 2))
    ],
)
def test_lamb_is_unsharded_lamb_under_zero(stage: int, num_ranks: int, tmp_path: Path) -> None:
    out = tmp_path / "weights.pt"
    run_ranks(num_ranks, "tests.trainer.lamb_worker:train", stage=stage, out=str(out))
    assert _largest_gap(torch.load(out), lamb_worker.reference(Lamb)) < 1e-5
