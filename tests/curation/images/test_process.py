"""Stored pictures against Pillow: sizes of every mode, what stays untouched, orientation, transparency, odd colours."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from curation.images.probe import PictureError
from curation.images.process import MAX_SCANS, Stored, keep, process
from curation.images.resize import MAX_SIDES
from curation.recipe.config import DownloadConfig
from curation.schema import Status
from tests.support.compare_pictures import opened, psnr
from tests.support.hostile_pictures import (
    jpeg,
    jpeg_of_scans,
    png,
    saved,
    scene,
    sixteen_bit_png_with_key,
    thin_png,
    torn_behind_thumbnail,
    webp,
)

MODES = ("keep_ratio", "keep_ratio_largest", "center_crop", "border", "no")


def config(**changes: Any) -> DownloadConfig:
    return DownloadConfig(**{"image_size": 48, **changes})


def wanted_size(width: int, height: int, mode: str, size: int, only_if_bigger: bool) -> tuple[int, int]:
    """Size of what is stored, from img2dataset's description of its modes."""
    largest = mode in ("keep_ratio_largest", "border")
    reference = max(width, height) if largest else min(width, height)
    if mode == "no" or (only_if_bigger and reference <= size):
        return width, height
    if mode in ("center_crop", "border"):
        return size, size
    return max(1, round(width * size / reference)), max(1, round(height * size / reference))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 220),
    height=st.integers(1, 220),
    mode=st.sampled_from(MODES),
    size=st.integers(1, 120),
    only_if_bigger=st.booleans(),
    made=st.sampled_from(["JPEG", "PNG", "WEBP"]),
    encoded=st.sampled_from(["jpg", "png", "webp"]),
)
def test_sizes_of_every_mode(
    width: int, height: int, mode: str, size: int, only_if_bigger: bool, made: str, encoded: str
) -> None:
    wanted = wanted_size(width, height, mode, size, only_if_bigger)
    assume(max(wanted) <= MAX_SIDES[encoded])
    data = saved(scene(width, height), made)
    asked = DownloadConfig(
        image_size=size,
        resize_mode=mode,
        only_if_bigger=only_if_bigger,
        encode_format=encoded,  # type: ignore[arg-type]
    )
    stored = process(data, asked)
    assert (stored.width, stored.height) == (width, height)
    assert opened(stored.data).size == (stored.stored_width, stored.stored_height)
    assert opened(stored.data).size == wanted


@pytest.mark.parametrize("size", [(300, 200), (900, 700), (1000, 333), (150, 149), (64, 48), (1, 700), (397, 1601)])
@pytest.mark.parametrize("mode", ["keep_ratio", "keep_ratio_largest"])
def test_resized_as_an_antialiasing_filter_would(size: tuple[int, int], mode: str) -> None:
    picture = scene(*size)
    stored = process(saved(picture, "JPEG", quality=95), config(resize_mode=mode, encode_format="png"))
    exact = picture.resize((stored.stored_width, stored.stored_height), Image.Resampling.LANCZOS)
    assert psnr(np.asarray(opened(stored.data)), np.asarray(exact)) > 30


def test_centre_and_border_are_where_they_belong() -> None:
    picture = Image.new("RGB", (100, 50), "red")
    picture.paste("blue", (25, 0, 75, 50))
    cropped = np.asarray(
        opened(process(saved(picture, "PNG"), config(resize_mode="center_crop", encode_format="png")).data)
    )
    assert np.abs(cropped[:, 3:-3].astype(int) - [0, 0, 255]).max() <= 2
    bordered = np.asarray(
        opened(process(saved(picture, "PNG"), config(resize_mode="border", encode_format="png")).data)
    )
    assert (bordered[:12] == 255).all() and (bordered[-12:] == 255).all() and (bordered[20, 2] == [255, 0, 0]).all()


