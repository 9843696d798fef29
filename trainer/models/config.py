"""Describe an EVA-CLIP model: frozen dataclasses that every configuration file in `trainer.models.configs` fills.

Nothing here imports torch, so a dry run can size a model on a machine without it.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from curation.errors import UserError

MAX_COUNT = 1_000_000
"""More layers, channels or words has no model; a damaged file may say any number."""


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The image tower, a plain ViT (arXiv 2303.15389 and 2402.04252).

    `hidden_width` is the inner width of the MLP; `rope_grid` the side, in patches, of the grid whose rotary
    frequencies the model was pre-trained with, to which other resolutions are interpolated (0: no RoPE).
    """

    layers: int
    width: int
    head_width: int
    hidden_width: int
    patch_size: int
    image_size: int = 224
    norm: Literal["layer", "rms"] = "layer"
    norm_eps: float = 1e-6
    post_norm: bool = False
    sub_norm: bool = False
    swiglu: bool = False
    bias: bool = True
    rope_grid: int = 0
    drop_path: float = 0.0
    patch_drop: float = 0.0

    def __post_init__(self) -> None:
        _require_multiple("width", self.width, "head_width", self.head_width)
        _require_multiple("image_size", self.image_size, "patch_size", self.patch_size)
        if self.rope_grid:
            _require_multiple("head_width", self.head_width, "the 4 numbers of a 2-D rotation", 4)
        if self.norm not in ("layer", "rms"):
            raise UserError(f"The norm of an image tower is 'layer' or 'rms', not {self.norm!r}.")
        _require_counts(self, "layers", "hidden_width")
        if not 0 <= self.rope_grid <= MAX_COUNT:
            raise UserError(f"rope_grid is the side of a grid in patches, or 0, not {self.rope_grid}.")
        for name in ("drop_path", "patch_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is a share of what is dropped, in [0, 1), not {getattr(self, name)}.")

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of the whole image, without CLS."""
        return self.grid**2

    @property
    def heads(self) -> int:
        """Attention heads."""
        return self.width // self.head_width


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The text tower: CLIP's causal transformer (arXiv 2103.00020, section 2.4), MLP four times as wide."""

    layers: int
    width: int
    heads: int
    vocab_size: int = 49408
    context_length: int = 77
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        _require_multiple("the text tower's width", self.width, "heads", self.heads)
        _require_counts(self, "layers", "vocab_size", "context_length")

    @property
    def hidden_width(self) -> int:
        """Inner width of the MLP."""
        return 4 * self.width


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Both towers and the space they share; `temperature` is the one at initialisation."""

    vision: VisionConfig
    text: TextConfig
    embed_dim: int
    temperature: float = 0.07

    def __post_init__(self) -> None:
        _require_counts(self, "embed_dim")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"The temperature of a model is a finite number above 0, not {self.temperature}.")

    def override(self, *, image_size: int | None = None, **changes: Any) -> "ClipConfig":
        """Return a copy with fields replaced.

        `vision` and `text` take mappings of their own fields, as in `override(vision={"layers": 2})`.

        Raises:
            UserError: for an unknown field, with the allowed ones.
        """
        for tower in ("vision", "text"):
            if isinstance(changes.get(tower), Mapping):
                changes[tower] = _replace(getattr(self, tower), changes[tower], f"the {tower} tower")
        config: ClipConfig = _replace(self, changes, "a model")
        if image_size is None:
            return config
        return dataclasses.replace(config, vision=dataclasses.replace(config.vision, image_size=image_size))


def _replace(config: Any, changes: Mapping[str, Any], owner: str) -> Any:
    allowed = [field.name for field in dataclasses.fields(config)]
    for name in changes:
        if name not in allowed:
            raise UserError(f"{name!r} is not a setting of {owner}; the settings are {', '.join(allowed)}.")
    return dataclasses.replace(config, **changes)


def _require_counts(config: Any, *names: str) -> None:
    for name in names:
        if not 1 <= getattr(config, name) <= MAX_COUNT:
            raise UserError(f"{name} lies in 1..{MAX_COUNT:,}, and is not {getattr(config, name)}.")


def _require_multiple(what: str, value: int, of: str, divisor: int) -> None:
    if value <= 0 or divisor <= 0 or value % divisor:
        raise UserError(f"{what} ({value}) has to be a multiple of {of} ({divisor}).")
