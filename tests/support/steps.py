"""How much Python runs, in lines: what a machine that is slow or busy does not change, as seconds would be."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def count_lines(work: Callable[[], object], module: str) -> int:
    """Lines of the module of that dotted name that run during `work()`, each as often as it does."""
    num_lines = 0

    def count(_: FrameType, event: str, __: Any) -> Any:
        nonlocal num_lines
        num_lines += event == "line"
        return count

    def enter(frame: FrameType, _: str, __: Any) -> Any:
        return count if frame.f_globals.get("__name__") == module else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        work()
    finally:
        sys.settrace(before)
    return num_lines
