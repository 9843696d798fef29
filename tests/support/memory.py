"""The memory of a process, by /proc: `ru_maxrss` of a process begins with what its parent held when it was started."""

from __future__ import annotations

from pathlib import Path


def memory_bytes(field: str, pid: int | str = "self") -> int:
    """Bytes of a process: "VmRSS" now, "VmHWM" at most since it began its program."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:"))) << 10
