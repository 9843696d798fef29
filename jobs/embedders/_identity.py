"""Which model made vectors: its name, and for files the content of each of them.

Two checkpoints of one architecture have files of equal names and sizes, so that only their content tells them apart.
The sha256 of a file is kept in the cache folder until the file changes: a checkpoint is read once on a machine.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from curation.caches import cache_folder, read_cached, write_cached
from curation.storage import fingerprint

BY_CONTENT = "sha256-"
"""Begins what is said of a file or folder by content; earlier versions knew the sizes of its files only."""


def identify_model(model: str) -> str:
    """What the vectors depend on: a name, or the name of a file or folder with a digest of its files."""
    path = Path(model)
    if not path.exists():
        return model.replace("_", "-")
    files = _list_files(path)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sums = list(pool.map(_sum_file, files))
    named = [[str(file.relative_to(path)), found] for file, found in zip(files, sums, strict=True)]
    return f"{path.name}:{BY_CONTENT}{fingerprint(named)}"


def is_same_model(recorded: str, model: str) -> bool:
    """Whether `recorded` is what `identify_model` says of `model`, or what an earlier version would have said."""
    path = Path(model)
    if recorded.startswith(f"{path.name}:") and BY_CONTENT not in recorded and path.exists():
        return recorded == f"{path.name}:{fingerprint([[f.name, f.stat().st_size] for f in _list_files(path)])}"
    return recorded == identify_model(model)


def _list_files(path: Path) -> list[Path]:
    return sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]


def _sum_file(path: Path) -> str:
    """The sha256 of a file, from the cache where size and times are as they were when it was read."""
    found = path.stat()
    state = [str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    kept = cache_folder() / "models" / f"{fingerprint(state)}.json"
    known = read_cached(kept)
    if isinstance(known, dict) and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    with open(path, "rb") as f:
        sha256 = hashlib.file_digest(f, "sha256").hexdigest()
    write_cached(kept, {"path": state[0], "sha256": sha256})
    return sha256
