"""What turns pictures into vectors, one file a kind: `EMBEDDER` is a class; adding a file adds an embedder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from curation.errors import UserError
from curation.recipe.config import Recipe
from jobs.embedders._identity import identify_model, is_same_model

__all__ = [
    "Embedder",
    "find_embedder",
    "identify_model",
    "is_same_model",
    "load_embedder",
    "resolve_model",
]


class Embedder(Protocol):
    """Pictures in, vectors out. Heavy packages are imported when one is made, not when its file is."""

    min_cosine: float | None
    """Calibrated cosine from which two pictures are near-duplicates under this embedder; None when nobody knows."""
    dim: int
    reads_pictures: bool
    """False when it looks vectors up by uid: pictures of an evaluation set then have hashes only."""

    def __init__(self, model: str) -> None: ...

    @staticmethod
    def accepts(model: str) -> bool:
        """Whether `embed.model = model` means this embedder."""
        ...

    @staticmethod
    def check(model: str) -> int:
        """The dimension of the vectors of `model`, found out without embedding anything.

        Raises UserError when a package or a file that the embedder needs is missing or damaged.
        """
        ...

    def embed(self, uids: Sequence[str], pictures: Iterable[bytes]) -> np.ndarray:
        """Encoded pictures → float32 `[n, dim]`; NaN rows for those that cannot be decoded or found."""
        ...


def resolve_model(recipe: Recipe) -> str:
    """`embed.model` of `recipe`: a full path when there is such a file or folder beside the recipe, else as it is."""
    path = recipe.resolve(recipe.embed.model)
    return path if Path(path).exists() else recipe.embed.model


def find_embedder(model: str) -> type[Embedder]:
    """The class of the embedder that `model` means: a name, or a path. Raises UserError when there is none."""
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")):
        embedder: type[Embedder] = importlib.import_module(f"{__name__}.{module}").EMBEDDER
        if embedder.accepts(model):
            return embedder
    raise UserError(
        f"embed.model: {model!r} is no known embedder, and no ONNX file, EVA-CLIP checkpoint or folder of embeddings: "
        f"name efficientnet-lite0, or the path of one of those from the recipe's folder."
    )


_loaded: dict[str, Embedder] = {}


def load_embedder(model: str) -> Embedder:
    """The embedder of this process, built once for all the units that it gets."""
    if model not in _loaded:
        _loaded[model] = find_embedder(model)(model)
    return _loaded[model]
