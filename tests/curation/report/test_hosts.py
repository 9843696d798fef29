"""The live per-host table: what running units say of themselves, and nothing of what is over or was killed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from curation.download import log as download_log
from curation.download.log import FOLDER, UnitLog
from curation.report import status_text
from curation.report.hosts import STALE_S, merge_hosts, read_running_logs, render_hosts
from curation.storage import Root


def log(root: Root, unit: str, hosts: dict[str, dict[str, int]], **changes: Any) -> None:
    statuses: dict[str, int] = {}
    for counts in hosts.values():
        for status, count in counts.items():
            statuses[status] = statuses.get(status, 0) + count
    record = {
        "unit": unit,
        "round": 0,
        "rows": 100,
        "statuses": statuses,
        "hosts": hosts,
        "num_bytes": 5,
        "running": True,
    }
    rates = {"rows_per_s": 2.5, "bytes_per_s": 1.5e6, "hosts_per_s": dict.fromkeys(hosts, 1.25)}
    root.publish_json(f"{FOLDER}/{unit}.0.json", record | {"at": time.time(), "seconds": 4.0} | rates | changes)


def test_running_units_are_summed_by_host(root: Root) -> None:
    log(root, "a-000000", {"big.test": {"ok": 30, "http_404": 9, "timeout": 1}, "": {"invalid_url": 2}})
    log(root, "a-000001", {"big.test": {"ok": 10}, "small.test": {"ok": 3}})
    text = render_hosts(root).splitlines()
    assert text[0] == "2 units are being fetched: 55 of 200 rows, 5.0 rows/s, 3.00 MB/s, 78.2 % ok:"
    assert [line.split() for line in text[1:]] == [
        ["host", "rows", "rows/s", "ok", "most", "frequent", "failure"],
        ["big.test", "50", "2.5", "80", "%", "http_404", "18", "%"],
        ["small.test", "3", "1.2", "100", "%"],
        ["(no", "host)", "2", "1.2", "0", "%", "invalid_url", "100", "%"],
    ]
    assert status_text(root).endswith(render_hosts(root))


def test_what_is_over_or_was_killed_is_not_shown(root: Root) -> None:
    log(root, "a-000000", {"big.test": {"ok": 3}}, running=False)
    log(root, "a-000001", {"big.test": {"ok": 3}}, at=time.time() - STALE_S - 1)
    assert read_running_logs(root) == [] and render_hosts(root) == ""
    assert "being fetched" not in status_text(root)


def test_only_the_largest_are_listed(root: Root) -> None:
    log(root, "a-000000", {f"h{i:02d}.test": {"ok": i + 1} for i in range(40)})
    text = render_hosts(root)
    assert "the 15 largest of 40 hosts:" in text and text.count(".test") == 15
    assert [host.name for host in merge_hosts(read_running_logs(root))][:2] == ["h39.test", "h38.test"]


def test_rates_leave_out_what_a_journal_brought_back(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1_000_000, 2_000_000, 3))
    monkeypatch.setattr(download_log.time, "time", lambda: float(next(clock)))
    seen = UnitLog(root, "a-000000", 0, 50)
    ended = {"status": "ok", "num_bytes": 100}
    waits = iter([False] * 6)

    def wait(_: float) -> bool:
        step = next(waits, None)
        for _ in range(20 if step is not None and not seen._snapshots else 3):
            seen.count_row("a.test", ended)
        return step is None

    monkeypatch.setattr(seen._stopped, "wait", wait)
    with seen:
        seen._thread.join()
    written = root.read_json(f"{FOLDER}/a-000000.0.json")
    assert written["statuses"] == {"ok": 20 + 5 * 3 + 3}
    # Two readings of this test's clock lie between snapshots: 3 rows in 6 s, none of the first 20.
    assert written["rows_per_s"] == 0.5 and written["hosts_per_s"] == {"a.test": 0.5}
    assert written["bytes_per_s"] == 50.0 and written["running"] is False
