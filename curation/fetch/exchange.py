"""One request and the head of its answer within one try, for pictures and for robots.txt."""

from __future__ import annotations

from curation.fetch.addresses import AddressPolicy
from curation.fetch.budget import Budget
from curation.fetch.clock import Clock
from curation.fetch.http1 import Answer, Connection, HttpError
from curation.fetch.pool import ConnectionPool
from curation.fetch.resolve import Resolver
from curation.fetch.urls import Target, join_url
from curation.recipe.config import DownloadConfig

REDIRECTS = {301, 302, 303, 307, 308}
GIVEN = {200, 203}
"""Codes of answers with a body that is used; a proxy answers 203 for a 200 that it changed."""
MAX_DRAINED_BYTES = 64 << 10
"""A body that is not wanted is read up to this size, so that its connection can be used again."""


class Exchange:
    """`connection, answer = await exchange.request(target, clock)`, then `exchange.pool.give(target, connection)`."""

    def __init__(self, config: DownloadConfig) -> None:
        self._config = config
        self.budget = Budget(config.max_bytes)
        accept = ", ".join([*(f"image/{name}" for name in config.formats), "*/*;q=0.1"])
        lines = [f"User-Agent: {config.agent}", f"Accept: {accept}", "Accept-Encoding: identity", "", ""]
        self._lines = "\r\n".join(lines).encode()
        resolver = Resolver(AddressPolicy(config.allow_addresses), config.connect_to)
        self.pool = ConnectionPool(resolver, config.connect_timeout_s)

    async def request(self, target: Target, clock: Clock) -> tuple[Connection, Answer]:
        """Send a request for `target`; returns its connection and the head of the answer.

        Raises HttpError, BlockedAddressError or LookupFailedError.
        """
        request = f"GET {target.path} HTTP/1.1\r\nHost: {target.netloc}\r\n".encode() + self._lines
        kept = True
        while True:
            connection = await self.pool.take(target, clock, fresh=not kept)
            kept = connection.requests > 0
            first = min(clock.left_s, self._config.first_byte_timeout_s)
            connection.set_deadline(first, f"no answer within {self._config.first_byte_timeout_s:g} s")
            try:
                answer = await connection.ask(request)
            except HttpError as error:
                connection.close()
                if kept and error.unanswered:
                    kept = False  # the server had closed the kept connection, which is no failure of this request
                    continue
                raise
            except BaseException:
                connection.close()
                raise
            connection.set_deadline(clock.left_s, f"no whole picture within {self._config.timeout_s:g} s")
            return connection, answer

    async def drain(self, connection: Connection, answer: Answer) -> None:
        """Read the rest of the answer, to use the connection again; close it when the rest is long or late."""
        if not answer.keep_alive or (answer.length is None and not answer.chunked):
            connection.close()
            return
        if answer.length is not None and answer.length > MAX_DRAINED_BYTES:
            connection.close()
            return
        try:
            await connection.read_body(self.budget.share(), MAX_DRAINED_BYTES)
        except HttpError:
            connection.close()


def redirect_target(target: Target, answer: Answer) -> Target | None:
    """The target to which `answer` redirects a request for `target`; None when it does not. Raises BadUrlError."""
    location = answer.get("location") if answer.code in REDIRECTS else None
    if location is None:
        return None
    # Servers that send bytes outside ASCII in a header mean UTF-8.
    return join_url(target, location.encode("latin-1", "replace").decode("utf-8", "replace"))
