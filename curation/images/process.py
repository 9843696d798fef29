"""One picture from fetched bytes to stored bytes: check, decode, turn, resize, encode, measure.

JPEG goes through OpenCV, which decodes at a reduced scale when the target is small; everything else, and JPEG that is
not 8-bit grey or YCbCr, goes through Pillow. Raises `PictureError` with the status of the row, and nothing else for
bad bytes.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from curation.config import DownloadConfig
from curation.duplicates.phash import phash, to_hex
from curation.images.probe import PictureError, jpeg_is_whole, picture_format
from curation.schema import Status

Image.MAX_IMAGE_PIXELS = None  # max_pixels is checked before a decoder runs, with a status of its own
cv2.setNumThreads(1)

EXIF_ORIENTATION = 0x0112
MEASURE_SIDE = 256
"""Sharpness is measured at this longest side, so that it does not depend on the stored size."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A picture ready for a shard. Sizes in pixels, of the picture as a viewer shows it (EXIF applied)."""

    data: bytes
    format: str
    width: int
    height: int
    stored_width: int
    stored_height: int
    phash: str
    pixel_sha256: str
    sharpness: float
    entropy: float


def process(data: bytes, config: DownloadConfig) -> Stored:
    """Check, decode, resize, encode and measure `data`. Raises PictureError."""
    name = picture_format(data)
    if name not in config.formats:
        raise PictureError(Status.UNSUPPORTED_FORMAT, name)
    with _opened(data, name) as image:
        _check_size(image, config)
        width, height, turned = _shown_size(image)
        if config.only_if_bigger is False and min(width, height) < 1:
            raise PictureError(Status.CORRUPT, "no pixels")
        if name == "jpeg" and not jpeg_is_whole(data):
            raise PictureError(Status.TRUNCATED, "the JPEG has no end marker")
        pixels = _decode(data, name, image, _reduction(width, height, config))
    resized = resize(pixels, width, height, config)
    untouched = resized is pixels and not turned and _kept_as_is(name, pixels, width, height, config)
    encoded = data if untouched else encode(resized, config)
    return _measured(encoded, name, width, height, resized)


def _opened(data: bytes, name: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=[name.upper()])
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise PictureError(Status.CORRUPT, f"unreadable {name} header: {error}") from error


def _check_size(image: Image.Image, config: DownloadConfig) -> None:
    pixels = image.width * image.height
    if pixels > config.max_pixels:
        raise PictureError(Status.TOO_MANY_PIXELS, f"{image.width}×{image.height}")
    if pixels == 0:
        raise PictureError(Status.CORRUPT, f"{image.width}×{image.height} pixels")
    if not getattr(image, "is_animated", False):
        return
    try:
        image.seek(config.max_frames)
    except EOFError:
        image.seek(0)
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(Status.CORRUPT, f"broken frames: {error}") from error
    else:
        raise PictureError(Status.TOO_MANY_FRAMES, f"more than {config.max_frames} frames")


def _shown_size(image: Image.Image) -> tuple[int, int, bool]:
    """Width and height as shown, and whether EXIF turns or mirrors the picture."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError):
        orientation = 1  # unreadable EXIF says nothing
    if not isinstance(orientation, int) or not 2 <= orientation <= 8:
        return image.width, image.height, False
    width, height = (image.height, image.width) if orientation >= 5 else (image.width, image.height)
    return width, height, True


def target_size(width: int, height: int, config: DownloadConfig) -> tuple[int, int]:
    """Size after resizing and before cropping or padding, as img2dataset's modes define it."""
    size = config.image_size
    if config.resize_mode == "no":
        return width, height
    longest = config.resize_mode in ("keep_ratio_largest", "border")
    reference = max(width, height) if longest else min(width, height)
    if config.only_if_bigger and reference <= size:
        return width, height
    return max(1, round(width * size / reference)), max(1, round(height * size / reference))


def _reduction(width: int, height: int, config: DownloadConfig) -> int:
    """Largest of 1, 2, 4, 8 by which JPEG can be decoded smaller and still be at least twice the target."""
    target = max(1, min(target_size(width, height, config)))
    side = min(width, height)
    return next((n for n in (8, 4, 2) if config.resize_mode != "no" and side // n >= 2 * target), 1)


_REDUCED = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def _decode(data: bytes, name: str, image: Image.Image, reduction: int) -> np.ndarray:
    """RGB pixels `[h, w, 3]` uint8, EXIF applied, alpha on white; possibly `reduction` times smaller."""
    try:
        if name == "jpeg" and image.mode in ("RGB", "L"):
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), _REDUCED[reduction])
            if decoded is None:
                raise PictureError(Status.CORRUPT, "the JPEG cannot be decoded")
            return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        return np.asarray(_flat(image))
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, cv2.error) as error:
        torn = "truncated" in str(error) or isinstance(error, EOFError)
        raise PictureError(Status.TRUNCATED if torn else Status.CORRUPT, f"{name}: {error}") from error
    except MemoryError as error:
        raise PictureError(Status.CORRUPT, f"{name}: decoding needs more memory than one picture may have") from error


