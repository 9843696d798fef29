"""What a process and all that it started use: CPU seconds and resident bytes, sampled from /proc."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path

TICK_S = 0.05
_HERTZ, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


class ProcessTree:
    """Samples the tree below `pid` until `stop()`; kills it when it holds more than `max_bytes` or after `max_s`."""

    def __init__(self, pid: int, max_bytes: int, max_s: float) -> None:
        self._pid, self._max_bytes, self._max_s = pid, max_bytes, max_s
        self._cpu: dict[int, float] = {}
        self._history: list[tuple[float, float]] = []
        self.peak_bytes = 0
        """Of the whole tree."""
        self.peak_task_bytes = 0
        """Of the largest process with all below it, none of which is the root itself or a Java machine."""
        self.killed: str | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def cpu_s(self, began: float, ended: float) -> float:
        """CPU seconds between two moments (as time.time() has them), to the nearest sample."""
        during = [cpu for at, cpu in self._history if began - TICK_S <= at <= ended + TICK_S]
        return during[-1] - during[0] if during else 0.0

    def restart(self) -> None:
        """Memory that was held before does not count."""
        self.sample()
        self.peak_bytes = self.peak_task_bytes = 0

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        started = time.monotonic()
        while not self._over.wait(TICK_S):
            self.sample()
            if self.peak_bytes > self._max_bytes:
                self._kill(f"held {self.peak_bytes / 1e9:.1f} GB")
            elif time.monotonic() - started > self._max_s:
                self._kill(f"not done after {self._max_s:.0f} s")

    def _kill(self, why: str) -> None:
        self.killed = self.killed or why
        for pid in self._tree():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _tree(self) -> dict[int, tuple[int, str, float, int]]:
        """pid → (parent, name, CPU seconds, resident bytes) of the root and all below it."""
        seen = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                except OSError:
                    continue
                fields = rest.split()
                cpu = (int(fields[11]) + int(fields[12])) / _HERTZ
                seen[int(entry.name)] = (int(fields[1]), name, cpu, int(fields[21]) * _PAGE)
        inside = {self._pid}
        while True:
            more = {pid for pid, facts in seen.items() if facts[0] in inside} - inside
            if not more:
                return {pid: seen[pid] for pid in inside if pid in seen}
            inside |= more

    def sample(self) -> None:
        tree = self._tree()
        totals: dict[int, int] = defaultdict(int)
        for pid, (_, _, cpu, resident) in tree.items():
            self._cpu[pid] = max(cpu, self._cpu.get(pid, 0.0))
            while pid in tree and pid != self._pid and tree[pid][1] != "java":
                totals[pid] += resident
                pid = tree[pid][0]
        self._history.append((time.time(), sum(self._cpu.values())))
        self.peak_bytes = max(self.peak_bytes, sum(facts[3] for facts in tree.values()))
        # A forking daemon is above its tasks: the task is what has at most a decoder below it.
        depth_ok = [total for pid, total in totals.items() if not self._has_tasks(pid, tree)]
        self.peak_task_bytes = max([self.peak_task_bytes, *depth_ok])

    def _has_tasks(self, pid: int, tree: dict[int, tuple[int, str, float, int]]) -> bool:
        """Whether a grandchild exists: then `pid` is no task, but what starts tasks."""
        children = {child for child, facts in tree.items() if facts[0] == pid}
        return any(facts[0] in children for facts in tree.values())
