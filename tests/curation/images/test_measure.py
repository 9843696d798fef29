"""What is measured, against brute force and the definitions in the literature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.duplicates import phash as defined
from curation.images.measure import MAX_MATRIX_SIDE, _frequencies, entropy, measure, phash, pixel_sha256, sharpness
from curation.images.process import process
from curation.recipe.config import DownloadConfig
from tests.support.hostile_pictures import jpeg, saved, scene


def grey(width: int, height: int, seed: int) -> np.ndarray:
    return np.asarray(scene(width, height, seed).convert("L"))


def differing_bits(one: str, other: int) -> int:
    return (int(one, 16) ^ other).bit_count()


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 127), height=st.integers(1, 127), seed=st.integers(0, 10**6))
def test_phash_is_the_defined_one(width: int, height: int, seed: int) -> None:
    """All bits but those at the median, which rounding of grey levels may turn."""
    image = grey(width, height, seed)
    if np.ptp(image) > 30 and min(width, height) >= 8:
        assert differing_bits(phash(image), defined.phash(image)) <= 4


def test_phash_of_larger_pictures_stays_near_the_defined_one() -> None:
    bits = []
    for seed in range(60):
        image = grey(200 + 7 * seed, 640 - 5 * seed, seed)
        bits.append(differing_bits(phash(image), defined.phash(image)))
    assert np.mean(bits) < 1 and max(bits) <= 6


def test_thin_pictures_need_no_long_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one for each height that came along, a megabyte each, a decoder would run full."""
    sides = []

    def noted(side: int) -> np.ndarray:
        sides.append(side)
        return _frequencies(side)

    monkeypatch.setattr("curation.images.measure._frequencies", noted)
    for seed, height in enumerate((1_100, 4_000, 9_001)):
        image = grey(100, height, seed)
        assert differing_bits(phash(image), defined.phash(image)) <= 6
        turned = np.ascontiguousarray(image.T)
        assert differing_bits(phash(turned), defined.phash(turned)) <= 6
    phash(np.zeros((1_000_000, 1), np.uint8))
    assert max(sides) <= MAX_MATRIX_SIDE


def test_entropy_is_shannons() -> None:
    for seed in range(5):
        image = grey(70, 50, seed)
        shares = np.unique(image, return_counts=True)[1] / image.size
        assert entropy(image) == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-6)
    assert entropy(np.full((9, 9), 7, np.uint8)) == 0.0
    assert entropy(np.arange(256, dtype=np.uint8).reshape(16, 16)) == pytest.approx(8.0)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    image = grey(70, 50, 3).astype(np.float64)
    padded = np.pad(image, 1, mode="reflect")
    across = padded[1:-1, :-2] + padded[1:-1, 2:]
    down = padded[:-2, 1:-1] + padded[2:, 1:-1]
    assert sharpness(grey(70, 50, 3)) == pytest.approx((across + down - 4 * image).var(), rel=1e-6)
    assert sharpness(np.full((50, 50), 9, np.uint8)) == 0.0


def test_sharpness_does_not_depend_on_the_stored_size() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    blown_up = np.kron(noise, np.ones((8, 8), np.uint8))
    twice = np.kron(noise, np.ones((16, 16), np.uint8))
    assert sharpness(twice) == pytest.approx(sharpness(blown_up), rel=0.5)


def test_pixel_sha256_sees_size_grey_and_colour_but_not_the_file() -> None:
    image = np.asarray(scene(40, 30))[:, :, ::-1].copy()

    def digest(pixels: np.ndarray) -> str | None:
        return measure(pixels, pixels.shape[1], pixels.shape[0]).pixel_sha256

    assert digest(image) == digest(image.copy())
    changed = image.copy()
    changed[7, 7] ^= 64
    assert digest(changed) != digest(image)
    assert digest(np.ascontiguousarray(image[:, :20])) != digest(image)
    assert digest(np.asarray(scene(30, 40))[:, :, ::-1].copy()) != digest(image)
    flat = np.zeros((30, 40), np.uint8)
    assert pixel_sha256(image, flat, (40, 30)) != pixel_sha256(image[:, :, ::-1].copy(), flat, (40, 30))


@pytest.mark.parametrize("size", [(64, 48), (600, 400), (1300, 1100)])
def test_pictures_that_stay_are_measured_too(size: tuple[int, int]) -> None:
    """Decoded smaller when they are large, which moves a measure little."""
    data = saved(scene(*size), "JPEG", quality=95)
    stays = process(data, DownloadConfig(resize_mode="no"))
    whole = measure(np.asarray(scene(*size))[:, :, ::-1].copy(), *size)
    assert stays.data == data and stays.phash and whole.phash and whole.entropy and stays.entropy
    assert differing_bits(stays.phash, int(whole.phash, 16)) <= 6
    assert stays.entropy == pytest.approx(whole.entropy, abs=0.1)


def test_the_same_pixels_in_another_file_have_the_same_identity() -> None:
    with_comment = saved(scene(48, 60), "JPEG", quality=90, comment=b"another file")
    plain, other = jpeg(48, 60), with_comment
    asked = DownloadConfig(image_size=48)
    assert plain != other
    assert process(plain, asked).pixel_sha256 == process(other, asked).pixel_sha256
    assert process(jpeg(48, 60, seed=1), asked).pixel_sha256 != process(plain, asked).pixel_sha256
    resized = DownloadConfig(image_size=40)
    assert process(plain, resized).pixel_sha256 == process(other, resized).pixel_sha256
    assert process(jpeg(48, 60, seed=1), resized).pixel_sha256 != process(plain, resized).pixel_sha256
