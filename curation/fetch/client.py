"""The client of a task: `await client.ask(target, clock)` returns bytes, a redirect or a status, and does not raise."""

from __future__ import annotations

from dataclasses import dataclass

from curation.fetch import robots
from curation.fetch.budget import Share
from curation.fetch.clock import Clock
from curation.fetch.codings import decode_body
from curation.fetch.exchange import GIVEN, Exchange, redirect_target
from curation.fetch.http1 import Answer, Connection, HttpError
from curation.fetch.politeness import parse_retry_after
from curation.fetch.resolve import TEMPORARY_TTL_S, BlockedAddressError, LookupFailedError
from curation.fetch.robots_cache import RobotsCache
from curation.fetch.urls import BadUrlError, Target
from curation.recipe.config import DownloadConfig
from curation.recipe.user_agent import product_token
from curation.schema import Status

TEMPORARY = {
    Status.DNS,
    Status.CONNECT,
    Status.DISCONNECTED,
    Status.TIMEOUT,
    Status.TRUNCATED,
    Status.HTTP_429,
    Status.HTTP_5XX,
}
"""Failures that a later try may avoid."""
RETRIED = TEMPORARY - {Status.TIMEOUT}
"""Failures that are tried again in the same round; a host that took the whole deadline waits for a later round."""
UNREACHED = {Status.DNS, Status.CONNECT, Status.TLS, Status.BLOCKED_ADDRESS, Status.TIMEOUT}
"""Failures in which no server answered, or not in time."""


@dataclass(slots=True)
class Fetched:
    """How one request ended. `body` is set only with status ok; `share` holds its memory until `give_back()`."""

    status: Status
    detail: str = ""
    body: bytes = b""
    share: Share | None = None
    redirect: Target | None = None
    retry_after_s: float | None = None
    final: bool = False
    """Whether another try cannot help although the status is temporary."""

    def give_back(self) -> None:
        """Drop the body and give back its memory."""
        self.body = b""
        if self.share is not None:
            self.share.give_back()


class _RequestEnd(Exception):
    """Ends a request from within nested steps."""

    def __init__(self, status: Status, detail: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(status, detail)
        self.result = Fetched(status, detail, retry_after_s=retry_after_s)


def http_status(code: int) -> Status:
    """The status of a row whose request got `code`, which is neither 200 nor a redirect that is followed."""
    exact = {404: Status.HTTP_404, 410: Status.HTTP_410, 429: Status.HTTP_429}
    if code in exact:
        return exact[code]
    families = {3: Status.HTTP_3XX, 4: Status.HTTP_4XX, 5: Status.HTTP_5XX}
    return families.get(code // 100, Status.BAD_RESPONSE)


class Client:
    """Use as `async with Client(config) as client`."""

    def __init__(self, config: DownloadConfig) -> None:
        self._config = config
        self._token = product_token(config.user_agent)

    async def __aenter__(self) -> Client:
        self._exchange = Exchange(self._config)
        self._robots = RobotsCache(self._exchange, self._token, self._config.timeout_s)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._robots.close()
        self._exchange.pool.close()

    def close_host(self, host: str) -> None:
        """Close the connections to `host`, which no row needs any more."""
        self._exchange.pool.close_host(host)

    async def ask(self, target: Target, clock: Clock | None = None) -> Fetched:
        """Send one request for a picture in the time that `clock` has left; the caller follows redirects."""
        clock = clock or Clock(self._config.timeout_s)
        try:
            if self._config.obey_robots:
                rules = self._robots.find_cached(target.origin) or await self._robots.read(target, clock)
                if not rules.allows(target.path):
                    return Fetched(rules.status, rules.reason, final=True)
            return await self._request(target, clock)
        except (_RequestEnd, HttpError, BlockedAddressError, LookupFailedError, BadUrlError) as error:
            return _to_fetched(error)

    async def _request(self, target: Target, clock: Clock) -> Fetched:
        connection, answer = await self._exchange.request(target, clock)
        share = self._exchange.budget.share()
        try:
            if answer.code in GIVEN:
                body = await self._read_picture(connection, answer, share)
                return Fetched(Status.OK, body=body, share=share)
            await self._exchange.drain(connection, answer)
        except BaseException:
            share.give_back()
            raise
        finally:
            self._exchange.pool.give(target, connection)
        status = http_status(answer.code)
        place = redirect_target(target, answer)
        if place is not None:
            return Fetched(status, redirect=place)
        wait = parse_retry_after(answer.get("retry-after")) if answer.code in (429, 503) else None
        return Fetched(status, f"HTTP {answer.code}", retry_after_s=wait)

    async def _read_picture(self, connection: Connection, answer: Answer, share: Share) -> bytes:
        if self._config.obey_robots:
            refused = robots.find_refusal(answer.headers, self._token)
            if refused:
                raise _RequestEnd(Status.OPTED_OUT, refused)
        limit = self._config.max_bytes
        if answer.length is not None and answer.length > limit:
            raise _RequestEnd(Status.TOO_LARGE, f"{answer.length} bytes announced")
        body = await connection.read_body(share, limit)
        encoding = answer.get("content-encoding")
        if encoding:
            body = decode_body(body, encoding, limit)
        if not body:
            raise _RequestEnd(Status.EMPTY, "no bytes")
        return body


def _to_fetched(error: Exception) -> Fetched:
    if isinstance(error, _RequestEnd):
        return error.result
    if isinstance(error, HttpError | BadUrlError):
        return Fetched(error.status, error.detail)
    if isinstance(error, LookupFailedError):
        wait = TEMPORARY_TTL_S if error.temporary else None
        return Fetched(Status.DNS, str(error), retry_after_s=wait, final=not error.temporary)
    return Fetched(Status.BLOCKED_ADDRESS, str(error))
