"""Steps of plain SGD under ZeRO-3, whose hooks gather parameters around each module's forward."""

from __future__ import annotations

import deepspeed
import torch
from torch import Tensor

from tests.support.trainer.small_models import pixels
from trainer.launch import process_group, read_rank
from trainer.models.clip import Clip
from trainer.models.config import ClipConfig

SETTINGS = {
    "train_micro_batch_size_per_gpu": 2,
    "zero_allow_untested_optimizer": True,
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
}


def save_steps(out: str, config: ClipConfig, tokens: Tensor, *, learning_rate: float, steps: int) -> None:
    """Train a model of `config` on one batch, a picture a row of `tokens`, and write its whole weights to `out`."""
    rank = read_rank()
    with process_group(rank):
        torch.manual_seed(0)
        with deepspeed.zero.Init(config_dict_or_path=SETTINGS):
            model = Clip(config)
        optimizer = torch.optim.SGD(model.parameters(), learning_rate)
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=SETTINGS)
        images = pixels(engine.module, len(tokens))
        for _ in range(steps):
            image, text, _scale = engine(images, tokens)
            engine.backward((image * text).sum())
            engine.step()
        named = dict(engine.module.named_parameters())
        with deepspeed.zero.GatheredParameters(list(named.values())):
            if rank.is_first:
                torch.save({name: p.detach().clone() for name, p in named.items()}, out)
