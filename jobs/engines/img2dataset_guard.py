"""The only door through which img2dataset reaches the web: our safety and politeness around its own downloader.

img2dataset fetches with `urllib.request.urlopen`, and urllib lets a program install what answers it. The guard checks
scheme, opt-out and robots.txt before a request, the address at connect time, on every redirect; it ends a picture at
its deadline and its byte cap, and looks at the header of a picture before img2dataset decodes it. A refusal is an
exception whose text img2dataset writes into its parquet file (jobs/engines/img2dataset_refusals.py).
"""

from __future__ import annotations

import contextlib
import email.message
import fnmatch
import hashlib
import http.client
import io
import socket
import ssl
import threading
import time
import urllib.response
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from curation.download.opt_out import OptOut
from curation.fetch import politeness, robots, robots_cache
from curation.fetch.addresses import AddressPolicy
from curation.fetch.client import RETRIED, TEMPORARY, http_status
from curation.fetch.clock import Clock
from curation.fetch.codings import decode_body, decode_text
from curation.fetch.exchange import GIVEN, REDIRECTS
from curation.fetch.http1 import HttpError
from curation.fetch.resolve import TEMPORARY_TTL_S
from curation.fetch.urls import BadUrlError, Target, join_url, parse_url
from curation.images.probe import PictureError, check_whole
from curation.images.process import inspect
from curation.recipe.config import DownloadConfig, host_port
from curation.recipe.user_agent import product_token
from curation.schema import Status
from jobs.engines.img2dataset_refusals import RefusedError, refuse_for

CHUNK_BYTES = 64 << 10
MAX_LOOKUPS = 32
WATCH_S = 0.25
UNREACHED = {Status.DNS, Status.CONNECT, Status.TLS, Status.BLOCKED_ADDRESS}
NO_RULES = {
    *(Status.HTTP_404, Status.HTTP_410, Status.HTTP_429, Status.HTTP_4XX, Status.HTTP_3XX),
    *(Status.INVALID_URL, Status.UNSUPPORTED_SCHEME),
}
"""Ends of a request for robots.txt that allow everything (RFC 9309 2.3.1.3), redirects to nowhere among them."""
Address = tuple[str, int]


