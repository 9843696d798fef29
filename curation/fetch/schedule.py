"""Which row is fetched next, within limits on the requests to a host at a time and on the interval between them.

No worker waits for a host: a host that must wait (interval, Retry-After, a later try) is set aside until its time has
come, and rows of other hosts go on. Hosts with many rows come first, since they take longest at their limit.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from curation.fetch.urls import Target
from curation.schema import SampleRow, Status

MAX_FAILURES, MAX_FAILURES_ONCE_REACHED = 16, 64
"""Failed requests in a row, to an origin that never answered and to one that did, after which its other rows are not
tried. A host that stopped answering must not hold the unit for hours, one deadline after the other."""
MAX_FAILURES_OF_HOST = 128
"""The same limit for all origins of a host together, however many ports its rows name."""
MAX_REFUSALS = 16
"""Answers in a row that ask to come later, each of them for up to a minute."""
MAX_HOSTS_WITHOUT_ROWS = 10_000
"""Hosts without rows that are remembered, a kilobyte each, because a redirect may lead to one of them again."""

FIRST = 1 << 40
"""Rank of a host that a redirect names: rows that were begun are fetched first."""


@dataclass(slots=True, eq=False)
class Item:
    """A row that is being fetched: its next target, and the tries and time spent on it."""

    sample: SampleRow
    target: Target
    hops: int = 0
    """Redirects followed in this try."""
    tries: int = 0
    """Tries that failed before this one."""
    spent_s: float = 0.0
    """Seconds spent on the requests of this try."""
    resting: bool = False
    """Whether it no longer counts among the active requests of its host."""


@dataclass(slots=True)
class Origin:
    """The requests to one scheme and port of a host; a broken https says nothing about http."""

    failures: int = 0
    answered: bool = False
    verdict: tuple[Status, str] | None = None
    """The status and detail of its rows that end without a request."""


@dataclass(slots=True, eq=False)
class Host:
    """One host name."""

    name: str
    rank: tuple[int, int]
    limit: int = 1
    """Requests at a time: one until the host has answered, so that a dead host holds one worker."""
    queue: deque[Item] = field(default_factory=deque)
    active: int = 0
    num_items: int = 0
    """Items that are queued, active or waiting for a later try."""
    not_before: float = 0.0
    listed: bool = False
    """Whether it is in the list of ready hosts or in the list of those that must wait."""
    failures: int = 0
    refusals: int = 0
    verdict: tuple[Status, str] | None = None
    """The status and detail of the rows of all its origins that end without a request."""
    origins: dict[tuple[str, int], Origin] = field(default_factory=dict)
    """By scheme and port."""
    redirected: bool = False
    """Whether a redirect led here, as another may at any time."""

    def verdict_on(self, target: Target) -> tuple[Status, str] | None:
        """The status and detail of rows for `target` that end without a request; None when they are to be fetched."""
        origin = self.origins.get((target.scheme, target.port))
        return self.verdict or (None if origin is None else origin.verdict)


class Schedule:
    """Add items, then `take()` them from many workers; each ends with `finish`, `retry_later` or `move`."""

    def __init__(self, max_per_host: int, interval_s: float) -> None:
        self._max_per_host, self._interval_s = max_per_host, interval_s
        self.hosts: dict[str, Host] = {}
        self._hosts_without_rows: OrderedDict[str, None] = OrderedDict()
        """Hosts without rows, the oldest first. A redirect may lead to one of them that must wait."""
        self._untried: deque[Item] = deque()
        """Items that end without a request, and so wait for no host."""
        self._ready: list[tuple[tuple[int, int], Host]] = []
        self._timed: list[tuple[float, int, Host | Item]] = []
        self._order = itertools.count()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._num_items = 0

    def start(self, items: list[Item]) -> None:
        """Queue `items`, in their order within each host."""
        by_host: dict[str, list[Item]] = {}
        for item in items:
            by_host.setdefault(item.target.host, []).append(item)
        for name, group in by_host.items():
            host = self._host(name, len(group))
            host.queue.extend(group)
            host.num_items += len(group)
            self._list_host(host)
        self._num_items += len(items)

    def _host(self, name: str, num_items: int) -> Host:
        self._hosts_without_rows.pop(name, None)
        if name not in self.hosts:
            self.hosts[name] = Host(name, (-num_items, next(self._order)))
        return self.hosts[name]

    def _queue(self, host: Host, item: Item) -> None:
        """Put `item` at the front of the queue of `host`."""
        if host.verdict_on(item.target) is None:
            host.queue.appendleft(item)
            self._list_host(host)
        else:
            self._end_untried(item)

    def _end_untried(self, item: Item) -> None:
        item.resting = True
        self._untried.append(item)
        self._wake()

    async def take(self) -> Item | None:
        """The next item, when its host may be asked; None when none is left."""
        while True:
            item = self._next()
            if item is not None or self._num_items == 0:
                return item
            self._set_alarm()
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    def _next(self) -> Item | None:
        self._requeue_due()
        if self._untried:
            self._wake()  # another worker may find more
            return self._untried.popleft()
        while self._ready:
            host = self._ready[0][1]
            if host.queue and host.active < host.limit and not self._must_wait(host):
                host.active += 1
                if self._interval_s:
                    host.not_before = max(self._now(), host.not_before) + self._interval_s
                self._wake()  # it stays listed: another worker may find more here
                return host.queue.popleft()
            heapq.heappop(self._ready)
            host.listed = False
            self._list_host(host)
        return None

    def _must_wait(self, host: Host) -> bool:
        """Whether no request to `host` may start yet."""
        return host.not_before > 0 and host.not_before > self._now()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _list_host(self, host: Host) -> None:
        """Put the host into the list of ready hosts or of waiting hosts, if it has rows that may be fetched."""
        if host.listed or not host.queue or host.active >= host.limit:
            return
        host.listed = True
        if self._must_wait(host):
            heapq.heappush(self._timed, (host.not_before, next(self._order), host))
            return
        heapq.heappush(self._ready, (host.rank, host))
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return

    def _requeue_due(self) -> None:
        """Put items and hosts whose time has come back into their queues."""
        if not self._timed or self._timed[0][0] > self._now():
            return
        while self._timed and self._timed[0][0] <= self._now():
            due = heapq.heappop(self._timed)[2]
            if isinstance(due, Item):
                self._queue(self.hosts[due.target.host], due)
            else:
                due.listed = False
                self._list_host(due)

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._timed:
            self._alarm = asyncio.get_running_loop().call_at(self._timed[0][0], self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm = None
        self._requeue_due()
        self._wake()

    def release_host(self, item: Item) -> None:
        """`item` needs no further request although it has not ended; the next item of its host may start."""
        host = self.hosts[item.target.host]
        host.active -= 1
        item.resting = True
        self._list_host(host)

    def _remove_item(self, item: Item) -> Host:
        host = self.hosts[item.target.host]
        host.active -= not item.resting
        host.num_items -= 1
        return host

    def finish(self, item: Item) -> str | None:
        """`item` has ended; returns the name of its host if that was its last item and no redirect leads there."""
        host = self._remove_item(item)
        self._num_items -= 1
        if self._num_items == 0:
            while self._waiting:
                self._wake()
        return self._retire_host(host)

    def _retire_host(self, host: Host) -> str | None:
        if host.num_items:
            self._list_host(host)
            return None
        self._hosts_without_rows[host.name] = None
        if len(self._hosts_without_rows) > MAX_HOSTS_WITHOUT_ROWS:
            del self.hosts[self._hosts_without_rows.popitem(last=False)[0]]
        return None if host.redirected else host.name

    def retry_later(self, item: Item, seconds: float) -> None:
        """Try `item` again, not before `seconds` have passed."""
        host = self.hosts[item.target.host]
        host.active -= 1
        heapq.heappush(self._timed, (self._now() + seconds, next(self._order), item))
        self._set_alarm()
        self._list_host(host)

    def move(self, item: Item, target: Target, seconds: float = 0.0) -> str | None:
        """`item` asks for `target` next, after `seconds`; returns the host that it left, as `finish` does."""
        left = self._remove_item(item)
        item.target = target
        host = self._host(target.host, FIRST)
        host.num_items += 1
        if seconds:
            heapq.heappush(self._timed, (self._now() + seconds, next(self._order), item))
            self._set_alarm()
        else:
            host.redirected = True
            self._queue(host, item)
        return self._retire_host(left)

    def pause(self, name: str, seconds: float) -> None:
        """Start no request to host `name` before `seconds` have passed: Retry-After holds for the whole host."""
        host = self.hosts.get(name)
        if host is not None:
            host.not_before = max(host.not_before, self._now() + seconds)

    def record_end(self, item: Item, end: tuple[Status, str], answered: bool, busy: bool) -> None:
        """Record how the last request of `item` ended, and whether the host answered or asked to come later."""
        host = self.hosts[item.target.host]
        key = item.target.scheme, item.target.port
        origin = host.origins.get(key)
        if origin is None:
            origin = host.origins[key] = Origin()
        origin.failures = 0 if answered else origin.failures + 1
        host.failures = 0 if answered else host.failures + 1
        host.refusals = host.refusals + 1 if busy else 0 if answered else host.refusals
        if answered and not origin.answered:
            origin.answered, host.limit = True, self._max_per_host
        if host.refusals >= MAX_REFUSALS or host.failures >= MAX_FAILURES_OF_HOST:
            self.give_up(host.name, end)
        elif origin.failures >= (MAX_FAILURES_ONCE_REACHED if origin.answered else MAX_FAILURES):
            origin.verdict = end
            self._remove_untried(host)
        self._list_host(host)

    def give_up(self, name: str, end: tuple[Status, str]) -> None:
        """End all other rows of host `name` with the status and detail `end`, without a request."""
        host = self.hosts[name]
        host.verdict = end
        self._remove_untried(host)

    def _remove_untried(self, host: Host) -> None:
        """Take rows that will not be fetched out of the queue of `host`, where they would wait."""
        queued, host.queue = host.queue, deque()
        for item in queued:
            if host.verdict_on(item.target) is None:
                host.queue.append(item)
            else:
                self._end_untried(item)

    def verdict(self, item: Item) -> tuple[Status, str] | None:
        """The status and detail with which `item` ends without a request; None when it is to be fetched."""
        return self.hosts[item.target.host].verdict_on(item.target)
