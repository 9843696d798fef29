"""What each fault of the demo web answers, seen by a plain client."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from curation.demo.web import Web, picture_bytes
from tests.support.demo_web_client import NAME, get, get_fault, open_image


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with Web() as started:
        yield started


@pytest.mark.parametrize(("name", "status"), [("missing", 404), ("gone", 410)])
def test_statuses(web: Web, name: str, status: int) -> None:
    assert get_fault(web, name)[0] == status


def test_what_fails_once_then_works() -> None:
    with Web() as web:
        assert [get_fault(web, "broken_once")[0] for _ in range(3)] == [500, 200, 200]
        first, second = get_fault(web, "asked_to_wait"), get_fault(web, "asked_to_wait")
        assert (first[0], first[1]["Retry-After"], second[0]) == (429, "1", 200)


def test_redirects(web: Web) -> None:
    path, hops = f"/faults/redirect_chain/{NAME}", 0
    while (answer := get(web, path))[0] == 302:
        path, hops = answer[1]["Location"], hops + 1
    assert (hops, answer[2]) == (3, picture_bytes(NAME))
    assert get_fault(web, "redirect_loop")[1]["Location"] == f"/faults/redirect_loop/{NAME}"
    assert get_fault(web, "redirect_inside")[1]["Location"].startswith("http://169.254.169.254/")


def test_bodies_that_are_no_plain_picture(web: Web) -> None:
    data = picture_bytes(NAME)
    assert get_fault(web, "torn_jpeg")[2] == data[: len(data) // 2]
    assert get_fault(web, "zero_bytes")[2] == b""
    _, headers, body = get_fault(web, "html_as_jpeg")
    assert headers["Content-Type"] == "image/jpeg" and body.startswith(b"<!DOCTYPE html>")
    assert get_fault(web, "other_bytes")[2] not in (data, b"")
    robots = get_fault(web, "opted_out")[1]["X-Robots-Tag"]
    assert robots == "max-image-preview:large, noai"


def test_the_huge_png_is_small_until_it_is_decoded(web: Web) -> None:
    body = get_fault(web, "huge_png")[2]
    assert len(body) < 2_000_000
    assert body[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", body[16:24]) == (20_000, 20_000)


def test_other_formats(web: Web) -> None:
    width, height = open_image(picture_bytes(NAME)).size
    turned = open_image(get_fault(web, "exif_rotated")[2])
    assert (turned.getexif()[0x0112], turned.size) == (6, (height, width))
    assert open_image(get_fault(web, "cmyk_jpeg")[2]).mode == "CMYK"
    palette = open_image(get_fault(web, "transparent_palette")[2])
    assert (palette.format, palette.mode, palette.info["transparency"]) == ("PNG", "P", 0)
    gif = open_image(get_fault(web, "animated_gif")[2])
    assert (gif.format, gif.n_frames) == ("GIF", 3)
    assert open_image(get_fault(web, "webp")[2]).format == "WEBP"
