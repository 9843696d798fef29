"""The pool of connections: only checked addresses, every address in its share of the time, few idle connections."""

from __future__ import annotations

import asyncio
import socket

import pytest

from curation.fetch import resolve
from curation.fetch.addresses import AddressPolicy
from curation.fetch.budget import Budget
from curation.fetch.clock import Clock
from curation.fetch.http1 import HttpError
from curation.fetch.pool import ConnectionPool
from curation.fetch.resolve import BlockedAddressError, Resolver
from curation.fetch.urls import parse_url
from curation.schema import Status
from tests.support import moved_clock
from tests.support.hostile_server import DOMAIN, Exchange, HostileServer
from tests.support.system_resolver import System


def test_a_connection_has_no_more_time_than_its_try() -> None:
    """Nothing answers, as behind a firewall that drops everything."""

    async def main() -> float:
        pool, left = ConnectionPool(Resolver(AddressPolicy(["127.0.0.0/8"]), {"*": "127.0.0.1:80"}), 10.0), Clock(20.0)
        with pytest.raises(HttpError) as error:
            await pool.take(parse_url("http://a.test/"), Clock(0.1))
        assert (error.value.status, error.value.detail) == (Status.CONNECT, "no connection within 0.1 s")
        with pytest.raises(HttpError) as error:
            await pool.take(parse_url("http://a.test/"), Clock(60.0))
        assert (error.value.status, error.value.detail) == (Status.CONNECT, "no connection within 10 s")
        with pytest.raises(HttpError) as error:
            await pool.take(parse_url("http://a.test/"), Clock(0.0))
        assert error.value.status is Status.TIMEOUT
        pool.close()
        return 20.0 - left.left_s

    assert moved_clock.run(main()) == pytest.approx(10.1, abs=0.01)


def test_the_connection_that_is_idle_longest_is_closed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.fetch.pool.MAX_IDLE", 2)

    async def serve(e: Exchange) -> None:
        await e.answer(200, b"x")

    async def main(server: HostileServer) -> list[bool]:
        pool = ConnectionPool(Resolver(AddressPolicy(["127.0.0.0/8"]), server.connect_to), 60.0)
        targets = [parse_url(f"http://{name}.{DOMAIN}/") for name in "abac"]
        used = [await pool.take(target, Clock(60.0)) for target in targets]
        for target, connection in zip(targets, used, strict=True):
            connection.set_deadline(60.0, "never")
            await connection.ask(f"GET / HTTP/1.1\r\nHost: {target.host}\r\n\r\n".encode())
            await connection.read_body(Budget(1000).share(), 1000)
            pool.give(target, connection)
        again = [await pool.take(target, Clock(60.0)) for target in targets]
        kept = [connection in used for connection in again]
        for connection in again:
            connection.close()
        pool.close()
        return kept

    with HostileServer(dict.fromkeys("abc", serve), {}) as server:
        assert asyncio.run(main(server)) == [True, False, False, True]


def test_rebinding_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name has an allowed address once, then a forbidden one: only what was checked is connected to."""
    answers = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]])
    system = System({"rebind.example": lambda: next(answers)})
    monkeypatch.setattr(socket, "getaddrinfo", system)
    monkeypatch.setattr(resolve, "POSITIVE_TTL_S", 0.0)

    async def serve(_: object) -> None:
        """Never asked here: connections are what counts."""

    async def main(port: int) -> list[str]:
        pool = ConnectionPool(Resolver(AddressPolicy(["127.0.0.1/32"]), {}), 60.0)
        target, outcomes = parse_url(f"http://rebind.example:{port}/"), []
        for _ in range(2):
            try:
                (await pool.take(target, Clock(60.0))).close()
                outcomes.append("connected")
            except BlockedAddressError as error:
                outcomes.append(str(error))
        pool.close()
        return outcomes

    with HostileServer({"rebind": serve}, {}) as server:
        assert asyncio.run(main(server.port)) == ["connected", "127.0.0.2"]


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens at the first: the second one gets its share of the time."""
    monkeypatch.setattr(socket, "getaddrinfo", System({"two.example": ["127.0.0.3", "127.0.0.1"]}))

    async def main(port: int) -> None:
        pool = ConnectionPool(Resolver(AddressPolicy(["127.0.0.0/8"]), {}), 60.0)
        (await pool.take(parse_url(f"http://two.example:{port}/"), Clock(60.0))).close()
        with pytest.raises(HttpError, match="connect"):
            await pool.take(parse_url("http://two.example:1/"), Clock(60.0))
        pool.close()

    with HostileServer({}, {}) as server:
        asyncio.run(main(server.port))
