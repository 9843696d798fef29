"""The second look at two pictures, on the demo's drawings and copies of them as the web makes them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

import curation.demo
from curation.duplicates.verification import SIDE, correlate, make_fingerprint
from curation.recipe.config import DedupeConfig

ENOUGH = DedupeConfig().min_correlation
PICTURES = sorted((Path(curation.demo.__file__).parent / "pictures").glob("*.jpg"))[:200:8]


def encode(image: Image.Image, quality: int = 90) -> bytes:
    sink = io.BytesIO()
    image.convert("RGB").save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def look_at(image: Image.Image, quality: int = 90) -> np.ndarray:
    fingerprint = make_fingerprint(encode(image, quality))
    assert fingerprint is not None
    return fingerprint


def with_text(image: Image.Image) -> Image.Image:
    copy = image.copy()
    ImageDraw.Draw(copy).rectangle((0, 0, copy.width, copy.height // 8), fill="black")
    return copy


def crop(image: Image.Image) -> Image.Image:
    return image.crop((0, image.height // 8, image.width * 7 // 8, image.height))


COPIES = {
    "jpeg": lambda image: image,
    "smaller": lambda image: image.resize((image.width // 2, image.height // 2)),
    "squeezed": lambda image: image.resize((image.width, image.height * 3 // 4)),
    "grey": lambda image: image.convert("L"),
    "bright": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "cropped": crop,
    "framed": lambda image: ImageOps.expand(image, border=image.width // 10, fill="white"),
    "text": with_text,
    "mirrored": ImageOps.mirror,
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_agree_with_their_original_in_both_orders(kind: str) -> None:
    agreeing, seen = 0, 0
    for path in PICTURES:
        image = Image.open(path).convert("RGB")
        original, copy = look_at(image), look_at(COPIES[kind](image), quality=60)
        seen += 1
        agreeing += min(correlate(original, copy, ENOUGH), correlate(copy, original, ENOUGH)) >= ENOUGH
    assert seen >= 20 and agreeing >= 0.9 * seen


def test_different_pictures_do_not_agree() -> None:
    seen = [look_at(Image.open(path)) for path in PICTURES]
    scores = [correlate(a, b, ENOUGH) for i, a in enumerate(seen) for b in seen[:i]]
    assert len(scores) >= 200 and np.mean([score >= ENOUGH for score in scores]) < 0.01


def _draw_smooth(seed: int) -> Image.Image:
    """A few colours that run into each other, as sky, walls and skin have them."""
    rng = np.random.default_rng(seed)
    spots = Image.fromarray(rng.integers(0, 256, (rng.integers(2, 6), rng.integers(2, 6), 3), np.uint8))
    return spots.resize((160, 120), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("enough", [None, ENOUGH, 0.4])
def test_the_order_of_two_pictures_does_not_matter(enough: float | None) -> None:
    seen = [look_at(_draw_smooth(seed)) for seed in range(12)] + [look_at(Image.open(path)) for path in PICTURES[:12]]
    pairs = [(a, b) for i, a in enumerate(seen) for b in seen[:i]]
    assert [correlate(a, b, enough) for a, b in pairs] == [correlate(b, a, enough) for a, b in pairs]


@pytest.mark.parametrize(("one", "other"), [(21, 11), (11, 10), (19, 8)])
def test_smooth_pictures_of_which_one_is_like_a_place_of_the_other_do_not_agree(one: int, other: int) -> None:
    assert correlate(look_at(_draw_smooth(one)), look_at(_draw_smooth(other)), ENOUGH) < 0.5 < ENOUGH


def test_what_ends_a_search_early_decides_as_the_whole_search() -> None:
    seen = [look_at(_draw_smooth(seed)) for seed in range(24)]
    scores = [(correlate(a, b), correlate(a, b, 0.5)) for i, a in enumerate(seen) for b in seen[:i]]
    assert all((whole >= 0.5) == (early >= 0.5) for whole, early in scores)
    assert {whole >= 0.5 for whole, _ in scores} == {True, False}


def test_plain_pictures_agree_with_nothing_not_even_themselves() -> None:
    plain = look_at(Image.new("RGB", (120, 90), (90, 100, 110)))
    assert correlate(plain, plain, ENOUGH) == 0
    assert correlate(look_at(Image.open(PICTURES[0])), plain, ENOUGH) == 0


def test_a_picture_agrees_with_itself_and_the_score_is_at_most_one() -> None:
    seen = look_at(Image.open(PICTURES[0]))
    assert seen.shape == (SIDE, SIDE) and seen.dtype == np.uint8
    assert 0.999 < correlate(seen, seen) <= 1


@pytest.mark.parametrize("data", [b"", b"no picture"])
def test_bytes_that_are_no_picture_have_no_fingerprint(data: bytes) -> None:
    assert make_fingerprint(data) is None
