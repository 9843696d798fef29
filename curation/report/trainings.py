"""Runs of the trainer and what they recorded: `metrics.jsonl` under the root, or in folders that are named."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation.errors import UserError
from curation.garbage import VERSIONED
from curation.storage import Root
from curation.tables import DOWNLOADS, PLANS, RAW, REJECTS, SAMPLES, SCORES, is_embeddings

FILE = "metrics.jsonl"
MAX_BYTES = 1 << 30
"""Of one file of records; a run of a million steps writes 0.4 GB."""
MAX_RUNS = 12
MAX_MEASURED = 24
CURVES = ("loss", "lr", "samples_per_s", "grad_norm")
_COUNTS = re.compile(r"(^|/)num_|/count$|^seconds$|^samples$")
Point = tuple[float, float]


@dataclass(kw_only=True)
class Training:
    """The records of one run: points (step, value) of each curve, of what evaluations `measured`, and totals."""

    name: str
    steps: dict[str, list[Point]] = field(default_factory=dict)
    measured: dict[str, list[Point]] = field(default_factory=dict)
    last_step: int = 0
    num_samples: int = 0
    num_skipped: int = 0
    hours: float = 0.0


def check_runs(folders: Sequence[str | Path]) -> None:
    """Raise UserError for the first of `folders` that has no records of a training."""
    for folder in map(Path, folders):
        if not (folder / FILE).is_file():
            raise UserError(f"{folder} has no {FILE}, so it is no run of a training: name the `folder` of its run.")


def find_trainings(root: Root, named: Sequence[str | Path]) -> list[Training]:
    """The runs in the folders `named`, and those under `root`, two folders deep at most.

    Raises UserError for a named folder without records.
    """
    check_runs(named)
    found = [_read(Path(folder) / FILE, str(folder)) for folder in named]
    local = root.local()
    folders = [] if local is None else [*_find_folders(root, local)]
    known = {Path(folder).resolve() for folder in named}
    here = [folder for folder in folders if folder.resolve() not in known]
    return found + [_read(folder / FILE, str(folder.relative_to(local or folder))) for folder in here[-MAX_RUNS:]]


def _find_folders(root: Root, local: Path) -> Iterator[Path]:
    """Folders of runs under a root on this machine, those of its tables left out."""
    for name in root.folders():
        if not _is_table(name):
            files = [*(local / name).glob(FILE), *(local / name).glob(f"*/{FILE}"), *(local / name).glob(f"*/*/{FILE}")]
            # A root may come from somebody else: no link leads out of it.
            yield from sorted(file.parent for file in files if file.resolve().is_relative_to(local.resolve()))


def _is_table(name: str) -> bool:
    tables = (PLANS, SAMPLES, REJECTS, DOWNLOADS, RAW, "logs", "sums", *VERSIONED)
    return name in tables or name.startswith((SCORES, ".")) or is_embeddings(name)


def _read(file: Path, name: str) -> Training:
    if file.stat().st_size > MAX_BYTES:
        raise UserError(f"{file} has more than {MAX_BYTES:,} bytes, which no run writes: move it away.")
    training = Training(name=name)
    with file.open(encoding="utf-8", errors="replace") as lines:
        for record in _parse(lines):
            _add(training, record)
    return training


def _parse(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The whole records; a kill may have cut a line."""
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and _is_number(record.get("step")):
            yield record


def _add(training: Training, record: dict[str, Any]) -> None:
    step = float(record["step"])
    if "loss" not in record:
        for name, value in record.items():
            is_wanted = name in training.measured or len(training.measured) < MAX_MEASURED
            if name != "step" and _is_number(value) and not _COUNTS.search(name) and is_wanted:
                _append(training.measured.setdefault(name, []), step, value)
        return
    for name in CURVES:
        if _is_number(record.get(name)):
            _append(training.steps.setdefault(name, []), step, record[name])
    training.last_step = int(step)
    training.num_samples, training.num_skipped = (
        int(record[name]) if _is_number(record.get(name)) else 0 for name in ("samples", "num_skipped")
    )
    training.hours += record["step_time_s"] / 3600 if _is_number(record.get("step_time_s")) else 0.0


def _append(points: list[Point], step: float, value: float) -> None:
    """Add a point. Of a step that a resumed run took again, the last record counts."""
    while points and points[-1][0] >= step:
        points.pop()
    points.append((step, float(value)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
