"""A benchmark's result as a table: benchmarks/results/NAME.json for machines, NAME.md for people."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine(packages: Sequence[str] = ("duckdb", "numpy", "pyarrow", "torch")) -> dict[str, Any]:
    """Cores, processor, versions and date, which every result carries."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [s.partition(":")[2].strip() for s in cpuinfo.read_text().splitlines() if s.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": names[0] if names else platform.processor(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
        "date": datetime.date.today().isoformat(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def write(name: str, rows: list[dict[str, Any]], notes: Sequence[str], packages: Sequence[str] = ()) -> str:
    """Write both files of benchmark `name`; returns the readable one. Rows share the keys of the first."""
    about = machine(packages) if packages else machine()
    RESULTS.mkdir(exist_ok=True)
    record = {"machine": about, "notes": list(notes), "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    text = markdown(name, rows, notes, about)
    (RESULTS / f"{name}.md").write_text(text)
    return text


def markdown(name: str, rows: list[dict[str, Any]], notes: Sequence[str], about: dict[str, Any]) -> str:
    """The table, with the machine and the notes under it."""
    keys = list(rows[0])
    versions = ", ".join(f"{k} {v}" for k, v in about["versions"].items() if v)
    lines = [
        f"# {name}",
        "",
        f"{about['cores']} cores of {about['cpu']}; Python {about['python']}, {versions}; {about['date']}.",
        "",
        f"| {' | '.join(keys)} |",
        f"|{'|'.join('---' if k == keys[0] else '---:' for k in keys)}|",
        *(f"| {' | '.join(_cell(row.get(key)) for key in keys)} |" for row in rows),
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
