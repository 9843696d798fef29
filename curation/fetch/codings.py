"""Content codings: servers use some that nobody asked for, and name some that they do not use."""

from __future__ import annotations

import re
import zlib

from curation.fetch.http1 import HttpError
from curation.images.probe import PictureError, picture_format
from curation.schema import Status

GZIP = b"\x1f\x8b"
MAX_CODINGS = 2
"""The most codings of one body that are decoded."""
SHOWN = ("", "identity", "gzip", "x-gzip")
"""Codings that need no error when the body is not coded: the body itself shows it."""
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")


def decode_body(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decode gzip and deflate of a picture's `body`. Raises HttpError.

    A body that already is a picture is returned unchanged, since servers announce codings that they do not use. So is a
    body in a coding that we do not know (`none`, `utf-8`, `aws-chunked`, …); the decoder finds whether it is a picture.
    """
    for name in _split_codings(encoding):
        if _is_picture(body):
            break
        window = _zlib_window(name, body)
        if window is not None:
            body = _inflate(body, name, window, max_bytes)
    return body


def decode_text(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decode gzip and deflate of a text, up to `max_bytes` bytes; a truncated text is decoded as far as it goes.

    Raises HttpError when the text is in another coding.
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
    """The names of the codings, in the order in which they are decoded."""
    return [name.strip().lower() for name in reversed(encoding.split(",")[-MAX_CODINGS:])]


def _zlib_window(name: str, body: bytes) -> int | None:
    """zlib's `wbits` for the body; None where there is nothing to decode."""
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
