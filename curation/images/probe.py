"""Reads the header of a picture before any decoder runs: format, size, frames, whether it is whole.

This is plain Python over bytes with every length checked, so it is safe for any bytes in any process.
"""

from __future__ import annotations

import re
import struct
import zlib
from itertools import islice
from typing import NamedTuple

from curation.schema import Status

MAGIC = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
    (b"\x00\x00\x01\x00", "ico"),
    (b"\xff\x0a", "jxl"),
    (b"\x00\x00\x00\x0cJXL ", "jxl"),
    (b"\x00\x00\x00\x0cjP  ", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
)
BRANDS = {b"avif": "avif", b"avis": "avif", b"mif1": "heic", b"msf1": "heic", b"heic": "heic", b"heix": "heic"}
"""Major brands of HEIF files (ISO/IEC 23008-12, AV1 image file format); a brand without a codec may hold either."""
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}
_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
SOS, EXIF, ICC = 0xDA, 0xE1, 0xE2
_ICC_PREFIX = b"ICC_PROFILE\0"
MAX_PROFILE_BYTES = 1 << 20
MAX_CMYK_PROFILE_BYTES = 4 << 20
"""Profiles of CMYK are tables of colours for each mixture of inks."""
END_OF_JPEG = b"\xff\xd9"
_BEHIND_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")
_SCAN = re.compile(rb"\xff\xda")
MIN_SCAN_BYTES = 10
MAX_PARTS = 100_000
"""The most segments or chunks that are read, in 20 ms; files have some hundreds, and 20 MB could hold millions."""
FULL_BLOCKS = 4
"""How many times more blocks a GIF may have than its bytes need; no encoder fills blocks to a quarter only."""
MAX_EXIF_BYTES = 64 << 10
PNG_COLOR_GRAY, PNG_COLOR_RGB = 0, 2


class PictureError(Exception):
    """A picture that cannot be stored: the status of its row, and the reason."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class Header(NamedTuple):
    """What the header of a file says. Sizes are in pixels as stored, before EXIF turns the picture."""

    format: str
    width: int
    height: int
    frames: int = 1
    exif: bytes = b""
    """TIFF structure of the EXIF block."""
    opaque: bool = True
    """Whether every pixel is 8-bit grey or colour without transparency, as far as the header says."""
    plain: bool = True
    """Whether OpenCV decodes it as a viewer would: no CMYK, no 16 bits, no grey with a transparent value."""
    profile: bytes = b""
    """The embedded ICC profile."""
    scan: int = 0
    """Where a JPEG's first scan begins."""
    scans_follow: bool = False
    """Whether the decoder of a JPEG goes over all pixels again for each further scan."""


def picture_format(data: bytes) -> str:
    """The format of `data` by its magic number: `jpeg`, `png`, `gif`, `webp`, …. Raises PictureError for no picture."""
    for magic, name in MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp" and data[8:12] in BRANDS:
        return "avif" if b"avif" in data[16:64] else BRANDS[data[8:12]]
    if _is_svg(data[:1024]):
        return "svg"
    raise PictureError(Status.NOT_AN_IMAGE, f"begins with {data[:12]!r}")


def _is_svg(start: bytes) -> bool:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    return text.startswith((b"<svg", b"<?xml", b"<!DOCTYPE svg")) and b"<svg" in text and b"<html" not in text


def read_header(name: str, data: bytes) -> Header | None:
    """Read the header of a picture of format `name`; None for a format that only its own decoder reads.

    Raises PictureError: truncated when the file ends before the header or its last part ends, corrupt otherwise.
    """
    reader = {"jpeg": _read_jpeg, "png": _read_png, "gif": _read_gif, "webp": _read_webp}.get(name)
    if reader is None:
        return None
    try:
        header = reader(data)
    except (struct.error, IndexError) as error:
        raise PictureError(Status.TRUNCATED, f"the {name} ends inside its header") from error
    if header.width < 1 or header.height < 1:
        raise PictureError(Status.CORRUPT, f"{header.width}×{header.height} pixels")
    return header


