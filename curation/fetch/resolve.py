"""Names to addresses that may be connected to: cached, few look-ups at a time, failures remembered.

The connector connects to the very addresses that were checked here, so a name that answers differently the second
time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import fnmatch
import socket
import time
from collections.abc import Mapping

from aiohttp.abc import AbstractResolver, ResolveResult

from curation.errors import UserError
from curation.fetch.addresses import AddressPolicy

MAX_LOOKUPS = 32
POSITIVE_TTL_S = 600.0
NEGATIVE_TTL_S = 60.0
LOOKUP_TIMEOUT_S = 10.0


class BlockedAddressError(Exception):
    """The host has only addresses that may not be connected to."""


class LookupFailedError(Exception):
    """The host has no address, for now (`temporary`) or at all."""

    def __init__(self, text: str, temporary: bool) -> None:
        super().__init__(text)
        self.temporary = temporary


Answer = list[tuple[str, int, int]] | Exception
"""(address, family, port; 0 for the URL's own) of one host, or why there is none."""


class Resolver(AbstractResolver):
    """aiohttp resolver over getaddrinfo with a cache, a limit, `connect_to` and an address policy."""

    def __init__(self, policy: AddressPolicy, connect_to: Mapping[str, str]) -> None:
        self._policy = policy
        self._connect_to = {pattern.lower(): _host_port(target) for pattern, target in connect_to.items()}
        self._cache: dict[str, tuple[float, Answer]] = {}
        self._pending: dict[str, asyncio.Future[Answer]] = {}
        self._slots = asyncio.Semaphore(MAX_LOOKUPS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Checked addresses of `host`. Raises BlockedAddressError or LookupFailedError."""
        answer = await self._answer(host.lower().rstrip("."))
        if isinstance(answer, Exception):
            raise answer
        flags = socket.AI_NUMERICHOST
        return [
            ResolveResult(hostname=host, host=address, port=own or port, family=kind, proto=0, flags=flags)
            for address, kind, own in answer
        ]

    async def _answer(self, host: str) -> Answer:
        known = self._cache.get(host)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        if host in self._pending:
            return await asyncio.shield(self._pending[host])
        future = self._pending[host] = asyncio.get_running_loop().create_future()
        try:
            answer = await self._look_up(host)
        except asyncio.CancelledError:
            # The first asker gave up; those who wait for its answer may ask again.
            future.set_result(LookupFailedError("the look-up was cancelled", temporary=True))
            raise
        finally:
            del self._pending[host]
        lifetime = NEGATIVE_TTL_S if isinstance(answer, Exception) else POSITIVE_TTL_S
        self._cache[host] = (time.monotonic() + lifetime, answer)
        future.set_result(answer)
        return answer

    async def _look_up(self, host: str) -> Answer:
        found = await self._addresses(host)
        if isinstance(found, Exception):
            return found
        allowed = [entry for entry in found if self._policy.allows(entry[0])]
        return allowed or BlockedAddressError(", ".join(sorted({entry[0] for entry in found})))

    async def _addresses(self, host: str) -> Answer:
        for pattern, (address, port) in self._connect_to.items():
            if fnmatch.fnmatchcase(host, pattern):
                return [(address, socket.AF_INET6 if ":" in address else socket.AF_INET, port)]
        if host.endswith(".invalid") or host == "invalid":
            return LookupFailedError("names under .invalid do not exist (RFC 6761)", temporary=False)
        loop = asyncio.get_running_loop()
        try:
            async with self._slots, asyncio.timeout(LOOKUP_TIMEOUT_S):
                found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except TimeoutError:
            return LookupFailedError("the look-up took too long", temporary=True)
        except socket.gaierror as error:
            return LookupFailedError(error.strerror or str(error), temporary=error.errno == socket.EAI_AGAIN)
        except (UnicodeError, OSError) as error:
            return LookupFailedError(str(error), temporary=False)
        return [(str(sockaddr[0]), family, 0) for family, _, _, _, sockaddr in found]

    async def close(self) -> None:
        """Nothing is held open."""


def _host_port(target: str) -> tuple[str, int]:
    address, separator, port = target.rpartition(":")
    if not separator or not port.isdigit():
        raise UserError(f'download.connect_to: {target!r} is not of the form "address:port".')
    return address.strip("[]"), int(port)
