"""Copies of a picture as the web makes them, for benchmarks of near-duplicate removal."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

Alter = Callable[[Image.Image, np.random.Generator], Image.Image]


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """80 % of the area, anywhere."""
    width, height = (round(side * 0.8**0.5) for side in image.size)
    left, top = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
    return image.crop((left, top, left + width, top + height))


def _resize(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    scale = rng.uniform(0.5, 2)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


def _brightness(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(rng.choice([0.7, 0.8, 1.2, 1.3]))


def _colour(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Color(image).enhance(rng.choice([0.4, 1.8]))


def _border(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A black or white frame of a tenth of the width."""
    return ImageOps.expand(image, border=image.width // 10, fill="black" if rng.random() < 0.5 else "white")


def _text(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A line of large white letters on black edges, as on a meme."""
    copy = image.copy()
    size = image.height // 8
    text, y = "WHEN YOU SEE IT", int(rng.choice([size // 4, image.height - size - size // 2]))
    font = ImageFont.load_default(size)
    width = ImageDraw.Draw(copy).textlength(text, font)
    position = ((image.width - width) / 2, y)
    ImageDraw.Draw(copy).text(position, text, fill="white", font=font, stroke_width=2, stroke_fill="black")
    return copy


ALTERATIONS: dict[str, Alter] = {
    "jpeg": lambda image, rng: image,
    "resize": _resize,
    "brightness": _brightness,
    "colour": _colour,
    "crop": _crop,
    "border": _border,
    "text": _text,
    "grey": lambda image, rng: image.convert("L").convert("RGB"),
    "flip": lambda image, rng: ImageOps.mirror(image),
}
"""Name → alteration; every copy is saved as JPEG afterwards, "jpeg" at a low quality and nothing else."""


def alter(data: bytes, name: str, rng: np.random.Generator) -> bytes:
    """The picture `data` (any format Pillow reads) after alteration `name`, as JPEG."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    quality = int(rng.integers(25, 50)) if name == "jpeg" else 88
    sink = io.BytesIO()
    ALTERATIONS[name](image, rng).save(sink, "JPEG", quality=quality)
    return sink.getvalue()
