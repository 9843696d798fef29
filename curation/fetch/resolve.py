"""Names to addresses that may be connected to: a cache of answers and failures, and few look-ups at a time.

The pool connects to the same addresses that were checked here, so a name that resolves differently the second time (DNS
rebinding) does not reach a forbidden address.
"""

from __future__ import annotations

import asyncio
import fnmatch
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from curation.fetch.addresses import AddressPolicy
from curation.fetch.clock import now
from curation.recipe.config import host_port

MAX_LOOKUPS = 32
POSITIVE_TTL_S = 600.0
NEGATIVE_TTL_S = 60.0
TEMPORARY_TTL_S = 5.0
"""How long a temporary failure is cached."""
LOOKUP_TIMEOUT_S = 10.0
MAX_ADDRESSES = 4


class Endpoint(NamedTuple):
    """An address to connect to; port 0 stands for the port of the URL."""

    address: str
    family: int
    port: int


class BlockedAddressError(Exception):
    """No address of the host is allowed."""


class LookupFailedError(Exception):
    """The host has no address, at the moment (`temporary`) or at all."""

    def __init__(self, text: str, temporary: bool) -> None:
        super().__init__(text)
        self.temporary = temporary


Answer = list[Endpoint] | BlockedAddressError | LookupFailedError


class Resolver:
    """getaddrinfo with a cache, a limit, `connect_to` and an address policy; `close()` it."""

    def __init__(self, policy: AddressPolicy, connect_to: Mapping[str, str]) -> None:
        self._policy = policy
        self._connect_to = {pattern.lower(): host_port(target) for pattern, target in connect_to.items()}
        self._cache: dict[str, tuple[float, Answer]] = {}
        self._pending: dict[str, tuple[asyncio.Event, asyncio.Task[Answer]]] = {}
        """Look-ups that have not ended, each with an event that is set when it begins."""
        self._turns = asyncio.Semaphore(MAX_LOOKUPS)
        self._threads = ThreadPoolExecutor(MAX_LOOKUPS, thread_name_prefix="dns")

    async def resolve(self, host: str) -> list[Endpoint]:
        """Checked addresses of `host`, in the order in which to try them.

        Raises BlockedAddressError or LookupFailedError.
        """
        host = host.rstrip(".")
        answer = self._find_cached(host)
        if answer is None:
            # Shielded: the first caller may be cancelled while others still wait for the answer.
            answer = await asyncio.shield(self._start_look_up(host)[1])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def wait_turn(self, host: str) -> None:
        """Wait until the look-up of `host`, if it needs one, has begun; the wait for others is not its own time."""
        host = host.rstrip(".")
        if self._find_cached(host) is None:
            await self._start_look_up(host)[0].wait()

    def _find_cached(self, host: str) -> Answer | None:
        known = self._cache.get(host)
        return known[1] if known is not None and known[0] > now() else None

    def _start_look_up(self, host: str) -> tuple[asyncio.Event, asyncio.Task[Answer]]:
        if host not in self._pending:
            begun = asyncio.Event()
            self._pending[host] = begun, asyncio.create_task(self._look_up(host, begun))
        return self._pending[host]

    async def _look_up(self, host: str, begun: asyncio.Event) -> Answer:
        try:
            answer = self._select_allowed(await self._find_addresses(host, begun))
        finally:
            begun.set()
            del self._pending[host]
        lifetime = POSITIVE_TTL_S
        if isinstance(answer, Exception):
            brief = isinstance(answer, LookupFailedError) and answer.temporary
            lifetime = TEMPORARY_TTL_S if brief else NEGATIVE_TTL_S
        self._cache[host] = (now() + lifetime, answer)
        return answer

    def _select_allowed(self, answer: Answer) -> Answer:
        if isinstance(answer, Exception):
            return answer
        allowed = [entry for entry in answer if self._policy.allows(entry.address)]
        return allowed[:MAX_ADDRESSES] or BlockedAddressError(", ".join(sorted({entry.address for entry in answer})))

    async def _find_addresses(self, host: str, begun: asyncio.Event) -> Answer:
        for pattern, (address, port) in self._connect_to.items():
            if fnmatch.fnmatchcase(host, pattern):
                return [Endpoint(address, socket.AF_INET6 if ":" in address else socket.AF_INET, port)]
        if host.endswith(".invalid") or host == "invalid":
            return LookupFailedError("names under .invalid do not exist (RFC 6761)", temporary=False)
        await self._turns.acquire()
        begun.set()
        looking = asyncio.get_running_loop().run_in_executor(self._threads, _getaddrinfo, host)
        looking.add_done_callback(self._finish_look_up)
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                # Shielded: the thread goes on when nobody waits for it, and holds its place until it ends.
                endpoints = await asyncio.shield(looking)
        except TimeoutError:
            return LookupFailedError("the look-up took too long", temporary=True)
        except socket.gaierror as error:
            return LookupFailedError(error.strerror or str(error), temporary=error.errno == socket.EAI_AGAIN)
        except (UnicodeError, ValueError, OSError) as error:
            return LookupFailedError(str(error), temporary=False)
        return endpoints

    def _finish_look_up(self, looking: asyncio.Future[Answer]) -> None:
        self._turns.release()
        if not looking.cancelled():
            looking.exception()  # read, so that asyncio does not report a failure that nobody waited for

    def close(self) -> None:
        """Cancel waiting look-ups; threads that run end with their look-up, and nobody waits for them."""
        for _, task in self._pending.values():
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _getaddrinfo(host: str) -> Answer:
    entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(Endpoint(str(sockaddr[0]), int(family), 0) for family, _, _, _, sockaddr in entries))
