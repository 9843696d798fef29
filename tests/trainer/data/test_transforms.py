"""Pixels as torchvision makes them: decoding, the two crops, resampling, normalising; equal to the last bit."""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.trainer.torchvision_stub import oracle
from trainer.data import EvalTransform, TrainTransform, preprocess, transforms
from trainer.data.permutation import uniforms
from trainer.data.readers import SampleError
from trainer.data.transforms import MEAN, STD, decode, is_plain_jpeg, lookup_tables, normalise

SIZES = st.integers(8, 120)


def _picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def _stored(image: Image.Image, form: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, form, **options)
    return sink.getvalue()


def _claiming(width: int, height: int) -> bytes:
    """A small PNG whose header says that it is a large one."""
    data = _stored(Image.new("L", (8, 8)), "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


# References: torchvision's documented algorithms, on Pillow


def _reference_crop(width: int, height: int, scale: Any, ratio: Any, drawn: list[float]) -> tuple[int, ...]:
    """RandomResizedCrop.get_params with its ten attempts of (area, log ratio, top, left) given."""
    for k in range(10):
        u_area, u_ratio, u_top, u_left = drawn[4 * k : 4 * k + 4]
        target_area = width * height * (scale[0] + u_area * (scale[1] - scale[0]))
        log_ratio = math.log(ratio[0]), math.log(ratio[1])
        aspect_ratio = math.exp(log_ratio[0] + u_ratio * (log_ratio[1] - log_ratio[0]))
        w = round(math.sqrt(target_area * aspect_ratio))
        h = round(math.sqrt(target_area / aspect_ratio))
        if 0 < w <= width and 0 < h <= height:
            return math.floor(u_top * (height - h + 1)), math.floor(u_left * (width - w + 1)), h, w
    in_ratio = width / height
    w, h = width, height
    if in_ratio < min(ratio):
        h = round(w / min(ratio))
    elif in_ratio > max(ratio):
        w = round(h * max(ratio))
    return (height - h) // 2, (width - w) // 2, h, w


def _reference_eval(image: Image.Image, size: int) -> Image.Image:
    """Resize(size) of the shorter side, then CenterCrop(size)."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    new_long = int(size * long / short)
    resized = image.resize((size, new_long) if width <= height else (new_long, size), Image.Resampling.BICUBIC)
    top, left = int(round((resized.height - size) / 2.0)), int(round((resized.width - size) / 2.0))
    return resized.crop((left, top, left + size, top + size))


@given(SIZES, SIZES, st.integers(0, 10_000))
def test_the_random_crop_is_the_reference(width: int, height: int, seed: int) -> None:
    drawn = uniforms(40, seed).tolist()
    for transform in (TrainTransform(16), TrainTransform(16, scale=(0.08, 1.0))):
        box = transform.crop(height, width, drawn)
        assert box == _reference_crop(width, height, transform.scale, transform.ratio, drawn)
        top, left, h, w = box
        assert 0 <= top <= height - h and 0 <= left <= width - w and h > 0 and w > 0


@settings(max_examples=30)
@given(SIZES, SIZES, st.sampled_from([8, 16, 31]), st.integers(0, 1_000))
def test_train_and_eval_pixels_are_the_reference(width: int, height: int, size: int, seed: int) -> None:
    pixels = _picture(width, height, seed)
    image = Image.fromarray(pixels)
    drawn = uniforms(40, seed)
    train = TrainTransform(size)
    top, left, h, w = train.crop(height, width, drawn.tolist())
    box = image.crop((left, top, left + w, top + h)).resize((size, size), Image.Resampling.BICUBIC)
    assert np.array_equal(train(pixels, drawn), np.asarray(box))
    assert np.array_equal(EvalTransform(size)(pixels, drawn[:0]), np.asarray(_reference_eval(image, size)))
    squashed = image.resize((size, size), Image.Resampling.BICUBIC)
    assert np.array_equal(EvalTransform(size, "squash")(pixels, drawn[:0]), np.asarray(squashed))


def test_normalising_is_to_tensor_and_normalize() -> None:
    """Every byte value, in float32: division by 255, then the mean, then the deviation."""
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    found = normalise([every], 1, 16, lookup_tables())[0]
    tensor = torch.from_numpy(every).permute(2, 0, 1).to(torch.float32).div(255)
    wanted = tensor.sub(torch.tensor(MEAN)[:, None, None]).div(torch.tensor(STD)[:, None, None])
    assert torch.equal(found, wanted)


@settings(max_examples=12, deadline=None)
@given(SIZES, SIZES, st.integers(0, 1_000))
def test_torchvision_itself(width: int, height: int, seed: int) -> None:
    theirs = oracle("torchvision.transforms")
    data = _stored(Image.fromarray(_picture(width, height, seed)), "JPEG", quality=92)
    image = Image.open(io.BytesIO(data)).convert("RGB")
    bicubic = theirs.InterpolationMode.BICUBIC
    tail = [theirs.ToTensor(), theirs.Normalize(MEAN, STD)]
    crop = theirs.Compose([theirs.Resize(24, interpolation=bicubic), theirs.CenterCrop(24), *tail])
    assert torch.equal(preprocess(data, EvalTransform(24)), crop(image))
    squash = theirs.Compose([theirs.Resize((24, 24), interpolation=bicubic), *tail])
    assert torch.equal(preprocess(data, EvalTransform(24, "squash")), squash(image))
    train, drawn = TrainTransform(24), uniforms(40, seed)
    box = train.crop(height, width, drawn.tolist())
    cropped = theirs.functional.resized_crop(image, *box, [24, 24], bicubic)
    assert torch.equal(preprocess(data, train, drawn), theirs.Compose(tail)(cropped))


def test_torchvisions_own_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """RandomResizedCrop.get_params, given our numbers in the order in which it asks."""
    theirs = oracle("torchvision.transforms")
    differing = 0
    for seed in range(200):
        width, height = 20 + 7 * seed % 90, 20 + 13 * seed % 70
        drawn = iter(uniforms(40, seed).tolist())
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "uniform_", lambda t, a, b, d=drawn: t.fill_(a + next(d) * (b - a)))
            patch.setattr(
                torch, "randint", lambda low, high, size, d=drawn: torch.tensor([low + int(next(d) * (high - low))])
            )
            image = Image.new("RGB", (width, height))
            wanted = theirs.RandomResizedCrop.get_params(image, [0.9, 1.0], [3 / 4, 4 / 3])
        # An attempt that does not fit asks for no place, so its two numbers are skipped on our side only.
        first_fits = TrainTransform(8).crop(height, width, uniforms(40, seed).tolist())
        (u_area, u_ratio) = uniforms(40, seed)[:2]
        ratio = math.exp(math.log(3 / 4) + u_ratio * (math.log(4 / 3) - math.log(3 / 4)))
        area = width * height * (0.9 + 0.1 * u_area)
        if round(math.sqrt(area * ratio)) <= width and round(math.sqrt(area / ratio)) <= height:
            differing += tuple(wanted) != first_fits
    assert differing <= 2, "torchvision draws in float32, which may move an edge by one pixel once in a while"


def test_open_clips_evaluation_transform() -> None:
    open_clip = oracle("open_clip")
    theirs = open_clip.image_transform(32, is_train=False, mean=MEAN, std=STD)
    for width, height in ((50, 40), (40, 50), (33, 90), (32, 32), (20, 25)):
        data = _stored(Image.fromarray(_picture(width, height)), "PNG")
        assert torch.equal(preprocess(data, EvalTransform(32)), theirs(Image.open(io.BytesIO(data))))


# Decoding


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True}, {"quality": 30}])
def test_jpeg_by_opencv_is_jpeg_by_pillow(mode: str, options: dict[str, Any]) -> None:
    for width, height in ((64, 48), (37, 51), (8, 9)):
        data = _stored(Image.fromarray(_picture(width, height)).convert(mode), "JPEG", **options)
        assert is_plain_jpeg(data)
        assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_other_formats_go_through_pillow() -> None:
    image = Image.fromarray(_picture(40, 30))
    stored = [
        _stored(image.convert("CMYK"), "JPEG"),
        _stored(image.quantize(), "PNG"),
        _stored(image.convert("RGBA"), "PNG"),
        _stored(image, "WEBP", quality=80),
        _stored(image.quantize(), "GIF"),
        _stored(image, "JPEG") + b"trailing",
    ]
    for data in stored:
        assert not is_plain_jpeg(data)
        assert np.array_equal(decode(memoryview(data)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = _stored(Image.fromarray(_picture(40, 30)), "JPEG", exif=exif)
    assert decode(data).shape == (30, 40, 3)


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "header", "bomb"])
def test_what_is_no_whole_picture_says_so(damage: str) -> None:
    data = _stored(Image.fromarray(_picture(64, 48)), "JPEG")
    broken = {
        "truncated": data[: len(data) // 2],
        "empty": b"",
        "text": b"<html>404</html>",
        "header": data[:20] + b"\0" * 40,
        "bomb": _claiming(30_000, 30_000),
    }[damage]
    with pytest.raises(SampleError, match="pixels" if damage == "bomb" else "no whole picture"):
        decode(broken)


def test_a_jpeg_that_claims_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(SampleError, match="64 x 48 pixels are more than 3,071"):
        decode(_stored(Image.fromarray(_picture(64, 48)), "JPEG"))


def test_a_mode_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="allowed: crop, squash"):
        EvalTransform(32, "stretch")  # type: ignore[arg-type]