@pytest.mark.parametrize(
    "data, changes, stays",
    [
        (jpeg(48, 60), {}, True),
        (jpeg(60, 48), {}, True),
        (jpeg(48, 48), {"resize_mode": "center_crop"}, True),
        (jpeg(48, 48), {"resize_mode": "border"}, True),
        (jpeg(48, 60), {"resize_mode": "center_crop"}, False),
        (jpeg(48, 60), {"encode_format": "png"}, False),
        (png(48, 60), {}, False),
        (png(48, 60), {"encode_format": "png"}, True),
        (webp(48, 60), {"encode_format": "webp"}, True),
        (jpeg(40, 30), {"only_if_bigger": True}, True),
        (jpeg(40, 30), {}, False),
        (jpeg(500, 400), {"resize_mode": "no"}, True),
        (png(500, 400), {"resize_mode": "no"}, True),
        (webp(50, 40), {"resize_mode": "no"}, True),
    ],
)
def test_bytes_stay_when_nothing_needs_changing(data: bytes, changes: dict[str, Any], stays: bool) -> None:
    stored = process(data, config(**changes))
    assert (stored.data == data) is stays
    unmeasured = {"phash": None, "pixel_sha256": None, "sharpness": None, "entropy": None}
    assert vars(process(data, config(**changes), measured=False)) == vars(stored) | unmeasured
    kept = keep(data, config(**changes, measure=False))
    assert (kept is not None) is (changes.get("resize_mode") == "no")
    if kept is not None:
        assert vars(kept) == vars(stored) | unmeasured
    assert keep(data, config(**changes)) is None


