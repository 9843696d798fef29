"""One picture from fetched bytes to stored bytes: check, decode, turn, resize, encode, measure.

libjpeg-turbo decodes JPEG, at a reduced scale when the target is small, and reports damaged scans. OpenCV decodes what
it shows as a viewer would; Pillow decodes CMYK, 16 bits, animations and rare formats. Bad bytes raise `PictureError`
with the status of the row, and no other exception. Pixels are BGR in this module, which is OpenCV's order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np

from curation.images import pixels as decoding
from curation.images.colours import convert_to_srgb, has_other_colours
from curation.images.measure import SHARPNESS_SIDE, Measures, measure
from curation.images.probe import (
    Header,
    PictureError,
    check_whole,
    has_more_scans,
    lacks_only_end,
    picture_format,
    read_header,
)
from curation.images.resize import Layout, check_target, plan_layout, resize
from curation.recipe.config import DownloadConfig
from curation.schema import Status

cv2.setNumThreads(1)

KEPT_FORMATS = ("jpeg", "png", "webp", "gif")
"""Formats that may be stored as they were fetched."""
ENCODER_FLAGS = {
    "jpg": cv2.IMWRITE_JPEG_QUALITY,
    "png": cv2.IMWRITE_PNG_COMPRESSION,
    "webp": cv2.IMWRITE_WEBP_QUALITY,
}
PNG_LEVEL = 6
MAX_SCANS = 50
"""The most scans of a JPEG of `max_pixels`; a smaller JPEG may have more in proportion. A decoder processes all pixels
for each scan, and a scan may take ten bytes. Encoders make about ten; libjpeg-turbo's own fuzzers stop at 500."""


@dataclass(kw_only=True)
class Stored(Measures):
    """A picture ready for a shard. Sizes in pixels, of the picture as a viewer shows it (EXIF applied)."""

    data: bytes
    format: str
    width: int
    height: int
    stored_width: int
    stored_height: int
    stored_sha256: str | None = None
    """The sha256 of `data` if it was encoded here; None if `data` is what was fetched."""


def inspect(data: bytes, config: DownloadConfig) -> Header:
    """Read the header without decoding. Raises PictureError for a picture that the recipe does not allow."""
    name = picture_format(data)
    if name not in config.formats:
        raise PictureError(Status.UNSUPPORTED_FORMAT, name)
    header = read_header(name, data) or decoding.read_rare_header(name, data)
    num_pixels = header.width * header.height
    if num_pixels > config.max_pixels:
        raise PictureError(Status.TOO_MANY_PIXELS, f"{header.width}×{header.height}")
    most = MAX_SCANS * config.max_pixels // num_pixels
    if has_more_scans(header, data, most):
        raise PictureError(Status.TOO_MANY_PIXELS, f"{header.width}×{header.height} in more than {most} scans")
    if header.frames > config.max_frames:
        raise PictureError(Status.TOO_MANY_FRAMES, f"{header.frames} frames")
    return header


def process(data: bytes, config: DownloadConfig, measured: bool = True) -> Stored:
    """Check, decode, resize, encode and measure `data`. Raises PictureError."""
    header, orientation, layout = _plan_storage(data, config)
    width, height = _shown_size(header, orientation)
    untouched = _is_unchanged(header, data, orientation, layout, config)
    if untouched and not measured:
        return _store_as_fetched(data, header, Measures())
    if not untouched:
        check_target(layout, config)
    reduction = _measuring_reduction(width, height) if untouched else layout.reduction
    image = convert_to_srgb(decoding.decode_pixels(data, header, reduction), header)
    reduced = -(-header.height // reduction), -(-header.width // reduction)
    if image.shape[:2] not in (reduced, (header.height, header.width)):
        size = f"{image.shape[1]}×{image.shape[0]}"
        raise PictureError(Status.CORRUPT, f"decodes to {size}, not {header.width}×{header.height}")
    if untouched:
        return _store_as_fetched(data, header, measure(image, width, height))
    image = decoding.apply_orientation(resize(image, layout, turned=orientation > 4), orientation)
    image = layout.crop_or_pad(image)
    encoded = encode(image, config)
    sha256 = hashlib.sha256(encoded).hexdigest()
    return Stored(
        data=encoded,
        format=header.format,
        width=width,
        height=height,
        stored_width=image.shape[1],
        stored_height=image.shape[0],
        stored_sha256=sha256,
        **vars(measure(image, width, height, sha256) if measured else Measures()),
    )


def keep(data: bytes, config: DownloadConfig) -> Stored | None:
    """Keep `data` as it is if the recipe wants it neither measured nor changed; None if `process` must handle it.

    Only plain Python reads the bytes, so any process may call this. Raises PictureError. Where pictures are resized,
    few have the right size already: `process` finds those, so that no picture is inspected twice.
    """
    if config.measure or config.resize_mode != "no" or picture_format(data) not in KEPT_FORMATS:
        return None
    header, orientation, layout = _plan_storage(data, config)
    return (
        _store_as_fetched(data, header, Measures())
        if _is_unchanged(header, data, orientation, layout, config)
        else None
    )


def _plan_storage(data: bytes, config: DownloadConfig) -> tuple[Header, int, Layout]:
    header = inspect(data, config)
    check_whole(header, data)
    orientation = decoding.read_orientation(header)
    return header, orientation, plan_layout(*_shown_size(header, orientation), config)


def _shown_size(header: Header, orientation: int) -> tuple[int, int]:
    """Width and height of the picture as a viewer shows it."""
    return (header.height, header.width) if orientation > 4 else (header.width, header.height)


def _is_unchanged(header: Header, data: bytes, orientation: int, layout: Layout, config: DownloadConfig) -> bool:
    """Whether the fetched bytes are what is to be stored; a picture that needs a lenient decoder is encoded anew."""
    if orientation != 1 or not layout.unchanged or not _has_wanted_format(header, config):
        return False
    # Bytes that are stored as they came keep their profile; where pictures are made anew, all are sRGB.
    return not lacks_only_end(header, data) and (config.resize_mode == "no" or not has_other_colours(header))


def _store_as_fetched(data: bytes, header: Header, measures: Measures) -> Stored:
    width, height = header.width, header.height
    return Stored(
        data=data,
        format=header.format,
        width=width,
        height=height,
        stored_width=width,
        stored_height=height,
        **vars(measures),
    )


def _measuring_reduction(width: int, height: int) -> int:
    """How many times smaller a picture that is only measured may be decoded."""
    return next((n for n in (8, 4, 2) if max(width, height) // n >= SHARPNESS_SIDE), 1)


def _has_wanted_format(header: Header, config: DownloadConfig) -> bool:
    """Whether the fetched bytes have the format that the recipe asks for."""
    if config.resize_mode == "no":
        return header.format in KEPT_FORMATS
    wanted = "jpeg" if config.encode_format == "jpg" else config.encode_format
    return header.format == wanted and header.opaque


def encode(image: np.ndarray, config: DownloadConfig) -> bytes:
    """BGR pixels `[h, w, 3]` as JPEG, PNG or WebP with the recipe's quality."""
    flag = ENCODER_FLAGS[config.encode_format]
    level = PNG_LEVEL if config.encode_format == "png" else config.encode_quality
    try:
        done, encoded = cv2.imencode(f".{config.encode_format}", image, (flag, level))
    except cv2.error as error:
        raise PictureError(Status.CORRUPT, f"cannot be encoded as {config.encode_format}: {error}") from error
    if not done:
        raise PictureError(Status.CORRUPT, f"cannot be encoded as {config.encode_format}")
    return encoded.tobytes()
