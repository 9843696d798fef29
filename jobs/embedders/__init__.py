"""What turns pictures into vectors, one file a kind: `EMBEDDER` is a class; adding a file adds an embedder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from curation.errors import UserError


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

    def embed(self, uids: Sequence[str], pictures: Iterable[bytes]) -> np.ndarray:
        """Encoded pictures → float32 `[n, dim]`; NaN rows for those that cannot be decoded or found."""
        ...


def kind(model: str) -> type[Embedder]:
    """The class of the embedder that `model` means: a name, or a path. Raises UserError naming what there is."""
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")):
        found: type[Embedder] = importlib.import_module(f"{__name__}.{module}").EMBEDDER
        if found.accepts(model):
            return found
    raise UserError(
        f"embed.model: {model!r} is no known embedder, and no ONNX file, EVA-CLIP checkpoint or folder of embeddings."
    )


_loaded: dict[str, Embedder] = {}


def loaded(model: str) -> Embedder:
    """The embedder of this process, built once for all the units that it gets."""
    if model not in _loaded:
        _loaded[model] = kind(model)(model)
    return _loaded[model]
