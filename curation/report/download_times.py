"""Rows that a download ended, by time and status, from the logs of its units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from curation.download.log import FOLDER, read_logs
from curation.storage import Root

MAX_LOGS = 10_000
"""Logs that are read; of more, some that are spread evenly over them."""
NUM_TIMES = 60
NUM_READERS = 16


@dataclass(frozen=True, kw_only=True)
class Times:
    """Rows by status in times of `width` seconds each, from `start` (seconds since 1970) on.

    The counts are multiplied by `every`: so many logs stand behind each one that was read.
    """

    start: float
    width: float
    statuses: Sequence[dict[str, float]]
    every: int = 1

    @property
    def totals(self) -> dict[str, int]:
        """Rows by status over all times."""
        names = {name for counts in self.statuses for name in counts}
        return {name: round(sum(counts.get(name, 0.0) for counts in self.statuses)) for name in names}


def read_times(root: Root) -> Times | None:
    """The rows over time; None without a log of a unit that ended a row."""
    names = root.list(FOLDER, ".json")
    every = max(1, math.ceil(len(names) / MAX_LOGS))
    with ThreadPoolExecutor(NUM_READERS) as pool:
        read = pool.map(lambda name: [_shorten(log) for log in read_logs(root, [name])], names[::every])
        logs = [log for found in read for log in found if log is not None]
    if not logs:
        return None
    start, end = min(begin for begin, _, _ in logs), max(end for _, end, _ in logs)
    width = max(end - start, 1e-3) / NUM_TIMES
    times = [dict[str, float]() for _ in range(NUM_TIMES)]
    for begin, until, statuses in logs:
        _spread(times, (begin - start) / width, (until - start) / width, statuses, every)
    return Times(start=start, width=width, statuses=times, every=every)


def _shorten(log: dict[str, Any]) -> tuple[float, float, dict[str, int]] | None:
    """When the unit began and ended, and its rows by status; None where no row ended."""
    seconds = log.get("seconds")
    is_known = isinstance(seconds, int | float) and math.isfinite(seconds) and math.isfinite(log["at"])
    if not is_known or not any(log["statuses"].values()):
        return None
    return log["at"] - max(seconds or 0.0, 0.0), log["at"], log["statuses"]


def _spread(times: list[dict[str, float]], begin: float, end: float, statuses: dict[str, int], every: int) -> None:
    """Add the rows of one unit to the times between `begin` and `end`, each by its share."""
    first, last = min(int(begin), len(times) - 1), min(int(end), len(times) - 1)
    length = end - begin
    for place in range(first, last + 1):
        share = (min(end, place + 1) - max(begin, place)) / length if length > 0 and last > first else 1.0
        for status, count in statuses.items():
            times[place][status] = times[place].get(status, 0.0) + count * every * share
