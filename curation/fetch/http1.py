"""HTTP/1.1 for a downloader (RFC 9112): one GET at a time on a connection, with a limit on everything that comes.

A general client spends more time on a small picture than the network does. Cookies, compression, caching, upgrades and
pipelining are left out on purpose.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

from curation.fetch.budget import SMALL_BYTES, Share
from curation.schema import Status

MAX_HEAD_BYTES = 64 << 10
MAX_INTERIM = 8
"""The most 1xx answers before the final one."""
MAX_CHUNK_LINE = 4096
SMALL_PIECE = 512
"""Smaller pieces are joined: each costs forty bytes of memory, and a server may send single bytes."""
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n]*)?\r?(?:\n|$)")
_HEADER = re.compile(
    rb"(?<=\n)(content-length|transfer-encoding|connection|location|retry-after|content-encoding|x-robots-tag"
    rb"|tdm-reservation)[ \t]*:([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)",
    re.IGNORECASE,
)
"""The headers that a downloader acts on, with folded lines (RFC 9112 5.2); servers send a dozen others."""
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
Headers = list[tuple[str, str]]


class HttpError(Exception):
    """A request without a usable answer: the status of its row, and the reason."""

    def __init__(self, status: Status, detail: str, unanswered: bool = False) -> None:
        super().__init__(status, detail)
        self.status, self.detail = status, detail
        self.unanswered = unanswered
        """Whether the server closed the connection before the first byte, as it may do with one that was kept open."""


@dataclass(slots=True)
class Answer:
    """Status line and the headers that matter: names in lower case, repeated headers in their order."""

    code: int
    headers: Headers = field(default_factory=list)
    length: int | None = None
    """Announced length of the body in bytes; None when chunks or the end of the connection end the body."""
    chunked: bool = False
    keep_alive: bool = True

    def get(self, name: str) -> str | None:
        """The value of the first header called `name`, None when there is none."""
        return next((value for key, value in self.headers if key == name), None)


def parse_head(head: bytes) -> Answer:
    """Parse the head of an answer, given without the empty line that ends it. Raises HttpError."""
    status = _STATUS_LINE.match(head)
    if status is None:
        raise HttpError(Status.BAD_RESPONSE, f"no HTTP/1 status line: {head[:40].rstrip()!r}")
    answer = Answer(int(status[2]), keep_alive=status[1] == b"1")
    for name, value in _HEADER.findall(head):
        _take_header(answer, name.decode().lower(), value.decode("latin-1").strip())
    if answer.code < 200 or answer.code in (204, 304):
        answer.length, answer.chunked = 0, False
    if answer.chunked and answer.length is not None:
        answer.length, answer.keep_alive = None, False  # RFC 9112 6.3: chunks decide, and the connection is not reused
    return answer


def _take_header(answer: Answer, name: str, value: str) -> None:
    answer.headers.append((name, value))
    if name == "content-length":
        sizes = {part.strip() for part in value.split(",")}
        size = sizes.pop()
        length = int(size.lstrip("0")[:18] or "0") if size.isascii() and size.isdigit() else -1
        if sizes or length < 0 or answer.length not in (None, length):
            raise HttpError(Status.BAD_RESPONSE, f"content-length: {value[:40]}")
        answer.length = length
    elif name == "transfer-encoding":
        answer.chunked = value.lower() == "chunked"
        if not answer.chunked and value.lower() != "identity":
            raise HttpError(Status.BAD_RESPONSE, f"transfer-encoding: {value[:40]}")
    elif name == "connection":
        words = value.lower()
        answer.keep_alive = "close" not in words and (answer.keep_alive or "keep-alive" in words)


class Connection(asyncio.Protocol):
    """`answer = await connection.ask(request)`, then `await connection.read_body(share)` or `connection.close()`.

    Every wait raises HttpError on failure. `reusable` says whether another request may follow.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._alarm: asyncio.TimerHandle | None = None
        """A timer that fires at the deadline or before it."""
        self._deadline: float | None = None
        self._what = ""
        self.requests = 0
        self.closed = False
        self._busy = False
        self._reset()

    def _reset(self) -> None:
        self._head = b""
        self._interim = 0
        self._chunks: list[bytes] = []
        self._size = 0
        self._allowed = SMALL_BYTES
        self._paused = False
        self._ended = False
        self._answer: Answer | None = None
        self._error: HttpError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._chunk_left = 0
        """Bytes left of the current chunk and its line end; 0 before a size line, -1 in the trailers."""
        self._line = b""

    @property
    def reusable(self) -> bool:
        done = self._ended and self._error is None and not self.closed
        return done and self._answer is not None and self._answer.keep_alive

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's, for a protocol of streams

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if not self._busy or self._ended:
            return
        answer = self._answer
        if answer is None:
            silent = not self._head
            self._fail(Status.DISCONNECTED, "the server closed the connection without an answer", unanswered=silent)
        elif exc is None and answer.length is None and not answer.chunked:
            self._end()
        else:
            self._fail(Status.TRUNCATED, f"the connection ended after {self._size} bytes")

    def data_received(self, data: bytes) -> None:
        if not self._busy or self._ended:
            self.close()  # these bytes answer no request
            return
        try:
            if self._answer is None:
                self._feed_head(data)
            elif self._answer.chunked:
                self._feed_chunks(data)
            else:
                self._feed_plain(data)
        except HttpError as error:
            self._fail(error.status, error.detail)
        if self._size > self._allowed and not self._ended and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
            self._wake()

    # The parts of an answer.

    def _feed_head(self, data: bytes) -> None:
        searched = max(0, len(self._head) - 2)
        head = self._head + data if self._head else data
        end = head.find(b"\n\r\n", searched)
        after = end + 3
        # Two bare newlines end a head too, unless they are part of the body after it.
        bare = head.find(b"\n\n", searched, end + 1 if end >= 0 else len(head))
        if bare >= 0:
            end, after = bare, bare + 2
        if max(end, len(head) if end < 0 else 0) > MAX_HEAD_BYTES:
            raise HttpError(Status.BAD_RESPONSE, f"more than {MAX_HEAD_BYTES} bytes of headers")
        if end < 0:
            if not b"HTTP/1.".startswith(head[:7]) and not head.startswith(b"HTTP/1."):
                raise HttpError(Status.BAD_RESPONSE, f"no HTTP/1 status line: {head[:40]!r}")
            self._head = head
            return
        answer, rest = parse_head(head[:end]), head[after:]
        self._head = b""
        if answer.code < 200:
            self._interim += 1
            if answer.code == 101 or self._interim > MAX_INTERIM:
                raise HttpError(Status.BAD_RESPONSE, f"HTTP {answer.code}")
            self._feed_head(rest)
            return
        self._answer = answer
        if answer.chunked:
            self._feed_chunks(rest)
        else:
            self._feed_plain(rest)
        self._wake()

    def _feed_plain(self, data: bytes) -> None:
        assert self._answer is not None
        length = self._answer.length
        if length is not None and self._size + len(data) >= length:
            if self._size + len(data) > length:
                data = data[: length - self._size]
                self._answer.keep_alive = False
            self._add(data)
            self._end()
        else:
            self._add(data)

    def _feed_chunks(self, data: bytes) -> None:
        """Decode the chunked coding (RFC 9112 7.1); trailers are dropped."""
        position = 0
        while position < len(data) and not self._ended:
            if self._chunk_left > 0:
                taken = data[position : position + self._chunk_left]
                position += len(taken)
                self._chunk_left -= len(taken)
                self._add_chunk(taken)
                continue
            end = data.find(b"\n", position)
            self._line += data[position : end if end >= 0 else len(data)]
            if len(self._line) > MAX_CHUNK_LINE:
                raise HttpError(Status.BAD_RESPONSE, "an endless line between chunks")
            if end < 0:
                return
            position = end + 1
            line, self._line = self._line.rstrip(b"\r"), b""
            self._take_line(line, last=position == len(data))

    def _take_line(self, line: bytes, last: bool) -> None:
        if self._chunk_left < 0:
            self._interim += 1
            if self._interim > 10 * MAX_INTERIM:
                raise HttpError(Status.BAD_RESPONSE, "endless trailers")
            if not line:
                assert self._answer is not None
                self._answer.keep_alive = self._answer.keep_alive and last
                self._end()
            return
        size = _CHUNK_SIZE.fullmatch(line)
        if size is None:
            raise HttpError(Status.TRUNCATED, f"broken chunked coding: {line[:20]!r}")
        number = int(size[1], 16)
        self._chunk_left = number + 2 if number else -1

    def _add_chunk(self, taken: bytes) -> None:
        """Add a part of a chunk; the last two bytes of a chunk are its line end, not data."""
        line_end = 2 - min(2, self._chunk_left)
        if line_end and taken[max(0, len(taken) - line_end) :] not in (b"\r\n", b"\r", b"\n"):
            raise HttpError(Status.TRUNCATED, "broken chunked coding: a chunk without an end")
        self._add(taken[: max(0, len(taken) - line_end)])

    def _add(self, data: bytes) -> None:
        if not data:
            return
        if self._chunks and len(data) < SMALL_PIECE and len(self._chunks[-1]) < SMALL_PIECE:
            self._chunks[-1] += data
        else:
            self._chunks.append(data)
        self._size += len(data)

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _fail(self, status: Status, detail: str, unanswered: bool = False) -> None:
        self._error = self._error or HttpError(status, detail, unanswered)
        self._ended = True
        self._wake()
        self.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        if self._error is None:
            self._waiter = self._loop.create_future()
            await self._waiter
        if self._error is not None:
            raise self._error

    # What the client calls.

    def set_deadline(self, seconds: float, what: str) -> None:
        """Fail with status timeout unless the exchange ends, or gets another deadline, within `seconds`."""
        self._deadline, self._what = self._loop.time() + max(0.0, seconds), what
        # A timer that fires too early sets itself again, so most exchanges need no new timer.
        if self._alarm is None or self._alarm.when() > self._deadline:
            self._set_alarm(self._deadline)

    def _set_alarm(self, when: float | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if when is None else self._loop.call_at(when, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        if self._deadline is None:
            return
        if self._deadline > self._loop.time():
            self._set_alarm(self._deadline)
        else:
            self._fail(Status.TIMEOUT, self._what)

    async def ask(self, request: bytes) -> Answer:
        """Send `request` and wait for the head of the answer. Raises HttpError."""
        self._reset()
        self._busy = True
        self.requests += 1
        assert self._transport is not None
        if self.closed or self._transport.is_closing():
            raise HttpError(Status.DISCONNECTED, "the server closed the connection", unanswered=True)
        self._transport.write(request)
        while self._answer is None:
            await self._wait()
        if self._error is not None:
            raise self._error
        return self._answer

    async def read_body(self, share: Share, max_bytes: int) -> bytes:
        """Read the whole body. Raises HttpError, with status too_large for more than `max_bytes`."""
        assert self._answer is not None
        length = self._answer.length
        while not self._ended:
            if self._size > max_bytes:
                break
            if self._paused:
                self._allowed = await self._grow(share, max_bytes if length is None else length)
            else:
                await self._wait()
        if self._error is not None:
            raise self._error
        if self._size > max_bytes:
            raise HttpError(Status.TOO_LARGE, f"more than {max_bytes} bytes")
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def partial_body(self) -> bytes:
        """The part of the body that came, after `body` failed."""
        return b"".join(self._chunks)

    async def _grow(self, share: Share, wanted: int) -> int:
        """Wait for memory, with the deadline stopped, and read on; returns how many bytes the body may hold now."""
        left = None if self._deadline is None else self._deadline - self._loop.time()
        self._deadline = None
        allowed = await share.grow(max(wanted, self._size))
        if left is not None:
            self.set_deadline(left, "no whole picture in time")
        self._paused = False
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()
        return allowed

    def release(self) -> None:
        """End the exchange; the connection may be kept for another request."""
        self._deadline = None
        self._chunks = []
        self._busy = False

    def close(self) -> None:
        """Close the connection at once, without reading what is left."""
        self._set_alarm(None)
        self._chunks = []
        self.closed = True
        if self._transport is not None:
            self._transport.abort()
