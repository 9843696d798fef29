"""The EVA-CLIP family by name: `names()`, `config(name)`, `build(name)` and `load(path)`.

A model is a file in `trainer/models/configs/` and nothing else; torch is imported only when a model is made.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.errors import UserError
from trainer.models import configs
from trainer.models.config import ClipConfig

if TYPE_CHECKING:
    import torch

    from trainer.models.clip import Clip


def names() -> list[str]:
    """Every model that can be built, sorted."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(configs.__path__))


def config(name: str, *, image_size: int | None = None, **overrides: Any) -> ClipConfig:
    """What `build` makes of the same arguments, as numbers only.

    Raises:
        UserError: for an unknown name or setting, or sizes that do not divide.
    """
    if name not in names():
        raise UserError(f"There is no model {name!r}; the models are {', '.join(names())}.")
    module = importlib.import_module(f"{configs.__name__}.{name.replace('-', '_')}")
    return module.CONFIG.override(image_size=image_size, **overrides)


def build(name: str, *, image_size: int | None = None, **overrides: Any) -> Clip:
    """Make a model with fresh weights, on the device of the surrounding `torch.device`, "meta" included.

    Args:
        name: one of `names()`.
        image_size: pixels along a side, a multiple of the patch size; the model's own by default.
        overrides: fields of `ClipConfig`; `vision` and `text` take dicts of theirs, as in `vision={"layers": 2}`.

    Raises:
        UserError: as `config`.
    """
    from trainer.models.clip import Clip

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
    from trainer import weights

    return weights.load(Path(path), name, dtype=dtype)
