"""Both towers of the checkpoint of an EVA-CLIP or a plain CLIP, in any layout that docs/models.md names.

Its calibrated cosine depends on the checkpoint and is unknown: set dedupe.min_cosine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curation.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from jobs.embedders import TextSide

SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
CONFIGS = ("config.json", "open_clip_config.json")


class ClipCheckpoint:
    """See `jobs.embedders.Embedder`."""

    reads_pictures = True
    min_cosine: float | None = None

    def __init__(self, model: str) -> None:
        import torch

        from trainer.data.transforms import EvalTransform
        from trainer.encoders import load_encoder

        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        encoder = load_encoder(Path(model))
        self._model = encoder.model.to(self._device)
        self._transform = EvalTransform(encoder.image_size)
        self._context_length = encoder.context_length
        self.dim = encoder.embed_dim

    @staticmethod
    def accepts(model: str) -> bool:
        path = Path(model)
        return path.suffix in SUFFIXES and path.is_file() or any((path / name).is_file() for name in CONFIGS)

    @staticmethod
    def check(model: str) -> int:
        """See `jobs.embedders.Embedder.check`. Reads names and shapes of the tensors only."""
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise UserError(f"{model} needs torch: pip install 'clip-curation[train]'.") from error
        from trainer.encoders import find_embed_dim

        return find_embed_dim(Path(model))

    @staticmethod
    def find_text_side(model: str) -> TextSide:
        """See `jobs.embedders.TextEmbedder.find_text_side`: a whole CLIP has a text tower."""
        return "any"

    def embed(self, uids: Sequence[str], pictures: Iterable[bytes]) -> np.ndarray:
        """See `jobs.embedders.Embedder.embed`; rows have length 1."""
        import torch

        from jobs.embedders._clip_pixels import decode_pictures

        batch, known = decode_pictures(pictures, self._transform)
        vectors = np.full((len(uids), self.dim), np.nan, np.float32)
        if known:
            with torch.inference_mode():
                vectors[known] = _normalise(self._model.encode_image(torch.from_numpy(batch).to(self._device)))
        return vectors

    def embed_texts(self, uids: Sequence[str], texts: Sequence[str | None]) -> np.ndarray:
        """See `jobs.embedders.TextEmbedder.embed_texts`; rows have length 1."""
        import torch

        from trainer.data.tokenizer import tokenize, trim

        vectors = np.full((len(texts), self.dim), np.nan, np.float32)
        known = [(position, text) for position, text in enumerate(texts) if text]
        if known:
            tokens = trim(tokenize([text for _, text in known], self._context_length))
            with torch.inference_mode():
                features = self._model.encode_text(tokens.to(self._device))
                vectors[[position for position, _ in known]] = _normalise(features)
        return vectors


def _normalise(features: Tensor) -> np.ndarray:
    """`[n, dim]` of any precision as float32 rows of length 1."""
    from torch.nn.functional import normalize

    rows: np.ndarray = normalize(features.float(), dim=1).cpu().numpy()
    return rows


EMBEDDER = ClipCheckpoint
