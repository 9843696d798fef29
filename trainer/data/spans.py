"""Which byte ranges to read: neighbours are joined where reading the gap costs less than another request."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_SPAN_BYTES = 32 << 20
"""A longer span is split, so that no read holds more than this."""


@dataclass(frozen=True)
class ReadPlan:
    """Spans to read, and where each extent lies in them.

    `shard`, `start`, `stop` `[num_spans]`; `span`, `inside` `[num_extents]`: extent k begins `inside[k]` bytes into
    span `span[k]`.
    """

    shard: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    span: np.ndarray
    inside: np.ndarray

    @property
    def num_bytes(self) -> int:
        return int((self.stop - self.start).sum())


class ReadCost:
    """The measured time of a read, seconds = per_read + per_byte · bytes: least squares over recent reads.

    Older reads fade with a half-life of about 700 reads. Starts from a guess, which counts as a few reads.
    """

    DECAY = 0.999
    PRIOR_READS = 8.0

    def __init__(self, per_read_s: float, bytes_per_s: float) -> None:
        self._lock = threading.Lock()
        sizes = np.array([0.0, 1 << 20])
        seconds = per_read_s + sizes / bytes_per_s
        self._sums = self.PRIOR_READS / 2 * self._moments(sizes, seconds).sum(axis=1)
        self._floor = (per_read_s / 20, 0.05 / bytes_per_s)

    @staticmethod
    def _moments(size: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        return np.stack([np.ones_like(size), size, seconds, size * size, size * seconds])

    def observe(self, num_bytes: Sequence[int], seconds: Sequence[float]) -> None:
        """Take reads into account: bytes and seconds of each."""
        fresh = self._moments(np.array(num_bytes, np.float64), np.array(seconds)).sum(axis=1)
        with self._lock:
            self._sums = self._sums * self.DECAY ** len(num_bytes) + fresh

    @property
    def max_gap_bytes(self) -> int:
        """Gap whose bytes take as long to read as starting another read."""
        count, size, seconds, squares, products = self._sums
        spread = count * squares - size * size
        per_byte = max(self._floor[1], (count * products - size * seconds) / spread) if spread > 0 else self._floor[1]
        per_read = max(self._floor[0], (seconds - per_byte * size) / count)
        return int(per_read / per_byte)


def plan_reads(shard: np.ndarray, start: np.ndarray, stop: np.ndarray, max_gap: int, max_ratio: float) -> ReadPlan:
    """Join extents `[start, stop)` of each shard into spans.

    The smallest gaps are joined first, none above `max_gap` bytes, while bytes read ≤ `max_ratio` · bytes needed.
    Extents may come in any order and overlap; all arrays int64 `[n]`, n ≥ 1.
    """
    order = np.lexsort((start, shard))
    shard, start, stop = shard[order], start[order], stop[order]
    same = shard[1:] == shard[:-1]
    gap = start[1:] - stop[:-1]
    most_between = (max_ratio - 1) * int((stop - start).sum())
    joined = _choose_joined(np.where(same, gap, max_gap + 1), max_gap, most_between)
    first = np.concatenate([[True], ~joined])
    first |= _find_splits(start, stop, first)
    span_sorted = np.cumsum(first) - 1
    opens = np.flatnonzero(first)
    span, inside = np.empty_like(order), np.empty_like(start)
    span[order] = span_sorted
    inside[order] = start - start[opens][span_sorted]
    return ReadPlan(shard[opens], start[opens], np.maximum.reduceat(stop, opens), span, inside)


def _choose_joined(gap: np.ndarray, max_gap: int, most_between: float) -> np.ndarray:
    """Which gaps are read, bool: all without a byte, and of the others the smallest, up to `most_between` bytes."""
    candidates = np.flatnonzero((gap > 0) & (gap <= max_gap))
    smallest_first = candidates[np.argsort(gap[candidates], kind="stable")]
    # Chosen one by one, not by a largest gap: in tars, whose members are padded, many gaps are equally large.
    allowed = int(np.searchsorted(np.cumsum(gap[smallest_first]), most_between, side="right"))
    joined: np.ndarray = gap <= 0
    joined[smallest_first[:allowed]] = True
    return joined


def _find_splits(start: np.ndarray, stop: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Extents at which a span passes another multiple of the longest span allowed."""
    opens = np.flatnonzero(first)
    inside = stop - start[opens][np.cumsum(first) - 1]
    part = inside // MAX_SPAN_BYTES
    return np.concatenate([[False], part[1:] > part[:-1]])
