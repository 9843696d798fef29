"""Headers read by hand against Pillow, and how far each reader looks."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curation.images.probe import PictureError, check_whole, picture_format, read_header
from curation.schema import Status
from tests.hostile_pictures import gif_of_frames, jpeg, png, saved, scene, webp

FORMATS = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp", "GIF": "gif"}


@settings(max_examples=80, deadline=None)
@given(
    name=st.sampled_from(sorted(FORMATS)),
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    mode=st.sampled_from(["RGB", "L", "RGBA", "P"]),
    options=st.sampled_from([{}, {"progressive": True}, {"lossless": True}, {"comment": b"x" * 300}]),
)
def test_sizes_are_those_that_pillow_finds(
    name: str, width: int, height: int, mode: str, options: dict[str, object]
) -> None:
    allowed = {"JPEG": ("RGB", "L"), "GIF": ("L", "P")}.get(name, ("RGB", "L", "RGBA", "P"))
    picture = scene(width, height).convert(mode if mode in allowed else allowed[0])
    data = saved(picture, name, **options)
    assert picture_format(data) == FORMATS[name]
    header = read_header(FORMATS[name], data)
    assert header is not None and (header.width, header.height) == Image.open(io.BytesIO(data)).size
    check_whole(header, data)


@pytest.mark.parametrize("frames", [1, 2, 37])
@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG"])
def test_frames_are_counted_without_decoding(name: str, frames: int) -> None:
    pictures = [scene(30, 20, seed) for seed in range(frames)]
    data = saved(pictures[0], name, save_all=True, append_images=pictures[1:])
    header = read_header(FORMATS[name], data)
    assert header is not None and header.frames == frames
    assert not (header.plain and frames > 1)


def test_a_hundred_thousand_frames_are_counted() -> None:
    header = read_header("gif", gif_of_frames(100_000))
    assert header is not None and header.frames == 100_000


@pytest.mark.parametrize("data", [jpeg(), png(), webp()], ids=["jpeg", "png", "webp"])
def test_every_cut_is_seen(data: bytes) -> None:
    """However little is missing, a file that was cut is truncated, not corrupt and never whole."""
    name = picture_format(data)
    for end in range(12, len(data)):
        with pytest.raises(PictureError) as error:
            header = read_header(name, data[:end])
            assert header is not None
            check_whole(header, data[:end])
        assert error.value.status is Status.TRUNCATED, end


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["jpeg", "png", "gif", "webp"]), st.binary(max_size=200), st.booleans())
def test_any_bytes_end_as_a_header_or_a_status(name: str, noise: bytes, with_magic: bool) -> None:
    start = {"jpeg": jpeg()[:4], "png": png()[:16], "gif": b"GIF89a", "webp": b"RIFF\x40\0\0\0WEBP"}[name]
    try:
        header = read_header(name, start + noise if with_magic else noise)
    except PictureError as error:
        assert error.status in (Status.TRUNCATED, Status.CORRUPT)
    else:
        assert header is not None and header.width > 0 and header.height > 0 and header.frames > 0


@pytest.mark.parametrize(
    "data, name",
    [(b"II*\x00rest", "tiff"), (b"BMrest", "bmp"), (b"\0\0\x01\0", "ico"), (b"\0\0\0\x20ftypavif", "avif")],
)
def test_formats_that_only_their_decoder_reads(data: bytes, name: str) -> None:
    assert picture_format(data) == name
    assert read_header(name, data) is None


@pytest.mark.parametrize("data", [b"", b"<html>", b"RIFF\0\0\0\0AVI ", b"\xff", b"%PDF-1.7", b"GIF87"])
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(PictureError) as error:
        picture_format(data)
    assert error.value.status is Status.NOT_AN_IMAGE
