"""Open connections by host: made to checked addresses only, kept while their host has rows left."""

from __future__ import annotations

import asyncio
import errno
import ssl
from functools import partial

from curation.fetch.http1 import Connection, HttpError
from curation.fetch.resolve import Resolver
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
        self._num_idle = 0

    async def take(self, target: Target, fresh: bool = False) -> Connection:
        """A kept connection to the target's host and port, or a new one (`fresh`: always).

        Raises HttpError, BlockedAddressError or LookupFailedError.
        """
        kept = self._idle.get(target.host, [])
        for place in range(len(kept) - 1, -1, -1):
            scheme, port, connection = kept[place]
            if (scheme, port) == (target.scheme, target.port) and not fresh:
                del kept[place]
                self._num_idle -= 1
                if not connection.closed:
                    return connection
        return await self._connect(target)

    def give(self, target: Target, connection: Connection) -> None:
        """Keep the connection if another request may follow on it, close it otherwise."""
        if not connection.reusable or self._num_idle >= MAX_IDLE:
            connection.close()
            return
        connection.release()
        self._idle.setdefault(target.host, []).append((target.scheme, target.port, connection))
        self._num_idle += 1

    def forget(self, host: str) -> None:
        """Close what is kept to `host`: no row is left that would use it."""
        for _, _, connection in self._idle.pop(host, ()):
            connection.close()
            self._num_idle -= 1

    def close(self) -> None:
        for host in list(self._idle):
            self.forget(host)
        self._resolver.close()

    async def _connect(self, target: Target) -> Connection:
        endpoints = await self._resolver.resolve(target.host)
        loop = asyncio.get_running_loop()
        secure = {"ssl": self._context(), "server_hostname": target.host} if target.scheme == "https" else {}
        deadline = loop.time() + self._timeout_s
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
                failed = HttpError(Status.CONNECT, f"no connection within {self._timeout_s:g} s")
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
