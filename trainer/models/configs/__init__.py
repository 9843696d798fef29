"""The models by name: each file of this folder is one, and its name with hyphens is the model's.

A name may go on with other sizes of the image tower, as in "eva02-l-14:depth=12,width=512,heads=8". Checkpoints and
chains keep such a name, so a model that is in no table is built again from it alone.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
from typing import Any

from curation.errors import UserError
from trainer.models.config import ClipConfig, VisionConfig

SIZES = ("depth", "width", "heads")
"""Of an image tower, that a name may say."""


def names() -> list[str]:
    """Every model that can be built, sorted."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def config(name: str, *, image_size: int | None = None, **overrides: Any) -> ClipConfig:
    """What `trainer.models.build` makes of the same arguments, as numbers only.

    Raises:
        UserError: for an unknown name or setting, or sizes that do not divide.
    """
    base, _, sizes = name.partition(":")
    if base not in names():
        raise UserError(f"There is no model {base!r}; the models are {', '.join(names())}.")
    found: ClipConfig = importlib.import_module(f"{__name__}.{base.replace('-', '_')}").CONFIG
    if sizes:
        found = found.override(vision=_resize_tower(found.vision, _read_sizes(name, sizes)))
    return found.override(image_size=image_size, **overrides)


def spell_name(base: str, sizes: Mapping[str, int | None]) -> str:
    """The name of model `base` with those `sizes` of SIZES that are not None."""
    told = ",".join(f"{key}={sizes[key]}" for key in SIZES if sizes.get(key) is not None)
    return f"{base}:{told}" if told else base


def _read_sizes(name: str, sizes: str) -> dict[str, int]:
    found = dict(re.findall(r"(\w+)=(\d{1,9})(?:,|$)", sizes))
    if spell_name("", {key: int(value) for key, value in found.items() if key in SIZES}) != f":{sizes}":
        raise UserError(f"The sizes of model {name!r} are spelled NAME:depth=12,width=512,heads=8, in this order.")
    return {key: int(value) for key, value in found.items()}


def _resize_tower(vision: VisionConfig, sizes: Mapping[str, int]) -> dict[str, int]:
    """The changes to the image tower: its MLP keeps its ratio, and without `heads` the heads keep their width."""
    width = sizes.get("width", vision.width)
    changes = {
        "layers": sizes.get("depth", vision.layers),
        "width": width,
        "hidden_width": round(vision.hidden_width * width / vision.width),
    }
    if "heads" in sizes:
        if not sizes["heads"] or width % sizes["heads"]:
            raise UserError(f"A width of {width} does not divide into {sizes['heads']} heads: choose another number.")
        changes["head_width"] = width // sizes["heads"]
    return changes
