"""A CLIP under contrastive training: its temperature, and one step over any number of micro-batches.

The loss of a contrastive batch is no mean of micro-batches' losses: every pair is scored against the whole batch. So a
step first computes all features without keeping activations, takes the loss of the whole batch and its gradient with
respect to the features, then runs each micro-batch again and sends its share of that gradient through the model
(gradient caching, arXiv 2101.06983, section 3.2). The result is the large batch's, at a micro-batch's memory; the loss
is computed once, not once a micro-batch as with open_clip's --accum-freq.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.objectives.loss import LOSSES

if TYPE_CHECKING:
    from trainer.models.clip import Clip, LayerGroup

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
    """A `Clip`, the temperature it is trained with, and SigLIP's bias."""

    def __init__(self, clip: Clip, config: TrainConfig) -> None:
        super().__init__()
        self.clip = clip
        self.fixed_scale = None if config.temperature is None else 1 / config.temperature
        self.max_log_scale = -math.log(config.min_temperature)
        clip.logit_scale.requires_grad_(self.fixed_scale is None)
        if config.loss == "siglip":
            self.logit_bias = nn.Parameter(torch.full((1,), INITIAL_BIAS))

    def forward(self, pixels: Tensor | None, tokens: Tensor | None) -> Outputs:
        """`[b, 3, h, w]` and `[b, n]` to normalised float32 features, the inverse temperature and the bias.

        Either input may be None, and its features are then `[0, d]`: evaluation must go through this forward too,
        since ZeRO-3 counts on every pass beginning at the root.
        """
        bias = self.logit_bias.float() if hasattr(self, "logit_bias") else None
        return Outputs(self._image(pixels), self._text(tokens), self._scale(), bias)

    def _image(self, pixels: Tensor | None) -> Tensor:
        if pixels is None:
            return torch.empty(0, self.clip.config.embed_dim)
        return F.normalize(self.clip.encode_image(pixels.to(self.clip.logit_scale.dtype)).float(), dim=-1)

    def _text(self, tokens: Tensor | None) -> Tensor:
        if tokens is None:
            return torch.empty(0, self.clip.config.embed_dim)
        return F.normalize(self.clip.encode_text(tokens).float(), dim=-1)

    def _scale(self) -> Tensor:
        if self.fixed_scale is not None:
            # No product with the parameter: in bf16 it could not even hold log(100).
            return torch.full((1,), self.fixed_scale, device=self.clip.logit_scale.device)
        log_scale = self.clip.logit_scale.float()
        # The value is clamped and the gradient is not, or a parameter at its bound could never come back. The
        # optimizer keeps the master at the bound (trainer.optim); this covers its rounding to bf16.
        return (log_scale + (log_scale.clamp(max=self.max_log_scale) - log_scale).detach()).exp()

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
        with torch.no_grad(), _whole(clip.logit_scale):
            clip.logit_scale.fill_(-math.log(wanted))


@contextmanager
def _whole(parameter: nn.Parameter) -> Iterator[None]:
    if not hasattr(parameter, "ds_id"):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        yield


Seeder = Callable[[int], None]
"""Called with a micro-batch's index before its forward: the second pass must drop the same paths and patches."""


def contrastive_step(
    engine: Any,
    micro_batches: Sequence[dict[str, Any]],
    loss_name: str,
    seed: Seeder,
    is_sound: Callable[[Tensor], bool],
) -> tuple[Tensor, Tensor]:
    """Forward and backward of one step of this rank's micro-batches; the caller steps the optimizer.

    Args:
        engine: a DeepSpeed engine around a `ContrastiveModel`.
        micro_batches: "pixels" and "tokens" on the engine's device, all of one size.
        loss_name: of `trainer.objectives.loss.LOSSES`.
        is_sound: told the loss before any gradient is made; False leaves the step without a backward.

    Returns:
        This rank's loss, `[]`, and the inverse temperature, `[1]`, both detached.
    """
    loss_of = LOSSES[loss_name]
    if len(micro_batches) == 1:
        seed(0)
        outputs = _forward(engine, micro_batches[0])
        loss = loss_of(*outputs)
        if is_sound(loss.detach()):
            engine.set_gradient_accumulation_boundary(True)
            engine.backward(loss)
        return loss.detach(), outputs.scale.detach()
    cached = _cached_features(engine, micro_batches, seed)
    loss = loss_of(*cached)
    if is_sound(loss.detach()):
        loss.backward()
        _replay(engine, micro_batches, cached, seed)
    return loss.detach(), cached.scale.detach()


def _forward(engine: Any, batch: dict[str, Any]) -> Outputs:
    return engine(batch["pixels"], batch["tokens"])


def _cached_features(engine: Any, micro_batches: Sequence[dict[str, Any]], seed: Seeder) -> Outputs:
    """The whole share's outputs as leaves that collect gradients."""
    outputs = []
    with torch.no_grad():
        for index, batch in enumerate(micro_batches):
            seed(index)
            outputs.append(_forward(engine, batch))
    image = torch.cat([o.image for o in outputs]).requires_grad_()
    text = torch.cat([o.text for o in outputs]).requires_grad_()
    # Detached: in fp32 the bias is the parameter itself, whose gradient must come through the engine only.
    scale, bias = outputs[0].scale.detach().clone().requires_grad_(), outputs[0].bias
    return Outputs(image, text, scale, None if bias is None else bias.detach().clone().requires_grad_())


def _replay(engine: Any, micro_batches: Sequence[dict[str, Any]], cached: Outputs, seed: Seeder) -> None:
    """Each micro-batch again, with gradients: the inner product with the cached ones has exactly their gradient."""
    assert cached.image.grad is not None and cached.text.grad is not None
    size = len(cached.image) // len(micro_batches)
    image_grads, text_grads = cached.image.grad.split(size), cached.text.grad.split(size)
    for index, batch in enumerate(micro_batches):
        seed(index)
        last = index == len(micro_batches) - 1
        engine.set_gradient_accumulation_boundary(last)
        outputs = _forward(engine, batch)
        surrogate = (outputs.image * image_grads[index]).sum() + (outputs.text * text_grads[index]).sum()
        # Temperature and bias enter the loss once, so their gradient goes in once.
        for output, leaf in ((outputs.scale, cached.scale), (outputs.bias, cached.bias)):
            if output is not None and leaf is not None and leaf.grad is not None:
                surrogate = surrogate + (output * leaf.grad).sum() * float(last)
        engine.backward(surrogate)
