"""One client a task: `await client.ask(target, clock)` ends as bytes, a redirect or a status, not as an exception."""

from __future__ import annotations

from dataclasses import dataclass

from curation.fetch import robots
from curation.fetch.budget import Share
from curation.fetch.clock import Clock
from curation.fetch.codings import decoded
from curation.fetch.exchange import GIVEN, Exchange, redirect
from curation.fetch.http1 import Answer, Connection, HttpError
from curation.fetch.politeness import asked_for_s
from curation.fetch.resolve import TEMPORARY_TTL_S, BlockedAddressError, LookupFailedError
from curation.fetch.rules import Rules
from curation.fetch.urls import BadUrlError, Target
from curation.recipe.config import DownloadConfig
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
"""Failures that a later try may not meet again."""
RETRIED = TEMPORARY - {Status.TIMEOUT}
"""Tried again at once: a host that took the whole deadline once is left for a later round."""
UNREACHED = {Status.DNS, Status.CONNECT, Status.TLS, Status.BLOCKED_ADDRESS, Status.TIMEOUT}
"""Ends of a request that no server answered, or not in time."""


@dataclass(slots=True)
class Fetched:
    """How one request ended. `body` only with status ok; `share` holds its memory until `give_back()`."""

    status: Status
    detail: str = ""
    body: bytes = b""
    share: Share | None = None
    redirect: Target | None = None
    retry_after_s: float | None = None
    final: bool = False
    """Whether trying again cannot help although the status is a temporary kind."""

    def give_back(self) -> None:
        """The body is no longer held."""
        self.body = b""
        if self.share is not None:
            self.share.give_back()


class _Stop(Exception):
    """Carries the end of a request out of nested steps."""

    def __init__(self, status: Status, detail: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(status, detail)
        self.ended = Fetched(status, detail, retry_after_s=retry_after_s)


def http_status(code: int) -> Status:
    """Status of a response code that is neither 200 nor a redirect that is followed."""
    exact = {404: Status.HTTP_404, 410: Status.HTTP_410, 429: Status.HTTP_429}
    if code in exact:
        return exact[code]
    families = {3: Status.HTTP_3XX, 4: Status.HTTP_4XX, 5: Status.HTTP_5XX}
    return families.get(code // 100, Status.BAD_RESPONSE)


class Client:
    """Use as `async with Client(config) as client`."""

    def __init__(self, config: DownloadConfig) -> None:
        self._config = config
        self._token = robots.product_token(config.user_agent)

    async def __aenter__(self) -> Client:
        self._exchange = Exchange(self._config)
        self._rules = Rules(self._exchange, self._token, self._config.timeout_s)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._rules.close()
        self._exchange.pool.close()

    def forget(self, host: str) -> None:
        """No row of `host` is left: close its connections."""
        self._exchange.pool.forget(host)

    async def ask(self, target: Target, clock: Clock | None = None) -> Fetched:
        """One request for a picture, in what the clock of its try has left; redirects are the caller's to follow."""
        clock = clock or Clock(self._config.timeout_s)
        try:
            if self._config.obey_robots:
                rules = self._rules.known(target.origin) or await self._rules.read(target, clock)
                if not rules.allows(target.path):
                    return Fetched(rules.status, rules.reason, final=True)
            return await self._request(target, clock)
        except (_Stop, HttpError, BlockedAddressError, LookupFailedError, BadUrlError) as error:
            return _ended(error)

    async def _request(self, target: Target, clock: Clock) -> Fetched:
        connection, answer = await self._exchange.answered(target, clock)
        share = self._exchange.budget.share()
        try:
            if answer.code in GIVEN:
                body = await self._picture(connection, answer, share)
                return Fetched(Status.OK, body=body, share=share)
            await self._exchange.drain(connection, answer)
        except BaseException:
            share.give_back()
            raise
        finally:
            self._exchange.pool.give(target, connection)
        status = http_status(answer.code)
        place = redirect(target, answer)
        if place is not None:
            return Fetched(status, redirect=place)
        wait = asked_for_s(answer.get("retry-after")) if answer.code in (429, 503) else None
        return Fetched(status, f"HTTP {answer.code}", retry_after_s=wait)

    async def _picture(self, connection: Connection, answer: Answer, share: Share) -> bytes:
        if self._config.obey_robots:
            refused = robots.refusal(answer.headers, self._token)
            if refused:
                raise _Stop(Status.OPTED_OUT, refused)
        limit = self._config.max_bytes
        if answer.length is not None and answer.length > limit:
            raise _Stop(Status.TOO_LARGE, f"{answer.length} bytes announced")
        body = await connection.body(share, limit)
        encoding = answer.get("content-encoding")
        if encoding:
            body = decoded(body, encoding, limit)
        if not body:
            raise _Stop(Status.EMPTY, "no bytes")
        return body


def _ended(error: Exception) -> Fetched:
    if isinstance(error, _Stop):
        return error.ended
    if isinstance(error, HttpError | BadUrlError):
        return Fetched(error.status, error.detail)
    if isinstance(error, LookupFailedError):
        wait = TEMPORARY_TTL_S if error.temporary else None
        return Fetched(Status.DNS, str(error), retry_after_s=wait, final=not error.temporary)
    return Fetched(Status.BLOCKED_ADDRESS, str(error))
