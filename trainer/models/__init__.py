"""The EVA-CLIP family by name: `names()`, `config(name)`, `build(name)` and `load(path)`.

A model is a file in `trainer/models/configs/` and nothing else; torch is imported only when a model is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.models.configs import config, names

if TYPE_CHECKING:
    import torch

    from trainer.models.clip import Clip

__all__ = ["build", "config", "load", "names"]


def build(name: str, *, image_size: int | None = None, **overrides: Any) -> Clip:
    """Make a model with fresh weights, on the device of the surrounding `torch.device`, "meta" included.

    Args:
        name: one of `names()`.
        image_size: pixels along a side, a multiple of the patch size; the model's own by default.
        overrides: fields of `ClipConfig`; `vision` and `text` take dicts of theirs, as in `vision={"layers": 2}`.

    Raises:
        UserError: as `config`.
    """
    from trainer.models.clip import Clip  # imports torch, which names and numbers do without

    return Clip(config(name, image_size=image_size, **overrides))


def load(path: str | Path, name: str | None = None, *, dtype: torch.dtype | None = None) -> Clip:
    """Build the model a checkpoint holds and fill it, in evaluation mode on the CPU.

    Args:
        path: a file or folder in any layout of `trainer.weights`.
        name: the model, where the shapes alone should not decide.
        dtype: of the parameters; float32 by default.

    Raises:
        UserError: when the file is no such checkpoint or is of another model.
    """
    from trainer.weights import load_model  # imports torch, which names and numbers do without

    return load_model(Path(path), name, dtype=dtype)
