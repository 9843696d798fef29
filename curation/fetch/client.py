"""One pooled HTTP/1.1 client a task: `await client.fetch(url)` ends as bytes or as a status, never as an exception."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from curation.config import DownloadConfig
from curation.fetch import robots
from curation.fetch.addresses import AddressPolicy
from curation.fetch.politeness import Hosts, backoff_s, retry_after_s
from curation.fetch.resolve import BlockedAddressError, LookupFailedError, Resolver
from curation.schema import Status

CHUNK_BYTES = 64 << 10
SMALL_BYTES = 1 << 20
"""Bodies beyond this wait for one of LARGE_SLOTS places: it bounds what all bodies together hold."""
LARGE_SLOTS = 6
REDIRECTS = {301, 302, 303, 307, 308}
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


@dataclass(frozen=True)
class Fetched:
    """How one fetch ended. `body` only with status ok."""

    status: Status
    detail: str = ""
    body: bytes = b""
    retry_after_s: float | None = None
    final: bool = False
    """Whether trying again cannot help although the status is a temporary kind."""


class FetchError(Exception):
    """Carries the end of a fetch out of nested steps."""

    def __init__(self, status: Status, detail: str = "", **facts: object) -> None:
        super().__init__(status, detail)
        self.ended = Fetched(status, detail, **facts)  # type: ignore[arg-type]  # keywords of Fetched


def http_status(code: int) -> Status:
    """Status of a response code that is neither success nor a redirect that is followed."""
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
        self._policy = AddressPolicy(config.allow_addresses)
        self._robots: dict[str, asyncio.Task[robots.Robots]] = {}
        self._large = asyncio.Semaphore(LARGE_SLOTS)
        self.hosts = Hosts(config.max_per_host, config.host_interval_s)

    async def __aenter__(self) -> Client:
        config = self._config
        connector = aiohttp.TCPConnector(
            resolver=Resolver(self._policy, config.connect_to),
            ssl=ssl.create_default_context(),
            limit=config.max_concurrency,
            limit_per_host=config.max_per_host,
            use_dns_cache=False,  # the resolver has its own, with failures and the address check
        )
        agent = f"{config.user_agent} {config.contact}".strip()
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": agent, "Accept": "image/*", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=config.connect_timeout_s),
            requote_redirect_url=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._robots.values():
            task.cancel()
        await asyncio.gather(*self._robots.values(), return_exceptions=True)
        await self._session.close()

    async def fetch(self, url: str) -> Fetched:
        """Fetch `url` with redirects and retries; how it ended."""
        ended = await self._once(url)
        for attempt in range(1, self._config.retries + 1):
            if ended.status not in RETRIED or ended.final:
                break
            wait = ended.retry_after_s if ended.retry_after_s is not None else backoff_s(attempt)
            await asyncio.sleep(wait)
            ended = await self._once(url)
        return ended

    async def _once(self, url: str) -> Fetched:
        try:
            async with asyncio.timeout(self._config.timeout_s):
                return await self._follow(url)
        except FetchError as error:
            return error.ended
        except TimeoutError:
            return Fetched(Status.TIMEOUT, f"no whole picture within {self._config.timeout_s:g} s")
        except BlockedAddressError as error:
            return Fetched(Status.BLOCKED_ADDRESS, str(error))
        except LookupFailedError as error:
            return Fetched(Status.DNS, str(error), final=not error.temporary)
        except aiohttp.ClientError as error:
            return _client_error(error)
        except (UnicodeError, ValueError) as error:
            return Fetched(Status.INVALID_URL, f"{error}")

    async def _follow(self, url: str) -> Fetched:
        for _ in range(self._config.max_redirects + 1):
            parsed = self._checked(url)
            if self._config.obey_robots and not await self._allowed(parsed):
                raise FetchError(Status.ROBOTS, f"{parsed.host}/robots.txt disallows the path")
            turn, request = self.hosts.turn(parsed.host or ""), self._session.get(parsed, allow_redirects=False)
            async with turn, request as response:
                if response.status not in REDIRECTS or "Location" not in response.headers:
                    return Fetched(Status.OK, body=await self._body(response))
                url = urljoin(str(parsed), response.headers["Location"].strip())
        raise FetchError(Status.TOO_MANY_REDIRECTS, f"more than {self._config.max_redirects}")

    def _checked(self, url: str) -> URL:
        """`url` parsed; raises FetchError for what is no fetchable http address."""
        try:
            parsed = URL(url.strip())
            host, scheme, _ = parsed.host, parsed.scheme.lower(), parsed.port
        except ValueError as error:
            raise FetchError(Status.INVALID_URL, str(error)) from error
        if scheme not in ("http", "https"):
            status = Status.UNSUPPORTED_SCHEME if scheme else Status.INVALID_URL
            raise FetchError(status, f"{scheme or 'no'} scheme; only http and https are fetched")
        if not host:
            raise FetchError(Status.INVALID_URL, "no host")
        # aiohttp asks no resolver about a literal address.
        if (host[-1].isdigit() or ":" in host) and _is_literal(host) and not self._policy.allows(host):
            raise FetchError(Status.BLOCKED_ADDRESS, host)
        return parsed.with_user(None)

    async def _allowed(self, url: URL) -> bool:
        origin = str(url.origin())
        if origin not in self._robots:
            self._robots[origin] = asyncio.create_task(self._read_robots(url))
        rules = await asyncio.shield(self._robots[origin])
        return rules.allows(url.raw_path_qs)

    async def _read_robots(self, url: URL) -> robots.Robots:
        """RFC 9309 2.3.1: 4xx allows everything; 5xx and an unreachable host forbid everything.

        A host that cannot be reached at all is left to the request for the picture itself, which names the reason.
        """
        try:
            async with asyncio.timeout(self._config.timeout_s), self.hosts.turn(url.host or ""):
                address = url.origin() / "robots.txt"
                async with self._session.get(address, max_redirects=5) as response:
                    if response.status >= 500:
                        return robots.DISALLOW_ALL
                    if response.status >= 400:
                        return robots.ALLOW_ALL
                    text = await response.content.read(robots.MAX_BYTES)
        except (aiohttp.ClientError, TimeoutError, BlockedAddressError, LookupFailedError, ValueError):
            return robots.ALLOW_ALL
        return robots.parse(text.decode("utf-8", "replace"), self._token)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status != 200:
            wait = retry_after_s(response.headers.get("Retry-After"))
            if wait is not None and response.url.host:
                self.hosts.pause(response.url.host, wait)
            status = http_status(response.status)
            raise FetchError(status, f"HTTP {response.status}", retry_after_s=wait)
        refused = robots.refusal(response.headers.items(), self._token) if self._config.obey_robots else None
        if refused:
            raise FetchError(Status.OPTED_OUT, refused)
        if response.content_length is not None and response.content_length > self._config.max_bytes:
            raise FetchError(Status.TOO_LARGE, f"{response.content_length} bytes announced")
        body = await self._read(response)
        if not body:
            raise FetchError(Status.EMPTY, "no bytes")
        return body

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """The whole body. Raises FetchError beyond max_bytes."""
        body = bytearray()
        await self._extend(body, response, min(SMALL_BYTES, self._config.max_bytes))
        if len(body) > SMALL_BYTES:
            async with self._large:
                await self._extend(body, response, self._config.max_bytes)
        if len(body) > self._config.max_bytes:
            raise FetchError(Status.TOO_LARGE, f"more than {self._config.max_bytes} bytes")
        return bytes(body)

    async def _extend(self, body: bytearray, response: aiohttp.ClientResponse, enough: int) -> None:
        """Read on until the body ends or holds more than `enough` bytes."""
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            body += chunk
            if len(body) > enough:
                return


def _is_literal(host: str) -> bool:
    return ":" in host or all(part.isdigit() for part in host.split("."))


def _client_error(error: aiohttp.ClientError) -> Fetched:
    """Status of what aiohttp raises."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return Fetched(Status.TLS, "the certificate or the handshake was refused")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Fetched(Status.CONNECT, error.os_error.strerror or type(error.os_error).__name__)
    if isinstance(error, aiohttp.ServerTimeoutError):
        return Fetched(Status.CONNECT, "no connection in time")
    if isinstance(error, aiohttp.ClientPayloadError):
        return Fetched(Status.TRUNCATED, "the body ended before its announced length")
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        return Fetched(Status.DISCONNECTED, "the server closed the connection")
    if isinstance(error, aiohttp.InvalidURL):
        return Fetched(Status.INVALID_URL, "no valid URL")
    return Fetched(Status.BAD_RESPONSE, type(error).__name__)
