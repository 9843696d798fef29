"""What turns pictures into vectors, one file a kind: `EMBEDDER` is a class; adding a file adds an embedder.

A CLIP gives captions vectors too: its class is a `TextEmbedder`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from curation.errors import UserError
from curation.recipe.config import Recipe
from jobs.embedders._identity import identify_model, is_same_model

__all__ = [
    "Embedder",
    "TextEmbedder",
    "TextSide",
    "find_embedder",
    "find_text_side",
    "identify_model",
    "is_same_model",
    "load_embedder",
    "load_text_embedder",
    "resolve_model",
    "resolve_models",
]

TextSide = Literal["none", "captions", "any"]
"""What a model has vectors of beside pictures: nothing, the captions that it was published with, or any text."""


class Embedder(Protocol):
    """Pictures in, vectors out. Heavy packages are imported when one is made, not when its file is."""

    min_cosine: float | None
    """Calibrated cosine from which two pictures are near-duplicates under this embedder; None when nobody knows."""
    doubtful_cosines: tuple[float, float] | None
    """Calibrated range of cosines in which a second look at the pictures decides; None when nobody knows."""
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


@runtime_checkable
class TextEmbedder(Embedder, Protocol):
    """An embedder that has vectors of texts in the space of its pictures' vectors."""

    @staticmethod
    def find_text_side(model: str) -> TextSide:
        """Of what `model` has vectors, found out without embedding anything. Raises UserError as `check`."""
        ...

    def embed_texts(self, uids: Sequence[str], texts: Sequence[str | None]) -> np.ndarray:
        """Captions, each with its uid → float32 `[n, dim]`; NaN rows for those that are empty or cannot be found."""
        ...


def resolve_model(recipe: Recipe) -> str:
    """`embed.model` of `recipe`: a full path when there is such a file or folder beside the recipe, else as it is."""
    return resolve_one_model(recipe, recipe.embed.model)


def resolve_models(recipe: Recipe) -> dict[str, str]:
    """As `resolve_model`, of every model that the recipe names, by its name; that of embed.model is empty."""
    named = {name: resolve_one_model(recipe, item.model) for name, item in recipe.embed.models.items()}
    return {"": resolve_model(recipe), **named}


def resolve_one_model(recipe: Recipe, model: str) -> str:
    path = recipe.resolve(model)
    return path if Path(path).exists() else model


def find_text_side(model: str) -> TextSide:
    """Of what `model` has vectors beside pictures. Raises UserError for a model that is unknown or damaged."""
    finder: Callable[[str], TextSide] | None = getattr(find_embedder(model), "find_text_side", None)
    return "none" if finder is None else finder(model)


def find_embedder(model: str, setting: str = "embed.model") -> type[Embedder]:
    """The class of the embedder that `model` means: a name, or a path. Raises UserError when there is none.

    `setting` is what the message calls the place where it is named.
    """
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")):
        embedder: type[Embedder] = importlib.import_module(f"{__name__}.{module}").EMBEDDER
        if embedder.accepts(model):
            return embedder
    raise UserError(
        f"{setting}: {model!r} is no known embedder, and no ONNX file, CLIP checkpoint or folder of embeddings: "
        f"name efficientnet-lite0, or the path of one of those from the recipe's folder."
    )


_loaded: dict[str, Embedder] = {}


def load_embedder(model: str) -> Embedder:
    """The embedder of this process, built once for all the units that it gets."""
    if model not in _loaded:
        _loaded[model] = find_embedder(model)(model)
    return _loaded[model]


def load_text_embedder(model: str) -> TextEmbedder:
    """As `load_embedder`. Raises UserError for a model that has no vectors of texts."""
    embedder = load_embedder(model)
    if not isinstance(embedder, TextEmbedder):
        raise UserError(f"{model} has vectors of pictures alone: name a CLIP, which has a text tower.")
    return embedder
