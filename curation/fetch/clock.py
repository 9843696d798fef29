"""The time that one try may take, requests and redirects together."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Clock:
    """Runs from the start; `left_s` seconds remain."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    @property
    def left_s(self) -> float:
        """Negative when the time is over."""
        return self._until - time.monotonic()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """What passes inside is a wait for our own turn, not the host's time."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._until += time.monotonic() - started
