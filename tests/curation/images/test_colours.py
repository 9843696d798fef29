"""Pictures with an embedded profile are shown as a viewer shows them: in sRGB."""

from __future__ import annotations

import io
import itertools
import struct

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from curation.images.colours import SRGB_COLOURS, is_srgb
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


def make_profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A profile of ICC version 2 with these tags."""
    table, data, start = b"", b"", 132 + 12 * len(tags)
    for name, tag in tags.items():
        table += struct.pack(">4sII", name, start + len(data), len(tag))
        data += tag + bytes(-len(tag) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(data), bytes(4), 0x02400000, kind, space, connection)
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp").ljust(44, b"\0")
    header += struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


INKS = {
    (0, 0, 0): (100, 0, 0), (1, 0, 0): (60, -20, -30), (0, 1, 0): (55, 50, 0), (0, 0, 1): (88, -5, 60),
    (1, 1, 0): (40, 20, -30), (1, 0, 1): (55, -40, 20), (0, 1, 1): (52, 45, 35), (1, 1, 1): (20, 0, 0),
}  # fmt: skip
"""Cyan, magenta and yellow → the colour of their mixture as L*, a*, b*; black ink hides them all."""


def inks() -> bytes:
    """A profile of CMYK by a table of all sixteen mixtures of full inks."""
    same = bytes(range(256))
    corners = itertools.product((0, 1), repeat=4)
    colours = [(0, 0, 0) if black else INKS[cyan, magenta, yellow] for cyan, magenta, yellow, black in corners]
    table = bytes(value for light, a, b in colours for value in (round(light * 2.55), a + 128, b + 128))
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    return make_profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut + 4 * same + table + 3 * same})


def gray(gamma: float) -> bytes:
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    return make_profile(
        b"mntr",
        b"GRAY",
        b"XYZ ",
        {b"kTRC": curve, b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)},
    )


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1: linear light to levels of 0 to 255."""
    light = np.clip(linear, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def lab_to_srgb(lab: tuple[float, ...]) -> np.ndarray:
    """CIE 1976 L*a*b* under D50, by XYZ and the primaries of sRGB."""
    y = (lab[0] + 16) / 116
    f = np.array([y + lab[1] / 500, y, y - lab[2] / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.9642, 1.0, 0.8249)
    return encode_srgb(np.linalg.inv(np.array(SRGB_COLOURS).T) @ xyz)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_becomes_srgb_by_its_profile(form: str) -> None:
    """Each ink alone and some mixtures; the colours that the table gives, by arithmetic of our own."""
    for mixture, lab in INKS.items():
        sink = io.BytesIO()
        pixel = tuple(255 * one for one in (*mixture, 0))
        Image.new("CMYK", (64, 48), pixel).save(
            sink, form, icc_profile=inks(), **({"quality": 100} if form == "JPEG" else {})
        )
        found = stored_pixels(sink.getvalue(), formats=("jpeg", "tiff"))
        assert np.abs(found - lab_to_srgb(lab)).max() <= 3, (mixture, found[0, 0], lab_to_srgb(lab))


def test_cmyk_without_a_profile_of_cmyk_is_converted_by_the_plain_formula() -> None:
    for profile in (None, srgb(), inks()[:300], gray(1.8)):
        sink = io.BytesIO()
        Image.new("CMYK", (64, 48), (255, 0, 0, 0)).save(sink, "JPEG", quality=100, icc_profile=profile)
        assert np.abs(stored_pixels(sink.getvalue()) - (0, 255, 255)).max() <= 2


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("gamma", [1.0, 1.8])
def test_grey_becomes_srgb_by_its_profile(form: str, gamma: float) -> None:
    ramp = np.repeat(np.arange(0, 256, 2, dtype=np.uint8)[np.newaxis], 32, axis=0)
    sink = io.BytesIO()
    Image.fromarray(ramp).save(sink, form, icc_profile=gray(gamma), **({"quality": 100} if form == "JPEG" else {}))
    found = stored_pixels(sink.getvalue(), image_size=32)
    wanted = encode_srgb((ramp / 255) ** gamma)[:, :, np.newaxis]
    assert np.abs(found - wanted)[:, 8:].max() <= (6 if form == "JPEG" else 1.5)
    kept = DownloadConfig(image_size=32, encode_format="jpg")
    assert process(sink.getvalue(), kept).data != sink.getvalue()


def test_a_profile_of_grey_does_not_change_coloured_pictures_nor_one_of_srgbs_own_curve_any() -> None:
    assert np.array_equal(stored_pixels(saved_with("JPEG", None)), stored_pixels(saved_with("JPEG", gray(1.0))))
    levels = np.arange(1024) / 1023
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    curve = b"curv" + bytes(4) + struct.pack(">I1024H", 1024, *np.round(linear * 65535).astype(int).tolist())
    own = make_profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve})
    sink = io.BytesIO()
    Image.fromarray(np.full((48, 64), 99, np.uint8)).save(sink, "JPEG", icc_profile=own)
    assert process(sink.getvalue(), DownloadConfig(image_size=48, encode_format="jpg")).data == sink.getvalue()


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
