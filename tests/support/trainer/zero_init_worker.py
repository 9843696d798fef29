"""What each rank does in the tests of models that are sharded from birth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from trainer import config, weights
from trainer.models.clip import Clip
from trainer.models.config import ClipConfig
from trainer.weight_files import WeightFile


def worker_config() -> ClipConfig:
    """A post-norm tower with RMSNorm and a RoPE tower's biases: every kind of initial value."""
    from tests.support.trainer.tower_styles import shrunk

    return shrunk("eva02-e-14", rope_grid=16, swiglu=True, sub_norm=True)


def _sharded(**arguments: Any) -> Clip:
    import deepspeed

    deepspeed.init_distributed("gloo", verbose=False)
    with deepspeed.zero.Init(config_dict_or_path={"train_batch_size": 2, "zero_optimization": {"stage": 3}}):
        return Clip(worker_config(), **arguments)


def initial_values() -> None:
    """Nothing is whole on a rank after construction, and once gathered it is what one process would draw."""
    import deepspeed

    with torch.random.fork_rng():
        reference = Clip(worker_config())
    plain = dict(reference.named_parameters())
    sharded = _sharded()
    world_size = torch.distributed.get_world_size()
    named: dict[str, Any] = dict(sharded.named_parameters())
    for name, parameter in named.items():
        assert parameter.numel() == 0, f"{name} is whole"
        assert parameter.ds_tensor.numel() <= -(-parameter.ds_numel // world_size) + 1, name
        with deepspeed.zero.GatheredParameters([parameter]):
            expected = plain[name]
            assert parameter.shape == expected.shape
            if expected.numel() > 1000:
                torch.testing.assert_close(parameter.std(), expected.std(), rtol=0.1, atol=1e-6)
            elif "token" not in name:
                torch.testing.assert_close(parameter.data, expected.data)
    assert sharded.layer_groups() == reference.layer_groups()


def fill(path: str) -> None:
    """A checkpoint reaches sharded parameters whole, position embedding resized and all."""
    import deepspeed

    sharded = _sharded()
    report = weights.fill_model(sharded, WeightFile(Path(path)))
    assert len(report.matched) == len(list(sharded.parameters()))
    plain = Clip(worker_config())
    weights.fill_model(plain, WeightFile(Path(path)))
    expected = dict(plain.named_parameters())
    for name, parameter in sharded.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            torch.testing.assert_close(parameter.data, expected[name].data, rtol=0, atol=0)
        assert parameter.numel() == 0


def grow(out: str, stage: int) -> None:
    """Build a model of 18B's style as the loop does and save by how much this rank's memory rose at its highest."""
    from trainer import launch, zero
    from trainer.launch import read_rank

    rank = read_rank()
    launch.prepare_environment(rank)
    settings = config.load_config("eva-clip-18b", [f"zero.stage={stage}", "train.precision=fp32"])
    with launch.process_group(rank):
        zero_settings = zero.make_zero_config(settings, rank.world_size, on_gpu=False)
        # What is used once, DeepSpeed's operators among it, is no part of the model.
        with zero.shard_while_building(settings, zero_settings):
            Clip(worker_config())
        before = _memory("VmRSS")
        with zero.shard_while_building(settings, zero_settings):
            model = Clip(deep_config())
        Path(out, f"{rank.rank}.json").write_text(json.dumps({"before": before, "peak": _memory("VmHWM")}))
        del model


def deep_config() -> ClipConfig:
    """18B's style, three layers of half the width: 0.29 G parameters in tensors too large for the allocator's heap."""
    from trainer import models

    vision = {"layers": 3, "width": 2560, "hidden_width": 12800}
    return models.config("eva-clip-18b", vision=vision, text={"layers": 2, "width": 128, "heads": 2})


def _memory(field: str) -> int:
    """Bytes of this process, "VmRSS" now or "VmHWM" at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024
