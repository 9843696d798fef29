"""Pictures for the page: small, kept for the next time, and never a reason why the page fails."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence

import pytest
from PIL import Image

from curation.browse import pictures
from curation.browse.pictures import Pictures, Shown, draw_placeholder
from curation.storage import Root
from tests.support.picture_root import fill, scene

SIZE = (900, 500)


def encode(size: tuple[int, int] = SIZE) -> bytes:
    sink = io.BytesIO()
    scene(1, 300).resize(size).save(sink, "PNG")
    return sink.getvalue()


@pytest.fixture
def rows(root: Root) -> list[dict[str, object]]:
    """One stored picture as a row of the manifest, whose bytes lie in a shard of other bytes."""
    fill(root, [("a picture", encode((96, 64)), {})], num_units=1)
    (row,) = root.read_parquet("downloads/0123abcd-000000.parquet").to_pylist()
    return [row]


def show(root: Root, rows: Sequence[dict[str, object]], *, large: bool = False) -> Shown:
    async def run() -> Shown:
        found = Pictures(root)
        found.remember(list(rows))
        first = await found.show(str(rows[0]["uid"]), large=large)
        assert await found.show(str(rows[0]["uid"]), large=large) is first, "it is not decoded again"
        await found.close()
        return first

    return asyncio.run(run())


def test_a_picture_is_a_jpeg_of_at_most_the_wanted_side(root: Root, rows: list[dict[str, object]]) -> None:
    data = encode()
    shard = "raw/big.bin"
    root.publish(shard, data)
    row = {**rows[0], "shard": shard, "offset": 0, "size": len(data), "stored_sha256": None}
    for large, side in ((False, pictures.SMALL_SIDE), (True, SIZE[0])):
        shown = show(root, [row], large=large)
        found = Image.open(io.BytesIO(shown.data))
        assert shown.content_type == "image/jpeg" and found.format == "JPEG" and max(found.size) == side


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"stored_sha256": "0" * 64}, b"unreadable"),
        ({"shard": "raw/none.tar"}, b"unreadable"),
        ({"shard": "/etc/passwd"}, b"unreadable"),
        ({"shard": "../../etc/passwd"}, b"unreadable"),
        ({"offset": 10**15}, b"unreadable"),
        ({"offset": 0, "stored_sha256": None}, b"not an image"),
        ({"status": "http_404"}, b"http 404"),
        ({"status": "<script>"}, b"&lt;script&gt;"),
        ({"status": None}, b"no download"),
    ],
)
def test_what_cannot_be_shown_is_a_drawing_that_says_why(
    root: Root, rows: list[dict[str, object]], change: dict[str, object], said: bytes
) -> None:
    shown = show(root, [{**rows[0], **change}])
    assert shown.content_type == "image/svg+xml" and said in shown.data


def test_pictures_that_were_seen_long_ago_are_forgotten(
    root: Root, rows: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAX_PLACES", 1)

    async def run() -> list[bool]:
        found = Pictures(root)
        found.remember([rows[0], {**rows[0], "uid": "another"}])
        known = [found.knows(str(rows[0]["uid"])), found.knows("another")]
        await found.close()
        return known

    assert asyncio.run(run()) == [False, True]


def test_a_drawing_escapes_what_it_says() -> None:
    assert b"<b>" not in draw_placeholder("<b>").data
