"""Text on its way to a terminal: what servers, captions and file names say must not steer it."""

from __future__ import annotations

import codecs
import io
import re
import sys
from typing import IO, Any

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def escape_controls(text: str) -> str:
    r"""`text` with its control characters shown as escapes (`\x1b`); line feeds and tabs stay.

    C0 and C1 begin sequences that colour, retitle or erase; the marks of direction (Unicode UAX #9) reorder what is
    read.
    """
    return _CONTROLS.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def write_out(text: str) -> None:
    """Write `text` to standard output, its control characters escaped."""
    sys.stdout.write(escape_controls(text))


def write_error(text: str) -> None:
    """Write `text` to standard error, its control characters escaped."""
    sys.stderr.write(escape_controls(text))


class EscapedSink(io.RawIOBase):
    """A binary sink in front of another one, for UTF-8 text that a terminal shows."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write the escaped text of `data`; a character that is cut off waits for the rest of it."""
        self._sink.write(escape_controls(self._decoder.decode(bytes(data))).encode())
        return len(data)