def test_what_stays_unmeasured_is_not_decoded() -> None:
    whole = jpeg(48, 60)
    torn = whole[: len(whole) * 2 // 3] + b"\xff\xd9"
    with pytest.raises(PictureError):
        process(torn, config())
    assert process(torn, config(), measured=False).data == torn


def test_formats_that_a_decoder_must_open_are_left_to_it() -> None:
    tiff = saved(scene(), "TIFF")
    asked = config(resize_mode="no", measure=False, formats=("tiff",))
    assert keep(tiff, asked) is None
    assert process(tiff, asked, measured=False).format == "tiff"


def test_what_is_turned_transparent_or_cmyk_does_not_stay() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    upside_down = saved(scene(48, 48), "JPEG", exif=exif)
    assert process(upside_down, config()).data != upside_down
    assert process(upside_down, config(resize_mode="no")).data != upside_down
    see_through = scene(48, 48).convert("RGBA")
    see_through.putalpha(100)
    data = saved(see_through, "PNG")
    assert process(data, config(encode_format="png")).data != data
    cmyk = saved(scene(48, 48).convert("CMYK"), "JPEG")
    assert opened(process(cmyk, config()).data).mode == "RGB"


@pytest.mark.parametrize("quality", [30, 95])
def test_quality_is_the_recipes(quality: int) -> None:
    picture = scene(200, 200)
    stored = process(saved(picture, "PNG"), config(image_size=200, encode_quality=quality))
    sink = io.BytesIO()
    picture.save(sink, "JPEG", quality=quality)
    assert opened(stored.data).quantization == opened(sink.getvalue()).quantization  # type: ignore[attr-defined]


@settings(max_examples=150, deadline=None)
@given(
    data=st.sampled_from(
        [jpeg(), png(), webp(), saved(scene().quantize(16), "GIF"), sixteen_bit_png_with_key(True)]
        + ([saved(scene(), "AVIF")] if features.check("avif") else [])
    ),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    cut=st.floats(0, 1),
    cuts=st.booleans(),
)
def test_damaged_bytes_end_as_a_picture_or_a_status(
    data: bytes, places: list[tuple[float, int]], cut: float, cuts: bool
) -> None:
    damaged = bytearray(data)
    for place, value in places:
        damaged[min(len(damaged) - 1, int(place * len(damaged)))] = value
    asked = config(max_pixels=10**6, formats=("jpeg", "png", "webp", "gif", "avif"))
    try:
        stored = process(bytes(damaged[: int(cut * len(damaged))] if cuts else damaged), asked)
    except PictureError as error:
        assert error.status in Status
    else:
        assert isinstance(stored, Stored) and stored.data


@pytest.mark.parametrize(
    "changes, status",
    [
        ({"max_pixels": 64 * 48 - 1}, Status.TOO_MANY_PIXELS),
        ({"formats": ("png",)}, Status.UNSUPPORTED_FORMAT),
        ({"max_pixels": 64 * 48}, None),
    ],
)
def test_limits(changes: dict[str, Any], status: Status | None) -> None:
    if status is None:
        assert process(jpeg(), config(**changes)).width == 64
        return
    with pytest.raises(PictureError) as error:
        process(jpeg(), config(**changes))
    assert error.value.status is status


@pytest.mark.parametrize(
    ("data", "changes", "detail"),
    [
        (thin_png(400), {"image_size": 224}, "224×89600 as jpg"),
        (thin_png(400), {"image_size": 48, "encode_format": "webp"}, "48×19200 as webp"),
        (thin_png(400), {"image_size": 48, "max_pixels": 48 * 19_199}, "48×19200 as jpg"),
        (thin_png(20_000), {"image_size": 224, "resize_mode": "center_crop"}, "224×4480000"),
        (png(300, 20), {"image_size": 300, "max_pixels": 300 * 300}, "4500×300 as jpg"),
        (saved(Image.new("L", (1, 16_384)), "BMP"), {"resize_mode": "no", "formats": ("bmp",)}, "1×16384 as webp"),
    ],
)
def test_what_would_become_too_large_is_not_decoded(
    data: bytes, changes: dict[str, Any], detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curation.images.pixels.decode_pixels", None)
    with pytest.raises(PictureError, match=detail) as error:
        process(
            data, config(**{"encode_format": detail.rpartition(" as ")[2] if " as " in detail else "jpg"} | changes)
        )
    assert error.value.status is Status.TOO_MANY_PIXELS


def test_a_thin_picture_is_stored_where_it_fits() -> None:
    assert process(thin_png(400), config(image_size=40)).stored_height == 16_000
    assert process(thin_png(400), config(resize_mode="border")).stored_height == 48
    assert process(thin_png(20_000), config(resize_mode="no", measure=False)).stored_height == 20_000


@pytest.mark.parametrize("number", [MAX_SCANS, MAX_SCANS + 1])
def test_scans_times_pixels_are_bounded_decoded_or_not(number: int) -> None:
    asked = config(max_pixels=64 * 48, resize_mode="no", measure=False)
    data = jpeg_of_scans(number)
    if number <= MAX_SCANS:
        assert keep(data, asked) is not None
        return
    for check in (keep, process):
        with pytest.raises(PictureError, match="64×48 in more than 50 scans") as error:
            check(data, asked)
        assert error.value.status is Status.TOO_MANY_PIXELS
    assert keep(data, config(max_pixels=64 * 96, resize_mode="no", measure=False)) is not None


def test_a_torn_scan_behind_a_whole_thumbnail_does_not_stay() -> None:
    asked = config(resize_mode="no", measure=False)
    assert keep(torn_behind_thumbnail(), asked) is None
    with pytest.raises(PictureError) as error:
        process(torn_behind_thumbnail(), asked)
    assert error.value.status is Status.TRUNCATED


TRAILER = b"\0\0\x01\x0a\0\0\0\x18ftypmp42" + bytes(range(1, 250)) * 4
"""What phones write behind a picture: here the beginning of a video."""


@pytest.mark.parametrize("trailer", [b"", TRAILER, b"\xff\xe1" + TRAILER])
@pytest.mark.parametrize("changes", [{}, {"resize_mode": "no", "measure": False}, {"image_size": 2}])
def test_a_whole_scan_without_an_end_marker_is_a_picture(trailer: bytes, changes: dict[str, Any]) -> None:
    """Every viewer shows it. It is encoded anew, because not every decoder is as lenient."""
    whole = jpeg(64, 48)
    stored = process(whole[:-2] + trailer, config(encode_format="png", **changes))
    asked = {"resize_mode": "border", "image_size": 64} if "resize_mode" in changes else changes
    expected = opened(process(whole, config(encode_format="png", **asked)).data)
    if "resize_mode" not in changes:
        assert np.array_equal(np.asarray(opened(stored.data)), np.asarray(expected))
    assert opened(stored.data).format == "PNG" and stored.format == "jpeg"


def test_every_cut_of_a_scan_is_seen() -> None:
    """A JPEG of one scan that was cut is truncated, or nothing of its pixels is missing."""
    data, asked = jpeg(64, 48), config(image_size=64, encode_format="png", only_if_bigger=True)
    whole = process(data, asked).data
    for end in range(12, len(data), 7):
        try:
            assert process(data[:end], asked).data == whole, end
        except PictureError as error:
            assert error.status is Status.TRUNCATED, end
