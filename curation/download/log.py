"""The log of a unit while it is fetched: logs/download/UNIT.ROUND.json, rewritten every few seconds.

The progress bar and `curate status` read it; nothing reads it for decisions.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from curation.errors import UserError
from curation.records import NUMBER, Kinds, are_counts
from curation.schema import DownloadRow
from curation.storage import Root

FOLDER = "logs/download"
LOG: Kinds = {"rows": int, "at": NUMBER, "statuses": dict, "hosts": dict}
INTERVAL_S = 3.0
MAX_HOSTS = 200
"""Hosts that a log names. A host belongs to one unit, so the largest hosts of all are the largest of their units."""
NUM_SNAPSHOTS = 11
"""Rates are taken over the last ten intervals, so that rows which come back from a journal do not count as fast."""


def read_logs(root: Root, names: Iterable[str]) -> list[dict[str, Any]]:
    """The logs called `names` that are whole; what another one says is of no use, and no reason to stop."""
    logs = []
    for name in names:
        with contextlib.suppress(UserError, FileNotFoundError):
            log = root.read_record(f"{FOLDER}/{name}", LOG)
            if are_counts(log["statuses"]) and all(map(are_counts, log["hosts"].values())):
                logs.append(log)
    return logs


class UnitLog:
    """Counts ended rows by status and by host; use as a context manager around the work on one unit.

    `num_rows` is the number of rows that this round has to end in the unit.
    """

    def __init__(self, root: Root, unit: str, fetch_round: int, num_rows: int) -> None:
        self._root, self._path = root, f"{FOLDER}/{unit}.{fetch_round}.json"
        self._facts = {"unit": unit, "round": fetch_round, "rows": num_rows}
        self._statuses: Counter[str] = Counter()
        self._hosts: dict[str, Counter[str]] = {}
        self._num_bytes = 0
        self._snapshots: deque[tuple[float, int, int, dict[str, int]]] = deque(maxlen=NUM_SNAPSHOTS)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._publish_often, name="download-log", daemon=True)

    def count_row(self, domain: str | None, row: DownloadRow) -> None:
        """Count one ended `row` under its registered domain."""
        self._statuses[row["status"]] += 1
        host = self._hosts.get(domain or "")
        if host is None:
            host = self._hosts[domain or ""] = Counter()
        host[row["status"]] += 1
        self._num_bytes += row["num_bytes"] or 0

    def __enter__(self) -> UnitLog:
        self._started = time.time()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # a full disk, for example, must not fail the unit because of its log
            self._publish(running=False)

    def _publish_often(self) -> None:
        while True:
            with contextlib.suppress(Exception):
                self._publish(running=True)
            if self._stopped.wait(INTERVAL_S):
                return
            totals = {name: counts.total() for name, counts in list(self._hosts.items())}
            self._snapshots.append((time.time(), sum(totals.values()), self._num_bytes, totals))

    def _rates(self, hosts: list[str]) -> dict[str, Any]:
        """Rows and bytes a second over the snapshots, in total and of each of `hosts`; None before two snapshots."""
        if len(self._snapshots) < 2:
            return {"rows_per_s": None, "bytes_per_s": None, "hosts_per_s": {}}
        (begin, rows, num_bytes, earlier), (end, rows_now, num_bytes_now, now) = self._snapshots[0], self._snapshots[-1]
        seconds = max(end - begin, 1e-3)
        per_host = {name: round((now.get(name, 0) - earlier.get(name, 0)) / seconds, 3) for name in hosts}
        rows_per_s, bytes_per_s = (rows_now - rows) / seconds, (num_bytes_now - num_bytes) / seconds
        return {"rows_per_s": round(rows_per_s, 3), "bytes_per_s": round(bytes_per_s, 1), "hosts_per_s": per_host}

    def _publish(self, running: bool) -> None:
        now = time.time()
        # `list` of a dict's items is one step of the interpreter: the other thread may go on counting.
        largest = sorted(list(self._hosts.items()), key=lambda item: (-item[1].total(), item[0]))[:MAX_HOSTS]
        seen = {
            "statuses": dict(self._statuses),
            "hosts": {name: dict(counts) for name, counts in largest},
            "num_hosts": len(self._hosts),
            "num_bytes": self._num_bytes,
            "running": running,
            "at": round(now, 3),
            "seconds": round(now - self._started, 3),
        }
        self._root.publish_json(self._path, self._facts | seen | self._rates([name for name, _ in largest]))
