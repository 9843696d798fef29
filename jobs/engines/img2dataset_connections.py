"""Connections of the guard: to allowed addresses only, in the host's turn, cut off at a deadline.

img2dataset fetches in threads, so the client of curation/fetch, which is asynchronous, cannot open them.
"""

from __future__ import annotations

import contextlib
import fnmatch
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

from curation.fetch.addresses import AddressPolicy
from curation.fetch.clock import Clock
from curation.fetch.resolve import TEMPORARY_TTL_S
from curation.fetch.urls import Target
from curation.recipe.config import DownloadConfig, host_port
from curation.schema import Status
from jobs.engines.img2dataset_refusals import RefusedError

MAX_LOOKUPS = 32
WATCH_S = 0.25
"""How often deadlines of open sockets are looked at."""
Address = tuple[str, int]
Result = TypeVar("Result")


class OncePerKey(Generic[Result]):
    """Results that many threads need and one of them computes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._futures: dict[Hashable, Future[Result]] = {}

    def get(self, key: Hashable, compute: Callable[[], Result]) -> Result:
        """`compute()` for the first thread that asks for `key`; the other threads wait for its result.

        A failure is raised in all of them, and is forgotten then unless it is a final RefusedError.
        """
        with self._lock:
            earlier = self._futures.get(key)
            future = self._futures.setdefault(key, Future())
        if earlier is not None:
            return earlier.result()
        try:
            future.set_result(compute())
        except BaseException as error:
            if not (isinstance(error, RefusedError) and error.final):
                with self._lock:
                    del self._futures[key]
            future.set_exception(error)
            raise
        return future.result()


class Connections:
    """`with connections.open(target, clock) as connection:`; threads may call it at once."""

    def __init__(self, config: DownloadConfig) -> None:
        self._config = config
        self._policy = AddressPolicy(config.allow_addresses)
        self._tls = ssl.create_default_context()
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}
        self._addresses = OncePerKey[list[str]]()
        self._lookups = threading.Semaphore(MAX_LOOKUPS)
        self._deadlines = _Deadlines()

    @contextlib.contextmanager
    def open(self, target: Target, clock: Clock) -> Iterator[http.client.HTTPConnection]:
        """A connection for one request to `target`, cut off when `clock` has run down.

        Raises RefusedError when no address is found or allowed, OSError when none answers.
        """
        with self._turn(target, clock), self._connect(target, clock) as connection:
            yield connection

    @contextlib.contextmanager
    def _turn(self, target: Target, clock: Clock) -> Iterator[None]:
        """Wait for one of the host's slots and for its interval; waiting does not count as the host's time."""
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
    def _connect(self, target: Target, clock: Clock) -> Iterator[http.client.HTTPConnection]:
        limit_s = min(self._config.connect_timeout_s, max(0.01, clock.left_s))
        link = socket.create_connection(self._find_address(target), limit_s)
        if target.scheme == "https":
            name = target.host.rstrip(".")  # no certificate has the final dot
            link = self._tls.wrap_socket(link, server_hostname=name, do_handshake_on_connect=False)
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.sock = link
        with self._deadlines.watch(link, time.monotonic() + clock.left_s):
            try:
                if isinstance(link, ssl.SSLSocket):
                    link.do_handshake()
                link.settimeout(self._config.timeout_s)
                yield connection
            finally:
                connection.close()

    def _find_address(self, target: Target) -> Address:
        """The first allowed address of the target's host, or the place that `connect_to` names for it."""
        addresses = self._list_addresses(target)
        allowed = [address for address in addresses if self._policy.allows(address[0])]
        if not allowed:
            raise RefusedError(Status.BLOCKED_ADDRESS, ", ".join(sorted({name for name, _ in addresses})))
        return allowed[0]

    def _list_addresses(self, target: Target) -> list[Address]:
        for pattern, place in self._config.connect_to.items():
            if fnmatch.fnmatchcase(target.host.rstrip("."), pattern.lower()):
                return [host_port(place)]
        names = self._addresses.get(target.host, lambda: self._look_up(target))
        return [(name, target.port) for name in names]

    def _look_up(self, target: Target) -> list[str]:
        try:
            with self._lookups:
                entries = socket.getaddrinfo(target.host.rstrip("."), target.port, type=socket.SOCK_STREAM)
        except OSError as error:
            temporary = error.errno == socket.EAI_AGAIN
            wait_s = TEMPORARY_TTL_S if temporary else None
            raise RefusedError(Status.DNS, error.strerror or str(error), wait_s, final=not temporary) from error
        return list(dict.fromkeys(str(entry[4][0]) for entry in entries))


class _Host:
    """The slots of one host, and when the next request to it may start."""

    def __init__(self, max_per_host: int) -> None:
        self.slots = threading.Semaphore(max_per_host)
        self.next_start = 0.0


class _Deadlines:
    """Shuts sockets down at their deadlines: the timeout of a socket starts anew with every byte that arrives."""

    def __init__(self) -> None:
        self._open: dict[socket.socket, float] = {}
        threading.Thread(target=self._run, name="deadlines", daemon=True).start()

    @contextlib.contextmanager
    def watch(self, link: socket.socket, deadline: float) -> Iterator[None]:
        """Shut `link` down when it is still open at `deadline` (time.monotonic)."""
        self._open[link] = deadline
        try:
            yield
        finally:
            self._open.pop(link, None)

    def _run(self) -> None:
        while True:
            time.sleep(WATCH_S)
            now = time.monotonic()
            for link, deadline in list(self._open.items()):
                if now >= deadline:
                    with contextlib.suppress(OSError):
                        link.shutdown(socket.SHUT_RDWR)
