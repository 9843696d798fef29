"""The parent's side of decoding processes (`curation.images.decoding_process`): a crash costs one picture.

Many pictures are in flight. When a process dies, the pictures that it had not answered are sent to a new process one by
one, and the picture that kills it alone is lost.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import pickle
import socket
import subprocess
import sys
from collections import deque
from typing import Any

from curation.images.decoding_process import NAMES
from curation.images.frames import ALONE, FRAME, SOCKET_BYTES, Frames
from curation.images.probe import PictureError
from curation.images.process import Stored
from curation.recipe.config import DownloadConfig
from curation.schema import Status

MODULE = "curation.images.decoding_process"
DECODE_TIMEOUT_S = 60.0
MAX_FAILED_STARTS = 5
MAX_IN_FLIGHT = 32
"""The most pictures that a process has been sent; the others wait in the parent."""
ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    # Memory of pictures up to 32 MB stays in the heap between pictures, which saves a twentieth of the time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}
Reply = Stored | PictureError


class DecodingProcess:
    """A running decoder as the parent sees it."""

    def __init__(self, config: DownloadConfig) -> None:
        self.link, theirs = socket.socketpair()
        for end in (self.link, theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
        settings = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self._popen = subprocess.Popen(
            [sys.executable, "-m", MODULE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # drops what libraries print
            stderr=subprocess.DEVNULL,
            env=os.environ | settings,
        )
        theirs.close()
        self.key = pickle.dumps(config)
        self.link.sendall(FRAME.pack(0, len(self.key)) + self.key)
        self.link.setblocking(False)
        self.ready = False

    @property
    def pid(self) -> int:
        return self._popen.pid

    def end(self) -> None:
        self.link.close()
        self._popen.kill()
        self._popen.wait()


_idle: list[DecodingProcess] = []
"""Decoders of finished units for the next unit of this process: a start takes as long as 300 pictures."""


def take_idle_process(config: DownloadConfig) -> DecodingProcess | None:
    """Take an idle decoder with the same settings, None when there is none; decoders with other settings are ended."""
    key = pickle.dumps(config)
    while _idle:
        process = _idle.pop()
        if process.key == key and process.ready:
            return process
        process.end()
    return None


def end_idle() -> None:
    """End the idle decoders of this process."""
    while _idle:
        _idle.pop().end()


class _Waiting:
    """A picture that waits for its answer. `sent`: bytes of it that were sent."""

    __slots__ = ("data", "future", "sent")

    def __init__(self, data: bytes, future: asyncio.Future[Reply]) -> None:
        self.data, self.future, self.sent = data, future, 0


class Decoder:
    """Sends pictures to a decoding process from an event loop; starts it at first use and after a crash."""

    def __init__(self, config: DownloadConfig, timeout_s: float = DECODE_TIMEOUT_S) -> None:
        self._config, self._timeout_s = config, timeout_s
        self._loop = asyncio.get_running_loop()
        self._process: DecodingProcess | None = None
        self._pictures: deque[_Waiting] = deque()
        """Pictures without an answer in their order; the first is the one that is being decoded."""
        self._frames = Frames()
        self._head_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._writing = False
        self._failed_starts = 0
        self._num_sent = 0
        self._num_suspects = 0
        """How many of the first pictures were in a process that died; they are sent one by one."""

    @property
    def num_in_flight(self) -> int:
        return len(self._pictures)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def decode(self, data: bytes) -> Stored:
        """Process one picture. Its `stored_sha256` is None when it is stored as it was fetched.

        Raises PictureError, with status decoder_died when the picture killed the process, and RuntimeError when no
        process starts.
        """
        waiting = _Waiting(data, self._loop.create_future())
        if self._process is None:
            self._start()
        if not self._pictures:
            self._head_since = self._loop.time()
        self._pictures.append(waiting)
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._check_timeout)
        self._send()
        reply = await waiting.future
        if isinstance(reply, PictureError):
            raise reply
        return reply

    def _start(self) -> None:
        self._process = take_idle_process(self._config) or DecodingProcess(self._config)
        self._frames = Frames()
        self._loop.add_reader(self._process.link, self._receive)

    def _send(self) -> None:
        """Send what the socket takes now, and the rest when it takes more; a suspect is sent alone."""
        process = self._process
        if process is None or self._writing:
            return
        most = 1 if self._num_suspects else min(MAX_IN_FLIGHT, len(self._pictures))
        while self._num_sent < most:
            if not self._send_picture(process.link, self._pictures[self._num_sent]):
                return
            self._num_sent += 1

    def _send_picture(self, link: socket.socket, waiting: _Waiting) -> bool:
        """Send `waiting` as far as the socket takes it; returns whether all of it is sent."""
        size = FRAME.size + len(waiting.data)
        while waiting.sent < size:
            try:
                if waiting.sent < FRAME.size:
                    prefix = FRAME.pack(ALONE if self._num_suspects else 0, len(waiting.data))[waiting.sent :]
                    waiting.sent += link.sendmsg([prefix, waiting.data])
                else:
                    waiting.sent += link.send(memoryview(waiting.data)[waiting.sent - FRAME.size :])
            except BlockingIOError:
                self._writing = True
                self._loop.add_writer(link, self._continue_sending)
                return False
            except OSError:
                return False  # the death of the process is noticed where answers are read
        return True

    def _continue_sending(self) -> None:
        assert self._process is not None
        self._loop.remove_writer(self._process.link)
        self._writing = False
        self._send()

    def _receive(self) -> None:
        assert self._process is not None
        try:
            open_still = self._frames.receive(self._process.link)
        except BlockingIOError:
            return
        except OSError:
            open_still = False
        if not open_still:
            self._handle_death("the decoding process died of this picture")
            return
        try:
            while self._take_answer():
                pass
        except (ValueError, EOFError, TypeError) as error:
            self._handle_death(f"the decoding process answered what is no answer: {error}")
        else:
            self._send()

    def _take_answer(self) -> bool:
        """Complete the first picture if its answer has come; returns whether it had."""
        frame = self._frames.take(len_about=True)
        if frame is None:
            return False
        _, about, data = frame
        if not about:
            self._process.ready = True  # type: ignore[union-attr]  # answers come from a process
            self._failed_starts = 0
            self._head_since = self._loop.time()
            return True
        reply = _parse_reply(marshal.loads(about), data, self._pictures[0].data)
        waiting = self._pictures.popleft()
        self._num_sent -= 1
        self._num_suspects = max(0, self._num_suspects - 1)
        self._head_since = self._loop.time()
        if not waiting.future.done():
            waiting.future.set_result(reply)
        return True

    def _check_timeout(self) -> None:
        self._timer = None
        if not self._pictures:
            return
        left = self._head_since + self._timeout_s - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_timeout)
        else:
            self._handle_death(f"no answer in {self._timeout_s:g} s")

    def _handle_death(self, why: str) -> None:
        """Handle the death of the process: a picture that was alone in it is lost, several become suspects."""
        assert self._process is not None
        ready = self._process.ready
        self._stop()
        self._num_sent = 0
        if not self._pictures:
            return
        if not ready:
            self._failed_starts += 1
            if self._failed_starts < MAX_FAILED_STARTS:
                self._restart()
            else:
                self._give_up()
            return
        if self._num_suspects or len(self._pictures) == 1:
            culprit = self._pictures.popleft()
            self._num_suspects = max(0, self._num_suspects - 1)
            if not culprit.future.done():
                culprit.future.set_result(PictureError(Status.DECODER_DIED, why))
        else:
            self._num_suspects = sum(waiting.sent > 0 for waiting in self._pictures)
        if self._pictures:
            self._restart()

    def _restart(self) -> None:
        """Send all pictures without an answer to a new process."""
        for waiting in self._pictures:
            waiting.sent = 0
        self._start()
        self._head_since = self._loop.time()
        self._timer = self._loop.call_later(self._timeout_s, self._check_timeout)
        self._send()

    def _give_up(self) -> None:
        for waiting in self._pictures:
            if not waiting.future.done():
                waiting.future.set_exception(RuntimeError("the decoding process does not start"))
        self._pictures.clear()

    def _stop(self) -> None:
        """Detach the process and end it."""
        process = self._detach()
        if process is not None:
            process.end()

    def _detach(self) -> DecodingProcess | None:
        process, self._process = self._process, None
        if process is not None:
            self._loop.remove_reader(process.link)
            self._loop.remove_writer(process.link)
        self._writing = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return process

    async def close(self) -> None:
        """Keep the process for the next unit if it is idle, end it otherwise."""
        at_rest = not self._pictures and not len(self._frames)
        process = self._detach()
        if process is not None and process.ready and at_rest:
            _idle.append(process)
        elif process is not None:
            process.end()


def _parse_reply(about: tuple[Any, ...], data: bytes, fetched: bytes) -> Reply:
    """Parse an answer of the process: two fields are a failure, the fields of `Stored` a picture.

    Its data is empty when the fetched bytes are to be stored.
    """
    if len(about) == 2:
        return PictureError(Status(about[0]), about[1])
    return Stored(data=data or fetched, **dict(zip(NAMES, about, strict=True)))


class Decoders:
    """Several decoders behind one `decode`."""

    def __init__(self, config: DownloadConfig) -> None:
        self._all = [Decoder(config) for _ in range(config.num_decoders)]

    async def decode(self, data: bytes) -> Stored:
        """Like `Decoder.decode`, by the decoder with the fewest pictures in flight."""
        return await min(self._all, key=lambda decoder: decoder.num_in_flight).decode(data)

    async def close(self) -> None:
        for decoder in self._all:
            await decoder.close()
