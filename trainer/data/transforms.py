"""Stored bytes to EVA-CLIP's input: decode, crop, bicubic resize, normalise; the same numbers as PIL and torchvision.

JPEG goes through OpenCV, which gives the pixels that Pillow gives (both are libjpeg-turbo with the accurate DCT) in
half the time; whatever else, and JPEG that is not plain RGB or grey or does not end as it should, goes through Pillow.
Resampling is Pillow's antialiased bicubic. EXIF orientation is not applied, as in open_clip; the download stage has
turned the pictures already. Normalising looks 256 values a channel up, which equals `ToTensor` and `Normalize` exactly.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from trainer.data.readers import SampleError

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's pixel statistics in [0, 1] (arXiv 2103.00020), which EVA-CLIP keeps."""
MAX_PIXELS = 178_956_970
"""A larger picture is refused: where Pillow raises DecompressionBombError by default."""
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset(range(0xD0, 0xD8)) | {0x01}
_CV2_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


class Transform(Protocol):
    """uint8 `[h, w, 3]` to uint8 `[image_size, image_size, 3]`; random choices come from `uniforms` alone."""

    @property
    def image_size(self) -> int: ...

    @property
    def num_uniforms(self) -> int: ...

    def __call__(self, picture: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """`uniforms`: float64 `[num_uniforms]` in [0, 1), a function of (seed, pass, sample)."""
        ...


@dataclass(frozen=True)
class TrainTransform:
    """RandomResizedCrop: a crop of `scale` of the area and aspect ratio in `ratio`, resized to a square.

    The sampling is torchvision's `RandomResizedCrop.get_params`: ten attempts, then the largest centred crop within
    `ratio`. EVA-CLIP trains with scale (0.9, 1) (arXiv 2303.15389, section 3).
    """

    image_size: int
    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    ATTEMPTS = 10

    @property
    def num_uniforms(self) -> int:
        return 4 * self.ATTEMPTS

    def __call__(self, picture: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        top, left, height, width = self.crop(picture.shape[0], picture.shape[1], uniforms.tolist())
        return resize(picture[top : top + height, left : left + width], self.image_size, self.image_size)

    def crop(self, height: int, width: int, uniforms: Sequence[float]) -> tuple[int, int, int, int]:
        """(top, left, height, width) in pixels. `uniforms`: area, ratio, top, left of each attempt."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for k in range(0, 4 * self.ATTEMPTS, 4):
            area = height * width * (self.scale[0] + uniforms[k] * (self.scale[1] - self.scale[0]))
            ratio = math.exp(low + uniforms[k + 1] * (high - low))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(uniforms[k + 2] * (height - h + 1)), int(uniforms[k + 3] * (width - w + 1)), h, w
        w, h = width, height
        if width / height < self.ratio[0]:
            h = round(w / self.ratio[0])
        elif width / height > self.ratio[1]:
            w = round(h * self.ratio[1])
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class EvalTransform:
    """ "crop": shortest side to `image_size`, then the centre; "squash": both sides to `image_size`."""

    image_size: int
    mode: Literal["crop", "squash"] = "crop"

    num_uniforms = 0

    def __post_init__(self) -> None:
        if self.mode not in ("crop", "squash"):
            raise ValueError(f"mode is {self.mode!r}; allowed: crop, squash")

    def __call__(self, picture: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        size = self.image_size
        if self.mode == "squash":
            return resize(picture, size, size)
        height, width = picture.shape[:2]
        # torchvision truncates the longer side and rounds the centre half to even.
        if width <= height:
            picture = resize(picture, int(size * height / width), size)
        else:
            picture = resize(picture, size, int(size * width / height))
        top, left = round((picture.shape[0] - size) / 2), round((picture.shape[1] - size) / 2)
        return picture[top : top + size, left : left + size]


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's antialiased bicubic; uint8 `[h, w, 3]` to uint8 `[height, width, 3]`."""
    if picture.shape[:2] == (height, width):
        return picture
    resized = Image.fromarray(np.ascontiguousarray(picture)).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def decode(data: bytes | memoryview) -> np.ndarray:
    """RGB pixels, uint8 `[h, w, 3]`. Raises SampleError when the bytes are no whole picture."""
    if is_plain_jpeg(data):
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), _CV2_FLAGS)
        if picture is not None:
            return picture
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise SampleError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SampleError(f"no whole picture ({error})") from error


def is_plain_jpeg(data: bytes | memoryview) -> bool:
    """Whether this is a JPEG of one or three 8-bit channels, not too large, that ends with its end marker.

    Only there do OpenCV and Pillow agree: OpenCV fills what a truncated file lacks with grey and converts CMYK its way.
    """
    if len(data) < 4 or data[0] != 0xFF or data[1] != 0xD8 or bytes(data[-2:]) != b"\xff\xd9":
        return False
    position = 2
    while position + 9 < len(data):
        if data[position] != 0xFF:
            return False
        marker = data[position + 1]
        if marker in _START_OF_FRAME:
            height, width = data[position + 5] << 8 | data[position + 6], data[position + 7] << 8 | data[position + 8]
            return data[position + 4] == 8 and data[position + 9] in (1, 3) and height * width <= MAX_PIXELS
        if marker == 0xFF:
            position += 1
        elif marker in _STANDALONE:
            position += 2
        else:
            position += 2 + (data[position + 2] << 8 | data[position + 3])
    return False


def lookup_tables(mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> np.ndarray:
    """float32 `[3, 256]`: the normalised value of each byte, (v / 255 - mean) / std in float32 as in torchvision."""
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    return (values - np.asarray(mean, np.float32)[:, None]) / np.asarray(std, np.float32)[:, None]


def normalise(pictures: Iterable[np.ndarray], num: int, image_size: int, tables: np.ndarray) -> torch.Tensor:
    """`num` uint8 pictures `[s, s, 3]` as one float32 tensor `[num, 3, s, s]`."""
    pixels = torch.empty(num, 3, image_size, image_size)
    target = pixels.numpy()
    for k, picture in enumerate(pictures):
        for channel, plane in enumerate(cv2.split(picture)):
            np.take(tables[channel], np.asarray(plane), out=target[k, channel], mode="clip")
    return pixels


def preprocess(data: bytes, transform: Transform, uniforms: np.ndarray | None = None) -> torch.Tensor:
    """One stored picture as the model's input, float32 `[3, s, s]`; for evaluation and demonstrations."""
    drawn = np.full(transform.num_uniforms, 0.5) if uniforms is None else uniforms
    picture = transform(decode(data), drawn)
    return normalise([picture], 1, transform.image_size, lookup_tables())[0]
