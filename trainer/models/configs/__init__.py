"""The models by name: each file of this folder is one, and its name with hyphens is the model's."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from curation.errors import UserError
from trainer.models.config import ClipConfig


def names() -> list[str]:
    """Every model that can be built, sorted."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def config(name: str, *, image_size: int | None = None, **overrides: Any) -> ClipConfig:
    """What `trainer.models.build` makes of the same arguments, as numbers only.

    Raises:
        UserError: for an unknown name or setting, or sizes that do not divide.
    """
    if name not in names():
        raise UserError(f"There is no model {name!r}; the models are {', '.join(names())}.")
    found: ClipConfig = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").CONFIG
    return found.override(image_size=image_size, **overrides)
