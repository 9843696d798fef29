"""A CLIP of random weights that embeds in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainer.models import build
from trainer.models.clip import Clip
from trainer.weights import save_model


def write_tiny_clip(path: Path, seed: int = 0, **overrides: Any) -> Clip:
    """The debug model, whose weights lie in `path` then."""
    torch.manual_seed(seed)
    model = build("debug", **overrides).eval()
    save_model(model, path)
    return model
