"""The protocol between a decoding process and its parent: frames over a socket.

The parent sends the pickled configuration, then pictures. The process sends an empty answer when it is ready, then one
answer for each picture in the order of the pictures. Answers are marshalled, not pickled: a process that a picture has
taken over cannot make the parent call anything.
"""

from __future__ import annotations

import socket
import struct

FRAME = struct.Struct(">IQ")
"""To the process: ALONE or 0, and the length of the picture. From it: the lengths of the answer and of its picture."""
ALONE = 1
"""Says that the answer to this picture must be sent at once, not together with others."""
SOCKET_BYTES = 1 << 20


class Frames:
    """Splits the bytes that come from a socket into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray(SOCKET_BYTES)
        self._start = self._end = 0

    def __len__(self) -> int:
        """The number of bytes that belong to a frame that is not whole yet."""
        return self._end - self._start

    def receive(self, link: socket.socket, flags: int = 0) -> bool:
        """Read what has come; False when the other side has closed. Raises BlockingIOError, OSError."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            self._make_space()
        number = link.recv_into(memoryview(self._buffer)[self._end :], 0, flags)
        self._end += number
        return number > 0

    def _make_space(self) -> None:
        """Move the partial frame to the front, into a larger buffer if it fills more than half of this one."""
        rest = self._buffer[self._start : self._end]
        size = max(SOCKET_BYTES, 2 * len(rest)) if len(rest) > SOCKET_BYTES // 2 else SOCKET_BYTES
        self._buffer = bytearray(size)
        self._buffer[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def take(self, len_about: bool) -> tuple[int, bytes, bytes] | None:
        """Number, text and data of the next whole frame, None when it is not whole; with `len_about` the number is the
        length of the text, else there is no text.
        """
        if len(self) < FRAME.size:
            return None
        number, size = FRAME.unpack_from(self._buffer, self._start)
        middle = self._start + FRAME.size + (number if len_about else 0)
        if self._end < middle + size:
            return None
        view = memoryview(self._buffer)
        about, data = bytes(view[self._start + FRAME.size : middle]), bytes(view[middle : middle + size])
        view.release()
        self._start = middle + size
        return number, about, data
