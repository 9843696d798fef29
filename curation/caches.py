"""The folder of this user's caches: whatever lies there may be torn or deleted, and is then made again."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """The folder of this user's caches: below $XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "clip-curation")


def read_cached(path: Path) -> Any:
    """The JSON value in a file of the cache; None when there is none, or it is torn or unreadable."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def write_cached(path: Path, value: Any) -> None:
    """Put `value` as JSON in the place of `path` in one step. A cache that cannot be written is left as it is."""
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps(value))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
