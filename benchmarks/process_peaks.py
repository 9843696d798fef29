"""What one command and all below it took: seconds, CPU seconds, and the peak memory of its driver, Java and workers.

The peak of a process is what the kernel recorded of it (VmHWM), so that short peaks count too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

POLL_S = 0.25
_HERTZ = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """One process as /proc has it."""

    parent: int
    name: str
    cpu_s: float
    peak_bytes: int


def read_processes() -> dict[int, Process]:
    """Every process of this machine that can be read, by its number."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                status = (entry / "status").read_text()
            except OSError:
                continue
            fields = rest.split()
            peak = next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")), 0)
            cpu_s = (int(fields[11]) + int(fields[12])) / _HERTZ
            found[int(entry.name)] = Process(int(fields[1]), name, cpu_s, peak)
    return found


def find_below(pid: int, processes: Mapping[int, Process]) -> set[int]:
    """`pid` and every process below it."""
    below = {pid}
    while added := {child for child, process in processes.items() if process.parent in below} - below:
        below |= added
    return below


def measure(command: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[dict[str, Any], str]:
    """Run `command`; what it took and what it wrote to standard output. Ends the benchmark when it fails.

    `driver MB` is of the command itself, `Java MB` of the Java process below it, `worker MB` of the largest other one.
    """
    peaks, cpu = {"driver": 0, "Java": 0, "worker": 0}, dict[int, float]()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    with process:
        while process.poll() is None:
            processes = read_processes()
            for pid in find_below(process.pid, processes) & processes.keys():
                one = processes[pid]
                kind = "driver" if pid == process.pid else "Java" if one.name == "java" else "worker"
                peaks[kind] = max(peaks[kind], one.peak_bytes)
                cpu[pid] = max(cpu.get(pid, 0.0), one.cpu_s)
            time.sleep(POLL_S)
        seconds = time.perf_counter() - started
        out, said = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(command)}: {said[-2000:]}")
    memory = {f"{kind} MB": round(peak / 1e6) for kind, peak in peaks.items()}
    return {"seconds": seconds, "CPU s": sum(cpu.values()), **memory}, out
