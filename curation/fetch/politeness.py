"""Per host: so many requests at a time, and so long between two."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime

BACKOFF_S = 0.5
MAX_WAIT_S = 60.0


@dataclass
class Host:
    """What is known of one host while a unit is fetched."""

    slots: asyncio.Semaphore
    next_start: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)


class Hosts:
    """Gate in front of every request: `async with hosts.turn(host)`."""

    def __init__(self, max_per_host: int, interval_s: float) -> None:
        self._max_per_host = max_per_host
        self._interval_s = interval_s
        self.known: dict[str, Host] = {}

    def get(self, host: str) -> Host:
        if host not in self.known:
            self.known[host] = Host(asyncio.Semaphore(self._max_per_host))
        return self.known[host]

    @contextlib.asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait for a place and for the host's interval."""
        host = self.get(name)
        async with host.slots:
            now = time.monotonic()
            start = max(now, host.next_start)
            host.next_start = start + self._interval_s
            if start > now:
                await asyncio.sleep(start - now)
            yield

    def pause(self, name: str, seconds: float) -> None:
        """No new request to this host before `seconds` have passed (Retry-After speaks for the whole host)."""
        host = self.get(name)
        host.next_start = max(host.next_start, time.monotonic() + seconds)


def backoff_s(attempt: int) -> float:
    """Exponential with full jitter before try number `attempt` (1 is the first retry), in seconds."""
    return random.uniform(0.5, 1.0) * min(MAX_WAIT_S, BACKOFF_S * 2 ** (attempt - 1))


def retry_after_s(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 10.2.3: seconds or a date), at most MAX_WAIT_S."""
    if value is None:
        return None
    if value.strip().isdigit():
        return min(MAX_WAIT_S, float(value))
    try:
        wanted = parsedate_to_datetime(value).timestamp() - time.time()
    except (TypeError, ValueError):
        return None
    return min(MAX_WAIT_S, max(0.0, wanted))
