"""Progress on standard error: a bar on a terminal, a plain line a minute elsewhere, nothing when that is asked for."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

LINE_S = 60.0
_FORMAT = "{desc}: {n_fmt} of {total_fmt} {unit}s, {rate_fmt}{postfix}, {remaining} left"


class _Settings:
    is_quiet = False


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


def bar(total: int | None, desc: str, unit: str = "row") -> tqdm[Any]:
    """Progress of `desc` on stderr towards `total` in `unit`s, with the rate and the time that is left.

    The first line outside of a terminal comes after a minute.
    """
    if is_quiet():
        return tqdm(total=total, desc=desc, unit=unit, disable=True)
    if sys.stderr.isatty():
        return tqdm(total=total, desc=desc, unit=unit, dynamic_ncols=True)
    times = {"mininterval": LINE_S, "maxinterval": LINE_S, "delay": LINE_S}
    return tqdm(total=total, desc=desc, unit=unit, file=_LineSink(), miniters=0, bar_format=_FORMAT, **times)
