"""Headers read by hand against Pillow, and how far each reader looks."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curation.images import probe
from curation.images.probe import PictureError, check_whole, has_end_marker, has_more_scans, picture_format, read_header
from curation.schema import Status
from tests.support.hostile_pictures import (
    chunk,
    gif_of_frames,
    gif_of_tiny_blocks,
    jpeg,
    jpeg_of_markers,
    jpeg_of_scans,
    png,
    saved,
    scene,
    torn_behind_thumbnail,
    webp,
)
from tests.support.steps import count_lines

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


@pytest.mark.parametrize(
    "data", [saved(scene(), "JPEG", progressive=True), png(), webp()], ids=["progressive", "png", "webp"]
)
def test_every_cut_is_seen(data: bytes) -> None:
    """However little is missing, a file that was cut is truncated, not corrupt and never whole.

    Of a JPEG with one scan its decoder tells (tests/curation/images/test_process.py).
    """
    name = picture_format(data)
    for end in range(12, len(data)):
        with pytest.raises(PictureError) as error:
            header = read_header(name, data[:end])
            assert header is not None
            check_whole(header, data[:end])
        assert error.value.status is Status.TRUNCATED, end


def test_an_end_marker_in_the_thumbnail_is_not_the_pictures() -> None:
    torn = torn_behind_thumbnail()
    header = read_header("jpeg", torn)
    assert header is not None and (header.width, header.height) == (64, 48) and b"\xff\xd9" in torn
    assert not has_end_marker(header, torn) and has_end_marker(header, torn + b"\xff\xd9")


@pytest.mark.parametrize(
    ("data", "scans"),
    [
        (jpeg(), 1),
        (saved(scene(), "JPEG", progressive=True), 10),
        (saved(scene().convert("L"), "JPEG", progressive=True), 6),
        (jpeg_of_scans(200), 200),
    ],
)
def test_scans_are_counted_where_they_cost(data: bytes, scans: int) -> None:
    header = read_header("jpeg", data)
    assert header is not None and header.scans_follow is (scans > 1)
    assert has_more_scans(header, data, scans - 1) is (scans > 1)
    assert not has_more_scans(header, data, scans)


TINY_PIECES = {
    "markers": jpeg_of_markers,
    "fill bytes": lambda number: b"\xff\xd8" + b"\xff" * number,
    "chunks": lambda number: png()[:33] + chunk(b"teXt", b"") * number + png()[33:],
    "riff chunks": lambda number: b"RIFF\0\0\0\1WEBP" + bytes(8 * number),
    "blocks": gif_of_tiny_blocks,
    "extensions": lambda number: b"GIF89a" + bytes(7) + b"\x21\xfe\0" * number,
}
"""Files of so many pieces."""


@pytest.mark.parametrize("name", TINY_PIECES)
def test_a_file_of_tiny_pieces_is_not_walked_to_its_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the pieces cost no more steps, but for a GIF those of the blocks that so many bytes would need."""

    def read(data: bytes) -> None:
        with pytest.raises(PictureError, match="more pieces than any encoder makes") as error:
            read_header(picture_format(data), data)
        assert error.value.status is Status.CORRUPT

    read(TINY_PIECES[name](2_500_000))
    monkeypatch.setattr(probe, "MAX_PARTS", 1_000)
    files = [TINY_PIECES[name](number) for number in (10_000, 40_000)]
    num_lines = [count_lines(lambda data=data: read(data), probe.__name__) for data in files]
    num_blocks = probe.FULL_BLOCKS * len(files[1]) // 255 if picture_format(files[1]) == "gif" else 0
    assert 1_000 < num_lines[0] <= num_lines[1] <= num_lines[0] + 8 * num_blocks


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
    [
        (b"II*\x00rest", "tiff"),
        (b"BMrest", "bmp"),
        (b"\0\0\x01\0", "ico"),
        (b"\0\0\0\x20ftypavif", "avif"),
        (b"\0\0\0\x20ftypmif1\0\0\0\0mif1avif", "avif"),
        (b"\0\0\0\x20ftypmif1\0\0\0\0mif1heic", "heic"),
        (b"\xff\x0a", "jxl"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- drawn --><svg/>', "svg"),
    ],
)
def test_formats_that_only_their_decoder_reads(data: bytes, name: str) -> None:
    assert picture_format(data) == name
    assert read_header(name, data) is None


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>", b"<?xml?><html><svg/>", b"<?xml?><rss/>", b"RIFF\0\0\0\0AVI ", b"\xff", b"%PDF-1.7", b"GIF87"],
)
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(PictureError) as error:
        picture_format(data)
    assert error.value.status is Status.NOT_AN_IMAGE
