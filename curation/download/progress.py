"""The progress bar of `curate download`: rows, rate, share of pictures that came, most frequent failures, time left.

It reads the logs of running units in ROOT/logs/download.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from curation.download.log import FOLDER, read_logs
from curation.progress import bar
from curation.storage import Root

READ_EVERY_S = 3.0
READING_SHARE = 0.05
"""At most this share of the time is spent on reading logs, however many units there are."""
NUM_REASONS = 3


class DownloadBar:
    """Call it often while units run. `num_rows` maps each unit of this round to the number of rows it has to end."""

    def __init__(self, root: Root, fetch_round: int, num_rows: Mapping[str, int]) -> None:
        self._root, self._round, self._num_rows = root, fetch_round, num_rows
        self._ended: Counter[str] = Counter()
        self._finished: set[str] = set()
        self._started = time.time()
        self._next = 0.0

    def __enter__(self) -> DownloadBar:
        desc = f"round {self._round}" if self._round else "download"
        self._bar = bar(sum(self._num_rows.values()), desc, "row")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._next = 0.0
        self()
        self._bar.close()

    def __call__(self) -> None:
        """Show the counts of the logs, at most once in READ_EVERY_S seconds."""
        started = time.monotonic()
        if started < self._next:
            return
        running: Counter[str] = Counter()
        for log in self._logs():
            if log["running"]:
                running.update(log["statuses"])
            else:
                self._finished.add(log["unit"])
                self._ended.update(log["statuses"])
        counts = self._ended + running
        self._bar.set_postfix_str(summarise(counts), refresh=False)
        self._bar.update(counts.total() - self._bar.n)
        now = time.monotonic()
        self._next = now + max(READ_EVERY_S, (now - started) / READING_SHARE)

    def _logs(self) -> list[dict[str, Any]]:
        """Logs of this run's units that were still running when they were last read."""
        suffix = f".{self._round}.json"
        names = (name.removesuffix(suffix) for name in self._root.list(FOLDER, suffix))
        units = (name for name in names if name in self._num_rows and name not in self._finished)
        logs = read_logs(self._root, [f"{unit}{suffix}" for unit in units])
        return [log for log in logs if log["at"] >= self._started]


def summarise(counts: Mapping[str, int]) -> str:
    """`ok 71 % · http_404 12 %, dns 9 %, timeout 3 %`: the shares of ended rows by status."""
    total = sum(counts.values())
    if not total:
        return ""
    failed = sorted(((n, s) for s, n in counts.items() if s != "ok" and n), key=lambda pair: (-pair[0], pair[1]))
    reasons = ", ".join(f"{status} {100 * count / total:.0f} %" for count, status in failed[:NUM_REASONS])
    return f"ok {100 * counts.get('ok', 0) / total:.0f} %" + (f" · {reasons}" if reasons else "")
