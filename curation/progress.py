"""Progress on standard error: a bar on a terminal, a plain line a minute elsewhere, nothing when that is asked for.

`list_steps` tells a run's log how far the bars are, which `curate status` shows, also of a run that says nothing.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LINE_S = 60.0
_FORMAT = "{desc}: {n_fmt} of {total_fmt} {unit}s, {rate_fmt}{postfix}, {remaining} left"


class _Settings:
    is_quiet = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far something is: `done` of `total` `unit`s, `per_s` of them a second so far."""

    desc: str
    unit: str
    done: int
    total: int
    per_s: float

    @property
    def seconds_left(self) -> float | None:
        """None while nothing is done."""
        return (self.total - self.done) / self.per_s if self.per_s else None


def be_quiet(is_quiet: bool = True) -> None:
    """Show no progress from now on, as `--quiet` asks."""
    _Settings.is_quiet = is_quiet


def is_quiet() -> bool:
    """Whether no progress is shown."""
    return _Settings.is_quiet


class _LineSink:
    """Standard error for a bar whose every state is a line of text, for logs and pipes."""

    def write(self, text: str) -> None:
        """Write what is left of `text` without the returns that a terminal needs."""
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


class _NoSink:
    """Takes what a bar says that nobody is to see."""

    def write(self, text: str) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""


_open_bars: weakref.WeakSet[tqdm[Any]] = weakref.WeakSet()


def bar(total: int | None, desc: str, unit: str = "row") -> tqdm[Any]:
    """Progress of `desc` on stderr towards `total` in `unit`s, with the rate and the time that is left.

    The first line outside of a terminal comes after a minute.
    """
    made = _make_bar(total, desc, unit)
    _open_bars.add(made)
    return made


def _make_bar(total: int | None, desc: str, unit: str) -> tqdm[Any]:
    if sys.stderr.isatty() and not is_quiet():
        return tqdm(total=total, desc=desc, unit=unit, dynamic_ncols=True)
    times = {"mininterval": LINE_S, "maxinterval": LINE_S, "delay": LINE_S}
    # A bar inside another one would move the cursor of a terminal, by an escape sequence; at position 0 none does.
    lines = {"file": _NoSink() if is_quiet() else _LineSink(), "position": 0, "bar_format": _FORMAT}
    return tqdm(total=total, desc=desc, unit=unit, miniters=0, **lines, **times)


def track(items: Iterable[Item], total: int, desc: str, unit: str) -> Iterator[Item]:
    """`items`, of which there are `total`, with the progress of `desc` while they are taken."""
    with bar(total, desc, unit) as progress:
        for item in items:
            yield item
            progress.update()


def list_steps() -> list[Step]:
    """How far the bars are that are open now; those of unknown length are left out."""
    shown = [one.format_dict for one in list(_open_bars) if not one.disable and one.total is not None]
    return sorted(map(_describe, shown), key=lambda step: step.desc)


def _describe(shown: dict[str, Any]) -> Step:
    desc, done, seconds = str(shown["prefix"]), int(shown["n"]), float(shown["elapsed"])
    per_s = round(done / seconds, 4) if seconds else 0.0
    return Step(
        desc=desc.removesuffix(": "), unit=str(shown["unit"]), done=done, total=int(shown["total"]), per_s=per_s
    )
