"""Bytes to pixels: BGR as a viewer on a white page shows them."""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from curation.images.probe import Header, PictureError
from curation.schema import Status

Image.MAX_IMAGE_PIXELS = None  # max_pixels is checked before a decoder runs, with a status of its own

EXIF_ORIENTATION = 0x0112
STRIP_PIXELS = 1 << 20
BAD_BYTES = (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, OverflowError)
"""What Pillow's plugins raise for bytes they do not understand."""
NO_MEMORY = "decoding needs more memory than one picture may have"

_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""EXIF orientation (Exif 2.32, tag 274) → what shows the picture upright."""


def rare_header(name: str, data: bytes) -> Header:
    """Header of a format that only Pillow reads."""
    try:
        with Image.open(io.BytesIO(data), formats=[name.upper()]) as image:
            frames = int(getattr(image, "n_frames", 1))
            exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
            return Header(
                format=name, width=image.width, height=image.height, frames=frames, exif=exif, opaque=False, plain=False
            )
    except BAD_BYTES as error:
        raise PictureError(Status.CORRUPT, f"unreadable {name} header: {error}") from error


def orientation(header: Header) -> int:
    """EXIF orientation 1 to 8; 1 where there is none or it cannot be read."""
    if not header.exif:
        return 1
    exif = Image.Exif()
    try:
        exif.load(header.exif)
        found = exif.get(EXIF_ORIENTATION, 1)
    except (*BAD_BYTES, KeyError, AttributeError):
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """`image` as EXIF orientation 1 to 8 wants it shown."""
    return _TURNS[orientation](image) if orientation in _TURNS else image


def decode(data: bytes, header: Header, reduction: int = 1) -> np.ndarray:
    """BGR pixels `[h, w, 3]` uint8 in the file's own orientation, transparency on white. Raises PictureError.

    `reduction` makes a JPEG that many times smaller.
    """
    try:
        if not header.plain:
            return _by_pillow(data, header.format)
        flags = cv2.IMREAD_UNCHANGED if header.format != "jpeg" else _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except BAD_BYTES as error:
        torn = "truncated" in str(error) or isinstance(error, EOFError)
        raise PictureError(Status.TRUNCATED if torn else Status.CORRUPT, f"{header.format}: {error}") from error
    except MemoryError as error:
        raise PictureError(Status.TOO_MANY_PIXELS, NO_MEMORY) from error
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise PictureError(Status.TOO_MANY_PIXELS, NO_MEMORY) from error
        raise PictureError(Status.CORRUPT, f"{header.format}: {error.err or error}") from error
    if image is None:
        raise PictureError(Status.CORRUPT, f"the {header.format} cannot be decoded")
    return _on_white(image)


def _on_white(image: np.ndarray) -> np.ndarray:
    """Grey, BGR or BGRA uint8 as BGR, strip by strip: a large picture must not need its size again for arithmetic."""
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.shape[2] == 3:
        return image
    height, width = image.shape[:2]
    flat = np.empty((height, width, 3), np.uint8)
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = image[top : top + rows]
        alpha = strip[:, :, 3]
        cv2.cvtColor(strip, cv2.COLOR_BGRA2BGR, dst=flat[top : top + rows])
        if alpha.min() == 255:
            continue
        clear = cv2.merge([cv2.bitwise_not(alpha)] * 3)
        shown = cv2.multiply(flat[top : top + rows], cv2.bitwise_not(clear), scale=1 / 255)
        cv2.add(shown, clear, dst=flat[top : top + rows])
    return flat


def _by_pillow(data: bytes, name: str) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=[name.upper()]) as image:
        image.load()
        if image.mode.startswith("I"):
            values = np.asarray(image).astype(np.float32) / 257
            return cv2.cvtColor(values.round().clip(0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)
        if image.has_transparency_data:
            return _on_white(cv2.cvtColor(np.asarray(image.convert("RGBA")), cv2.COLOR_RGBA2BGRA))
        return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
