"""The robots.txt rules of each origin: read once, retried when they do not come, cached within a limit of memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from curation.fetch import robots
from curation.fetch.clock import Clock
from curation.fetch.codings import decode_text
from curation.fetch.exchange import Exchange, redirect_target
from curation.fetch.http1 import Answer, Connection, HttpError
from curation.fetch.politeness import backoff_s
from curation.fetch.resolve import BlockedAddressError, LookupFailedError
from curation.fetch.robots import ALLOW_ALL, Robots, disallow_all
from curation.fetch.urls import BadUrlError, Target
from curation.schema import Status

MAX_REDIRECTS = 5
TOO_MANY_REQUESTS = 429
MAX_TRIES = 3
TRIED_AGAIN = {Status.CONNECT, Status.DISCONNECTED, Status.TRUNCATED, Status.HTTP_5XX}
NAMED = TRIED_AGAIN | {Status.DNS, Status.TIMEOUT, Status.HTTP_429}
"""Failures of robots.txt that a row takes over as its status; after any other its status is `http_5xx`, which a later
round tries again."""
MAX_BYTES = 32 << 20
"""The memory for all rules; the least recently used are dropped, and read again when they are needed."""
BYTES_PER_ORIGIN, BYTES_PER_BYTE = 1_000, 8
"""Memory of the rules of one origin: a fixed part, and a part for each byte of their text."""
NotReached = HttpError | BlockedAddressError | LookupFailedError


class RobotsCache:
    """`rules.find_cached(origin) or await rules.read(target, clock)`; `close()` it."""

    def __init__(self, exchange: Exchange, token: str, timeout_s: float) -> None:
        self._exchange, self._token, self._timeout_s = exchange, token, timeout_s
        self._known: OrderedDict[str, tuple[Robots, int]] = OrderedDict()
        """Rules of an origin with their memory in bytes, the least recently used first."""
        self._fetching: dict[str, asyncio.Task[Robots | NotReached]] = {}
        self._size = 0

    def find_cached(self, origin: str) -> Robots | None:
        """The rules of `origin`; None when they were not read yet."""
        cached = self._known.get(origin)
        if cached is None:
            return None
        self._known.move_to_end(origin)
        return cached[0]

    async def read(self, target: Target, clock: Clock) -> Robots:
        """Read the rules for `target` with one request, however many callers wait for them.

        Raises what a request for the picture would raise: HttpError, BlockedAddressError, LookupFailedError.
        """
        with clock.pause():
            await self._exchange.pool.wait_turn(target)
        origin = target.origin
        known = self.find_cached(origin)
        if known is not None:
            return known
        if origin not in self._fetching:
            self._fetching[origin] = asyncio.create_task(self._fetch(target))
        try:
            async with asyncio.timeout(clock.left_s):
                rules = await asyncio.shield(self._fetching[origin])
        except TimeoutError as error:
            raise HttpError(Status.TIMEOUT, "robots.txt does not come in time") from error
        if isinstance(rules, Exception):
            raise rules
        return rules

    async def close(self) -> None:
        for task in self._fetching.values():
            task.cancel()
        await asyncio.gather(*self._fetching.values(), return_exceptions=True)

    async def _fetch(self, target: Target) -> Robots | NotReached:
        """RFC 9309 2.3.1: 4xx or a redirect loop allows everything; 5xx or no answer allows nothing at the moment.

        Nor does 429: it says that we ask too much, and nothing about what is allowed.

        A host that cannot be reached gives an exception, which ends the row and is not cached.
        """
        # Half of the time of a try, so that the row that waits has time left for its picture.
        clock = Clock(self._timeout_s / 2)
        try:
            rules, size = await self._try_once(target, clock)
            for attempt in range(1, MAX_TRIES):
                if not (isinstance(rules, Robots) and rules.status in TRIED_AGAIN) or clock.left_s <= 0:
                    break
                with clock.pause():
                    await asyncio.sleep(backoff_s(attempt))
                rules, size = await self._try_once(target, clock)
            if isinstance(rules, Robots):
                self._remember(target.origin, rules, size)
            return rules
        finally:
            del self._fetching[target.origin]

    def _remember(self, origin: str, rules: Robots, size: int) -> None:
        self._known[origin] = rules, size
        self._size += size
        while self._size > MAX_BYTES:
            self._size -= self._known.popitem(last=False)[1][1]

    async def _try_once(self, target: Target, clock: Clock) -> tuple[Robots | NotReached, int]:
        """Try once, redirects included; returns the rules and their memory, or why the host was not reached."""
        place = target._replace(path="/robots.txt")
        for hop in range(MAX_REDIRECTS + 1):
            try:
                answer, size = await self._fetch_at(place, clock)
            except (HttpError, BlockedAddressError, LookupFailedError) as error:
                return (error if hop == 0 and _is_unreached(error) else disallow_for_now(error)), BYTES_PER_ORIGIN
            except BadUrlError:
                break
            if isinstance(answer, Robots):
                return answer, size
            place = answer
        return ALLOW_ALL, BYTES_PER_ORIGIN

    async def _fetch_at(self, place: Target, clock: Clock) -> tuple[Robots | Target, int]:
        """The rules at `place` and their memory, or the target of a redirect."""
        connection, answer = await self._exchange.request(place, clock)
        try:
            if 200 <= answer.code < 300:
                text = await self._read_text(connection, answer)
                rules = robots.parse_robots(text.decode("utf-8", "surrogateescape"), self._token)
                return rules, BYTES_PER_ORIGIN + (0 if rules is ALLOW_ALL else BYTES_PER_BYTE * len(text))
            await self._exchange.drain(connection, answer)
            if answer.code >= 500 or answer.code == TOO_MANY_REQUESTS:
                status = Status.HTTP_429 if answer.code == TOO_MANY_REQUESTS else Status.HTTP_5XX
                raise HttpError(status, f"HTTP {answer.code}")
            return redirect_target(place, answer) or ALLOW_ALL, BYTES_PER_ORIGIN
        finally:
            self._exchange.pool.give(place, connection)

    async def _read_text(self, connection: Connection, answer: Answer) -> bytes:
        share = self._exchange.budget.share()
        try:
            body = await connection.read_body(share, robots.MAX_BYTES)
        except HttpError as error:
            if error.status is not Status.TOO_LARGE:
                raise
            body = connection.partial_body()
        finally:
            share.give_back()
        return decode_text(body, answer.get("content-encoding") or "", robots.MAX_BYTES)


def _is_unreached(error: NotReached) -> bool:
    return not isinstance(error, HttpError) or error.status in (Status.CONNECT, Status.TLS)


def disallow_for_now(error: NotReached) -> Robots:
    """Rules that allow nothing at the moment, because of `error`."""
    if not isinstance(error, HttpError):
        status = Status.DNS if isinstance(error, LookupFailedError) else Status.HTTP_5XX
        return disallow_all(status, f"robots.txt is redirected to where no server is: {error}")
    status = error.status if error.status in NAMED else Status.HTTP_5XX
    if status is Status.TIMEOUT:
        return disallow_all(status, f"robots.txt does not come in time: {error.detail}")
    return disallow_all(status, f"robots.txt cannot be had: {error.detail}")