class Guard:
    """`urllib.request.install_opener(Guard(config, opt_out))`; threads may call it at once."""

    def __init__(self, config: DownloadConfig, opt_out: OptOut) -> None:
        self._config, self._opt_out = config, opt_out
        self._token = product_token(config.user_agent)
        self._policy = AddressPolicy(config.allow_addresses)
        self._tls = ssl.create_default_context()
        self._lock = threading.Lock()
        self._lookups = threading.Semaphore(MAX_LOOKUPS)
        self._hosts: dict[str, _Host] = {}
        self._known: dict[Any, Future[Any]] = {}
        self._failures: dict[str, list[RefusedError]] = {}
        self._watch = _Watch()
        self.claims: Mapping[str, set[str]] = {}
        """URL → the sha256s that metadata claims for its picture."""
        self.fetched: dict[str, tuple[int, str]] = {}
        """sha256 of what was fetched → its size in bytes and its format."""

    def open(self, request: Any, data: object = None, timeout: object = None) -> urllib.response.addinfourl:
        """What `urlopen(request)` gives: the whole body, checked. Raises RefusedError."""
        url = request.full_url
        self._before_retry(url)
        try:
            body = self._picture(url)
        except RefusedError as error:
            self._failures.setdefault(url, []).append(error)
            raise
        return urllib.response.addinfourl(io.BytesIO(body), email.message.Message(), url, 200)

    def _before_retry(self, url: str) -> None:
        """img2dataset tries everything again at once: a final failure stays one, another waits."""
        failures = self._failures.get(url)
        if not failures:
            return
        last = failures[-1]
        if last.final or last.status not in RETRIED:
            raise last
        time.sleep(politeness.backoff_s(len(failures)) if last.wait_s is None else last.wait_s)

    def _picture(self, url: str) -> bytes:
        body = self._follow(url)
        sha256 = hashlib.sha256(body).hexdigest()
        if self._opt_out.refuses_sha256(sha256):
            raise RefusedError(Status.OPTED_OUT, "its sha256 is on an opt-out list")
        claimed = self.claims.get(url)
        if claimed and sha256 not in claimed:
            raise RefusedError(Status.HASH_MISMATCH, f"fetched {sha256}")
        try:
            header = inspect(body, self._config)
            check_whole(header, body)
        except PictureError as error:
            raise RefusedError(error.status, error.detail) from error
        self.fetched[sha256] = (len(body), header.format)
        return body

    def _follow(self, url: str) -> bytes:
        clock = Clock(self._config.timeout_s)
        target = _parsed(url)
        for _ in range(self._config.max_redirects + 1):
            if self._opt_out.refuses_url(f"{target.origin}{target.path}"):
                raise RefusedError(Status.OPTED_OUT, "on an opt-out list")
            if self._config.obey_robots:
                with clock.pause():
                    self._check_robots(target)
            found = self._ask(target, clock)
            if isinstance(found, bytes):
                return found
            target = found
        raise RefusedError(Status.TOO_MANY_REDIRECTS, f"more than {self._config.max_redirects}")

    def _check_robots(self, target: Target) -> None:
        found = self._once(target.origin, lambda: self._read_robots(target))
        if not found.allows(target.path):
            raise RefusedError(found.status, found.reason, final=True)

    def _read_robots(self, target: Target) -> robots.Robots:
        """As our own client does, in half of a try's time; see curation/fetch/robots_cache.py."""
        clock = Clock(self._config.timeout_s / 2)
        found = self._robots_at(target, clock)
        for attempt in range(1, robots_cache.MAX_TRIES):
            if found.status not in robots_cache.TRIED_AGAIN or clock.left_s <= 0:
                break
            time.sleep(politeness.backoff_s(attempt))
            found = self._robots_at(target, clock)
        return found

    def _robots_at(self, target: Target, clock: Clock) -> robots.Robots:
        """One try, redirects included. Raises RefusedError when the host is not even reached, as for the picture."""
        place = target._replace(path="/robots.txt")
        for hop in range(robots_cache.MAX_REDIRECTS + 1):
            try:
                found = self._ask(place, clock, robots.MAX_BYTES)
            except RefusedError as error:
                if error.status in NO_RULES:
                    break
                if hop == 0 and error.status in UNREACHED:
                    raise
                return robots_cache.disallow_for_now(HttpError(error.status, error.detail))
            if isinstance(found, bytes):
                return robots.parse_robots(found.decode("utf-8", "surrogateescape"), self._token)
            place = found
        return robots.ALLOW_ALL

    def _once(self, key: Any, function: Any) -> Any:
        """`function()` for the first who asks for `key`; all others wait for what it gave. A failure that is not final
        is forgotten then."""
        with self._lock:
            known = self._known.get(key)
            future = self._known.setdefault(key, Future())
        if known is not None:
            return known.result()
        try:
            future.set_result(function())
        except BaseException as error:
            if not (isinstance(error, RefusedError) and error.final):
                with self._lock:
                    del self._known[key]
            future.set_exception(error)
            raise
        return future.result()

    def _ask(self, target: Target, clock: Clock, text_bytes: int | None = None) -> bytes | Target:
        """One request: the body (of a text at most `text_bytes`), or where it redirects to."""
        try:
            with self._turn(target, clock), self._connection(target, clock) as connection:
                headers = {"User-Agent": self._config.agent, "Accept": "image/*", "Accept-Encoding": "identity"}
                connection.request("GET", target.path, headers=headers | {"Host": target.netloc, "Connection": "close"})
                with connection.getresponse() as response:
                    location = response.getheader("Location")
                    if response.status in REDIRECTS and location:
                        return _parsed(location.strip(), target)
                    return self._body(response) if text_bytes is None else _text(response, text_bytes)
        except Exception as error:  # whatever the web makes the libraries raise must end the row with a status
            refused = error if isinstance(error, RefusedError) else refuse_for(error)
            if clock.left_s <= 0 and refused.status in TEMPORARY:
                detail = f"no whole picture within {self._config.timeout_s:g} s"
                raise RefusedError(Status.TIMEOUT, detail) from error
            raise refused from error

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        if response.status not in GIVEN:
            wait_s = politeness.parse_retry_after(response.getheader("Retry-After"))
            long = wait_s is not None and wait_s > politeness.MAX_WAIT_S
            raise RefusedError(http_status(response.status), f"HTTP {response.status}", wait_s, final=long)
        if self._config.obey_robots and (refused := robots.find_refusal(response.getheaders(), self._token)):
            raise RefusedError(Status.OPTED_OUT, refused)
        if response.length is not None and response.length > self._config.max_bytes:
            raise RefusedError(Status.TOO_LARGE, f"{response.length} bytes announced")
        body = bytearray()
        while chunk := response.read(CHUNK_BYTES):
            body += chunk
            if len(body) > self._config.max_bytes:
                raise RefusedError(Status.TOO_LARGE, f"more than {self._config.max_bytes} bytes")
        if response.length:
            raise RefusedError(Status.TRUNCATED, "the body ended before its announced length")
        whole = decode_body(bytes(body), response.getheader("Content-Encoding") or "", self._config.max_bytes)
        if not whole:
            raise RefusedError(Status.EMPTY, "no bytes")
        return whole

    @contextlib.contextmanager
    def _turn(self, target: Target, clock: Clock) -> Iterator[None]:
        """Wait for one of the host's places and for its interval. Waiting is not the host's time."""
        with self._lock:
            host = self._hosts.setdefault(target.host, _Host(self._config.max_per_host))
        with clock.pause():
            host.slots.acquire()
        try:
            with self._lock:
                start = max(time.monotonic(), host.next_start)
                host.next_start = start + self._config.host_interval_s
            with clock.pause():
                time.sleep(max(0.0, start - time.monotonic()))
            yield
        finally:
            host.slots.release()

    @contextlib.contextmanager
    def _connection(self, target: Target, clock: Clock) -> Iterator[http.client.HTTPConnection]:
        """A connection to an address that may be connected to, cut off when `clock` has run down."""
        wait_s = min(self._config.connect_timeout_s, max(0.01, clock.left_s))
        held = socket.create_connection(self._address(target), wait_s)
        if target.scheme == "https":
            name = target.host.rstrip(".")  # no certificate has the dot
            held = self._tls.wrap_socket(held, server_hostname=name, do_handshake_on_connect=False)
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.sock = held
        with self._watch.until(time.monotonic() + clock.left_s, held):
            try:
                if isinstance(held, ssl.SSLSocket):
                    held.do_handshake()
                held.settimeout(self._config.timeout_s)
                yield connection
            finally:
                connection.close()

    def _address(self, target: Target) -> Address:
        for pattern, place in self._config.connect_to.items():
            if fnmatch.fnmatchcase(target.host.rstrip("."), pattern.lower()):
                found = [host_port(place)]
                break
        else:
            found = [
                (name, target.port) for name in self._once(("address", target.host), lambda: self._look_up(target))
            ]
        allowed = [address for address in found if self._policy.allows(address[0])]
        if not allowed:
            raise RefusedError(Status.BLOCKED_ADDRESS, ", ".join(sorted({name for name, _ in found})))
        return allowed[0]

    def _look_up(self, target: Target) -> list[str]:
        try:
            with self._lookups:
                found = socket.getaddrinfo(target.host.rstrip("."), target.port, type=socket.SOCK_STREAM)
        except OSError as error:
            temporary = error.errno == socket.EAI_AGAIN
            wait_s = TEMPORARY_TTL_S if temporary else None
            raise RefusedError(Status.DNS, error.strerror or str(error), wait_s, final=not temporary) from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class _Host:
    def __init__(self, max_per_host: int) -> None:
        self.slots = threading.Semaphore(max_per_host)
        self.next_start = 0.0


