"""An image tower and a text tower in one space: the module that is trained, evaluated and exported."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.models.config import ClipConfig
from trainer.models.text import TextTower
from trainer.models.vision import VisionTower


class Clip(nn.Module):
    """EVA-CLIP of any size; `logit_scale` is the logarithm of the inverse temperature.

    `logit_scale` has shape [1], not [], because DeepSpeed's partitioning refuses 0-D parameters.
    """

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = VisionTower(config.vision, config.embed_dim)
        self.text = TextTower(config.text, config.embed_dim)
        self.logit_scale = nn.Parameter(torch.full((1,), -math.log(config.temperature)))

    def encode_image(self, pixels: Tensor) -> Tensor:
        """`[b, 3, h, w]` to `[b, embed_dim]`, not normalised."""
        features: Tensor = self.visual(pixels)
        return features

    def encode_patches(self, pixels: Tensor) -> Tensor:
        """`[b, 3, h, w]` to every patch in the shared space, `[b, num_patches, embed_dim]`: a teacher's features."""
        features: Tensor = self.visual(pixels, output="patches")
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        """int64 `[b, n]`, n at most 77, to `[b, embed_dim]`, not normalised."""
        features: Tensor = self.text(tokens)
        return features

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode both: image and text features, `[b, embed_dim]` each, not normalised, and exp(logit_scale), `[1]`."""
        return self.visual(pixels), self.text(tokens), self.logit_scale.exp()

    def set_grad_checkpointing(self, enabled: bool = True) -> None:
        """Recompute every block in the backward pass instead of keeping its activations."""
        self.visual.blocks.grad_checkpointing = enabled
        self.text.blocks.grad_checkpointing = enabled

    def set_patch_drop(self, share: float) -> None:
        """Drop this share of the patches, in [0, 1), in every training forward that follows."""
        self.visual.patch_drop = share

    def layer_groups(self) -> dict[str, "LayerGroup"]:
        """Where each parameter stands, for learning rates that differ by tower and decay by layer."""
        return {name: layer_group(name, parameter, self) for name, parameter in self.named_parameters()}


@dataclass(frozen=True)
class LayerGroup:
    """A parameter's tower ("visual", "text" or "" for the rest), its depth and the tower's greatest depth.

    Depth 0 is the embedding, i + 1 block i, and the last one the final norm and projection, so that a layer decay d
    scales the learning rate by d ** (max_depth - depth). `decay` is whether weight decay is for it: matrices only, and
    neither position embeddings nor CLS (EVA's optimizer rule).
    """

    tower: str
    depth: int
    max_depth: int
    decay: bool


_EMBEDDINGS = ("patch_embed", "cls_token", "pos_embed", "mask_token", "token_embedding", "positional_embedding")
_NEVER_DECAYED = ("cls_token", "pos_embed", "mask_token", "positional_embedding")


def layer_group(name: str, parameter: nn.Parameter, model: nn.Module) -> LayerGroup:
    """Place one parameter of a `Clip` or a `trainer.models.mim.MaskedImageModel` by its name."""
    tower, _, rest = name.partition(".")
    # ZeRO-3 leaves a sharded parameter empty and keeps its real shape here.
    num_axes = len(getattr(parameter, "ds_shape", parameter.shape))
    decay = num_axes > 1 and name.rpartition(".")[2] not in _NEVER_DECAYED
    if tower not in ("visual", "text"):
        return LayerGroup("", 0, 0, decay)
    max_depth = len(getattr(model, tower).blocks) + 1
    part = rest.split(".")
    if part[0] in _EMBEDDINGS:
        return LayerGroup(tower, 0, max_depth, decay)
    return LayerGroup(tower, int(part[1]) + 1 if part[0] == "blocks" else max_depth, max_depth, decay)
