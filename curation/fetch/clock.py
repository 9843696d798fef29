"""The time that one try may take, requests and redirects together."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator


def now() -> float:
    """Seconds on the clock of all deadlines: the event loop's, as its timers use it, or the system's in a thread."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


class Clock:
    """Starts to run when it is made; `left_s` seconds remain."""

    def __init__(self, seconds: float) -> None:
        self._until = now() + seconds

    @property
    def left_s(self) -> float:
        """Negative when the time is over."""
        return self._until - now()

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Stop the clock inside the `with`, where we wait for our own turn and not for the host."""
        started = now()
        try:
            yield
        finally:
            self._until += now() - started
