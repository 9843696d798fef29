"""Who may ask which host when: limits and intervals hold at every moment, and no worker waits for a host."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.fetch.schedule import (
    MAX_FAILURES,
    MAX_FAILURES_OF_HOST,
    MAX_FAILURES_ONCE_REACHED,
    MAX_REFUSALS,
    Item,
    Schedule,
)
from curation.fetch.urls import Target
from curation.schema import Status
from tests.support import moved_clock

ANSWERED = ((Status.OK, ""), True, False)
UNREACHED = ((Status.CONNECT, "refused"), False, False)
BUSY = ((Status.HTTP_429, "HTTP 429"), True, True)
"""How a request ends, for `Schedule.reached`."""


def item(host: str, number: int = 0) -> Item:
    return Item({"uid": f"{host}{number}"}, Target("http", host, 80, f"/{number}"))


def items(**hosts: int) -> list[Item]:
    return [item(host, n) for host, number in hosts.items() for n in range(number)]


@settings(max_examples=40, deadline=None)
@given(
    counts=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 12), min_size=1),
    workers=st.integers(1, 30),
    limit=st.integers(1, 4),
    outcomes=st.lists(st.sampled_from([ANSWERED, UNREACHED, BUSY]), min_size=1),
    gives_up=st.sampled_from([0.0, 0.1]),
    interval_s=st.sampled_from([0.0, 0.0001]),
    seed=st.integers(0, 10**6),
)
def test_every_item_ends_once_and_limits_hold(
    counts: dict[str, int],
    workers: int,
    limit: int,
    outcomes: list[tuple[tuple[Status, str], bool, bool]],
    gives_up: float,
    interval_s: float,
    seed: int,
) -> None:
    dice = random.Random(seed)
    schedule = Schedule(limit, interval_s)
    active: Counter[str] = Counter()
    ended: Counter[str] = Counter()
    over: list[str | None] = []

    async def work() -> None:
        while (one := await schedule.take()) is not None:
            host = one.target.host
            if schedule.verdict(one) is None:
                active[host] += 1
                assert active[host] <= limit
                await asyncio.sleep(0)
                active[host] -= 1
                schedule.record_end(one, *dice.choice(outcomes))
                if dice.random() < gives_up:
                    schedule.give_up(host, BUSY[0])
            else:
                over.append(schedule.finish(one))
                ended[one.sample["uid"]] += 1
                continue
            choice = dice.random()
            if choice < 0.15 and one.tries < 3:
                one.tries += 1
                schedule.retry_later(one, 0.001)
                continue
            if choice < 0.3 and one.hops < 3:
                one.hops += 1
                to = one.target._replace(host=dice.choice("abcdefgh"), port=dice.choice([80, 81]))
                left = schedule.move(one, to)
            elif choice < 0.5:
                schedule.release_host(one)
                await asyncio.sleep(0)
                ended[one.sample["uid"]] += 1
                left = schedule.finish(one)
            else:
                ended[one.sample["uid"]] += 1
                left = schedule.finish(one)
            over.append(left)

    async def main() -> None:
        schedule.start(items(**counts))
        async with asyncio.timeout(20):
            await asyncio.gather(*(work() for _ in range(workers)))

    moved_clock.run(main())
    assert ended == Counter({f"{host}{n}": 1 for host, number in counts.items() for n in range(number)})
    assert all(host.num_items == host.active == 0 and not host.queue for host in schedule.hosts.values())
    assert {name for name in counts if not schedule.hosts[name].redirected} <= set(over)


def test_a_paused_host_holds_no_worker() -> None:
    """One worker, a host that asked to be left alone: the rows of the other host go on, then the first one's."""

    async def main() -> list[str]:
        schedule = Schedule(4, 0.0)
        schedule.start(items(slow=3, other=2))
        order, paused, started = [], False, asyncio.get_running_loop().time()
        while (one := await schedule.take()) is not None:
            order.append(one.target.host)
            schedule.record_end(one, *ANSWERED)
            if one.target.host == "slow" and not paused:
                paused = True
                schedule.pause("slow", 20.0)
                schedule.retry_later(one, 20.0)
            else:
                schedule.finish(one)
        assert asyncio.get_running_loop().time() - started == pytest.approx(20.0, abs=0.01)
        return order

    assert moved_clock.run(main()) == ["slow", "other", "other", "slow", "slow", "slow"]


