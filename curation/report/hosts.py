"""The hosts of a running download: rows, rate and failures, shown by `curate status`.

It reads the logs of running units in ROOT/logs/download, which are at most a few seconds old.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from curation.download.log import FOLDER, INTERVAL_S, read_logs
from curation.storage import Root

NUM_SHOWN = 15
STALE_S = 10 * INTERVAL_S
"""A running unit updates its log more often, so an older log that says "running" is from a killed task."""
HEADER = ("host", "rows", "rows/s", "ok", "most frequent failure")


@dataclass
class Host:
    """The ended rows of one registered domain in running units. `rows_per_s` is over the last half minute."""

    name: str
    statuses: Counter[str] = field(default_factory=Counter)
    rows_per_s: float = 0.0

    @property
    def num_rows(self) -> int:
        return self.statuses.total()

    @property
    def ok_share(self) -> float:
        return self.statuses["ok"] / self.num_rows

    @property
    def top_failure(self) -> tuple[str, float] | None:
        """The most frequent status other than ok, and its share of the host's rows; None without a failure."""
        failed = [(-count, status) for status, count in self.statuses.items() if status != "ok" and count]
        return (min(failed)[1], -min(failed)[0] / self.num_rows) if failed else None


def read_running_logs(root: Root) -> list[dict[str, Any]]:
    """The logs of the units that are being fetched."""
    logs = read_logs(root, root.list(FOLDER, ".json"))
    oldest = time.time() - STALE_S
    return [log for log in logs if log.get("running") and log["at"] >= oldest]


def merge_hosts(logs: list[dict[str, Any]]) -> list[Host]:
    """The hosts of all `logs`, those with the most ended rows first."""
    by_name: dict[str, Host] = {}
    for log in logs:
        for name, statuses in log["hosts"].items():
            host = by_name.setdefault(name, Host(name))
            host.statuses.update(statuses)
            host.rows_per_s += log.get("hosts_per_s", {}).get(name, 0.0)
    return sorted((host for host in by_name.values() if host.num_rows), key=lambda host: (-host.num_rows, host.name))


def render_hosts(root: Root) -> str:
    """The running download in one line and a table of its largest hosts; empty when no download runs."""
    logs = read_running_logs(root)
    if not logs:
        return ""
    hosts = merge_hosts(logs)
    lines = [_render_headline(logs, len(hosts)), *_render_table(hosts[:NUM_SHOWN])]
    return "\n".join(lines) + "\n"


def _render_headline(logs: list[dict[str, Any]], num_hosts: int) -> str:
    statuses = sum((Counter(log["statuses"]) for log in logs), Counter[str]())
    total, planned = statuses.total(), sum(log["rows"] for log in logs)
    rows_per_s, bytes_per_s = (sum(log.get(key) or 0.0 for log in logs) for key in ("rows_per_s", "bytes_per_s"))
    share = f", {100 * statuses['ok'] / total:.1f} % ok" if total else ""
    units = "1 unit is" if len(logs) == 1 else f"{len(logs):,} units are"
    listed = f"; the {NUM_SHOWN} largest of {num_hosts:,} hosts:" if num_hosts > NUM_SHOWN else ":"
    return (
        f"{units} being fetched: {total:,} of {planned:,} rows, {rows_per_s:,.1f} rows/s, "
        f"{bytes_per_s / 1e6:,.2f} MB/s{share}{listed}"
    )


def _render_table(hosts: list[Host]) -> list[str]:
    cells = [HEADER, *(_format_host(host) for host in hosts)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEADER))]
    rows = ([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3)), row[4]] for row in cells)
    return [("  " + "  ".join(row)).rstrip() for row in rows]


def _format_host(host: Host) -> tuple[str, ...]:
    failure = host.top_failure
    cell = f"{failure[0]} {100 * failure[1]:.0f} %" if failure else ""
    name = host.name or "(no host)"
    return (name, f"{host.num_rows:,}", f"{host.rows_per_s:,.1f}", f"{100 * host.ok_share:.0f} %", cell)
