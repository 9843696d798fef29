"""What a worker does: positions of the stream to rows, rows to bytes, bytes to one batch of tensors.

A sample that cannot be read or decoded is counted, named and replaced by another row, chosen by a hash, so a resumed
run replaces it by the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from curation.errors import UserError
from curation.storage import Root
from trainer.data.cache import BlockCache, Cache
from trainer.data.index import Index
from trainer.data.order import Stream
from trainer.data.permutation import mix, uniforms
from trainer.data.readers import Reader, Sample, SampleError
from trainer.data.transforms import MEAN, STD, Transform, decode, lookup_tables, normalise

Tokenizer = Callable[[list[str]], torch.Tensor]
_CROP, _CAPTION, _REPLACE = range(3)
"""Purposes of random numbers, so that none of them shares its numbers with another."""
ROWS_ORDERED = 4_096
"""Positions of the stream that are turned into rows in one go."""


@dataclass(frozen=True, kw_only=True)
class SampleSource:
    """What a worker reads from; pickles to another process."""

    index: Index
    roots: tuple[Root, ...]
    stream: Stream
    seed: int
    caption_weights: tuple[float, ...] = ()
    """Weight of each caption column; empty when the caption lies beside the picture."""
    verify: bool = False
    max_read_ratio: float = 1.5
    cache: Cache | None = None

    def open_reader(self) -> Reader:
        cache = BlockCache(self.cache, self.index.meta.digest) if self.cache else None
        return Reader(self.index, self.roots, max_ratio=self.max_read_ratio, cache=cache, verify=self.verify)


@dataclass(frozen=True, kw_only=True)
class SampleForm:
    """How samples become tensors. A `transform` None leaves pictures as bytes, a `tokenizer` None captions as text."""

    transform: Transform | None
    tokenizer: Tokenizer | None
    max_failures: int = 100
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD


@dataclass(frozen=True, kw_only=True)
class BatchSchedule:
    """Which positions of the stream make up the batches of one rank, from `start` to the epoch's end.

    Global batch g covers `batch_size · world_size` positions; rank r takes the r-th stretch of `batch_size` of them.
    """

    epoch: int
    epoch_samples: int
    start: int
    batch_size: int
    rank: int
    world_size: int
    pad: bool

    @property
    def global_batch_size(self) -> int:
        return self.batch_size * self.world_size

    def __len__(self) -> int:
        left = self.epoch_samples - self.start
        return -(-left // self.global_batch_size) if self.pad else left // self.global_batch_size

    def positions(self, number: int) -> tuple[np.ndarray, int]:
        """Positions in the endless stream of the batch `number` after `start`, and how many at its end are padding."""
        first = self.start + number * self.global_batch_size + self.rank * self.batch_size
        inside = np.arange(first, first + self.batch_size)
        padding = int((inside >= self.epoch_samples).sum())
        return self.epoch * self.epoch_samples + inside % self.epoch_samples, padding


@dataclass
class Batch:
    """What a worker hands over: the batch, the samples that were replaced, or the error that ends the run."""

    tensors: dict[str, Any] = field(default_factory=dict)
    replaced: list[tuple[str, str]] = field(default_factory=list)
    """(uid, reason) of each."""
    bytes_read: int = 0
    bytes_needed: int = 0
    error: str | None = None


@dataclass
class Draft:
    """A batch on its way: what was read of each row."""

    rows: np.ndarray
    passes: np.ndarray
    padding: int
    samples: list[Sample | SampleError]


class BatchMaker:
    """Makes batches; one a process. Holds open files, so it is made after the fork."""

    def __init__(self, source: SampleSource, form: SampleForm, schedule: BatchSchedule, stride: int = 1) -> None:
        self.source, self.form, self.schedule, self.stride = source, form, schedule, stride
        self.reader = source.open_reader()
        self._waiting_rows: dict[int, tuple[np.ndarray, np.ndarray, int]] = {}
        self.tables = lookup_tables(form.mean, form.std)
        self.failures_in_a_row = 0
        self._ahead_of = -1

    def read(self, number: int) -> Draft:
        """Read the samples of batch `number`; safe in a thread of its own."""
        if number not in self._waiting_rows:
            self._waiting_rows = self._order(number)
        rows, passes, padding = self._waiting_rows.pop(number)
        return Draft(rows, passes, padding, self._read(rows, passes))

    def _order(self, first: int) -> dict[int, tuple[np.ndarray, np.ndarray, int]]:
        """(rows, passes, padding) of this worker's batches from `first` on, many at once: small arrays cost most."""
        count = max(1, ROWS_ORDERED // self.schedule.batch_size)
        numbers = range(first, len(self.schedule), self.stride)[:count]
        positions, paddings = zip(*map(self.schedule.positions, numbers), strict=True)
        rows, passes = self.source.stream.rows(np.concatenate(positions))
        parts = np.split(rows, len(numbers)), np.split(passes, len(numbers))
        return dict(zip(numbers, zip(*parts, paddings, strict=True), strict=True))

    def _read(self, rows: np.ndarray, passes: np.ndarray) -> list[Sample | SampleError]:
        return self.reader.read(rows, self._draw_captions(rows, passes))

    def _draw_captions(self, rows: np.ndarray, passes: np.ndarray) -> Sequence[Sequence[int]]:
        """The caption column drawn by weight for each row, then the others in order, for rows where it is empty."""
        weights = self.source.caption_weights
        columns = range(len(weights))
        if len(weights) < 2:
            return [columns] * len(rows)
        drawn = uniforms(1, self.source.seed, passes, rows, _CAPTION)[:, 0]
        first = np.searchsorted(np.cumsum(weights) / sum(weights), drawn, side="right")
        return [[int(k), *(c for c in columns if c != k)] for k in first]

    def finish(self, draft: Draft) -> Batch:
        """Decode, replace what failed, and put the tensors together. Raises UserError after too many failures."""
        batch = Batch()
        pictures: dict[int, Any] = {}
        first = draft.rows.copy()
        waiting, attempt = list(range(len(first))), 0
        while waiting:
            waiting = [k for k in waiting if not self._try_picture(draft, k, pictures, batch)]
            attempt += 1
            if waiting:
                # All at once: where a store is down, each request waits through its retries.
                self._replace(draft, np.array(waiting), first, attempt)
        batch.tensors = {
            "pixels": self._stack_pixels([pictures[k] for k in range(len(first))]),
            "tokens": self._tokenize([sample.caption for sample in draft.samples if isinstance(sample, Sample)]),
            "uid": self.source.index.uids(draft.rows),
            "padding": draft.padding,
        }
        batch.bytes_read, batch.bytes_needed = self.reader.take_counts()
        return batch

    def _tokenize(self, captions: list[str]) -> Any:
        return self.form.tokenizer(captions) if self.form.tokenizer else captions

    def _stack_pixels(self, pictures: list[Any]) -> Any:
        if self.form.transform is None:
            return pictures
        return normalise(pictures, len(pictures), self.form.transform.image_size, self.tables)

    def _try_picture(self, draft: Draft, k: int, pictures: dict[int, Any], batch: Batch) -> bool:
        """Make the picture at place k of the batch, or count and name why there is none."""
        sample, row = draft.samples[k], int(draft.rows[k])
        try:
            if isinstance(sample, SampleError):
                raise sample
            pictures[k] = self._make_picture(sample, row, int(draft.passes[k]))
        except SampleError as error:
            self._count_failure(row, error, batch)
            return False
        self.failures_in_a_row = 0
        return True

    def _replace(self, draft: Draft, places: np.ndarray, first: np.ndarray, attempt: int) -> None:
        """Read other rows for `places`, chosen by a hash of the row that stood there at `first` and the attempt."""
        passes = draft.passes[places]
        chosen = mix(self.source.seed, passes, first[places], attempt, _REPLACE) % np.uint64(len(self.source.index))
        draft.rows[places] = chosen.astype(np.int64)
        for k, sample in zip(places, self._read(draft.rows[places], passes), strict=True):
            draft.samples[int(k)] = sample

    def _make_picture(self, sample: Sample, row: int, turn: int) -> Any:
        transform = self.form.transform
        if transform is None:
            return bytes(sample.picture)
        drawn = uniforms(transform.num_uniforms, self.source.seed, turn, row, _CROP)
        return transform(decode(sample.picture), drawn)

    def _count_failure(self, row: int, error: SampleError, batch: Batch) -> None:
        uid = self.source.index.uids(np.array([row]))[0]
        batch.replaced.append((uid, str(error)))
        self.failures_in_a_row += 1
        if self.failures_in_a_row > self.form.max_failures:
            raise UserError(
                f"{self.failures_in_a_row} samples in a row cannot be read, the last one {uid} ({error}): "
                f"check the shards with `curate verify`."
            )

    def read_ahead(self, number: int, worker: int, num_workers: int) -> None:
        """On entering a window of the shuffle, have the kernel read this worker's share of the next one."""
        shuffle, num_rows = self.source.stream.shuffle, self.schedule.epoch_samples
        window = self.schedule.positions(number)[0][0] // (shuffle.window_rows if shuffle else 8_192)
        if window == self._ahead_of:
            return
        self._ahead_of = window
        size = shuffle.window_rows if shuffle else 8_192
        first = (int(window) + 1) * size
        last = (self.schedule.epoch + 1) * num_rows
        positions = np.arange(first, min(first + size, last))[worker::num_workers]
        if len(positions):
            self.reader.read_ahead(self.source.stream.rows(positions)[0])


class Batches(IterableDataset[Batch]):
    """The batches of one rank from a point on; worker k of n makes every n-th. Order does not depend on n."""

    def __init__(self, source: SampleSource, form: SampleForm, schedule: BatchSchedule) -> None:
        self.source, self.form, self.schedule = source, form, schedule

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        if info:
            cv2.setNumThreads(0)
        maker = BatchMaker(self.source, self.form, self.schedule, num_workers)
        numbers = range(worker, len(self.schedule), num_workers)
        # One batch is read while the one before is decoded.
        pool = ThreadPoolExecutor(1, thread_name_prefix="read")
        waiting: Future[Draft] | None = pool.submit(maker.read, numbers[0]) if numbers else None
        try:
            for place, number in enumerate(numbers):
                maker.read_ahead(number, worker, num_workers)
                assert waiting is not None
                draft = waiting.result()
                waiting = pool.submit(maker.read, numbers[place + 1]) if place + 1 < len(numbers) else None
                yield maker.finish(draft)
        except UserError as error:
            yield Batch(error=str(error))
        finally:
            if waiting is not None:
                waiting.cancel()
            # Not waited for: an iterator that was dropped may be collected in the very thread that a read waits for.
            pool.submit(maker.reader.close)
            pool.shutdown(wait=False)
