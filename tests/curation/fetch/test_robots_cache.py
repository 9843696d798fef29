"""robots.txt as the client reads it: tried again, remembered when it came, bounded in time and memory."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from curation.fetch import robots_cache
from curation.fetch.client import Client
from curation.fetch.clock import Clock
from curation.fetch.http1 import Connection, HttpError
from curation.fetch.pool import ConnectionPool
from curation.fetch.urls import parse_url
from curation.recipe.config import DownloadConfig
from curation.schema import Status
from tests.support import moved_clock
from tests.support.hostile_pictures import jpeg
from tests.support.hostile_server import DOMAIN, Exchange, HostileServer, Serve

DISALLOW = b"User-agent: *\nDisallow: /\n"


async def picture(e: Exchange) -> None:
    await e.answer(200, jpeg())


def config_of(server: HostileServer, timeout_s: float) -> DownloadConfig:
    return DownloadConfig(connect_to=server.connect_to, allow_addresses=("127.0.0.0/8",), timeout_s=timeout_s)


def asked(robots: dict[str, Serve], paths: list[str], timeout_s: float = 20.0) -> tuple[list[str], dict[str, int]]:
    """How the rows of `paths` (`HOST/PATH`) end one after the other; how often each robots.txt was asked for."""
    server = HostileServer(dict.fromkeys(robots, picture), robots)

    async def main() -> list[str]:
        config = config_of(server, timeout_s)
        async with Client(config) as client:
            urls = [f"http://{host}.{DOMAIN}/{rest}" for host, _, rest in (path.partition("/") for path in paths)]
            return [(await client.ask(parse_url(url), Clock(timeout_s))).status for url in urls]

    statuses = moved_clock.run(main(), server.connected)
    return statuses, {host: times for (host, path), times in server.asked.items() if path == "/robots.txt"}


async def short(e: Exchange) -> None:
    await e.answer(200, b"User-agent: *\nDisallow: /no\n")


def test_what_does_not_come_is_tried_again_and_then_remembered() -> None:
    async def reset(e: Exchange) -> None:
        e.reset()

    async def reset_twice(e: Exchange) -> None:
        await (reset(e) if e.times < 2 else e.answer(200, DISALLOW))

    found = asked({"always": reset, "twice": reset_twice}, ["always/1", "always/2", "twice/1", "twice/2"])
    assert found[0] == [Status.DISCONNECTED] * 2 + [Status.ROBOTS] * 2
    assert found[1] == {"always": robots_cache.MAX_TRIES, "twice": 3}


def test_a_host_that_is_asked_too_much_for_its_rules_allows_nothing_for_now() -> None:
    """A 4xx allows everything, and this one says nothing about the rules: a later round asks for them again."""

    async def busy(e: Exchange) -> None:
        await e.answer(429, b"")

    assert asked({"busy": busy}, ["busy/1", "busy/2"]) == ([Status.HTTP_429] * 2, {"busy": 1})


def test_those_least_lately_used_are_read_again_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robots_cache, "MAX_BYTES", 3 * (robots_cache.BYTES_PER_ORIGIN + 8 * 30))
    order = ["a", "b", "c", "a", "d", "a", "b"]
    statuses, times = asked(dict.fromkeys("abcd", short), [f"{host}/yes" for host in order])
    assert statuses == [Status.OK] * len(order)
    assert times == {"a": 1, "b": 2, "c": 1, "d": 1}


def test_a_slow_file_leaves_time_for_the_picture() -> None:
    async def slow(e: Exchange) -> None:
        await asyncio.sleep(9)
        await e.answer(200, b"")

    async def never(e: Exchange) -> None:
        await asyncio.sleep(11)

    assert asked({"slow": slow, "never": never}, ["slow/1", "never/1"], timeout_s=20.0)[0] == [
        Status.OK,
        Status.TIMEOUT,
    ]


def test_a_row_waits_no_longer_than_its_try() -> None:
    async def never(e: Exchange) -> None:
        await asyncio.sleep(60)

    server = HostileServer({"a": picture}, {"a": never})

    async def main() -> tuple[str, float]:
        clock = Clock(5.0)
        async with Client(config_of(server, 20.0)) as client:
            fetched = await client.ask(parse_url(f"http://a.{DOMAIN}/1"), clock)
        return f"{fetched.status}: {fetched.detail}", clock.left_s

    said, left_s = moved_clock.run(main(), server.connected)
    assert (said, left_s) == ("timeout: robots.txt does not come in time", pytest.approx(0.0, abs=0.01))


def test_a_host_that_is_not_reached_is_no_host_that_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row ends as its picture would have, and when the host is back its rules are read."""
    take, failures = ConnectionPool.take, iter([HttpError(Status.CONNECT, "refused")])

    async def refused_once(*args: Any, **options: Any) -> Connection:
        for failure in failures:
            raise failure
        return await take(*args, **options)

    async def disallow(e: Exchange) -> None:
        await e.answer(200, DISALLOW)

    monkeypatch.setattr(ConnectionPool, "take", refused_once)
    assert asked({"a": disallow}, ["a/1", "a/1"]) == ([Status.CONNECT, Status.ROBOTS], {"a": 1})
