"""Content codings that nobody asked for, and names of codings that mean none."""

from __future__ import annotations

import re
import zlib

from curation.fetch.http1 import HttpError
from curation.images.probe import PictureError, picture_format
from curation.schema import Status

GZIP = b"\x1f\x8b"
MAX_CODINGS = 2
"""Codings of one body that are undone."""
SHOWN = ("", "identity", "gzip", "x-gzip")
"""Codings whose absence the body itself shows."""
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")


def decode_body(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """A picture's `body` without gzip and deflate. Raises HttpError.

    What is a picture already, or is said to be coded as nothing that we know (`none`, `utf-8`, `aws-chunked`, …), stays
    as it came: servers announce what they then do not do, and the decoder says whether it is a picture.
    """
    for name in _split_codings(encoding):
        if _is_picture(body):
            break
        window = _zlib_window(name, body)
        if window is not None:
            body = _inflate(body, name, window, max_bytes)
    return body


def decode_text(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The first `max_bytes` of a text without gzip and deflate, of a torn one as far as it goes.

    Raises HttpError when it is in another coding.
    """
    for name in _split_codings(encoding):
        if _is_text(body):
            break
        window = _zlib_window(name, body)
        if window is None:
            if name not in SHOWN:
                raise HttpError(Status.BAD_RESPONSE, f"content-encoding: {encoding[:40]}")
            continue
        try:
            body = zlib.decompressobj(window).decompress(body, max_bytes)
        except zlib.error as error:
            raise HttpError(Status.BAD_RESPONSE, f"content-encoding {name}: {error}") from error
    return body[:max_bytes]


def _split_codings(encoding: str) -> list[str]:
    """In the order in which to undo them."""
    return [name.strip().lower() for name in reversed(encoding.split(",")[-MAX_CODINGS:])]


def _zlib_window(name: str, body: bytes) -> int | None:
    """The kind of stream that zlib has to expect; None where there is nothing to undo."""
    if name in ("gzip", "x-gzip"):
        return 31 if body.startswith(GZIP) else None
    if name != "deflate":
        return None
    return 15 if body[:1] == b"\x78" else -15


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return _BINARY.search(body) is None


def _is_picture(body: bytes) -> bool:
    try:
        picture_format(body)
    except PictureError:
        return False
    return True


def _inflate(body: bytes, name: str, window: int, max_bytes: int) -> bytes:
    inflating = zlib.decompressobj(window)
    try:
        plain = inflating.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise HttpError(Status.BAD_RESPONSE, f"content-encoding {name}: {error}") from error
    if len(plain) > max_bytes:
        raise HttpError(Status.TOO_LARGE, f"more than {max_bytes} bytes in a body of {len(body)}")
    if not inflating.eof:
        raise HttpError(Status.TRUNCATED, f"the {name} ends too early")
    return plain