class _Watch:
    """Shuts sockets down at their deadlines: a socket's own timeout starts anew with every byte that drips in."""

    def __init__(self) -> None:
        self._open: dict[socket.socket, float] = {}
        threading.Thread(target=self._run, name="deadlines", daemon=True).start()

    @contextlib.contextmanager
    def until(self, deadline: float, held: socket.socket) -> Iterator[None]:
        self._open[held] = deadline
        try:
            yield
        finally:
            self._open.pop(held, None)

    def _run(self) -> None:
        while True:
            time.sleep(WATCH_S)
            now = time.monotonic()
            for held, deadline in list(self._open.items()):
                if now >= deadline:
                    with contextlib.suppress(OSError):
                        held.shutdown(socket.SHUT_RDWR)


def _text(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if not 200 <= response.status < 300:
        raise RefusedError(http_status(response.status), f"HTTP {response.status}")
    body = response.read(max_bytes)
    if len(body) < max_bytes and response.length:
        raise RefusedError(Status.TRUNCATED, "the body ended before its announced length")
    return decode_text(body, response.getheader("Content-Encoding") or "", max_bytes)


def _parsed(url: str, base: Target | None = None) -> Target:
    try:
        return parse_url(url) if base is None else join_url(base, url)
    except BadUrlError as error:
        raise RefusedError(error.status, error.detail) from error
