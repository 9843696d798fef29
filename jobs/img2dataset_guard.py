"""The only door through which img2dataset reaches the web: our safety and politeness around its own downloader.

img2dataset fetches with `urllib.request.urlopen`, and urllib lets a program install what answers it. The guard checks
scheme, opt-out and robots.txt before a request, the address at connect time, on every redirect; it ends a picture at
its deadline and its byte cap, and looks at the header of a picture before img2dataset decodes it. A refusal is an
exception whose text img2dataset writes into its parquet file, from where `ended` reads status and detail again.
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

from curation.config import DownloadConfig
from curation.fetch import robots
from curation.fetch.addresses import AddressPolicy
from curation.fetch.client import REDIRECTS, RETRIED, TEMPORARY, http_status
from curation.fetch.politeness import backoff_s, retry_after_s
from curation.fetch.urls import BadUrlError, Target, join, parse
from curation.images.probe import PictureError, check_whole
from curation.images.process import inspect
from curation.opt_out import OptOut
from curation.schema import Status

MARK = "clip-curation "
CHUNK_BYTES = 64 << 10
MAX_LOOKUPS = 32
MAX_ROBOTS_REDIRECTS = 5
WATCH_S = 0.25
Address = tuple[str, int]


class RefusedError(Exception):
    """The end of one fetch. `wait_s` is what the server asked for before another try."""

    def __init__(self, status: Status, detail: str = "", wait_s: float | None = None) -> None:
        super().__init__(f"{MARK}{status}: {detail}")
        self.status, self.wait_s = status, wait_s


def ended(message: str | None) -> tuple[Status, str] | None:
    """Status and detail of a refusal that img2dataset wrote down; None for a message of its own."""
    status, _, detail = (message or "").removeprefix(MARK).partition(": ")
    return (Status(status), detail) if (message or "").startswith(MARK) and status in set(Status) else None


class Guard:
    """`urllib.request.install_opener(Guard(config, opt_out))`; threads may call it at once."""

    def __init__(self, config: DownloadConfig, opt_out: OptOut) -> None:
        self._config, self._opt_out = config, opt_out
        self._agent = f"{config.user_agent} {config.contact}".strip()
        self._token = robots.product_token(config.user_agent)
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
        if last.status not in RETRIED:
            raise last
        time.sleep(backoff_s(len(failures)) if last.wait_s is None else last.wait_s)

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
        deadline = time.monotonic() + self._config.timeout_s
        target = _parsed(url)
        for _ in range(self._config.max_redirects + 1):
            if self._opt_out.refuses_url(f"{target.origin}{target.path}"):
                raise RefusedError(Status.OPTED_OUT, "on an opt-out list")
            if self._config.obey_robots:
                self._check_robots(target, deadline)
            found = self._ask(target, deadline)
            if isinstance(found, bytes):
                return found
            target = found
        raise RefusedError(Status.TOO_MANY_REDIRECTS, f"more than {self._config.max_redirects}")

    def _check_robots(self, target: Target, deadline: float) -> None:
        rules = self._once(target.origin, lambda: self._read_robots(target, deadline))
        if not rules.allows(target.path):
            raise RefusedError(Status.ROBOTS, f"{target.origin}/robots.txt disallows the path")

    def _read_robots(self, target: Target, deadline: float) -> robots.Robots:
        """RFC 9309 2.3.1: 4xx allows everything, 5xx nothing. Who cannot be reached will say so for the picture."""
        place = target._replace(path="/robots.txt")
        try:
            for _ in range(MAX_ROBOTS_REDIRECTS + 1):
                found = self._ask(place, deadline, robots.MAX_BYTES)
                if isinstance(found, bytes):
                    return robots.parse(found.decode("utf-8", "replace"), self._token)
                place = found
        except RefusedError as error:
            if error.status is Status.HTTP_5XX:
                return robots.Robots((("/", False),))
        return robots.ALLOW_ALL

    def _once(self, key: Any, function: Any) -> Any:
        """`function()` for the first who asks for `key`; all others wait for what it gave."""
        with self._lock:
            known = self._known.get(key)
            future = self._known.setdefault(key, Future())
        if known is not None:
            return known.result()
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)
            raise
        return future.result()

    def _ask(self, target: Target, deadline: float, enough: int | None = None) -> bytes | Target:
        """One request: the body (of a robots.txt at most `enough` bytes), or where it redirects to."""
        try:
            with self._turn(target, deadline), self._connection(target, deadline) as connection:
                headers = {"User-Agent": self._agent, "Accept": "image/*", "Accept-Encoding": "identity"}
                connection.request("GET", target.path, headers=headers | {"Host": target.netloc, "Connection": "close"})
                with connection.getresponse() as response:
                    location = response.getheader("Location")
                    if response.status in REDIRECTS and location:
                        return _parsed(location.strip(), target)
                    return self._body(response, enough)
        except Exception as error:  # whatever the web makes the libraries raise must end the row with a status
            refused = error if isinstance(error, RefusedError) else _refused(error)
            if time.monotonic() >= deadline and refused.status in TEMPORARY:
                detail = f"no whole picture within {self._config.timeout_s:g} s"
                raise RefusedError(Status.TIMEOUT, detail) from error
            raise refused from error

    def _body(self, response: http.client.HTTPResponse, enough: int | None) -> bytes:
        if response.status != 200:
            wait_s = retry_after_s(response.getheader("Retry-After"))
            raise RefusedError(http_status(response.status), f"HTTP {response.status}", wait_s)
        if enough is not None:
            return response.read(enough)
        if self._config.obey_robots and (refused := robots.refusal(response.getheaders(), self._token)):
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
        if not body:
            raise RefusedError(Status.EMPTY, "no bytes")
        return bytes(body)

    @contextlib.contextmanager
    def _turn(self, target: Target, deadline: float) -> Iterator[None]:
        """Wait for one of the host's places and for its interval. Waiting is not the host's time."""
        with self._lock:
            host = self._hosts.setdefault(target.host, _Host(self._config.max_per_host))
        with host.slots:
            with self._lock:
                start = max(time.monotonic(), host.next_start)
                host.next_start = start + self._config.host_interval_s
            time.sleep(max(0.0, start - time.monotonic()))
            yield

    @contextlib.contextmanager
    def _connection(self, target: Target, deadline: float) -> Iterator[http.client.HTTPConnection]:
        """A connection to an address that may be connected to, cut off at `deadline`."""
        wait_s = min(self._config.connect_timeout_s, max(0.01, deadline - time.monotonic()))
        held = socket.create_connection(self._address(target), wait_s)
        if target.scheme == "https":
            held = self._tls.wrap_socket(held, server_hostname=target.host, do_handshake_on_connect=False)
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.sock = held
        with self._watch.until(deadline, held):
            try:
                if isinstance(held, ssl.SSLSocket):
                    held.do_handshake()
                held.settimeout(self._config.timeout_s)
                yield connection
            finally:
                connection.close()

    def _address(self, target: Target) -> Address:
        for pattern, place in self._config.connect_to.items():
            if fnmatch.fnmatchcase(target.host, pattern.lower()):
                name, _, port = place.rpartition(":")
                found = [(name.strip("[]"), int(port))]
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
            raise RefusedError(Status.DNS, error.strerror or str(error)) from error
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


def _parsed(url: str, base: Target | None = None) -> Target:
    try:
        return parse(url) if base is None else join(base, url)
    except BadUrlError as error:
        raise RefusedError(error.status, error.detail) from error


def _refused(error: Exception) -> RefusedError:
    """What Python raises while connecting and reading, as a status."""
    if isinstance(error, ssl.SSLError):
        return RefusedError(Status.TLS, "the certificate or the handshake was refused")
    if isinstance(error, TimeoutError):
        return RefusedError(Status.CONNECT, "no connection in time")
    if isinstance(error, http.client.IncompleteRead):
        return RefusedError(Status.TRUNCATED, "the body ended before its announced length")
    if isinstance(error, http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
        return RefusedError(Status.DISCONNECTED, "the server closed the connection")
    if isinstance(error, OSError):
        return RefusedError(Status.CONNECT, error.strerror or type(error).__name__)
    if isinstance(error, http.client.InvalidURL | UnicodeError):
        return RefusedError(Status.INVALID_URL, "no valid URL")
    return RefusedError(Status.BAD_RESPONSE, type(error).__name__)
