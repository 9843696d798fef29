"""An event loop whose clock a test moves: deadlines of hours pass at once, and a busy machine makes none pass.

    statuses = run(main(), server.connected)

The clock stands still while the loop has anything to do. When nothing is left but timers, it moves to the next one.
Threads and child processes are not seen: code that waits for them belongs on the ordinary loop.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

Found = TypeVar("Found")
Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
STEP_S = 1e-6
"""The clock moves this much beyond a timer, so that rounding does not leave it just before."""


class MovedLoop(asyncio.SelectorEventLoop):
    """Its connections lead to `connected` in this very loop, over pairs of sockets, which have no delay of their own.

    Where `connected` is None no connection is ever made, as behind a firewall that drops everything.
    """

    def __init__(self, connected: Connected | None) -> None:
        self._now = 1000.0
        self._connected = connected
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._now

    def move(self, seconds: float) -> None:
        """`seconds` pass at once."""
        self._now += seconds + STEP_S

    async def create_connection(self, factory: Callable[[], Any], *_: Any, **__: Any) -> tuple[Any, Any]:  # type: ignore[override]  # only what a pool asks for
        if self._connected is None:
            await self.create_future()
        ours, theirs = socket.socketpair()
        reader = asyncio.StreamReader(limit=1 << 20, loop=self)
        served = asyncio.StreamReaderProtocol(reader, self._connected, loop=self)
        await self.connect_accepted_socket(lambda: served, theirs)
        return await super().create_connection(factory, sock=ours)


class ForwardLoop(asyncio.SelectorEventLoop):
    """Its clock runs as the system's does, and jumps ahead when a test says so: child processes go on meanwhile."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        super().__init__()

    def time(self) -> float:
        return super().time() + self._ahead_s

    def forward(self, seconds: float) -> None:
        """`seconds` pass at once; call it inside this loop."""
        self._ahead_s += seconds


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type,misc]  # chosen by the platform
    def __init__(self, loop: MovedLoop) -> None:
        super().__init__()
        self._moved = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; where nothing is, the clock moves by `timeout` in place of the wait."""
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready and timeout is None:
            return super().select(None)
        if not ready and timeout is not None and timeout > 0:
            self._moved.move(timeout)
        return ready


def run(main: Coroutine[Any, Any, Found], connected: Connected | None = None) -> Found:
    """What `main` gives, run on a loop of its own."""
    with asyncio.Runner(loop_factory=lambda: MovedLoop(connected)) as runner:
        return runner.run(main)
