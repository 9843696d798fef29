"""Processes of this machine that work side by side, and end with the process that started them."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing.connection import wait
from types import TracebackType
from typing import TypeVar

from curation.command import leave_process
from curation.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """`num_processes` processes, which start when there are two things to do at once. Use as a context manager."""

    def __init__(self, num_processes: int) -> None:
        self._num_processes = num_processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`function` of each of `items`, in their order; a single one is left to this process.

        Raises what `function` raises, and UserError when a process was ended from outside.
        """
        coming = iter(items)
        first = list(islice(coming, 2))
        if len(first) < 2 or self._num_processes < 2:
            yield from map(function, chain(first, coming))
            return
        try:
            yield from map_ahead(self._start(), function, chain(first, coming), 2 * self._num_processes)
        except BrokenProcessPool as error:
            raise UserError(
                "A process of this command was ended from outside, for want of memory perhaps: run the same command "
                "again to go on, with fewer at once by --set select.threads=…."
            ) from error

    def _start(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # A fork would copy what the threads of DuckDB hold locked.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._num_processes, mp_context=context, initializer=_begin)
        return self._pool


def map_ahead(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], num_ahead: int
) -> Iterator[Result]:
    """`function` of each of `items` by `pool`, in their order; at most `num_ahead` wait for whoever takes them."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > num_ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _begin() -> None:
    """Leave Ctrl+C to the parent, and end when it has ended: the pool's queue alone would be waited at forever."""
    # Its results are sent by then, and a late thread of a library must not abort it, as `end_process` says.
    atexit.register(leave_process, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
