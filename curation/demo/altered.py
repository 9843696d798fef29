"""Altered copies of pictures that a web serves beside plain JPEGs: other sizes, formats, orientations."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

from PIL import Image

HUGE_SIDE = 20_000


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def _encode(image: Image.Image, name: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, name, **options)
    return sink.getvalue()


def recompress(data: bytes) -> bytes:
    """The same picture as a weaker JPEG."""
    return _encode(_open(data), "JPEG", quality=60)


def shrink(data: bytes) -> bytes:
    """The same picture at three quarters of its size."""
    image = _open(data)
    return _encode(image.resize((image.width * 3 // 4, image.height * 3 // 4)), "JPEG", quality=90)


def crop(data: bytes) -> bytes:
    """The middle of the picture, nine tenths of each side."""
    image = _open(data)
    dx, dy = image.width // 20, image.height // 20
    return _encode(image.crop((dx, dy, image.width - dx, image.height - dy)), "JPEG", quality=90)


def turn(data: bytes) -> bytes:
    """A JPEG that is stored turned by 90°, with an EXIF orientation that says so."""
    image = _open(data)
    exif = Image.Exif()
    exif[0x0112] = 6
    return _encode(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif)


def to_cmyk(data: bytes) -> bytes:
    """A JPEG in CMYK."""
    return _encode(_open(data).convert("CMYK"), "JPEG", quality=90)


def to_palette(data: bytes) -> bytes:
    """A PNG of 64 colours, one of them transparent."""
    image = _open(data).quantize(64)
    return _encode(image, "PNG", transparency=0)


def animate(data: bytes) -> bytes:
    """A GIF of three frames."""
    image = _open(data)
    frames = [image.rotate(angle, fillcolor="white") for angle in (120, 240)]
    return _encode(image, "GIF", save_all=True, append_images=frames, duration=100)


def to_webp(data: bytes) -> bytes:
    """A WebP."""
    return _encode(_open(data), "WEBP", quality=80)


@cache
def huge_png() -> bytes:
    """A grey PNG of 20,000 × 20,000 pixels in about 400 kB, which takes 400 MB once it is decoded."""
    row = bytes(1 + HUGE_SIDE)
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(row) for _ in range(HUGE_SIDE)) + packer.flush()
    header = struct.pack(">IIBBBBB", HUGE_SIDE, HUGE_SIDE, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
