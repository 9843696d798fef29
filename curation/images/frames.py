"""How a decoding process and its parent speak: frames over a socket.

To the process: the pickled configuration, then pictures. From it: an empty answer when it is ready, then one answer for
each picture in the order in which they came, marshalled: unlike a pickle, what a process that a picture has taken over
would send can name nothing to be called.
"""

from __future__ import annotations

import socket
import struct

FRAME = struct.Struct(">IQ")
"""To the process: ALONE or 0, length of the picture. From it: lengths of what it says and of the picture after it."""
ALONE = 1
"""The answer to this picture is not to wait for others."""
SOCKET_BYTES = 1 << 20


class Frames:
    """Bytes of a socket as frames."""

    def __init__(self) -> None:
        self._buffer = bytearray(SOCKET_BYTES)
        self._start = self._end = 0

    def __len__(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return self._end - self._start

    def receive(self, link: socket.socket, flags: int = 0) -> bool:
        """Take what has come; False when the other side has closed. Raises BlockingIOError, OSError."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            self._make_space()
        number = link.recv_into(memoryview(self._buffer)[self._end :], 0, flags)
        self._end += number
        return number > 0

    def _make_space(self) -> None:
        """Move the frame that is not whole to the front, into a larger buffer if it is all there is."""
        rest = self._buffer[self._start : self._end]
        size = max(SOCKET_BYTES, 2 * len(rest)) if len(rest) > SOCKET_BYTES // 2 else SOCKET_BYTES
        self._buffer = bytearray(size)
        self._buffer[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def take(self, len_about: bool) -> tuple[int, bytes, bytes] | None:
        """Number, what is said and data of the next whole frame; the number is a length if `len_about`."""
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
