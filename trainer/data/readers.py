"""Bytes of pictures and captions by range read, from local shards, an object store, or the local cache before it.

What cannot be read is returned as an exception in the sample's place, never raised: one missing shard must not end a
run (trainer/data/batches.py counts, names and replaces).
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from curation.places import is_elsewhere
from curation.storage import Root
from trainer.data.cache import BlockCache
from trainer.data.index import Index
from trainer.data.spans import ReadCost, ReadPlan, plan_reads

MAX_OPEN_FILES = 128
REMOTE_THREADS = 16
REMOTE_ATTEMPTS = 4
RETRY_WAIT_S = 0.25
"""First wait after a failed request; it doubles with each attempt. The store's own client retries before."""


class SampleError(Exception):
    """Why one sample cannot be had; the message has no uid, the caller adds it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture as stored, and its caption."""

    picture: bytes | memoryview
    caption: str


class LocalFiles:
    """Shards of a local root, kept open; a shard deleted while it is open stays readable."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.cost = ReadCost(per_read_s=3e-5, bytes_per_s=2e9)
        self._open: OrderedDict[str, int] = OrderedDict()

    def read(self, requests: Sequence[tuple[str, int, int]]) -> list[bytes | SampleError]:
        """The bytes of each (path, start, stop), or why not."""
        answers: list[bytes | SampleError] = []
        sizes, seconds = [], []
        for path, start, stop in requests:
            began = time.perf_counter()
            try:
                data = os.pread(self._open_shard(path), stop - start, start)
            except OSError as error:
                answers.append(SampleError(f"{path}: {error.strerror}"))
                continue
            sizes.append(len(data))
            seconds.append(time.perf_counter() - began)
            answers.append(data)
        self.cost.observe(sizes, seconds)
        return answers

    def read_ahead(self, path: str, start: int, stop: int) -> None:
        """Ask the kernel to bring the range into memory; returns at once."""
        try:
            os.posix_fadvise(self._open_shard(path), start, stop - start, os.POSIX_FADV_WILLNEED)
        except OSError:
            return  # the read itself will say what is wrong

    def _open_shard(self, path: str) -> int:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        if len(self._open) >= MAX_OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        self._open[path] = os.open(self.root.at(path)[1], os.O_RDONLY)
        return self._open[path]

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])


class RemoteFiles:
    """Shards of an object store, many range requests at a time, each retried before it counts as lost.

    A shard that has failed all attempts gets one a request until it answers again: waiting costs training time.
    """

    def __init__(self, root: Root) -> None:
        self.root = root
        self.cost = ReadCost(per_read_s=3e-2 / REMOTE_THREADS, bytes_per_s=1e8)
        self._pool = ThreadPoolExecutor(REMOTE_THREADS, thread_name_prefix="range-read")
        self._lost: set[str] = set()

    def read(self, requests: Sequence[tuple[str, int, int]]) -> list[bytes | SampleError]:
        """The bytes of each (path, start, stop), or why not."""
        started = time.perf_counter()
        answers = list(self._pool.map(lambda request: self._read_one(*request), requests))
        sizes = sum(len(f) for f in answers if isinstance(f, bytes))
        if requests:
            self.cost.observe([sizes // len(requests)], [(time.perf_counter() - started) / len(requests)])
        return answers

    def _read_one(self, path: str, start: int, stop: int) -> bytes | SampleError:
        attempts = 1 if path in self._lost else REMOTE_ATTEMPTS
        for attempt in range(attempts):
            try:
                data = self.root.read_bytes(path, start, stop - start)
            except FileNotFoundError:
                return SampleError(f"{path}: no such object")
            except Exception as error:  # noqa: BLE001  # each store's client has exceptions of its own
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                if attempt + 1 < attempts:
                    time.sleep(RETRY_WAIT_S * 2**attempt)
            else:
                self._lost.discard(path)
                return data
        self._lost.add(path)
        return SampleError(f"{path}: {reason} (after {attempts} attempt{'s' if attempts > 1 else ''})")

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Reader:
    """Samples by row number; one a process, made after the fork; its methods may be called from several threads."""

    def __init__(
        self,
        index: Index,
        roots: Sequence[Root],
        *,
        max_ratio: float = 1.5,
        cache: BlockCache | None = None,
        verify: bool = False,
    ) -> None:
        self.index, self.max_ratio, self.cache, self.verify = index, max_ratio, cache, verify
        # Opened anew: a client of an object store does not survive a fork.
        self.roots = [Root(root.base, **root.storage_options) for root in roots]
        self.files: list[LocalFiles | RemoteFiles] = []
        self._shard_files = self._assign_files()
        self._is_remote = np.array([isinstance(files, RemoteFiles) for files in self.files])
        self._lock = threading.Lock()
        self._bytes_read = self._bytes_needed = 0

    def _assign_files(self) -> np.ndarray:
        """Position in `files` of what reads each shard: an adopted one need not lie where its root does."""
        known: dict[tuple[int, bool], int] = {}
        positions = []
        for number, path in self.index.meta.shards:
            is_local = self.roots[number].at(path)[2] if is_elsewhere(path) else self.roots[number].is_local
            key = (number, is_local)
            if key not in known:
                known[key] = len(self.files)
                self.files.append(LocalFiles(self.roots[number]) if is_local else RemoteFiles(self.roots[number]))
            positions.append(known[key])
        return np.array(positions, np.int64)

    def close(self) -> None:
        for files in self.files:
            files.close()

    def take_counts(self) -> tuple[int, int]:
        """Bytes read and bytes needed since the last call."""
        with self._lock:
            counts = self._bytes_read, self._bytes_needed
            self._bytes_read = self._bytes_needed = 0
            return counts

    def read(self, rows: np.ndarray, caption_orders: Sequence[Sequence[int]]) -> list[Sample | SampleError]:
        """The samples of `rows` (int64 `[n]`), in order; `caption_orders[k]`: caption columns to try for row k."""
        with self._lock:
            answers = self._read_extents(rows)
        return [
            data if isinstance(data, SampleError) else self._make_sample(int(row), data, order)
            for row, data, order in zip(rows, answers, caption_orders, strict=True)
        ]

    def _make_sample(self, row: int, data: memoryview, caption_order: Sequence[int]) -> Sample | SampleError:
        size = int(self.index.size[row])
        picture = data[:size]
        if self.verify and hashlib.sha256(picture).digest() != self.index.sha256[row].tobytes():
            return SampleError(f"{self._shard_path(row)}: its sha256 is not the recorded one")
        if self.index.meta.captions:
            return Sample(picture, self.index.captions(row, caption_order))
        start = int(self.index.text_delta[row])
        text = data[start : start + int(self.index.text_size[row])]
        return Sample(picture, bytes(text).decode("utf-8", errors="replace"))

    def _shard_path(self, row: int) -> str:
        return self.index.meta.shards[int(self.index.shard[row])][1]

    def locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(shard, start, stop) int64 of what each row needs: the picture, and the text where it lies beside it."""
        start = self.index.offset[rows].astype(np.int64)
        length = self.index.size[rows].astype(np.int64)
        if not self.index.meta.captions:
            text_stop = self.index.text_delta[rows].astype(np.int64) + self.index.text_size[rows]
            length = np.maximum(length, text_stop)
        return self.index.shard[rows].astype(np.int64), start, start + length

    def _read_extents(self, rows: np.ndarray) -> list[memoryview | SampleError]:
        remote = self._is_remote[self._shard_files[self.index.shard[rows]]]
        if self.cache is None or not remote.any():
            return self._read_uncached(rows)
        found: list[memoryview | SampleError] = [SampleError("unread")] * len(rows)
        for chosen, data in (
            (np.flatnonzero(remote), self.cache.read(rows[remote], len(self.index), self._read_block)),
            (np.flatnonzero(~remote), self._read_uncached(rows[~remote])),
        ):
            for position, item in zip(chosen, data, strict=True):
                found[position] = item
        return found

    def _read_block(self, rows: np.ndarray) -> list[bytes | SampleError]:
        return [bytes(data) if isinstance(data, memoryview) else data for data in self._read_uncached(rows)]

    def _read_uncached(self, rows: np.ndarray) -> list[memoryview | SampleError]:
        shard, start, stop = self.locate(rows)
        self._bytes_needed += int((stop - start).sum())
        found: list[memoryview | SampleError] = [SampleError("unread")] * len(rows)
        numbers = self._shard_files[shard]
        for number in np.unique(numbers):
            chosen = np.flatnonzero(numbers == number)
            data = self._read_joined(self.files[number], shard[chosen], start[chosen], stop[chosen])
            for position, item in zip(chosen, data, strict=True):
                found[position] = item
        return found

    def _read_joined(
        self, files: LocalFiles | RemoteFiles, shard: np.ndarray, start: np.ndarray, stop: np.ndarray
    ) -> list[memoryview | SampleError]:
        planned = plan_reads(shard, start, stop, files.cost.max_gap_bytes, self.max_ratio)
        spans = files.read(self._requests(planned))
        self._bytes_read += sum(len(s) for s in spans if isinstance(s, bytes))
        sizes = (stop - start).tolist()
        return [
            _slice(spans[span], inside, size, self.index.meta.shards[s][1])
            for span, inside, size, s in zip(planned.span, planned.inside, sizes, shard, strict=True)
        ]

    def _requests(self, planned: ReadPlan) -> list[tuple[str, int, int]]:
        paths = self.index.meta.shards
        spans = zip(planned.shard, planned.start.tolist(), planned.stop.tolist(), strict=True)
        return [(paths[shard][1], start, stop) for shard, start, stop in spans]

    def read_ahead(self, rows: np.ndarray) -> None:
        """Start bringing `rows` of local shards into the page cache, densely selected stretches as a whole."""
        shard, start, stop = self.locate(rows)
        numbers = self._shard_files[shard]
        for number in np.unique(numbers):
            files, chosen = self.files[number], numbers == number
            if isinstance(files, RemoteFiles):
                continue
            planned = plan_reads(shard[chosen], start[chosen], stop[chosen], files.cost.max_gap_bytes, self.max_ratio)
            with self._lock:
                for request in self._requests(planned):
                    files.read_ahead(*request)


def _slice(span: bytes | SampleError, inside: int, size: int, path: str) -> memoryview | SampleError:
    if isinstance(span, SampleError):
        return span
    data = memoryview(span)[inside : inside + size]
    return data if len(data) == size else SampleError(f"{path}: truncated, {len(data)} of {size} bytes")
