"""Files of a store that are read piece by piece, from front to back, by blocks that are kept for the next pieces.

A packed file holds hundreds of units, and an object store answers a request for one of them no faster than one for a
few megabytes. Whoever reads units in their order gets most of them from a block that was fetched before.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future

BLOCK_BYTES = 4 << 20
NUM_BLOCKS = 24
"""Blocks that are kept: some for each table that is read side by side."""
MAX_PIECE = BLOCK_BYTES // 4
"""Larger pieces are worth a request each."""
Fetch = Callable[[str, int, int], bytes]
"""Reads a file from an offset so many bytes, fewer where it ends."""


class Blocks:
    """The blocks that were fetched last. Threads that want the same one wait for the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: dict[str, int] = {}
        """File → where the piece ended that was read of it last."""
        self._kept: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()

    def clear(self) -> None:
        """Forget every block: a file may have been replaced."""
        with self._lock:
            self._ends.clear()
            self._kept.clear()

    def read(self, fetch: Fetch, file: str, offset: int, size: int) -> bytes:
        """`size` bytes of `file` from `offset`. Raises what `fetch` raises.

        A piece that is not near the one before is fetched alone.
        """
        with self._lock:
            last = self._ends.get(file)
            self._ends[file] = offset + size
        if last is None or abs(offset - last) > BLOCK_BYTES or size > MAX_PIECE:
            return fetch(file, offset, size)
        first, stop = offset // BLOCK_BYTES, (offset + size - 1) // BLOCK_BYTES + 1
        data = b"".join(self._read_block(fetch, file, number) for number in range(first, stop))
        start = offset - first * BLOCK_BYTES
        return data[start : start + size]

    def _read_block(self, fetch: Fetch, file: str, number: int) -> bytes:
        key = file, number
        with self._lock:
            kept = self._kept.get(key)
            mine = kept is None
            if kept is None:
                kept = self._kept[key] = Future()
                while len(self._kept) > NUM_BLOCKS:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(key)
        if mine:
            try:
                kept.set_result(fetch(file, number * BLOCK_BYTES, BLOCK_BYTES))
            except BaseException as error:
                with self._lock:
                    if self._kept.get(key) is kept:
                        del self._kept[key]
                kept.set_exception(error)
        return kept.result()
