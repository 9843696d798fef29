"""Bytes of pictures that are torn, lying, enormous, or other things than they say; made here, each small to send."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image, ImageCms

JPEG_START_OF_FRAME = b"\xff\xc0"
JPEG_START_OF_SCAN = b"\xff\xda"


def scene(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """Smooth random colours."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def saved(image: Image.Image, name: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, name, **options)
    return sink.getvalue()


@cache
def jpeg(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    return saved(scene(width, height, seed), "JPEG", quality=90)


@cache
def png(width: int = 64, height: int = 48) -> bytes:
    return saved(scene(width, height), "PNG")


@cache
def webp(width: int = 64, height: int = 48) -> bytes:
    return saved(scene(width, height), "WEBP", quality=80)


@cache
def gif() -> bytes:
    return saved(scene().quantize(32), "GIF")


@cache
def noise_jpeg(side: int = 400) -> bytes:
    """A JPEG of 100 KB and more."""
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return saved(Image.fromarray(pixels), "JPEG", quality=90)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(kind: bytes, data: bytes) -> bytes:
    """The PNG with one more chunk after its header."""
    return png()[:33] + chunk(kind, data) + png()[33:]


def zeros(size: int) -> bytes:
    """A zlib stream of `size` zero bytes (whole MiB), made from one compressed block: no time to wait for."""
    block = 1 << 20
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = size % 65_521 << 16 | 1  # Adler-32 of zeros
    return b"\x78\xda" + packed * (size // block) + b"\x03\x00" + struct.pack(">I", checksum)


@cache
def gzip_bomb(size: int = 100 << 20) -> bytes:
    """`size` zero bytes as gzip; a reader that gets to the checksum has read too far."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + zeros(size)[2:]


@cache
def png_bomb(side: int = 20_000, color: int = 0, depth: int = 8, channels: int = 1) -> bytes:
    """`side`² black pixels, grey unless `color` says otherwise (PNG's colour types), in a few hundred kilobytes."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, color, 0, 0, 0))
    row = 1 + side * channels * depth // 8
    data = zeros(-(-side * row >> 20) << 20)
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@cache
def png_text_bomb(size: int = 1 << 30) -> bytes:
    """A small picture with a compressed comment that inflates to `size` bytes."""
    return with_chunk(b"zTXt", b"Comment\0\0" + zeros(size))


@cache
def apng_lie() -> bytes:
    """A picture that announces a million frames."""
    return with_chunk(b"acTL", struct.pack(">II", 1_000_000, 0))


@cache
def gif_of_frames(number: int) -> bytes:
    """A GIF of `number` frames of one pixel."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return screen + frame * number + b"\x3b"


def jpeg_claiming(width: int, height: int) -> bytes:
    """A JPEG whose header gives another size than its scan has."""
    data = bytearray(jpeg())
    place = data.index(JPEG_START_OF_FRAME)
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header, checksum and all, gives another size than its rows have."""
    data = png()
    return data[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29]) + data[33:]


def jpeg_with_segment(marker: int, data: bytes) -> bytes:
    """The JPEG with one more application segment at its start."""
    return jpeg()[:2] + struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data + jpeg()[2:]


def jpeg_cut_and_closed() -> bytes:
    """Half a scan, then an end marker: grey from the middle on in most viewers."""
    data = noise_jpeg()
    return data[: len(data) // 2] + b"\xff\xd9"


def jpeg_with_restart_inside() -> bytes:
    """A restart marker where none belongs: the scan is broken from there on."""
    data = noise_jpeg()
    place = data.index(JPEG_START_OF_SCAN) + 20_000
    return data[:place] + b"\xff\xd3" + data[place:]


def torn_behind_thumbnail() -> bytes:
    """A JPEG cut in its scan, with a whole thumbnail, markers and all, in its EXIF."""
    thumbnail = jpeg(32, 24)
    entries = struct.pack("<HHIIHHII", 0x201, 4, 1, 44, 0x202, 4, 1, len(thumbnail))
    exif = b"Exif\0\0II*\0" + struct.pack("<IHIH", 8, 0, 14, 2) + entries + bytes(4) + thumbnail
    whole = jpeg_with_segment(0xE1, exif)
    return whole[: len(whole) - 300]


@cache
def jpeg_of_scans(number: int, claimed: tuple[int, int] | None = None) -> bytes:
    """A progressive JPEG with its last scan again and again; of more pixels than it has, if that is `claimed`."""
    data = bytearray(saved(Image.new("L", (64, 48), 128), "JPEG", progressive=True))
    if claimed:
        place = data.index(b"\xff\xc2")
        data[place + 5 : place + 9] = struct.pack(">HH", *claimed[::-1])
    last = bytes(data[data.rindex(JPEG_START_OF_SCAN) : -2])
    return bytes(data[:-2]) + last * (number - data.count(JPEG_START_OF_SCAN)) + b"\xff\xd9"


def jpeg_of_markers(number: int) -> bytes:
    """A JPEG with so many restart markers before anything else, each of which says nothing."""
    return jpeg()[:2] + b"\xff\xd0" * number + jpeg()[2:]


def gif_of_tiny_blocks(number: int) -> bytes:
    """A GIF with a comment in blocks of one byte."""
    return gif()[:13] + gif()[13:109] + b"\x21\xfe" + b"\x01a" * number + b"\0" + gif()[109:]


def thin_png(height: int) -> bytes:
    """One pixel wide."""
    return png(1, height)


def turned_jpeg() -> bytes:
    """64×48 on disk, shown as 48×64."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(scene(), "JPEG", exif=exif)


def sixteen_bit_png() -> bytes:
    values = np.linspace(0, 65_535, 64 * 48).reshape(48, 64).astype(np.uint16)
    return saved(Image.fromarray(values), "PNG")


def sixteen_bit_png_with_profile_bomb() -> bytes:
    """A colour profile that inflates to 2 MB and is none."""
    data = sixteen_bit_png()
    return data[:33] + chunk(b"iCCP", b"Profile\0\0" + zeros(2 << 20)) + data[33:]


def sixteen_bit_png_with_key(colour: bool) -> bytes:
    """The upper half of its rows has the transparent colour (1000), the lower one a grey that is not (20000)."""
    channels = 3 if colour else 1
    rows = b"".join(b"\0" + struct.pack(">H", value) * 40 * channels for value in [1000] * 10 + [20_000] * 10)
    head = struct.pack(">IIBBBBB", 40, 20, 16, 2 if colour else 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"tRNS", struct.pack(">H", 1000) * channels)
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@cache
def profiled_jpeg() -> bytes:
    """Made once: a profile carries the time of its making."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return saved(scene(), "JPEG", icc_profile=profile)


UNUSUAL_SAMPLING = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5a"
    "YVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//wAAR"
    "CAAoADADATEAAhEBAxEB/8QAGAAAAwEBAAAAAAAAAAAAAAAABAUGAgP/xAAjEAACAgIBBQADAQAAAAAAAAABAgMEABEFEhMhMUEGIjNR/8QA"
    "GAEAAwEBAAAAAAAAAAAAAAAAAwQFAgD/xAAgEQABAwQDAQEAAAAAAAAAAAABAAMEAhESEwUxQVEU/9oADAMBAAIRAxEAPwDdRu3ICcfNyUTV"
    "O2GG9ZOmFmt9z5vO5JwWxSEwaWxSfqooORir1wHb0MDl52s7lFcbOc/7fsvo5M486pe49WTEtwVwgQlMkm18YLG0nd8k6xzE6mIf7m5VRfes"
    "Frm2djeynpB3YJZlIQnziWPhraWe4xbW8pacwgiCufIxl+IaI1h2kmAXI2pL0QsdEYQ1YLH1YNFYIm6PmGgxMxsKpbN0bWVRUoEdASRmuQVI"
    "a5IHrIe/yrpMwGPtVCQLINDWmnJWdugkMZZfmTr25Gs9rR1vGEnHlKvfA863ikeRr43Id3TElsMMgj6kac7ahudrTaB1lXWla7VAf6MBm/G4"
    "5nLEe8IKxHauOyhGvN4N+WTSxKXQg4urU0a2GI+5XLSRqPSR41kRhwl0MeLb9WZxKl7fCQCwX6RveFVoxEAq4xj9YeY6f0hvyymUuHLNf//Z"
)
"""`scene(48, 40)` by cjpeg -sample 3x1: colour at a third of the width, which few encoders do."""
