"""A web that means harm, or only does it: raw bytes over TCP, one host name a behaviour.

    with HostileServer() as server:
        config = DownloadConfig(connect_to=server.connect_to, allow_addresses=("127.0.0.0/8",))

`http://NAME.hostile.test/…` meets the behaviour NAME of tests/support/hostile_behaviours.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType

DOMAIN = "hostile.test"
TLS_HANDSHAKE = b"\x16"


@dataclass
class Exchange:
    """One request as a behaviour sees it."""

    path: str
    head: str
    times: int
    """How often this host and path were asked before."""
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    keep: bool = field(default=False)
    """Set by a behaviour that leaves the connection open for the next request."""

    async def send(self, data: bytes) -> None:
        """Raises ConnectionResetError when the other side is gone."""
        if self.writer.transport.is_closing():
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, code: int = 200, body: bytes = b"", **headers: str) -> None:
        """A well-formed answer; `_` in header names stands for `-`."""
        lines = [f"HTTP/1.1 {code} Whatever", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self.send("\r\n".join([*lines, "", ""]).encode() + body)
        self.keep = True

    async def raw(self, head: str, body: bytes = b"") -> None:
        """`head` with CRLF for its newlines and the empty line after it, then `body`."""
        await self.send(head.replace("\n", "\r\n").encode("utf-8") + b"\r\n\r\n" + body)

    def reset(self) -> None:
        """Close with RST. Raises ConnectionResetError when the other side is gone."""
        if self.writer.transport.is_closing():
            raise ConnectionResetError
        link = self.writer.get_extra_info("socket")
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Serve = Callable[[Exchange], Awaitable[None]]


class HostileServer:
    """Serves in a thread of its own. `served` and `robots` map the first label of a host name to what it does."""

    def __init__(self, served: dict[str, Serve], robots: dict[str, Serve], tls: ssl.SSLContext | None = None) -> None:
        self._served, self._robots, self._tls = served, robots, tls
        self.asked: Counter[tuple[str, str]] = Counter()
        """How often each (label, path) was asked."""
        self.heads: dict[str, str] = {}
        """The latest request of each label."""
        self.port = 80

    @property
    def connect_to(self) -> dict[str, str]:
        return {f"*.{DOMAIN}": f"127.0.0.1:{self.port}"}

    def __enter__(self) -> HostileServer:
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(ready))
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _serve(self, ready: threading.Event) -> None:
        self._over = asyncio.Event()
        server = await asyncio.start_server(self.connected, "127.0.0.1", 0, limit=1 << 20, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._over.wait()
        server.close()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, in whichever loop it was made."""
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first = await reader.readexactly(1)
        if first == TLS_HANDSHAKE:
            writer.write(b"HTTP/1.1 400 This is no TLS\r\n\r\n")
            return False
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        path = head.split(" ")[1]
        host = next(line for line in head.split("\r\n") if line.lower().startswith("host:"))[5:].strip()
        label = host.partition(".")[0]
        if label not in self._served and path.count("/") > 1:  # a client that knows no names: /LABEL/picture.jpg
            label, path = path[1:].split("/", 1)[0], "/" + path[1:].split("/", 1)[1]
        exchange = Exchange(path, head, self.asked[label, path], reader, writer)
        self.asked[label, path] += 1
        if path != "/robots.txt":
            self.heads[label] = head
            await self._served[label](exchange)
        elif label in self._robots:
            await self._robots[label](exchange)
        else:
            await exchange.answer(404)
        return exchange.keep
