"""Models that no rank ever holds whole: memory while they are made, measured at a small depth and counted for 18B."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.support.trainer.ranks import run_ranks
from tests.support.trainer.zero_init_worker import deep_config
from trainer import models
from trainer.models.clip import Clip
from trainer.models.config import ClipConfig

FLOAT = 4
SLACK_BYTES = 64 << 20
"""Of the allocator, beside the shards and what is being made."""


def num_parameters(config: ClipConfig) -> int:
    """Of the whole model."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Clip(config).parameters())


def transient_bytes(config: ClipConfig) -> int:
    """What exists whole for a moment: the parameters of the one largest module."""
    with torch.device("meta"):
        modules = Clip(config).modules()
        sizes = [sum(parameter.numel() for parameter in module.parameters(recurse=False)) for module in modules]
    return max(sizes) * FLOAT


def growth(out: Path, num_ranks: int, stage: int) -> list[int]:
    """By how many bytes each rank's memory rose while the model was made."""
    out.mkdir()
    run_ranks(num_ranks, "tests.support.trainer.zero_init_worker:grow", out=str(out), stage=stage)
    found = [json.loads(file.read_text()) for file in sorted(out.glob("*.json"))]
    assert len(found) == num_ranks
    return [rank["peak"] - rank["before"] for rank in found]


@pytest.mark.slow
def test_no_rank_ever_holds_the_whole_model(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    config = deep_config()
    whole = num_parameters(config) * FLOAT
    bound = whole // 2 + transient_bytes(config) + SLACK_BYTES
    assert bound < 0.75 * whole, "the bound has to tell a sharded model from a whole one"
    assert max(growth(tmp_path / "sharded", 2, stage=3)) < bound
    assert min(growth(tmp_path / "whole", 1, stage=1)) > 0.95 * whole


@pytest.mark.parametrize("world_size", [8, 360])
def test_18b_is_made_within_its_share_and_two_gigabytes(world_size: int) -> None:
    """The same sum that holds above, for the model that no machine here can hold."""
    config = models.config("eva-clip-18b")
    share = num_parameters(config) * FLOAT / world_size
    peak = share + transient_bytes(config) + SLACK_BYTES
    assert peak <= share + 2e9
    assert transient_bytes(config) == (5120 * 25600 + 25600) * FLOAT
