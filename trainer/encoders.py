"""Any CLIP whose checkpoint this project reads, as what embeds pictures and texts: EVA-CLIP or plain CLIP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.models.clip import Clip
from trainer.models.plain_clip import PlainClip
from trainer.plain_weights import infer_plain_config, is_plain_clip, load_plain_clip
from trainer.weight_files import WeightFile
from trainer.weights import infer_config, load_model


@dataclass(frozen=True)
class Encoder:
    """`model` has `encode_image` and `encode_text`; pictures have `image_size` pixels a side."""

    model: Clip | PlainClip
    image_size: int
    context_length: int
    embed_dim: int


def load_encoder(path: Path, dtype: torch.dtype = torch.float32) -> Encoder:
    """The CLIP at `path`, a file or folder, in evaluation mode on the CPU. Raises UserError as `find_embed_dim`."""
    file = WeightFile(path)
    if is_plain_clip(file):
        plain = load_plain_clip(file, dtype)
        config = plain.config
        return Encoder(plain, config.image_size, config.context_length, config.embed_dim)
    model = load_model(path, dtype=dtype)
    return Encoder(model, model.config.vision.image_size, model.config.text.context_length, model.config.embed_dim)


def find_embed_dim(path: Path) -> int:
    """The dimension of the space of the CLIP at `path`, from the names and shapes of its tensors.

    Raises:
        UserError: when it is no CLIP that can be read, or lacks a tower.
    """
    file = WeightFile(path)
    return infer_plain_config(file).embed_dim if is_plain_clip(file) else infer_config(file).embed_dim