def test_the_interval_lies_between_two_requests_to_a_host_and_only_there() -> None:
    async def main() -> dict[str, list[float]]:
        schedule = Schedule(8, 0.05)
        schedule.start(items(a=4, b=4))
        times: dict[str, list[float]] = {"a": [], "b": []}

        async def work() -> None:
            while (one := await schedule.take()) is not None:
                times[one.target.host].append(asyncio.get_running_loop().time())
                schedule.record_end(one, *ANSWERED)
                schedule.finish(one)

        await asyncio.gather(*(work() for _ in range(8)))
        return times

    times = moved_clock.run(main())
    for starts in times.values():
        assert all(after - before >= 0.049 for before, after in zip(starts, starts[1:], strict=False))
    assert times["b"][0] < times["a"][-1]


def test_a_host_is_asked_by_one_until_it_has_answered() -> None:
    async def main() -> None:
        schedule = Schedule(4, 0.0)
        schedule.start(items(a=6))
        first = await schedule.take()
        assert first is not None
        waiting = asyncio.create_task(schedule.take())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        schedule.record_end(first, *ANSWERED)
        others = [await waiting, await schedule.take(), await schedule.take()]
        assert len({one.sample["uid"] for one in others if one}) == 3

    moved_clock.run(main())


async def outcomes(ends: Callable[[str, int], tuple[tuple[Status, str], bool, bool]], **hosts: int) -> Counter[str]:
    """How many rows of each host were tried, and how many not, when request n to a host ends as `ends` says."""
    schedule = Schedule(1, 0.0)
    schedule.start(items(**hosts))
    seen: Counter[str] = Counter()
    while (one := await schedule.take()) is not None:
        host = one.target.host
        if schedule.verdict(one) is not None:
            seen[f"{host} {schedule.verdict(one)[0]}"] += 1  # type: ignore[index]  # it is not None
        else:
            schedule.record_end(one, *ends(host, seen[host]))
            seen[host] += 1
        schedule.finish(one)
    return seen


def test_a_host_that_never_answers_is_given_up() -> None:
    found = moved_clock.run(outcomes(lambda host, n: UNREACHED if host == "dead" else ANSWERED, dead=100, alive=5))
    assert found == {"dead": MAX_FAILURES, "dead connect": 100 - MAX_FAILURES, "alive": 5}


def test_a_host_that_stops_answering_is_given_up_later() -> None:
    found = moved_clock.run(outcomes(lambda host, n: ANSWERED if n == 0 else UNREACHED, moody=200))
    assert found == {"moody": 1 + MAX_FAILURES_ONCE_REACHED, "moody connect": 199 - MAX_FAILURES_ONCE_REACHED}


def test_an_answer_now_and_then_keeps_a_host() -> None:
    found = moved_clock.run(outcomes(lambda host, n: ANSWERED if n % 15 == 3 else UNREACHED, moody=200))
    assert found == {"moody": 200}


def test_a_host_that_always_says_later_is_given_up() -> None:
    """Each of its answers may have asked for a minute: a thousand rows would take a day."""
    found = moved_clock.run(outcomes(lambda host, n: BUSY, busy=1000))
    assert found == {"busy": MAX_REFUSALS, "busy http_429": 1000 - MAX_REFUSALS}
    assert moved_clock.run(outcomes(lambda host, n: BUSY if n % 3 else ANSWERED, busy=100)) == {"busy": 100}


@pytest.mark.parametrize("number", [0, 1])
def test_nothing_to_do_ends_at_once(number: int) -> None:
    async def main() -> None:
        schedule = Schedule(1, 0.0)
        schedule.start(items(a=number))
        if number:
            one = await schedule.take()
            assert one is not None
            waiting = [asyncio.create_task(schedule.take()) for _ in range(3)]
            await asyncio.sleep(0)
            assert schedule.finish(one) == "a"
            assert await asyncio.gather(*waiting) == [None, None, None]
        assert await schedule.take() is None

    moved_clock.run(main())


