"""One request to the HTTP parser, whose answer comes in pieces, and answers of many kinds."""

from __future__ import annotations

import asyncio

from curation.fetch.budget import Budget
from curation.fetch.http1 import Connection, HttpError

BODY = bytes(range(256)) * 3
MAX_BYTES = 100_000


class Wire(asyncio.Transport):
    """Takes what is written, remembers whether reading is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = self.paused = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written += data

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


async def exchange(pieces: list[bytes], closes: bool) -> tuple[str, bytes, bool]:
    """What one request ends as when `pieces` come: its status or `ok`, the body, whether the connection may stay."""
    connection = Connection(asyncio.get_running_loop())
    connection.connection_made(Wire())

    async def feed() -> None:
        for piece in pieces:
            if not connection.closed:
                connection.data_received(piece)
            await asyncio.sleep(0)
        if closes and not connection.closed:
            connection.connection_lost(None)

    feeding = asyncio.create_task(feed())
    connection.set_deadline(60.0, "never")
    share = Budget(MAX_BYTES).share()
    try:
        await connection.ask(b"GET / HTTP/1.1\r\n\r\n")
        body = await connection.read_body(share, MAX_BYTES)
        return "ok", body, connection.reusable
    except HttpError as error:
        return error.status.value, b"", connection.reusable
    finally:
        await feeding
        connection.close()
        share.give_back()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 768\r\n\r\n" + BODY, "ok", True),
    "length and close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length:768\r\n\r\n" + BODY, "ok", False),
    "chunks": (CHUNKED + b"100\r\n%b\r\n200;a=b\r\n%b\r\n0\r\n\r\n" % (BODY[:256], BODY[256:]), "ok", True),
    "trailers": (CHUNKED + b"300\r\n%b\r\n0\r\nX-A: b\r\nX-C: d\r\n\r\n" % BODY, "ok", True),
    "interim": (b"HTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 768\r\n\r\n" + BODY, "ok", True),
    "no length": (b"HTTP/1.1 200 OK\r\n\r\n" + BODY, "ok", False),
    "http/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 768\r\n\r\n" + BODY, "ok", False),
    "bare newlines": (b"HTTP/1.1 200 OK\nContent-Length: 768\n\n" + BODY, "ok", True),
    "zeros": (b"HTTP/1.1 200 OK\r\nContent-Length: 0000000000000000000000768\r\n\r\n" + BODY, "ok", True),
    "short": (b"HTTP/1.1 200 OK\r\nContent-Length: 769\r\n\r\n" + BODY, "truncated", False),
    "chunks short": (CHUNKED + b"300\r\n%b\r\n" % BODY, "truncated", False),
    "chunk too long": (CHUNKED + b"2ff\r\n%b\r\n0\r\n\r\n" % BODY, "truncated", False),
    "nonsense": (b"220 smtp.example ESMTP\r\n\r\n", "bad_response", False),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le", "disconnected", False),
    "nothing": (b"", "disconnected", False),
}
