"""Small models on random weights, and pictures for them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.trainer.tower_styles import randomise
from trainer import models
from trainer.models.clip import Clip
from trainer.models.mim import MaskedImageModel


def debug_model(**overrides: Any) -> Clip:
    """The debug model on weights that leave no part without effect."""
    model = models.build("debug", **overrides)
    randomise(model)
    return model


def pixels(model: Clip | MaskedImageModel, count: int = 2) -> Tensor:
    """Random images of the model's size."""
    side = model.config.vision.image_size
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def unit_features(tower: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """What the loss sees of an image tower."""
    with torch.no_grad():
        return F.normalize(tower(images), dim=-1)
