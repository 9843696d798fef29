"""One step of distillation on each rank, for comparison with a single process."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.support.trainer.toy import configuration
from trainer import checkpoint, launch, zero
from trainer.config import Config
from trainer.launch import read_rank

NUM_IMAGES = 8


def settings(folder: Path | str, *overrides: str) -> Config:
    """Masked image modelling of the debug model without anything random in the forward."""
    sets = ["distill.teacher=debug", "distill.flip_share=0", "train.batch_size=8", "optim.clip_norm=0"]
    return configuration(folder, [*sets, *overrides])


def pixels() -> torch.Tensor:
    """The whole batch."""
    return torch.randn(NUM_IMAGES, 3, 64, 64, generator=torch.Generator().manual_seed(9))


def masks() -> torch.Tensor:
    """Seven hidden patches of each image."""
    order = torch.rand(NUM_IMAGES, 16, generator=torch.Generator().manual_seed(8)).argsort(1)
    return order < 7


def save_step(folder: str, out: str, overrides: list[str]) -> None:
    """Loss and weights after one plain SGD step on this rank's share."""
    import torch.distributed as dist

    from trainer.objectives import distillation
    from trainer.objectives.distillation import Distillation

    rank = read_rank()
    launch.prepare_environment(rank)
    config = settings(Path(folder, str(rank.rank)), *overrides)
    share = NUM_IMAGES // rank.world_size
    parts = config.train.num_micro_batches(rank.world_size)
    rows = slice(rank.rank * share, (rank.rank + 1) * share)
    waiting = list(masks()[rows].chunk(parts))
    vars(distillation)["draw_block_masks"] = lambda *_: waiting.pop(0)  # the name is not exported
    with launch.process_group(rank) as device:
        objective = Distillation(config)
        zero_settings = zero.make_zero_config(config, rank.world_size, on_gpu=False)
        torch.manual_seed(0)
        with zero.shard_while_building(config, zero_settings):
            module = objective.build(None, None)
        engine = zero.make_engine(module, torch.optim.SGD(module.parameters(), 1.0), zero_settings)
        engine.train()
        before = checkpoint.gather_weights(engine, "fp32")
        told: list[torch.Tensor] = []

        def is_sound(loss: torch.Tensor) -> bool:
            told.append(loss)
            return True

        batches = [{"pixels": part.to(device)} for part in pixels()[rows].chunk(parts)]
        loss, scale = objective.step(engine, batches, lambda _: None, is_sound)
        assert scale is None and len(told) == 1
        dist.all_reduce(loss)
        engine.step()
        after = checkpoint.gather_weights(engine, "fp32")
        if rank.is_first:
            gradients = {name: before[name] - after[name] for name in after}
            torch.save({"loss": loss / rank.world_size, "before": before, "gradients": gradients}, out)
