"""A decoding process, `python -m curation.images.decoding_process FD`, with a limited address space.

A picture that needs more memory than the limit fails alone. Answers are sent several at a time, since waking the other
side once takes a tenth of the time of a small picture.
"""

from __future__ import annotations

import contextlib
import marshal
import pickle
import resource
import signal
import socket
import sys
import time
from dataclasses import fields
from operator import attrgetter

import cv2

from curation.images.frames import ALONE, FRAME, Frames
from curation.images.pixels import NO_MEMORY
from curation.images.probe import PictureError
from curation.images.process import Stored, process
from curation.recipe.config import DownloadConfig
from curation.schema import Status

BYTES_PER_PIXEL = 8
"""Bytes of address space for a pixel while it is decoded and flattened."""
MAX_QUEUED, MAX_QUEUED_BYTES, MAX_QUEUED_S = 8, 256 << 10, 0.02
"""Limits on answers that are sent together: their number, their bytes, the seconds since the first of them."""
NAMES = [field.name for field in fields(Stored) if field.name != "data"]
"""The fields of an answer besides the bytes of the picture."""
_facts = attrgetter(*NAMES)


def limit_memory(max_pixels: int) -> None:
    """Limit the address space to what is mapped now and what one picture of `max_pixels` needs."""
    with open("/proc/self/statm", encoding="ascii") as f:
        mapped = int(f.read().split()[0]) * resource.getpagesize()
    limit = max(256 << 20, max_pixels * BYTES_PER_PIXEL)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + limit, mapped + limit))


def answer_picture(data: bytes, config: DownloadConfig) -> tuple[bytes, bytes]:
    """Process the picture `data`; returns the two parts of its answer, what is said and the bytes to be stored."""
    try:
        stored = process(data, config, config.measure)
    except PictureError as error:
        return _failure(error.status, error.detail)
    except MemoryError:
        return _failure(Status.TOO_MANY_PIXELS, NO_MEMORY)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            return _failure(Status.TOO_MANY_PIXELS, NO_MEMORY)
        return _failure(Status.INTERNAL_ERROR, f"{error.err or error}")
    except Exception as error:  # no exception of a library must end the process
        return _failure(Status.INTERNAL_ERROR, f"{type(error).__name__}: {error}")
    return marshal.dumps(_facts(stored)), b"" if stored.data is data else stored.data


def _failure(status: Status, detail: str) -> tuple[bytes, bytes]:
    return marshal.dumps((status.value, detail)), b""


class Service:
    """The side of the decoding process: it answers pictures on `link`."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._frames = Frames()
        self._queued: list[bytes] = []
        self._queued_bytes, self._queued_since = 0, 0.0

    def run(self) -> None:
        """Answer pictures until the socket closes."""
        first = self._next_frame()
        if first is None:
            return
        config: DownloadConfig = pickle.loads(first[1])
        with contextlib.suppress(OSError, ValueError):
            limit_memory(config.max_pixels)
        self._link.sendall(FRAME.pack(0, 0))
        while (frame := self._next_frame()) is not None:
            self._queue_answer(*answer_picture(frame[1], config))
            if frame[0] == ALONE:
                self._send()

    def _next_frame(self) -> tuple[int, bytes] | None:
        """The next frame, None when the socket is closed; queued answers are sent before the process waits."""
        while (frame := self._frames.take(len_about=False)) is None:
            if not self._receive():
                return None
        return frame[0], frame[2]

    def _receive(self) -> bool:
        try:
            return self._frames.receive(self._link, socket.MSG_DONTWAIT)
        except BlockingIOError:
            self._send()
            return self._frames.receive(self._link, 0)

    def _queue_answer(self, about: bytes, data: bytes) -> None:
        now = time.monotonic()
        if not self._queued:
            self._queued_since = now
        self._queued += (FRAME.pack(len(about), len(data)), about, data)
        self._queued_bytes += len(data)
        full = len(self._queued) >= 3 * MAX_QUEUED or self._queued_bytes >= MAX_QUEUED_BYTES
        if full or now - self._queued_since >= MAX_QUEUED_S:
            self._send()

    def _send(self) -> None:
        if self._queued:
            self._link.sendall(b"".join(self._queued))
            self._queued, self._queued_bytes = [], 0


def main() -> None:
    """Serve the parent on the socket whose descriptor is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle
    with socket.socket(fileno=int(sys.argv[1])) as link, contextlib.suppress(ConnectionError):
        Service(link).run()


if __name__ == "__main__":
    main()
