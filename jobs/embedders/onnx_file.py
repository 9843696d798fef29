"""Any ONNX image encoder: one input `[n, 3, h, w]` of CLIP-normalised pixels, its first output `[n, dim]`.

The picture is brought to the input's size as CLIP does (shortest side, then the centre). Fixed batch sizes are
honoured. Its calibrated cosine is unknown: set dedupe.min_cosine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from curation.errors import UserError

DEFAULT_SIDE = 224


class OnnxFile:
    """See `jobs.embedders.Embedder`."""

    reads_pictures = True
    min_cosine: float | None = None
    doubtful_cosines: tuple[float, float] | None = None

    def __init__(self, model: str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f"{model} needs onnxruntime: pip install onnxruntime.") from error
        try:
            self._session = onnxruntime.InferenceSession(model, providers=onnxruntime.get_available_providers())
        except Exception as error:  # onnxruntime has no public base class for what it raises
            reason = " ".join(str(error).split())
            raise UserError(
                f"{model} is no ONNX model that onnxruntime can load ({reason}): fetch it again."
            ) from error
        shape = self._session.get_inputs()[0].shape
        if len(shape) != 4:
            raise UserError(f"{model} takes an input of shape {shape}, not pictures [n, 3, height, width].")
        self._batch_size = shape[0] if isinstance(shape[0], int) else None
        self._side = shape[3] if isinstance(shape[3], int) else DEFAULT_SIDE
        output = self._session.get_outputs()[0].shape
        if len(output) != 2 or not isinstance(output[1], int):
            raise UserError(f"{model} gives {output}, not vectors [n, dim].")
        self.dim = output[1]

    @staticmethod
    def accepts(model: str) -> bool:
        return model.endswith(".onnx") and Path(model).is_file()

    @staticmethod
    def check(model: str) -> int:
        """See `jobs.embedders.Embedder.check`. Loads the model."""
        return OnnxFile(model).dim

    def embed(self, uids: Sequence[str], pictures: Iterable[bytes]) -> np.ndarray:
        """See `jobs.embedders.Embedder.embed`."""
        from jobs.embedders._clip_pixels import decode_pictures
        from trainer.data.transforms import EvalTransform

        batch, known = decode_pictures(pictures, EvalTransform(self._side))
        vectors = np.full((len(uids), self.dim), np.nan, np.float32)
        step = self._batch_size or max(1, len(batch))
        name = self._session.get_inputs()[0].name
        for start in range(0, len(batch), step):
            part = batch[start : start + step]
            padded = np.concatenate([part, np.zeros((step - len(part), *part.shape[1:]), np.float32)])
            vectors[known[start : start + step]] = self._session.run(None, {name: padded})[0][: len(part)]
        return vectors


EMBEDDER = OnnxFile
