"""Both towers of the checkpoint of an EVA-CLIP or a plain CLIP, in any layout that docs/models.md names.

Its calibrated cosine depends on the checkpoint and is unknown: set dedupe.min_cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curation.errors import UserError
from jobs.embedders._pictures import PictureEmbedder, find_device

if TYPE_CHECKING:
    from torch import Tensor

    from jobs.embedders import TextSide

SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")
CONFIGS = ("config.json", "open_clip_config.json")


class ClipCheckpoint(PictureEmbedder):
    """See `jobs.embedders.Embedder`."""

    reads_pictures = True
    min_cosine: float | None = None
    doubtful_cosines: tuple[float, float] | None = None

    def __init__(self, model: str) -> None:
        import torch

        from trainer.data.transforms import EvalTransform
        from trainer.encoders import load_encoder

        self._device = find_device()
        self._dtype = torch.bfloat16 if self._device.type == "cuda" else torch.float32
        encoder = load_encoder(Path(model), self._dtype)
        self._model = encoder.model.to(self._device)
        self.image_size = encoder.image_size
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

    def decode(self, picture: bytes) -> np.ndarray | None:
        """uint8 `[s, s, 3]`, s being the model's side."""
        from trainer.data.readers import SampleError
        from trainer.data.transforms import decode

        try:
            return self._transform(decode(picture), np.zeros(0))
        except SampleError:
            return None

    def encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """See `PictureEmbedder.encode`; rows have length 1. What is normalised on the device costs no core."""
        import torch

        from trainer.data.transforms import MEAN, STD

        with torch.inference_mode():
            batch = torch.from_numpy(np.stack(pixels)).to(self._device).permute(0, 3, 1, 2).float().div_(255)
            mean, std = (torch.tensor(values, device=self._device).view(1, 3, 1, 1) for values in (MEAN, STD))
            normalised = batch.sub_(mean).div_(std).contiguous().to(self._dtype)
            return _normalise(self._model.encode_image(normalised))

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
