"""The sizes of img2dataset's resize modes, and resizing that is fast without aliasing."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from curation.images.probe import PictureError
from curation.recipe.config import DownloadConfig
from curation.schema import Status

WHITE = (255, 255, 255)
MAX_ONE_STEP = 2.0
"""Up to this factor pictures are shrunk by bicubic sampling, whose kernels still cover every source pixel. Compared to
antialiased Lanczos it has 51 dB, area averaging 44 (benchmarks/download.py measures the speed)."""
MAX_SIDES = {"jpg": 65_500, "webp": 16_383, "png": 1_000_000}
"""The limits of encoders: libjpeg's JPEG_MAX_DIMENSION, WEBP_MAX_DIMENSION, libpng's PNG_USER_WIDTH_MAX."""


class Layout(NamedTuple):
    """How one picture is resized: scaled to `width` × `height`, then cropped or padded to a square."""

    width: int
    height: int
    reduction: int
    """A JPEG may be decoded this many times smaller: 1, 2, 4 or 8."""
    unchanged: bool
    crop: int = 0
    """Side of the square cut from the centre, 0 for none."""
    pad: int = 0
    """Side of the square that white fills up, 0 for none."""

    def crop_or_pad(self, image: np.ndarray) -> np.ndarray:
        """`image`, already scaled, cropped or padded as this layout says."""
        height, width = image.shape[:2]
        if self.crop:
            top, left = (height - self.crop) // 2, (width - self.crop) // 2
            return np.ascontiguousarray(image[top : top + self.crop, left : left + self.crop])
        if self.pad and (height, width) != (self.pad, self.pad):
            top, left = (self.pad - height) // 2, (self.pad - width) // 2
            bottom, right = self.pad - height - top, self.pad - width - left
            return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=WHITE)
        return image


def plan_layout(width: int, height: int, config: DownloadConfig) -> Layout:
    """Layout of a picture shown at `width` × `height`, as img2dataset's modes define it."""
    size, mode = config.image_size, config.resize_mode
    reference = max(width, height) if mode in ("keep_ratio_largest", "border") else min(width, height)
    if mode == "no" or (config.only_if_bigger and reference <= size):
        return Layout(width=width, height=height, reduction=1, unchanged=True)
    new_width, new_height = (max(1, round(side * size / reference)) for side in (width, height))
    crop, pad = size * (mode == "center_crop"), size * (mode == "border")
    final = (size, size) if crop or pad else (new_width, new_height)
    # The decoder leaves twice the target for the last step, which averages better than the decoder.
    reduction = next((n for n in (8, 4, 2) if reference // n >= 2 * size), 1)
    return Layout(
        width=new_width,
        height=new_height,
        reduction=reduction,
        unchanged=final == (width, height),
        crop=crop,
        pad=pad,
    )


def check_target(layout: Layout, config: DownloadConfig) -> None:
    """Raise PictureError if a thin picture would be scaled to more pixels than the recipe or the format allows."""
    longest = layout.crop or layout.pad or max(layout.width, layout.height)
    if layout.width * layout.height > config.max_pixels or longest > MAX_SIDES[config.encode_format]:
        detail = f"to be stored at {layout.width}×{layout.height} as {config.encode_format}"
        raise PictureError(Status.TOO_MANY_PIXELS, detail)


def resize(image: np.ndarray, layout: Layout, turned: bool) -> np.ndarray:
    """`image` `[h, w, c]` scaled to the layout, with its sides exchanged if the picture is `turned` by 90° later."""
    width, height = (layout.height, layout.width) if turned else (layout.width, layout.height)
    return scale(image, width, height)


def scale(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """`image` scaled to `width` × `height`: by area averaging, bicubic if little shrinks, Lanczos to enlarge."""
    if image.shape[:2] == (height, width):
        return image
    shrink = max(image.shape[1] / width, image.shape[0] / height)
    smaller = cv2.INTER_CUBIC if shrink < MAX_ONE_STEP else cv2.INTER_AREA
    method = cv2.INTER_LANCZOS4 if shrink <= 1 else smaller
    return cv2.resize(image, (width, height), interpolation=method)
