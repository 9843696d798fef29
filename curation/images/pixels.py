"""Decoding: bytes to BGR pixels as a viewer shows them on a white page."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from curation.images.colours import convert_cmyk
from curation.images.probe import Header, PictureError, close_scan, lacks_only_end, limit_profile
from curation.schema import Status

Image.MAX_IMAGE_PIXELS = None  # max_pixels is checked before a decoder runs, with a status of its own

EXIF_ORIENTATION = 0x0112
STRIP_PIXELS = 1 << 20
BAD_BYTES = (
    UnidentifiedImageError,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    RuntimeError,
    struct.error,
)
"""What Pillow's plugins raise for damaged bytes."""
NO_MEMORY = "decoding needs more memory than one picture may have"
HARMLESS = "extraneous bytes"
"""libjpeg's warning about bytes between two segments, which no viewer shows. Its other warnings mean a damaged picture,
grey or garbled from some row on."""
UNUSUAL = "Could not determine subsampling"
"""The error of libjpeg-turbo's quick interface, which knows eight ways of sampling colour; OpenCV uses the full one."""
_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
WITHOUT_REDUCTION = 1 << 24
"""Up to this number of pixels, formats other than JPEG are flattened at full size."""

_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.rotate(cv2.transpose(image), cv2.ROTATE_180),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""EXIF orientation (Exif 2.32, tag 274) → the function that turns the picture upright."""


def read_rare_header(name: str, data: bytes) -> Header:
    """Read the header of a format that only Pillow knows. Raises PictureError."""
    try:
        with Image.open(io.BytesIO(data), formats=[name.upper()]) as image:
            frames = int(getattr(image, "n_frames", 1))
            exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
            return Header(
                format=name,
                width=image.width,
                height=image.height,
                frames=frames,
                exif=exif,
                opaque=False,
                plain=False,
                profile=limit_profile(image.info.get("icc_profile") or b""),
            )
    except BAD_BYTES as error:
        raise PictureError(Status.CORRUPT, f"unreadable {name} header: {error}") from error


def read_orientation(header: Header) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    if not header.exif:
        return 1
    exif = Image.Exif()
    try:
        exif.load(header.exif)
        value = exif.get(EXIF_ORIENTATION, 1)
    except (*BAD_BYTES, AttributeError):
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def apply_orientation(image: np.ndarray, orientation: int) -> np.ndarray:
    """`image` turned upright by its EXIF orientation, 1 to 8."""
    return _TURNS[orientation](image) if orientation in _TURNS else image


def decode_pixels(data: bytes, header: Header, reduction: int = 1) -> np.ndarray:
    """BGR pixels `[h, w, 3]` uint8 in the file's own orientation, transparency on white. Raises PictureError.

    `reduction` (1, 2, 4 or 8) makes JPEGs, and large pictures of other formats, that many times smaller; sides are
    rounded up.
    """
    large = header.width * header.height > WITHOUT_REDUCTION
    try:
        if header.plain and header.format == "jpeg":
            return _decode_jpeg(data, header, reduction)
        if not header.plain or (large and header.format == "png"):  # OpenCV holds a PNG twice
            return _decode_by_pillow(data, header, reduction if large else 1)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except BAD_BYTES as error:
        said = str(error).lower()
        torn = isinstance(error, EOFError) or "truncated" in said or "premature end of jpeg file" in said
        raise PictureError(Status.TRUNCATED if torn else Status.CORRUPT, f"{header.format}: {error}") from error
    except MemoryError as error:
        raise PictureError(Status.TOO_MANY_PIXELS, NO_MEMORY) from error
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise PictureError(Status.TOO_MANY_PIXELS, NO_MEMORY) from error
        raise PictureError(Status.CORRUPT, f"{header.format}: {error.err or error}") from error
    if image is None:
        raise PictureError(Status.CORRUPT, f"the {header.format} cannot be decoded")
    return _flatten_on_white(image, reduction if large else 1)


def _decode_jpeg(data: bytes, header: Header, reduction: int) -> np.ndarray:
    if not lacks_only_end(header, data):
        return _decode_whole_jpeg(data, header, reduction)
    try:
        return _decode_whole_jpeg(close_scan(header, data), header, reduction)
    except ValueError as error:
        raise PictureError(Status.TRUNCATED, f"the JPEG has no end marker, and its scan is cut: {error}") from error


def _decode_whole_jpeg(data: bytes, header: Header, reduction: int) -> np.ndarray:
    sides: dict[str, int] = {}
    if reduction > 1:
        sides = {"min_height": -(-header.height // reduction), "min_width": -(-header.width // reduction)}
    try:
        image: np.ndarray = simplejpeg.decode_jpeg(data, "BGR", **sides)
        return image
    except ValueError as error:
        if HARMLESS in str(error):
            image = simplejpeg.decode_jpeg(data, "BGR", strict=False, **sides)
            return image
        if UNUSUAL not in str(error):
            raise
    flags = _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    reduced = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if reduced is None:
        raise ValueError("it cannot be decoded")
    return reduced


def _flatten_on_white(image: np.ndarray, reduction: int = 1) -> np.ndarray:
    """Grey, BGR or BGRA uint8 as BGR, averaged to 1/`reduction`, sides rounded up."""
    if reduction == 1 and image.ndim == 3 and image.shape[2] == 3:
        return image
    return _flatten_in_strips(
        lambda top, bottom: _flatten(image[top:bottom]), image.shape[1], image.shape[0], reduction
    )


def _flatten_in_strips(part: Callable[[int, int], np.ndarray], width: int, height: int, reduction: int) -> np.ndarray:
    """The BGR picture of which `part(top, bottom)` gives rows; averaged to 1/`reduction`, sides rounded up.

    Strips keep the arithmetic of a large picture from needing its size in memory once more.
    """
    small = -(-height // reduction), -(-width // reduction)
    flat = np.empty((*small, 3), np.uint8)
    rows = reduction * max(1, STRIP_PIXELS // (width * reduction))
    for top in range(0, height, rows):
        strip = part(top, min(top + rows, height))
        if reduction > 1:
            missing = -strip.shape[0] % reduction, -width % reduction
            strip = cv2.copyMakeBorder(strip, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
            size = small[1], strip.shape[0] // reduction
            strip = cv2.resize(strip, size, interpolation=cv2.INTER_AREA)
        flat[top // reduction : top // reduction + strip.shape[0]] = strip
    return flat


def _flatten(strip: np.ndarray) -> np.ndarray:
    if strip.ndim == 2:
        return cv2.cvtColor(strip, cv2.COLOR_GRAY2BGR)
    if strip.shape[2] == 3:
        return strip
    alpha = strip[:, :, 3]
    colour = cv2.cvtColor(strip, cv2.COLOR_BGRA2BGR)
    if alpha.min() == 255:
        return colour
    clear = cv2.merge([cv2.bitwise_not(alpha)] * 3)
    return cv2.add(cv2.multiply(colour, cv2.bitwise_not(clear), scale=1 / 255), clear)


def _decode_by_pillow(data: bytes, header: Header, reduction: int) -> np.ndarray:
    name = header.format
    data = _keep_pixel_chunks(data) if name == "png" else data
    with Image.open(io.BytesIO(data), formats=[name.upper()]) as image:
        image.load()
        width, transparent = image.width, image.has_transparency_data
        if name == "png" and data[24] == 16 and isinstance(image.info.get("transparency"), tuple):
            # Pillow keeps the high bytes of 16-bit colours, but the transparent colour has 16 bits.
            image.info["transparency"] = tuple(value >> 8 for value in image.info["transparency"])
        return _flatten_in_strips(
            lambda top, bottom: _flatten_strip(image.crop((0, top, width, bottom)), transparent, header.profile),
            width,
            image.height,
            reduction,
        )


def _keep_pixel_chunks(data: bytes) -> bytes:
    """A PNG without texts, profile and animation; Pillow refuses the whole picture if one of them is long."""
    view, position = memoryview(data), 8
    parts = [view[:position]]
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind[0] < 0x60 or kind == b"tRNS":  # a capital letter: a decoder must know the chunk
            parts.append(view[position:end])
        if kind == b"IEND":
            break
        position = end
    return b"".join(parts)


def _flatten_strip(image: Image.Image, transparent: bool, profile: bytes) -> np.ndarray:
    """Convert a Pillow picture of any mode to BGR on white; one of CMYK by its profile."""
    if image.mode == "CMYK":
        return cv2.cvtColor(np.asarray(convert_cmyk(image, profile)), cv2.COLOR_RGB2BGR)
    if image.mode.startswith("I"):
        values = np.asarray(image)
        gray = (values.astype(np.float32) / 257).round().clip(0, 255).astype(np.uint8)
        if transparent:
            gray[values == image.info["transparency"]] = 255
        return cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)
    if transparent:
        return _flatten(cv2.cvtColor(np.asarray(image.convert("RGBA")), cv2.COLOR_RGBA2BGRA))
    return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
