"""The module that contrastive training trains: a CLIP with its temperature, and with SigLIP's bias."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.weights import LOGIT_BIAS

if TYPE_CHECKING:
    from trainer.models.clip import Clip, LayerGroup
    from trainer.weight_files import WeightFile

INITIAL_TEMPERATURE = {"infonce": 0.07, "siglip": 0.1}
INITIAL_BIAS = -10.0
"""SigLIP's, arXiv 2303.15343, section 3.2."""


class Outputs(NamedTuple):
    """Normalised features `[b, d]`, inverse temperature `[1]`, SigLIP's bias `[1]` or None."""

    image: Tensor
    text: Tensor
    scale: Tensor
    bias: Tensor | None


class ContrastiveModel(nn.Module):
    """A `Clip`, the temperature it is trained with, and SigLIP's bias; `locked` towers of it are not trained."""

    def __init__(self, clip: Clip, config: TrainConfig, locked: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self._locked = tuple(tower.requires_grad_(False) for tower in locked)
        self.clip = clip
        self.fixed_scale = None if config.temperature is None else 1 / config.temperature
        self.max_log_scale = -math.log(config.min_temperature)
        clip.logit_scale.requires_grad_(self.fixed_scale is None)
        if config.loss == "siglip":
            self.logit_bias = nn.Parameter(torch.full((1,), INITIAL_BIAS))
        self.masters: dict[str, Tensor] = {}
        """Name → float32 value of a parameter that the model's precision rounds too coarsely; see `scalars`."""

    def train(self, mode: bool = True) -> ContrastiveModel:
        """As any module, except that a locked tower stays in evaluation: nothing of it is dropped."""
        super().train(mode)
        for tower in self._locked:
            tower.eval()
        return self

    def scalars(self) -> dict[str, nn.Parameter]:
        """The trained parameters of one element, which bf16 knows in steps of 1.6 % (log 14) and 0.06 (-10)."""
        scalars = {"clip.logit_scale": self.clip.logit_scale}
        if hasattr(self, "logit_bias"):
            scalars["logit_bias"] = self.logit_bias
        return {name: parameter for name, parameter in scalars.items() if parameter.requires_grad}

    def forward(self, pixels: Tensor | None, tokens: Tensor | None) -> Outputs:
        """`[b, 3, h, w]` and `[b, n]` to normalised float32 features, the inverse temperature and the bias.

        Clips are `[b, frames, 3, h, w]`, and their features the mean of their frames' embeddings, normalised.

        Either input may be None, and its features are then `[0, d]`: evaluation must go through this forward too,
        since ZeRO-3 counts on every pass beginning at the root.
        """
        bias = self._in_float32("logit_bias", self.logit_bias) if hasattr(self, "logit_bias") else None
        return Outputs(self._encode_image(pixels), self._encode_text(tokens), self._scale(), bias)

    def _encode_image(self, pixels: Tensor | None) -> Tensor:
        if pixels is None:
            return torch.empty(0, self.clip.config.embed_dim)
        pixels = pixels.to(self.clip.logit_scale.dtype)
        if pixels.dim() == 4:
            return F.normalize(self.clip.encode_image(pixels).float(), dim=-1)
        # The projection is linear, so this is the projection of the mean CLS token.
        frames = self.clip.encode_image(pixels.flatten(0, 1)).float().unflatten(0, pixels.shape[:2])
        return F.normalize(frames.mean(1), dim=-1)

    def _encode_text(self, tokens: Tensor | None) -> Tensor:
        if tokens is None:
            return torch.empty(0, self.clip.config.embed_dim)
        return F.normalize(self.clip.encode_text(tokens).float(), dim=-1)

    def _scale(self) -> Tensor:
        if self.fixed_scale is not None:
            # No product with the parameter: in bf16 it could not even hold log(100).
            return torch.full((1,), self.fixed_scale, device=self.clip.logit_scale.device)
        log_scale = self._in_float32("clip.logit_scale", self.clip.logit_scale)
        # The value is clamped and the gradient is not, or a parameter at its bound could never come back. The
        # optimizer keeps the master at the bound (trainer.optim); this covers its rounding to bf16.
        return (log_scale + (log_scale.clamp(max=self.max_log_scale) - log_scale).detach()).exp()

    def _in_float32(self, name: str, parameter: Tensor) -> Tensor:
        """The master's value where there is one, with the gradient of the parameter."""
        value, master = parameter.float(), self.masters.get(name)
        return value if master is None else value + (master - value).detach()

    def upper_bounds(self) -> dict[str, float]:
        """Parameters that may not exceed a value."""
        return {"clip.logit_scale": self.max_log_scale} if self.fixed_scale is None else {}

    def layers(self) -> dict[str, LayerGroup]:
        """Where every parameter stands, for rates by tower and layer."""
        return {f"clip.{name}": layer for name, layer in self.clip.layer_groups().items()}


def set_temperature(clip: Clip, config: TrainConfig, *, pretrained: bool) -> None:
    """Start the temperature where the configuration says; a pre-trained one is kept unless it says so."""
    wanted = config.temperature or config.initial_temperature
    if wanted is None and not pretrained:
        wanted = INITIAL_TEMPERATURE[config.loss]
    if wanted is not None:
        with torch.no_grad(), _gather_whole(clip.logit_scale):
            clip.logit_scale.fill_(-math.log(wanted))


def set_bias(model: ContrastiveModel, file: WeightFile) -> None:
    """Take SigLIP's bias out of a checkpoint that has one."""
    if hasattr(model, "logit_bias") and LOGIT_BIAS in file.shapes:
        with torch.no_grad(), _gather_whole(model.logit_bias):
            model.logit_bias.copy_(file.tensor(LOGIT_BIAS).reshape(1))


@contextmanager
def _gather_whole(parameter: nn.Parameter) -> Iterator[None]:
    if not hasattr(parameter, "ds_id"):
        yield
        return
    import deepspeed  # only where it has sharded the parameters

    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        yield