def _read_jpeg(data: bytes) -> Header:
    """Read the segments up to the first scan (ITU T.81 B.1)."""
    position, size, exif, progressive = 2, None, b"", False
    profile: dict[int, bytes] = {}
    for _ in range(MAX_PARTS):
        position = data.find(b"\xff", position)
        if position < 0:
            raise IndexError
        marker = data[position + 1]
        if marker in (0x00, 0xFF) or marker in _NO_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == SOS:
            break
        length = struct.unpack_from(">H", data, position + 2)[0]
        if marker in _SOF:
            size, progressive = struct.unpack_from(">BHHB", data, position + 4), marker in _PROGRESSIVE
        elif marker == EXIF and not exif and data[position + 4 : position + 10] == b"Exif\0\0":
            exif = data[position + 10 : position + 2 + length]
        elif marker == ICC and data[position + 4 : position + 16] == _ICC_PREFIX:
            profile[data[position + 16]] = data[position + 18 : position + 2 + length]
        position += 2 + length
    else:
        raise _too_many_parts("jpeg")
    if size is None:
        raise PictureError(Status.CORRUPT, "the JPEG has a scan before its size")
    depth, height, width, components = size
    plain = depth == 8 and components in (1, 3)
    return Header(
        format="jpeg",
        width=width,
        height=height,
        exif=exif,
        opaque=plain,
        plain=plain,
        profile=limit_profile(b"".join(profile[number] for number in sorted(profile))),
        scan=position,
        scans_follow=progressive or data[position + 4] < components,
    )


def limit_profile(profile: bytes) -> bytes:
    """`profile`, cut where it is longer than any that is of use; nobody can read it then."""
    return profile[: MAX_CMYK_PROFILE_BYTES if profile[16:20] == b"CMYK" else MAX_PROFILE_BYTES]


def has_more_scans(header: Header, data: bytes, most: int) -> bool:
    """Whether a JPEG holds more than `most` scans.

    Inside a scan, 0xFF is followed by 0 or a restart marker, so a start marker means a scan, or something after the end
    of the picture. The search takes 0.3 ms a megabyte, and runs only where the file is long enough for so many scans.
    """
    if not header.scans_follow or len(data) - header.scan <= most * MIN_SCAN_BYTES:
        return False
    return next(islice(_SCAN.finditer(data, header.scan), most, None), None) is not None


def _too_many_parts(name: str) -> PictureError:
    return PictureError(Status.CORRUPT, f"the {name} is in more pieces than any encoder makes")


def _read_png(data: bytes) -> Header:
    width, height, depth, color = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR":
        raise PictureError(Status.CORRUPT, f"the PNG begins with {data[12:16]!r}, not with its header")
    frames, exif, profile, transparent, position = 1, b"", b"", color in (4, 6), 8
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"acTL":
            frames = struct.unpack_from(">I", data, position + 8)[0]
        elif kind == b"tRNS":
            transparent = True
        elif kind == b"eXIf" and length <= MAX_EXIF_BYTES:
            exif = data[position + 8 : position + 8 + length]
        elif kind == b"iCCP" and length <= MAX_PROFILE_BYTES:
            profile = _inflate_profile(data[position + 8 : position + 8 + length])
        elif kind in (b"IDAT", b"IEND"):
            break
        position += 12 + length
    else:
        raise _too_many_parts("png")
    keyed = transparent and color in (PNG_COLOR_GRAY, PNG_COLOR_RGB)
    return Header(
        format="png",
        width=width,
        height=height,
        frames=max(1, frames),
        exif=exif,
        profile=profile,
        opaque=not transparent and depth <= 8,
        plain=depth <= 8 and not keyed and frames <= 1,
    )


def _inflate_profile(chunk: bytes) -> bytes:
    """The profile in an iCCP chunk: a name, a zero, the method 0, and zlib's bytes; empty when it cannot be read."""
    packed = chunk.partition(b"\0")[2][1:]
    try:
        return zlib.decompressobj().decompress(packed, MAX_PROFILE_BYTES)
    except zlib.error:
        return b""


