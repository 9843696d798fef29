"""What the first bytes of a picture say: its format, and whether a JPEG is whole. Decodes nothing."""

from __future__ import annotations

import struct

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
)
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}
SOS = 0xDA
EXIF = 0xE1


class PictureError(Exception):
    """A picture that cannot be stored: the status of its row, and why."""

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


def picture_format(data: bytes) -> str:
    """`jpeg`, `png`, `gif`, `webp`, … by magic number. Raises PictureError for what is no picture at all."""
    for magic, name in MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp" and data[8:12] in (b"avif", b"avis", b"heic", b"mif1"):
        return data[8:12].decode()
    raise PictureError(Status.NOT_AN_IMAGE, f"begins with {data[:12]!r}")


def jpeg_is_whole(data: bytes) -> bool:
    """Whether an end-of-image marker follows the main scan (ITU T.81 B.1: inside a scan, FF D9 cannot occur).

    Decoders fill a torn JPEG with grey and only warn.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF or marker in _NO_LENGTH:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == SOS:
            return data.rfind(b"\xff\xd9") > position
        position += 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    return False
