"""Embedded colour profiles (ICC.1:2022): pictures of another colour space than sRGB are converted to it.

Few pictures have such a profile. A profile that is sRGB by its numbers costs a look into a table. A profile of another
kind than the pixels (of CMYK in a grey picture, say) is ignored, as viewers do.
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms

from curation.images.probe import Header

SRGB_COLOURS = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
"""X, Y and Z of sRGB's red, green and blue under D50 (IEC 61966-2-1, adapted by Bradford's matrix)."""
TOLERANCE = 0.003
SRGB_CURVE = (2.4, 0.9479, 0.0521, 0.0774, 0.0405)
"""Parameters g, a, b, c and d of sRGB's curve as ICC's function 3 has them."""
CMYK, GRAY = b"CMYK", b"GRAY"
"""Colour spaces of profiles, as their headers spell them."""
_HEADER_BYTES, _TAG_BYTES, _MAX_TAGS = 128, 12, 200


def has_other_colours(header: Header) -> bool:
    """Whether the picture has a profile of RGB or grey that is not sRGB."""
    if _space(header.profile) == GRAY:
        return _read_gray_levels(header.profile) is not None
    return bool(header.profile) and not is_srgb(header.profile)


def convert_to_srgb(image: np.ndarray, header: Header) -> np.ndarray:
    """BGR pixels in sRGB; `image` itself where there is no profile, it is sRGB's, or nobody can read it.

    The pixels of a CMYK picture went through `convert_cmyk` when they were decoded.
    """
    if not has_other_colours(header):
        return image
    levels = _read_gray_levels(header.profile) if _space(header.profile) == GRAY else None
    if levels is not None:
        is_gray = np.array_equal(image[:, :, 0], image[:, :, 1]) and np.array_equal(image[:, :, 1], image[:, :, 2])
        return cv2.LUT(image, levels) if is_gray else image
    transform = _transform(header.profile, "RGB")
    if transform is None:
        return image
    shown = ImageCms.applyTransform(Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)), transform)
    return cv2.cvtColor(np.asarray(shown), cv2.COLOR_RGB2BGR)


def convert_cmyk(image: Image.Image, profile: bytes) -> Image.Image:
    """A CMYK picture as RGB by its profile; by the plain formula where it has none that can be read."""
    transform = _transform(profile, "CMYK") if _space(profile) == CMYK else None
    shown = None if transform is None else ImageCms.applyTransform(image, transform)
    return image.convert("RGB") if shown is None else shown


def _space(profile: bytes) -> bytes:
    return profile[16:20]


@lru_cache(maxsize=8)
def _read_gray_levels(profile: bytes) -> np.ndarray | None:
    """What each grey is in sRGB: uint8 `[1, 256, 3]`; None where it is the same to within a level, or unreadable."""
    transform = _transform(profile, "L")
    if transform is None:
        return None
    ramp = np.arange(256, dtype=np.uint8)[np.newaxis]
    levels = np.asarray(ImageCms.applyTransform(Image.fromarray(ramp), transform))[:, :, ::-1]
    is_near = np.abs(levels.astype(int) - ramp[:, :, np.newaxis]).max() <= 1
    return None if is_near else np.ascontiguousarray(levels)


@lru_cache(maxsize=64)
def is_srgb(profile: bytes) -> bool:
    """Whether `profile` is sRGB by its colours and its curve or name; one of another kind than RGB counts as it too."""
    if _space(profile) != b"RGB ":
        return True
    try:
        tags = _read_tags(profile)
        colours = [_read_colour(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
        is_near = np.allclose(colours, SRGB_COLOURS, atol=TOLERANCE)
        return is_near and (_names_srgb(tags[b"desc"]) or _has_srgb_curve(tags[b"rTRC"]))
    except (struct.error, KeyError):
        return False


def _read_tags(profile: bytes) -> dict[bytes, bytes]:
    (number,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    places = (
        struct.unpack_from(">4sII", profile, _HEADER_BYTES + 4 + _TAG_BYTES * i) for i in range(min(number, _MAX_TAGS))
    )
    return {name: profile[offset : offset + size] for name, offset, size in places}


def _read_colour(tag: bytes) -> tuple[float, ...]:
    return tuple(value / 65536 for value in struct.unpack_from(">iii", tag, 8))


def _names_srgb(description: bytes) -> bool:
    return b"sRGB" in description or "sRGB".encode("utf-16-be") in description


def _has_srgb_curve(tag: bytes) -> bool:
    if tag[:4] != b"para" or tag[8:10] != b"\0\3":
        return False
    return np.allclose([value / 65536 for value in struct.unpack_from(">5i", tag, 12)], SRGB_CURVE, atol=TOLERANCE)


@lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> Any:
    """What turns Pillow's pictures of `mode` into sRGB; None where the profile cannot be read or is another kind's."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
