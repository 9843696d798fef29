"""A folder of blocks read from remote shards, shared by the processes of a node, with a cap on its size.

A block holds the bytes of `block_rows` consecutive rows of one selection, so it is as sparse or dense as the selection
is, and any order over those rows finds it again.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from curation.errors import UserError

EVICT_TO = 0.9
"""Share of the cap that is left after the blocks unused for longest have been deleted."""
_USAGE = "usage"
Error = TypeVar("Error", bound=Exception)


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Where blocks of remote shards are kept, and the most bytes of them, over all selections in that folder."""

    folder: Path
    max_bytes: int = 100 << 30
    block_rows: int = 64

    def __post_init__(self) -> None:
        if self.max_bytes < 1 or self.block_rows < 1:
            raise UserError(
                f"A cache needs positive max_bytes and block_rows, not {self.max_bytes}, {self.block_rows}."
            )


class BlockCache:
    """The blocks of one selection (`digest`)."""

    def __init__(self, cache: Cache, digest: str) -> None:
        self.cache = cache
        self.folder = Path(cache.folder, "blocks", digest)
        self.folder.mkdir(parents=True, exist_ok=True)

    def read(
        self, rows: np.ndarray, num_rows: int, fetch: Callable[[np.ndarray], list[bytes | Error]]
    ) -> list[memoryview | Error]:
        """The bytes of `rows`. `fetch(rows of a block)` gets what no file holds; a block with an error is not kept."""
        blocks = rows // self.cache.block_rows
        found: list[memoryview | Error | None] = [None] * len(rows)
        for block in np.unique(blocks):
            first = int(block) * self.cache.block_rows
            members = np.arange(first, min(first + self.cache.block_rows, num_rows))
            items = self._read_block(int(block), members, fetch)
            for position in np.flatnonzero(blocks == block):
                found[position] = items[int(rows[position]) - first]
        return [item for item in found if item is not None]

    def _read_block(
        self, block: int, members: np.ndarray, fetch: Callable[[np.ndarray], list[bytes | Error]]
    ) -> list[memoryview | Error]:
        path = self.folder / f"{block}.block"
        kept = _read_file(path, len(members))
        if kept is None:
            # Processes that want the same block wait for the one that fetches it.
            with open(self.folder / f"{block % 64}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                kept = _read_file(path, len(members))
                if kept is None:
                    items = fetch(members)
                    whole = [item for item in items if isinstance(item, bytes)]
                    if len(whole) == len(items):
                        self._write_file(path, whole)
                    return [memoryview(item) if isinstance(item, bytes) else item for item in items]
        return list(kept)

    def _write_file(self, path: Path, items: list[bytes]) -> None:
        header = struct.pack(f"<I{len(items)}I", len(items), *map(len, items))
        content = header + b"".join(items)
        if len(content) > self.cache.max_bytes:
            return
        self._account_for(len(content))
        temporary = path.with_suffix(f".tmp-{os.getpid()}")
        temporary.write_bytes(content)
        temporary.rename(path)

    def _account_for(self, num_bytes: int) -> None:
        """Account for `num_bytes` more, deleting the blocks unused for longest when they would pass the cap."""
        with open(Path(self.cache.folder, _USAGE), "a+b") as usage:
            fcntl.flock(usage, fcntl.LOCK_EX)
            usage.seek(0)
            noted = usage.read() or b"0"
            # What is torn is counted anew.
            total = (int(noted) if noted.isdigit() else self._evict(self.cache.max_bytes)) + num_bytes
            if total > self.cache.max_bytes:
                total = self._evict(int(self.cache.max_bytes * EVICT_TO) - num_bytes) + num_bytes
            usage.truncate(0)
            usage.write(str(total).encode())

    def _evict(self, target: int) -> int:
        """Delete the oldest blocks of every selection until at most `target` bytes are left; the bytes left."""
        stats = []
        for path in Path(self.cache.folder, "blocks").glob("*/*.block"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            stats.append((stat.st_mtime_ns, stat.st_size, path))
        left = sum(size for _, size, _ in stats)
        for _, size, path in sorted(stats):
            if left <= target:
                break
            path.unlink(missing_ok=True)
            left -= size
        return left


def _read_file(path: Path, num_items: int) -> list[memoryview] | None:
    """The items of a block, None when there is no such file or it is torn, or of another number of items."""
    try:
        content = memoryview(path.read_bytes())
        os.utime(path)
    except FileNotFoundError:
        return None
    start = 4 * (num_items + 1)
    if len(content) < start or struct.unpack_from("<I", content)[0] != num_items:
        return None
    sizes = np.array(struct.unpack_from(f"<{num_items}I", content, 4), np.int64)
    stops = np.cumsum(sizes) + start
    if len(content) != start + int(sizes.sum()):
        return None
    return [content[stop - size : stop] for size, stop in zip(sizes.tolist(), stops.tolist(), strict=True)]
