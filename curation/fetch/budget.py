"""A limit on the bytes that all bodies of a task hold in memory together, whatever the web sends."""

from __future__ import annotations

import asyncio
from collections import deque

SMALL_BYTES = 256 << 10
"""Every body may hold this many bytes without a share of a pool; most pictures are smaller."""
MEDIUM_BYTES = 4 << 20
"""A body of unknown length asks for this many bytes first, then for the most that it may have."""
POOL_BYTES = 64 << 20
"""The size of each of the two pools."""


class BytePool:
    """A semaphore of `size` bytes, first come, first served."""

    def __init__(self, size: int) -> None:
        self.free = self.size = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, number: int) -> int:
        """Take `number` bytes, at most the whole pool, as soon as they are free; returns how many were taken."""
        number = min(number, self.size)
        if self._waiting or number > self.free:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append((number, future))
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self.give(number)
                raise
        else:
            self.free -= number
        return number

    def give(self, number: int) -> None:
        """Give back `number` bytes that were taken."""
        self.free += number
        while self._waiting and self._waiting[0][0] <= self.free:
            wanted, future = self._waiting.popleft()
            if not future.done():
                self.free -= wanted
                future.set_result(None)


class Budget:
    """Two pools, which every body takes from in the same order, so that bodies cannot deadlock."""

    def __init__(self, max_bytes: int) -> None:
        self._medium = BytePool(POOL_BYTES)
        self._large = BytePool(max(POOL_BYTES, max_bytes))

    def share(self) -> Share:
        return Share(self._medium, self._large)


class Share:
    """The bytes of the budget that one body holds."""

    def __init__(self, medium: BytePool, large: BytePool) -> None:
        self._medium, self._large = medium, large
        self._taken: list[tuple[BytePool, int]] = []

    async def grow(self, wanted: int) -> int:
        """Wait until the body may hold more; returns how many bytes it may hold now, in two steps up to `wanted`."""
        if wanted <= SMALL_BYTES:
            return wanted
        if not self._taken:
            await self._take(self._medium, min(wanted, MEDIUM_BYTES))
            return min(wanted, MEDIUM_BYTES)
        if wanted > MEDIUM_BYTES and len(self._taken) == 1:
            await self._take(self._large, wanted)
        return wanted

    async def _take(self, pool: BytePool, number: int) -> None:
        self._taken.append((pool, await pool.take(number)))

    def give_back(self) -> None:
        for pool, number in self._taken:
            pool.give(number)
        self._taken.clear()
