"""Memory of bodies: never more than the pools hold, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from curation.fetch.budget import MEDIUM_BYTES, POOL_BYTES, SMALL_BYTES, Budget, BytePool

MAX_BYTES = 20_000_000


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, MAX_BYTES), min_size=1, max_size=60),
    seed=st.integers(0, 10**6),
    gives_up=st.booleans(),
)
def test_all_bodies_end_and_hold_no_more_than_the_pools(sizes: list[int], seed: int, gives_up: bool) -> None:
    dice = random.Random(seed)
    held: dict[int, int] = {}

    async def body(number: int, size: int, budget: Budget) -> None:
        share = budget.share()
        try:
            allowed = SMALL_BYTES
            while allowed < size:
                allowed = await share.grow(size)
                held[number] = min(size, allowed)
                assert sum(held.values()) <= 2 * POOL_BYTES
                await asyncio.sleep(0)
        finally:
            held.pop(number, None)
            share.give_back()

    async def main() -> None:
        budget = Budget(MAX_BYTES)
        bodies = [asyncio.create_task(body(n, size, budget)) for n, size in enumerate(sizes)]
        if gives_up:
            for task in dice.sample(bodies, len(bodies) // 3):
                await asyncio.sleep(0)
                task.cancel()
        async with asyncio.timeout(20):
            ended = await asyncio.gather(*bodies, return_exceptions=True)
        assert all(one is None or isinstance(one, asyncio.CancelledError) for one in ended)
        # Everything was given back: the largest body finds room at once.
        whole = budget.share()
        assert await whole.grow(MAX_BYTES) == MEDIUM_BYTES
        assert await whole.grow(MAX_BYTES) == MAX_BYTES

    asyncio.run(main())


def test_first_come_first_served() -> None:
    async def main() -> list[str]:
        pool, order = BytePool(10), []

        async def take(name: str, number: int) -> None:
            taken = await pool.take(number)
            order.append(name)
            await asyncio.sleep(0)
            pool.give(taken)

        await pool.take(4)
        tasks = [asyncio.create_task(take(name, number)) for name, number in (("large", 9), ("small", 1))]
        await asyncio.sleep(0.01)
        assert order == []  # the small one does not overtake: the large one would starve
        pool.give(4)
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(main()) == ["large", "small"]


def test_more_than_there_is_means_all_of_it() -> None:
    async def main() -> None:
        pool = BytePool(10)
        assert await pool.take(1000) == 10
        pool.give(10)
        assert pool.free == 10

    asyncio.run(main())