def _flat(image: Image.Image) -> Image.Image:
    """RGB as a viewer on a white page shows it: EXIF applied, transparency on white, 16 bits scaled to 8."""
    image.load()
    shown = ImageOps.exif_transpose(image)
    if shown.mode.startswith("I"):
        values = np.asarray(shown).astype(np.float64)
        return Image.fromarray((values / 257).clip(0, 255).astype(np.uint8)).convert("RGB")
    if shown.has_transparency_data:
        layered = shown.convert("RGBA")
        page = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(page, layered).convert("RGB")
    return shown.convert("RGB")


def resize(pixels: np.ndarray, width: int, height: int, config: DownloadConfig) -> np.ndarray:
    """`pixels` of a picture that is `width` × `height` in full, in the recipe's size; itself when nothing changes."""
    new_width, new_height = target_size(width, height, config)
    if (new_height, new_width) != pixels.shape[:2]:
        shrinks = new_width < pixels.shape[1] or new_height < pixels.shape[0]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
        pixels = cv2.resize(pixels, (new_width, new_height), interpolation=method)
    if config.resize_mode == "center_crop":
        size = config.image_size
        top, left = max(0, (new_height - size) // 2), max(0, (new_width - size) // 2)
        return np.ascontiguousarray(pixels[top : top + size, left : left + size])
    if config.resize_mode == "border":
        return _bordered(pixels, config.image_size)
    return pixels


def _bordered(pixels: np.ndarray, size: int) -> np.ndarray:
    """White around `pixels` up to a square of `size`."""
    height, width = pixels.shape[:2]
    vertical, horizontal = max(0, size - height), max(0, size - width)
    if not vertical and not horizontal:
        return pixels
    top, left = vertical // 2, horizontal // 2
    white = (255, 255, 255)
    return cv2.copyMakeBorder(pixels, top, vertical - top, left, horizontal - left, cv2.BORDER_CONSTANT, value=white)


def _kept_as_is(name: str, pixels: np.ndarray, width: int, height: int, config: DownloadConfig) -> bool:
    """Whether the fetched bytes themselves may go into the shard."""
    whole = pixels.shape[:2] == (height, width)
    wanted = "jpeg" if config.encode_format == "jpg" else config.encode_format
    return whole and (config.resize_mode == "no" or (config.only_if_bigger and name == wanted))


def encode(pixels: np.ndarray, config: DownloadConfig) -> bytes:
    """RGB `pixels` as JPEG, PNG or WebP with the recipe's quality."""
    options = {
        "jpg": [cv2.IMWRITE_JPEG_QUALITY, config.encode_quality],
        "png": [cv2.IMWRITE_PNG_COMPRESSION, 6],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, config.encode_quality],
    }[config.encode_format]
    try:
        done, encoded = cv2.imencode(f".{config.encode_format}", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)
    except cv2.error as error:
        raise PictureError(Status.CORRUPT, f"cannot be encoded as {config.encode_format}: {error}") from error
    if not done:
        raise PictureError(Status.CORRUPT, f"cannot be encoded as {config.encode_format}")
    return encoded.tobytes()


def _measured(data: bytes, name: str, width: int, height: int, pixels: np.ndarray) -> Stored:
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    digest = hashlib.sha256(f"{pixels.shape}".encode() + np.ascontiguousarray(pixels).tobytes())
    return Stored(
        data=data,
        format=name,
        width=width,
        height=height,
        stored_width=pixels.shape[1],
        stored_height=pixels.shape[0],
        phash=to_hex(phash(gray)),
        pixel_sha256=digest.hexdigest(),
        sharpness=sharpness(gray),
        entropy=entropy(gray),
    )


def sharpness(gray: np.ndarray) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000) of `gray` uint8 `[h, w]`, at most MEASURE_SIDE wide."""
    side = max(gray.shape)
    if side > MEASURE_SIDE:
        scale = MEASURE_SIDE / side
        gray = cv2.resize(gray, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(gray, cv2.CV_32F).var())


def entropy(gray: np.ndarray) -> float:
    """Shannon entropy of the histogram of `gray` uint8, in bits (0 for one colour, at most 8)."""
    counts = np.bincount(gray.ravel(), minlength=256)
    shares = counts[counts > 0] / gray.size
    return float(-(shares * np.log2(shares)).sum()) + 0.0