def elsewhere(one: Item, host: str, scheme: str = "http") -> Target:
    return Target(scheme, host, 443 if scheme == "https" else 80, one.target.path)


def test_a_host_that_only_redirects_lead_to_is_remembered_between_its_rows() -> None:
    """Its Retry-After holds for the next row, too, and it is not said to be over."""

    async def main() -> list[float]:
        schedule = Schedule(1, 0.0)
        schedule.start(items(a=3))
        started, times = asyncio.get_running_loop().time(), []
        while (one := await schedule.take()) is not None:
            schedule.record_end(one, *ANSWERED)
            if one.target.host == "a":
                schedule.move(one, elsewhere(one, "cdn"))
            else:
                times.append(asyncio.get_running_loop().time() - started)
                schedule.pause("cdn", 0.05)
                assert schedule.finish(one) is None
        assert schedule.hosts["cdn"].origins["http", 80].answered
        return times

    times = moved_clock.run(main())
    assert len(times) == 3
    assert all(after - before >= 0.049 for before, after in zip(times, times[1:], strict=False))


def test_only_so_many_hosts_without_rows_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.fetch.schedule.MAX_HOSTS_WITHOUT_ROWS", 5)

    async def main() -> set[str]:
        schedule = Schedule(1, 0.0)
        schedule.start(items(a=20))
        while (one := await schedule.take()) is not None:
            schedule.record_end(one, *ANSWERED)
            if one.target.host == "a":
                schedule.move(one, elsewhere(one, f"b{one.target.path[1:]}"))
            else:
                schedule.finish(one)
        return set(schedule.hosts)

    left = moved_clock.run(main())
    assert len(left) == 5 and "b19" in left


def test_a_broken_scheme_or_port_says_nothing_about_another() -> None:
    async def main() -> Counter[tuple[str, str]]:
        schedule = Schedule(2, 0.0)
        secure = [item("a", n) for n in range(100)]
        for one in secure:
            one.target = elsewhere(one, "a", "https")
        schedule.start([*secure, *(item("a", n) for n in range(100, 110))])
        seen: Counter[tuple[str, str]] = Counter()
        while (one := await schedule.take()) is not None:
            tried = schedule.verdict(one) is None
            if tried:
                schedule.record_end(one, *(UNREACHED if one.target.scheme == "https" else ANSWERED))
            seen[one.target.scheme, "tried" if tried else "left"] += 1
            schedule.finish(one)
        return seen

    found = moved_clock.run(main())
    assert found == {("https", "tried"): MAX_FAILURES, ("https", "left"): 100 - MAX_FAILURES, ("http", "tried"): 10}


def test_a_dead_host_is_given_up_however_many_ports_its_rows_name() -> None:
    async def main() -> int:
        schedule = Schedule(2, 0.0)
        schedule.start([Item({"uid": str(n)}, Target("http", "a", 1 + n, "/")) for n in range(1_000)])
        number = 0
        while (one := await schedule.take()) is not None:
            if schedule.verdict(one) is None:
                number += 1
                schedule.record_end(one, *UNREACHED)
            schedule.finish(one)
        return number

    assert moved_clock.run(main()) == MAX_FAILURES_OF_HOST


def test_rows_that_are_not_tried_do_not_wait_for_their_host() -> None:
    """Neither those in its queue, nor those that a redirect brings later."""

    async def main() -> int:
        schedule = Schedule(1, 60.0)
        schedule.start(items(a=50, b=1))
        number, started = 0, asyncio.get_running_loop().time()
        while (one := await schedule.take()) is not None:
            if one.target.host == "b":
                schedule.move(one, elsewhere(one, "a"))
                continue
            if schedule.verdict(one) is None:
                schedule.give_up("a", (Status.HTTP_429, "HTTP 429"))
            number += 1
            schedule.finish(one)
        assert asyncio.get_running_loop().time() == started
        return number

    assert moved_clock.run(main()) == 51
