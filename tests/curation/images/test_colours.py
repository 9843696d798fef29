"""Pictures with an embedded profile are shown as a viewer shows them: in sRGB."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from curation.images.colours import is_srgb
from curation.images.process import process
from curation.recipe.config import DownloadConfig
from tests.support.hostile_pictures import scene

ADOBE = {
    b"rXYZ": (0.60974, 0.31111, 0.01947),
    b"gXYZ": (0.20528, 0.62567, 0.06087),
    b"bXYZ": (0.14919, 0.06322, 0.74457),
}


def srgb() -> bytes:
    return bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def adobe() -> bytes:
    """sRGB's profile with the colours of Adobe RGB (1998)."""
    data = bytearray(srgb())
    for number in range(struct.unpack_from(">I", data, 128)[0]):
        name, offset, _ = struct.unpack_from(">4sII", data, 132 + 12 * number)
        if name in ADOBE:
            struct.pack_into(">iii", data, offset + 8, *(round(value * 65536) for value in ADOBE[name]))
    return bytes(data)


def saved_with(form: str, profile: bytes | None) -> bytes:
    sink = io.BytesIO()
    options = {"lossless": True} if form == "WEBP" else {"quality": 95} if form == "JPEG" else {}
    scene(128, 96).convert("RGB").save(sink, form, icc_profile=profile, **options)
    return sink.getvalue()


def stored_pixels(data: bytes, **changes: object) -> np.ndarray:
    asked = DownloadConfig(**{"image_size": 96, "encode_format": "png", **changes})  # type: ignore[arg-type]
    found = cv2.imdecode(np.frombuffer(process(data, asked).data, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB)).astype(int)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_adobe_rgb_becomes_srgb(form: str) -> None:
    data = saved_with(form, adobe())
    source = ImageCms.ImageCmsProfile(io.BytesIO(adobe()))
    shown = ImageCms.profileToProfile(
        Image.open(io.BytesIO(data)), source, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert shown is not None
    wanted = np.asarray(shown).astype(int)
    found = stored_pixels(data)
    assert np.abs(found - wanted).mean() < 0.5
    assert np.abs(stored_pixels(saved_with(form, None)) - wanted).mean() > 2


@pytest.mark.parametrize("profile", [b"", b"junk" * 100, srgb(), srgb()[:300], adobe()[:200]])
def test_srgb_and_profiles_that_nobody_can_read_change_nothing(profile: bytes) -> None:
    plain, with_profile = saved_with("PNG", None), saved_with("PNG", profile)
    assert np.array_equal(stored_pixels(plain), stored_pixels(with_profile))


def test_bytes_that_are_kept_keep_their_profile() -> None:
    data = saved_with("JPEG", adobe())
    assert process(data, DownloadConfig(resize_mode="no")).data == data
    assert process(data, DownloadConfig(image_size=96, encode_format="jpg")).data != data


def test_srgb_is_known_by_its_numbers_and_not_by_its_name() -> None:
    assert is_srgb(srgb()) and not is_srgb(adobe())
    assert b"sRGB" in adobe() or "sRGB".encode("utf-16-be") in adobe()