def _check_png(data: bytes) -> None:
    """Check the chunks up to IEND (PNG 3rd edition 5.3); the checksums of critical chunks must match."""
    position = 8
    for _ in range(MAX_PARTS):
        if position + 12 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            break
        if kind[0] < 0x60 and zlib.crc32(data[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise PictureError(Status.CORRUPT, f"the PNG's {kind.decode('latin-1')} chunk fails its checksum")
        if kind == b"IEND":
            return
        position = end
    else:
        raise _too_many_parts("png")
    raise PictureError(Status.TRUNCATED, "the PNG has no end chunk")


def _read_gif(data: bytes) -> Header:
    """Read the blocks up to the trailer and count frames (GIF89a); nothing is decompressed."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    frames, parts = 0, 2 * MAX_PARTS + FULL_BLOCKS * len(data) // 255
    while position < len(data) and data[position] in (0x21, 0x2C):
        parts -= 1
        if data[position] == 0x21:
            position += 2
        else:
            left, top, frame_width, frame_height, local = struct.unpack_from("<HHHHB", data, position + 1)
            if frames == 0:  # decoders enlarge the screen if the first frame is larger
                width, height = max(width, left + frame_width), max(height, top + frame_height)
            frames += 1
            position += 11 + (3 << (local & 7) + 1 if local & 0x80 else 0)
        while data[position] and parts > 0:
            position += 1 + data[position]
            parts -= 1
        if parts <= 0:
            raise _too_many_parts("gif")
        position += 1
    if frames == 0:
        raise PictureError(Status.CORRUPT, "the GIF holds no frame")
    return Header(format="gif", width=width, height=height, frames=frames, opaque=False, plain=False)


def _read_webp(data: bytes) -> Header:
    """Read the RIFF chunks (WebP container specification); the size is that of VP8X, else of the only frame."""
    size, alpha, exif, profile, frames = None, False, b"", b"", 0
    position = 12
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, position)
        body = position + 8
        if kind == b"VP8X":
            flags = data[body]
            alpha = bool(flags & 0x10)
            size = tuple(1 + int.from_bytes(data[body + i : body + i + 3], "little") for i in (4, 7))
        elif kind == b"VP8 ":
            size = size or tuple(v & 0x3FFF for v in struct.unpack_from("<HH", data, body + 6))
        elif kind == b"VP8L":
            bits = struct.unpack_from("<I", data, body + 1)[0]
            size = size or (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
            alpha = alpha or bool(bits >> 28 & 1)
        elif kind == b"EXIF" and length <= MAX_EXIF_BYTES:
            exif = data[body : body + length].removeprefix(b"Exif\0\0")
        elif kind == b"ICCP" and length <= MAX_PROFILE_BYTES:
            profile = data[body : body + length]
        frames += kind == b"ANMF"
        position = body + length + length % 2
    else:
        raise _too_many_parts("webp")
    if size is None:
        raise IndexError
    opaque = not alpha and frames == 0
    return Header(
        format="webp",
        width=size[0],
        height=size[1],
        frames=max(1, frames),
        exif=exif,
        profile=profile,
        opaque=opaque,
        plain=frames == 0,
    )


def has_end_marker(header: Header, data: bytes) -> bool:
    """Whether a JPEG has an end marker. No scan contains one; one before the first scan belongs to a thumbnail."""
    return data.rfind(END_OF_JPEG, header.scan) >= 0


def lacks_only_end(header: Header, data: bytes) -> bool:
    """Whether `data` may be a JPEG of one scan that is whole but for its end marker, as some phones write before a
    trailer of their own; its decoder tells a whole scan from one that is cut."""
    return header.format == "jpeg" and header.plain and not header.scans_follow and not has_end_marker(header, data)


def close_scan(header: Header, data: bytes) -> bytes:
    """A JPEG that lacks its end marker up to the first marker behind its scan, or to its end, and an end marker.

    A decoder says then whether the scan is whole: it calls what follows a whole one extraneous, a cut one premature.
    """
    behind = _BEHIND_SCAN.search(data, header.scan + 2 + struct.unpack_from(">H", data, header.scan + 2)[0])
    return data[: behind.start() if behind else len(data)] + END_OF_JPEG


def check_whole(header: Header, data: bytes) -> None:
    """Raise PictureError (truncated, or corrupt) when the file does not reach the end that its format promises."""
    # Decoders fill a truncated JPEG with grey and only warn.
    if header.format == "jpeg" and not has_end_marker(header, data) and not lacks_only_end(header, data):
        raise PictureError(Status.TRUNCATED, "the JPEG has no end marker")
    if header.format == "png":
        _check_png(data)
    if header.format == "webp" and len(data) < struct.unpack_from("<I", data, 4)[0] + 8:
        raise PictureError(Status.TRUNCATED, "the WebP is shorter than it says")
