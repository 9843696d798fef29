"""Open connections by host: they lead to checked addresses only, and are kept while they may be used again."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections import OrderedDict
from functools import partial

from curation.fetch.clock import Clock
from curation.fetch.http1 import Connection, HttpError
from curation.fetch.resolve import Endpoint, LookupFailedError, Resolver
from curation.fetch.urls import Target
from curation.schema import Status

MAX_IDLE = 256
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)


class ConnectionPool:
    """Use: `connection = await pool.take(target, clock)`, then always `pool.give(target, connection)`."""

    def __init__(self, resolver: Resolver, connect_timeout_s: float) -> None:
        self._resolver = resolver
        self._timeout_s = connect_timeout_s
        self._tls: ssl.SSLContext | None = None
        self._idle: dict[str, list[tuple[str, int, Connection]]] = {}
        self._by_age: OrderedDict[Connection, str] = OrderedDict()
        """The host of each idle connection; the connection that is idle for the longest time comes first."""

    async def take(self, target: Target, clock: Clock, fresh: bool = False) -> Connection:
        """An idle connection to the target's host and port, or a new one (always if `fresh`), while `clock` runs.

        Raises HttpError, BlockedAddressError or LookupFailedError.
        """
        if not fresh:
            while (connection := self._take_idle(target)) is not None:
                if not connection.closed:
                    return connection
        return await self._connect(target, clock)

    def _take_idle(self, target: Target) -> Connection | None:
        kept = self._idle.get(target.host, ())
        for place in range(len(kept) - 1, -1, -1):
            scheme, port, connection = kept[place]
            if (scheme, port) == (target.scheme, target.port):
                self._drop(target.host, connection, place)
                return connection
        return None

    def _drop(self, host: str, connection: Connection, place: int) -> None:
        del self._by_age[connection]
        del self._idle[host][place]
        if not self._idle[host]:
            del self._idle[host]

    def give(self, target: Target, connection: Connection) -> None:
        """Keep the connection if another request may follow on it, close it otherwise."""
        if not connection.reusable:
            connection.close()
            return
        connection.release()
        self._idle.setdefault(target.host, []).append((target.scheme, target.port, connection))
        self._by_age[connection] = target.host
        if len(self._by_age) > MAX_IDLE:
            oldest, host = next(iter(self._by_age.items()))
            self._drop(host, oldest, 0)  # the connections of one host are in the same order
            oldest.close()

    def close_host(self, host: str) -> None:
        """Close the idle connections to `host`, which no row needs any more."""
        for _, _, connection in self._idle.pop(host, ()):
            del self._by_age[connection]
            connection.close()

    def close(self) -> None:
        for host in list(self._idle):
            self.close_host(host)
        self._resolver.close()

    async def wait_turn(self, target: Target) -> None:
        """Wait until the look-up of the target's name, if one is needed, has begun."""
        await self._resolver.wait_turn(target.host)

    async def _resolve(self, target: Target, clock: Clock) -> list[Endpoint]:
        if clock.left_s <= 0:
            raise HttpError(Status.TIMEOUT, "redirects took the whole time")
        with clock.pause():
            await self.wait_turn(target)
        try:
            async with asyncio.timeout(clock.left_s):
                return await self._resolver.resolve(target.host)
        except TimeoutError as error:
            raise LookupFailedError("the look-up took too long", temporary=True) from error

    async def _connect(self, target: Target, clock: Clock) -> Connection:
        """A new connection to the first address of the target's host that accepts one."""
        endpoints = await self._resolve(target, clock)
        loop = asyncio.get_running_loop()
        limit_s = min(self._timeout_s, clock.left_s)
        deadline = loop.time() + limit_s
        failure = HttpError(Status.CONNECT, "no address")
        for number, endpoint in enumerate(endpoints):
            # Each address gets an equal share of the time that is left.
            until = loop.time() + (deadline - loop.time()) / (len(endpoints) - number)
            try:
                async with asyncio.timeout_at(until):
                    return await self._open(target, endpoint)
            except TimeoutError:
                failure = HttpError(Status.CONNECT, f"no connection within {round(limit_s, 1):g} s")
            except (ssl.SSLError, ssl.CertificateError) as error:
                raise HttpError(Status.TLS, f"the certificate or the handshake was refused: {error}") from error
            except (OSError, UnicodeError) as error:
                if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
                    raise  # this machine's limit, not the host's fault
                failure = HttpError(Status.CONNECT, getattr(error, "strerror", None) or str(error))
        raise failure

    async def _open(self, target: Target, endpoint: Endpoint) -> Connection:
        loop = asyncio.get_running_loop()
        secure = target.scheme == "https"
        _, connection = await loop.create_connection(
            partial(Connection, loop),
            endpoint.address,
            endpoint.port or target.port,
            family=endpoint.family,
            ssl=self._context() if secure else None,
            # RFC 6066 3: the name is sent without its final dot, and no certificate has one.
            server_hostname=target.host.rstrip(".") if secure else None,
        )
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls
