"""One client a task: `await client.ask(target, spent_s)` ends as bytes, a redirect or a status, not as an exception."""

from __future__ import annotations

import asyncio
import time
import zlib
from dataclasses import dataclass

from curation.config import DownloadConfig
from curation.fetch import robots
from curation.fetch.addresses import AddressPolicy
from curation.fetch.budget import Budget, Share
from curation.fetch.http1 import Answer, Connection, HttpError
from curation.fetch.politeness import retry_after_s
from curation.fetch.pool import Pool
from curation.fetch.resolve import TEMPORARY_TTL_S, BlockedAddressError, LookupFailedError, Resolver
from curation.fetch.urls import BadUrlError, Target, join
from curation.schema import Status

REDIRECTS = {301, 302, 303, 307, 308}
MAX_DRAINED_BYTES = 64 << 10
"""The body of an answer that is no picture is read up to here, so that its connection may be kept."""
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
MAX_ROBOTS_REDIRECTS = 5
GZIP = b"\x1f\x8b"


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
        self._budget = Budget(config.max_bytes)
        self._robots: dict[str, dict[str, asyncio.Task[robots.Robots]]] = {}
        """By host, then by origin."""
        agent = f"{config.user_agent} {config.contact}".strip()
        agent = "".join(c for c in agent if " " <= c <= "~")
        accept = ", ".join([*(f"image/{name}" for name in config.formats), "*/*;q=0.1"])
        lines = [f"User-Agent: {agent}", f"Accept: {accept}", "Accept-Encoding: identity", "", ""]
        self._lines = "\r\n".join(lines).encode()

    async def __aenter__(self) -> Client:
        resolver = Resolver(AddressPolicy(self._config.allow_addresses), self._config.connect_to)
        self._pool = Pool(resolver, self._config.connect_timeout_s)
        return self

    async def __aexit__(self, *_: object) -> None:
        running = [task for host in self._robots.values() for task in host.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._pool.close()

    def forget(self, host: str) -> None:
        """No row of `host` is left: close its connections, drop its rules."""
        self._pool.forget(host)
        for task in self._robots.pop(host, {}).values():
            task.cancel()

    async def ask(self, target: Target, spent_s: float = 0.0) -> Fetched:
        """One request for a picture that has taken `spent_s` already; redirects are the caller's to follow."""
        try:
            if self._config.obey_robots:
                task = self._robots.get(target.host, {}).get(target.origin)
                known = task is not None and task.done() and not task.cancelled()
                rules = task.result() if known else await self._rules(target)  # type: ignore[union-attr]  # known
                if not rules.allows(target.path):
                    return Fetched(rules.status, rules.reason, final=True)
            return await self._request(target, self._config.timeout_s - spent_s)
        except (_Stop, HttpError, BlockedAddressError, LookupFailedError, BadUrlError) as error:
            return _ended(error)

    async def _request(self, target: Target, left_s: float) -> Fetched:
        connection, answer = await self._answered(target, left_s)
        share = self._budget.share()
        try:
            if answer.code == 200:
                body = await self._picture(connection, answer, share)
                return Fetched(Status.OK, body=body, share=share)
            await self._drain(connection, answer)
        except BaseException:
            share.give_back()
            raise
        finally:
            self._pool.give(target, connection)
        location = answer.get("location")
        if answer.code in REDIRECTS and location is not None:
            return Fetched(http_status(answer.code), redirect=join(target, _utf8(location)))
        wait = retry_after_s(answer.get("retry-after")) if answer.code in (429, 503) else None
        return Fetched(http_status(answer.code), f"HTTP {answer.code}", retry_after_s=wait)

    async def _answered(self, target: Target, left_s: float) -> tuple[Connection, Answer]:
        """A connection that has sent the request and got the head of an answer."""
        request = f"GET {target.path} HTTP/1.1\r\nHost: {target.netloc}\r\n".encode() + self._lines
        until = time.monotonic() + left_s
        kept = True
        while True:
            connection = await self._pool.take(target, fresh=not kept)
            kept = connection.requests > 0
            left = until - time.monotonic()
            first = min(left, self._config.first_byte_timeout_s)
            connection.deadline(first, f"no answer within {self._config.first_byte_timeout_s:g} s")
            try:
                answer = await connection.ask(request)
            except HttpError as error:
                connection.close()
                if kept and error.unanswered:
                    kept = False  # the server had given the connection up: that is no failure of this request
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            connection.deadline(until - time.monotonic(), f"no whole picture within {self._config.timeout_s:g} s")
            return connection, answer

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

    async def _drain(self, connection: Connection, answer: Answer) -> None:
        """Read what follows, so that the connection may be kept; close it when that is much or does not come."""
        if not answer.keep_alive or (answer.length is None and not answer.chunked):
            connection.close()
            return
        if answer.length is not None and answer.length > MAX_DRAINED_BYTES:
            connection.close()
            return
        try:
            await connection.body(self._budget.share(), MAX_DRAINED_BYTES)
        except HttpError:
            connection.close()

    async def _rules(self, target: Target) -> robots.Robots:
        """robots.txt of the target's origin, asked for once."""
        known = self._robots.setdefault(target.host, {})
        task = known.get(target.origin)
        if task is None:
            task = known[target.origin] = asyncio.create_task(self._read_robots(target))
        return await asyncio.shield(task)

    async def _read_robots(self, target: Target) -> robots.Robots:
        """RFC 9309 2.3.1: 4xx, a redirect loop: everything is allowed; 5xx or no answer in time: nothing is for now.

        A host that cannot be reached at all is left to the request for the picture itself, which names the reason.
        """
        place = target._replace(path="/robots.txt")
        until = time.monotonic() + self._config.timeout_s
        for _ in range(MAX_ROBOTS_REDIRECTS + 1):
            try:
                found = await self._robots_at(place, until - time.monotonic())
            except HttpError as error:
                if error.status is Status.TIMEOUT:
                    return robots.unavailable(Status.TIMEOUT, "robots.txt does not come in time")
                return robots.ALLOW_ALL
            except (BlockedAddressError, LookupFailedError, BadUrlError):
                return robots.ALLOW_ALL
            if isinstance(found, robots.Robots):
                return found
            place = found
        return robots.ALLOW_ALL

    async def _robots_at(self, place: Target, left_s: float) -> robots.Robots | Target:
        """The rules at `place`, or where they are instead."""
        connection, answer = await self._answered(place, left_s)
        try:
            location = answer.get("location")
            if answer.code in REDIRECTS and location is not None:
                await self._drain(connection, answer)
                return join(place, _utf8(location))
            if answer.code >= 500:
                await self._drain(connection, answer)
                return robots.unavailable(Status.HTTP_5XX, f"robots.txt answers HTTP {answer.code}")
            if answer.code != 200:
                await self._drain(connection, answer)
                return robots.ALLOW_ALL
            text = await self._text(connection, answer)
            return robots.parse(text.decode("utf-8", "replace"), self._token)
        finally:
            self._pool.give(place, connection)

    async def _text(self, connection: Connection, answer: Answer) -> bytes:
        share = self._budget.share()
        try:
            body = await connection.body(share, robots.MAX_BYTES)
        except HttpError as error:
            if error.status is not Status.TOO_LARGE:
                raise
            body = connection.so_far()
        finally:
            share.give_back()
        encoding = answer.get("content-encoding")
        return (decoded(body, encoding, 4 * robots.MAX_BYTES) if encoding else body)[: robots.MAX_BYTES]


def _ended(error: Exception) -> Fetched:
    if isinstance(error, _Stop):
        return error.ended
    if isinstance(error, HttpError | BadUrlError):
        return Fetched(error.status, error.detail)
    if isinstance(error, LookupFailedError):
        wait = TEMPORARY_TTL_S if error.temporary else None
        return Fetched(Status.DNS, str(error), retry_after_s=wait, final=not error.temporary)
    return Fetched(Status.BLOCKED_ADDRESS, str(error))


def decoded(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """`body` without the content coding that nobody asked for. Raises HttpError."""
    name = encoding.strip().lower()
    if name == "identity" or (name in ("gzip", "x-gzip") and not body.startswith(GZIP)):
        return body  # some servers announce what they then do not do
    if name not in ("gzip", "x-gzip", "deflate"):
        raise HttpError(Status.BAD_RESPONSE, f"content-encoding: {encoding[:40]}")
    window = 31 if name != "deflate" else 15 if body[:1] == b"\x78" else -15
    inflating = zlib.decompressobj(window)
    try:
        plain = inflating.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise HttpError(Status.BAD_RESPONSE, f"content-encoding {name}: {error}") from error
    if len(plain) > max_bytes:
        raise HttpError(Status.TOO_LARGE, f"more than {max_bytes} bytes in a body of {len(body)}")
    if not inflating.eof:
        raise HttpError(Status.TRUNCATED, f"the {name} ends too early")
    return plain


def _utf8(value: str) -> str:
    """A header's bytes as UTF-8, which is what servers mean when they are not ASCII."""
    return value.encode("latin-1", "replace").decode("utf-8", "replace")
