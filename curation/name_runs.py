"""Long lists of file names that differ in their numbers alone, as runs: `selection/FP/BATCH-{000000..229999}.parquet`.

A current.json that named each of 230,000 files would be 10 MB, read by every command.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

MIN_NAMES = 1_000
"""Shorter runs are written name by name, as earlier versions of this project wrote all of them."""
MAX_NAMES = 50_000_000
_NAME = re.compile(r"(.+-)(\d{6,})(\.[a-z]+)")
_RUN = re.compile(r"(.+-)\{(\d{6,})\.\.(\d{6,})\}(\.[a-z]+)")


def fold_names(names: Iterable[str]) -> list[str]:
    """`names` in their order, each run of at least MIN_NAMES consecutive numbers as one text."""
    return [text for run in _find_runs(names) for text in (run if len(run) < MIN_NAMES else [_fold(run)])]


def _find_runs(names: Iterable[str]) -> Iterator[list[str]]:
    for _, run in groupby(enumerate(names), lambda item: _run_key(*item)):
        yield [name for _, name in run]


def _run_key(place: int, name: str) -> tuple[str, str, int]:
    """What the names of one run share: their number grows by one from each place to the next."""
    parts = _NAME.fullmatch(name)
    if parts is None or f"{int(parts[2]):06d}" != parts[2]:
        return name, "", place
    return parts[1], parts[3], int(parts[2]) - place


def _fold(run: Sequence[str]) -> str:
    first, last = _NAME.fullmatch(run[0]), _NAME.fullmatch(run[-1])
    assert first is not None and last is not None
    return f"{first[1]}{{{first[2]}..{last[2]}}}{first[3]}"


def expand_names(texts: Iterable[str]) -> list[str]:
    """The names that `fold_names` has folded. Raises ValueError for a run of more than MAX_NAMES."""
    return [name for text in texts for name in _expand(text)]


def _expand(text: str) -> list[str]:
    run = _RUN.fullmatch(text)
    if run is None:
        return [text]
    first, last = int(run[2]), int(run[3])
    if last - first >= MAX_NAMES:
        raise ValueError(f"{text} names more than {MAX_NAMES:,} files")
    return [f"{run[1]}{number:06d}{run[4]}" for number in range(first, last + 1)]
