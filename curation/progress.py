"""Progress bars that are silent when stderr is not a terminal."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def bar(total: int | None, desc: str, unit: str = "row") -> tqdm[Any]:
    """A tqdm bar on stderr, silent when stderr is not a terminal. `total` in `unit`s."""
    return tqdm(total=total, desc=desc, unit=unit, disable=not sys.stderr.isatty(), dynamic_ncols=True)
