"""Look-ups: cached, few at a time, failures remembered, and no address that may not be connected to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from curation.fetch import clock, resolve
from curation.fetch.addresses import AddressPolicy
from curation.fetch.clock import Clock
from curation.fetch.resolve import BlockedAddressError, LookupFailedError, Resolver
from tests.support.system_resolver import System


async def asked(resolver: Resolver, host: str) -> object:
    try:
        return [endpoint.address for endpoint in await resolver.resolve(host)]
    except (BlockedAddressError, LookupFailedError) as error:
        return type(error).__name__, getattr(error, "temporary", None)


def run(
    system: System, monkeypatch: pytest.MonkeyPatch, hosts: list[str], allowed: tuple[str, ...] = ()
) -> list[object]:
    monkeypatch.setattr(socket, "getaddrinfo", system)

    async def main() -> list[object]:
        resolver = Resolver(AddressPolicy(allowed), {})
        try:
            return [await asked(resolver, host) for host in hosts]
        finally:
            resolver.close()

    return asyncio.run(main())


def test_answers_and_failures_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System({"gone.example": socket.gaierror(socket.EAI_NONAME, "unknown"), "in.example": ["10.0.0.1"]})
    found = run(system, monkeypatch, ["a.example", "gone.example", "in.example"] * 3)
    once: list[object] = [["8.8.8.8"], ("LookupFailedError", False), ("BlockedAddressError", None)]
    assert found == once * 3
    assert sorted(system.asked) == ["a.example", "gone.example", "in.example"]


def test_a_temporary_failure_is_remembered_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "TEMPORARY_TTL_S", 0.0)
    answers = iter([socket.gaierror(socket.EAI_AGAIN, "not now"), ["8.8.4.4"]])
    found = run(System({"a.example": lambda: next(answers)}), monkeypatch, ["a.example", "a.example"])
    assert found == [("LookupFailedError", True), ["8.8.4.4"]]


def test_only_allowed_addresses_of_a_name_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System({"mixed.example": ["10.0.0.1", "8.8.8.8", "::1", "127.0.0.1"]})
    assert run(system, monkeypatch, ["mixed.example"]) == [["8.8.8.8"]]
    assert run(system, monkeypatch, ["mixed.example"], ("127.0.0.0/8",)) == [["8.8.8.8", "127.0.0.1"]]


def test_many_askers_of_one_name_are_one_look_up_and_look_ups_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System({}, seconds=0.02)
    monkeypatch.setattr(socket, "getaddrinfo", system)

    async def main() -> None:
        resolver = Resolver(AddressPolicy(), {})
        hosts = [f"h{n % 100}.example" for n in range(300)]
        await asyncio.gather(*(resolver.resolve(host) for host in hosts))
        resolver.close()

    asyncio.run(main())
    assert len(system.asked) == 100 and 1 < system.most <= resolve.MAX_LOOKUPS


@contextlib.contextmanager
def hanging(*hosts: str) -> Iterator[tuple[System, dict[str, threading.Event]]]:
    """A system whose look-ups of `hosts` hang, each until its event is set, or the test ends."""
    events = {host: threading.Event() for host in hosts}

    def hang(event: threading.Event) -> list[str]:
        event.wait()
        return ["8.8.4.4"]

    try:
        yield System({host: partial(hang, event) for host, event in events.items()}), events
    finally:
        for event in events.values():
            event.set()


def test_a_look_up_that_hangs_is_a_temporary_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "LOOKUP_TIMEOUT_S", 0.05)
    with hanging("slow.example") as (system, _):
        assert run(system, monkeypatch, ["slow.example"]) == [("LookupFailedError", True)]


def test_a_name_behind_slow_ones_has_its_time_from_its_turn_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """More look-ups that hang than there are threads: they end as failures, the name behind them has an address."""
    monkeypatch.setattr(resolve, "MAX_LOOKUPS", 2)
    monkeypatch.setattr(resolve, "LOOKUP_TIMEOUT_S", 0.05)
    passed_s = [0.0]
    monkeypatch.setattr(clock, "now", lambda: passed_s[0])
    names = [f"dead{n}.example" for n in range(6)]

    async def main(events: dict[str, threading.Event]) -> tuple[list[object], float]:
        resolver, left = Resolver(AddressPolicy(), {}), Clock(0.0)
        dead = [asyncio.create_task(asked(resolver, name)) for name in names]

        async def let_go() -> None:
            """One thread after the other, each after its look-up has failed; the last two when all have."""
            for name, task in zip(names[:4], dead, strict=False):
                await task
                events[name].set()
            await asyncio.gather(*dead)
            passed_s[0] += 10.0
            monkeypatch.setattr(resolve, "LOOKUP_TIMEOUT_S", 60.0)
            for event in events.values():
                event.set()

        going = asyncio.create_task(let_go())
        await asyncio.sleep(0)
        with left.pause():
            await resolver.wait_turn("good.example")
        found = [await asked(resolver, "good.example"), *await asyncio.gather(*dead)]
        await going
        resolver.close()
        return found, left.left_s

    with hanging(*names) as (system, events):
        monkeypatch.setattr(socket, "getaddrinfo", system)
        found, left_s = asyncio.run(main(events))
    assert found == [["8.8.8.8"], *[("LookupFailedError", True)] * 6]
    assert (left_s, passed_s) == (0.0, [10.0])


def test_who_asked_first_may_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", System({}, seconds=0.1))

    async def main() -> object:
        resolver = Resolver(AddressPolicy(), {})
        first = asyncio.create_task(resolver.resolve("a.example"))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(asked(resolver, "a.example"))
        await asyncio.sleep(0.01)
        first.cancel()
        found = await second
        resolver.close()
        return found

    assert asyncio.run(main()) == ["8.8.8.8"]


def test_connect_to_sends_names_elsewhere_and_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", System({}))

    async def main() -> list[object]:
        resolver = Resolver(AddressPolicy(["127.0.0.0/8"]), {"*.Test": "127.0.0.1:81", "in.example": "10.0.0.1:80"})
        try:
            endpoint = (await resolver.resolve("a.test"))[0]
            return [tuple(endpoint), await asked(resolver, "in.example"), await asked(resolver, "b.example")]
        finally:
            resolver.close()

    assert asyncio.run(main()) == [
        ("127.0.0.1", socket.AF_INET, 81),
        ("BlockedAddressError", None),
        ["8.8.8.8"],
    ]
    with pytest.raises(ValueError, match="not of the form"):
        Resolver(AddressPolicy(), {"a": "nonsense"})
