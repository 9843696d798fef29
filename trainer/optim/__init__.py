"""Optimizers that are exact under ZeRO, parameter groups by tower and layer, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainer.config import OptimConfig, TowerConfig
from trainer.optim.adamw import AdamW
from trainer.optim.average import AVERAGE, keep_average
from trainer.optim.lamb import Lamb, Segments
from trainer.optim.lion import Lion
from trainer.optim.schedule import warmup_cosine
from trainer.optim.segments import zero_segments
from trainer.optim.whole_step import step_at_once

if TYPE_CHECKING:
    from trainer.models.clip import LayerGroup

__all__ = ["AVERAGE", "AdamW", "Lamb", "Lion", "Segments", "bind_to_zero", "build_optimizer", "keep_average"]
__all__ += ["parameter_groups", "set_learning_rate", "step_at_once", "warmup_cosine"]


def parameter_groups(
    parameters: Mapping[str, nn.Parameter],
    layers: Mapping[str, LayerGroup],
    config: OptimConfig,
    upper_bounds: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Groups of equal learning rate and weight decay.

    Args:
        parameters: name → parameter; frozen ones are left out.
        layers: name → where it stands; a name that is missing belongs to no tower.
        upper_bounds: name → value that the parameter may not exceed. Such a one is alone in its group, so that its
            flat partition holds nothing else to clamp.

    Each group has `base_lr` beside `lr`, which `set_learning_rate` scales.
    """
    bounds = upper_bounds or {}
    groups: dict[tuple[float, float, str], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            rate, decay = _rate_and_decay(layers.get(name), config)
            groups[rate, decay, name if name in bounds else ""].append(parameter)
    return [
        {"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay, "upper_bound": bounds.get(name)}
        for (rate, decay, name), members in groups.items()
    ]


def _rate_and_decay(layer: LayerGroup | None, config: OptimConfig) -> tuple[float, float]:
    towers: dict[str, TowerConfig] = {"visual": config.image, "text": config.text}
    if layer is None or layer.tower not in towers:
        return (config.text.lr if config.scale_lr is None else config.scale_lr), 0.0
    tower = towers[layer.tower]
    rate = tower.lr * tower.layer_decay ** (layer.max_depth - layer.depth)
    return rate, tower.weight_decay if layer.decay else 0.0


def build_optimizer(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer over `groups`, keeping every group below its upper bound after each step."""
    optimizer: torch.optim.Optimizer
    if config.name == "adamw":
        optimizer = AdamW(groups, betas=config.betas, eps=config.eps)
    elif config.name == "lamb":
        optimizer = Lamb(groups, betas=config.betas, eps=config.eps, max_trust_ratio=config.max_trust_ratio)
    elif config.name == "lamb-eva":
        # Its clipping at norm 1 is the engine's (OptimConfig.gradient_clip), which knows the gradients of all ranks.
        optimizer = Lamb(groups, betas=config.betas, eps=config.eps, max_trust_ratio=math.inf, always_adapt=False)
    else:
        optimizer = Lion(groups, betas=config.betas)
    optimizer.register_step_post_hook(_clamp)
    return optimizer


@torch.no_grad()
def _clamp(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    # Under ZeRO these are the fp32 masters; clamping the model's own bf16 copy would be undone by the next step.
    for group in optimizer.param_groups:
        if group.get("upper_bound") is not None:
            for parameter in group["params"]:
                parameter.clamp_(max=group["upper_bound"])


def bind_to_zero(engine: Any) -> None:
    """Tell a `Lamb` inside a DeepSpeed engine how ZeRO cut its parameters up; nothing to do for element-wise ones."""
    optimizer = engine.basic_optimizer
    if isinstance(optimizer, Lamb):
        optimizer.set_segments(zero_segments(engine))


def set_learning_rate(optimizer: Any, factor: float) -> float:
    """Scale every group's base rate by `factor`; returns the highest rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return float(max(group["lr"] for group in optimizer.param_groups))
