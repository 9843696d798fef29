"""Open connections by host: made to checked addresses only, kept while they may be used again."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections import OrderedDict
from functools import partial

from curation.fetch.clock import Clock
from curation.fetch.http1 import Connection, HttpError
from curation.fetch.resolve import LookupFailedError, Resolver
from curation.fetch.urls import Target
from curation.schema import Status

MAX_IDLE = 256
OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)


class Pool:
    """`connection = await pool.take(target)`, then `pool.give(target, connection)` in any case."""

    def __init__(self, resolver: Resolver, connect_timeout_s: float) -> None:
        self._resolver = resolver
        self._timeout_s = connect_timeout_s
        self._tls: ssl.SSLContext | None = None
        self._idle: dict[str, list[tuple[str, int, Connection]]] = {}
        self._by_age: OrderedDict[Connection, str] = OrderedDict()
        """Host of each idle connection, the longest idle first."""

    async def take(self, target: Target, clock: Clock, fresh: bool = False) -> Connection:
        """A kept connection to the target's host and port, or a new one (`fresh`: always), in what `clock` has left.

        Raises HttpError, BlockedAddressError or LookupFailedError.
        """
        if not fresh:
            while (connection := self._kept(target)) is not None:
                if not connection.closed:
                    return connection
        return await self._connect(target, clock)

    def _kept(self, target: Target) -> Connection | None:
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
            self._drop(host, oldest, 0)  # of one host, too, the longest idle comes first
            oldest.close()

    def forget(self, host: str) -> None:
        """Close what is kept to `host`: no row is left that would use it."""
        for _, _, connection in self._idle.pop(host, ()):
            del self._by_age[connection]
            connection.close()

    def close(self) -> None:
        for host in list(self._idle):
            self.forget(host)
        self._resolver.close()

    async def turn(self, target: Target) -> None:
        """Wait until the look-up of the target's name, if one is needed, has begun."""
        await self._resolver.turn(target.host)

    async def _connect(self, target: Target, clock: Clock) -> Connection:
        if clock.left_s <= 0:
            raise HttpError(Status.TIMEOUT, "redirects took the whole time")
        with clock.stopped():
            await self.turn(target)
        try:
            async with asyncio.timeout(clock.left_s):
                endpoints = await self._resolver.resolve(target.host)
        except TimeoutError as error:
            raise LookupFailedError("the look-up took too long", temporary=True) from error
        loop = asyncio.get_running_loop()
        # RFC 6066 3: the name goes without the dot that ends it, and no certificate has one.
        secure = (
            {"ssl": self._context(), "server_hostname": target.host.rstrip(".")} if target.scheme == "https" else {}
        )
        given_s = min(self._timeout_s, clock.left_s)
        deadline = loop.time() + given_s
        failed = HttpError(Status.CONNECT, "no address")
        for place, (address, family, port) in enumerate(endpoints):
            # Each address gets an equal share of what time is left.
            until = loop.time() + (deadline - loop.time()) / (len(endpoints) - place)
            make = partial(loop.create_connection, partial(Connection, loop), address, port or target.port)
            try:
                async with asyncio.timeout_at(until):
                    _, connection = await make(family=family, **secure)
                return connection
            except TimeoutError:
                failed = HttpError(Status.CONNECT, f"no connection within {round(given_s, 1):g} s")
            except (ssl.SSLError, ssl.CertificateError) as error:
                raise HttpError(Status.TLS, f"the certificate or the handshake was refused: {error}") from error
            except (OSError, UnicodeError) as error:
                if isinstance(error, OSError) and error.errno in OUT_OF_FILES:
                    raise  # this machine's limit, not the host's fault
                failed = HttpError(Status.CONNECT, getattr(error, "strerror", None) or str(error))
        raise failed

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls
