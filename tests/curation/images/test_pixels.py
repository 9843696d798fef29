"""Decoded pixels are those that a viewer shows on a white page: every colour mode, orientation and transparency."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from curation.images.process import process
from curation.recipe.config import DownloadConfig
from tests.support.compare_pictures import opened, psnr
from tests.support.hostile_pictures import (
    UNUSUAL_SAMPLING,
    saved,
    scene,
    sixteen_bit_png,
    sixteen_bit_png_with_key,
    sixteen_bit_png_with_profile_bomb,
)


def config(**changes: Any) -> DownloadConfig:
    return DownloadConfig(**{"image_size": 48, **changes})


@pytest.mark.parametrize("size", [8, 20, 48])
def test_colour_sampled_in_a_way_that_few_encoders_know(size: int) -> None:
    stored = process(UNUSUAL_SAMPLING, config(image_size=size, encode_format="png"))
    exact = scene(48, 40).resize((stored.stored_width, stored.stored_height), Image.Resampling.LANCZOS)
    assert psnr(np.asarray(opened(stored.data)), np.asarray(exact)) > 24


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_exif_says(orientation: int) -> None:
    picture, exif = scene(90, 60), Image.Exif()
    exif[0x0112] = orientation
    data = saved(picture, "JPEG", quality=95, exif=exif)
    upright = ImageOps.exif_transpose(opened(data))
    assert upright is not None
    for mode in ("keep_ratio", "no"):
        stored = process(data, config(resize_mode=mode, encode_format="png"))
        assert (stored.width, stored.height) == upright.size
        exact = upright.resize((stored.stored_width, stored.stored_height), Image.Resampling.LANCZOS)
        assert psnr(np.asarray(opened(stored.data).convert("RGB")), np.asarray(exact)) > 30


def fetched(kind: str) -> tuple[bytes, Image.Image]:
    """A picture of a kind, and what a viewer on a white page shows of it."""
    picture = scene(80, 60)
    if kind == "rgba":
        shade = Image.linear_gradient("L").resize(picture.size)
        picture.putalpha(shade)
        return saved(picture, "PNG"), flat(picture)
    if kind == "webp with alpha":
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        return saved(picture, "WEBP", lossless=True, exact=True), flat(picture)
    if kind == "grey with alpha":
        grey = picture.convert("LA")
        grey.putalpha(Image.linear_gradient("L").resize(picture.size))
        return saved(grey, "PNG"), flat(grey)
    if kind == "palette":
        small = picture.quantize(60)
        return saved(small, "PNG"), small.convert("RGB")
    if kind == "palette with a transparent colour":
        small = picture.quantize(60)
        data = saved(small, "PNG", transparency=small.getpixel((0, 0)))
        return data, flat(opened(data))
    if kind == "16 bits":
        values = (np.arange(80 * 60).reshape(60, 80) * 13).astype(np.uint16)
        return saved(Image.fromarray(values), "PNG"), Image.fromarray((values / 257).round().astype(np.uint8)).convert(
            "RGB"
        )
    if kind == "1 bit":
        return saved(picture.convert("1"), "PNG"), picture.convert("1").convert("RGB")
    if kind == "cmyk":
        data = saved(picture.convert("CMYK"), "JPEG", quality=98)
        return data, opened(data).convert("RGB")
    if kind == "grey":
        return saved(picture.convert("L"), "JPEG", quality=98), picture.convert("L").convert("RGB")
    if kind.startswith("16 bits with a transparent"):
        data = sixteen_bit_png_with_key(colour=kind.endswith("colour"))
        shown = np.full((20, 40, 3), 255, np.uint8)
        shown[10:] = round(20_000 / 257)
        return data, Image.fromarray(shown)
    if kind == "apng":
        data = saved(picture, "PNG", save_all=True, append_images=[scene(80, 60, 5)])
        return data, opened(data).convert("RGB")
    if kind == "avif":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
        data = saved(picture, "AVIF", quality=100, exif=exif)
        return data, flat(ImageOps.exif_transpose(opened(data)))
    animation = [scene(80, 60, seed).quantize(64) for seed in (0, 5)]
    if kind == "animated gif":
        data = saved(animation[0], "GIF", save_all=True, append_images=animation[1:])
    else:
        data = saved(scene(80, 60), "WEBP", save_all=True, append_images=[scene(80, 60, 5)], lossless=True)
    return data, opened(data).convert("RGB")


def flat(picture: Image.Image) -> Image.Image:
    page = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(page, picture.convert("RGBA")).convert("RGB")


KINDS = [
    "rgba",
    "webp with alpha",
    "grey with alpha",
    "palette",
    "palette with a transparent colour",
    "16 bits",
    "16 bits with a transparent grey",
    "16 bits with a transparent colour",
    "apng",
    pytest.param("avif", marks=pytest.mark.skipif(not features.check("avif"), reason="Pillow without libavif")),
    "1 bit",
    "cmyk",
    "grey",
    "animated gif",
    "animated webp",
]


@pytest.mark.parametrize("kind", KINDS)
def test_shown_as_on_a_white_page(kind: str) -> None:
    data, shown = fetched(kind)
    asked = config(image_size=min(shown.size), encode_format="png", formats=("jpeg", "png", "webp", "gif", "avif"))
    stored = process(data, asked)
    found = np.asarray(opened(stored.data).convert("RGB"))
    assert found.shape == (shown.height, shown.width, 3)
    assert psnr(found, np.asarray(shown)) > 38, kind


def test_a_large_transparent_picture_is_flattened_while_it_shrinks() -> None:
    picture = scene(5000, 4000).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    stored = process(saved(picture, "PNG", compress_level=1), config(encode_format="png"))
    exact = flat(picture).resize((stored.stored_width, stored.stored_height), Image.Resampling.LANCZOS)
    assert psnr(np.asarray(opened(stored.data)), np.asarray(exact)) > 35


def test_what_pillow_need_not_know_costs_no_picture() -> None:
    plain, bomb = sixteen_bit_png(), sixteen_bit_png_with_profile_bomb()
    assert process(bomb, config()).data == process(plain, config()).data
