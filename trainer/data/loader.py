"""The loader: train on any query over a root's shards, in an exact, resumable order, and never rewrite a shard.

    loader = Loader("ROOT", where="clip_similarity > 0.3", batch_size=256, transform=TrainTransform(224))
    for batch in loader: ...   # {"pixels", "tokens", "uid", "padding"}

docs/loader.md says what it guarantees.
"""

from __future__ import annotations

import gc
import logging
import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any, Literal

import numpy as np
from torch.utils.data import DataLoader

from curation.errors import UserError
from curation.storage import Root
from trainer.data import mixing
from trainer.data.batches import Batch, Batches, BatchSchedule, SampleForm, SampleSource, Tokenizer
from trainer.data.cache import Cache
from trainer.data.index import Index
from trainer.data.order import Shuffle, Stream
from trainer.data.position import Positioned
from trainer.data.selection import Query, open_index
from trainer.data.transforms import MEAN, STD, Transform

MAX_NAMED = 1_000
"""Replaced samples that `Loader.replaced` names; all are counted."""
_LOG = logging.getLogger(__name__)


class _Default:
    """Stands for CLIP's own tokenizer, which is imported only when it is wanted."""


_DEFAULT = _Default()


class Loader(Positioned):
    """Batches of one rank, epoch after epoch: each `for` runs from where the loader stands to the end of its epoch.

    Args:
        root: a root, its URL, several of them, or a mapping of names to roots.
        where: SQL condition on the columns of the table; every row when None.
        mix: weights of sources (of roots, where the keys are names of `root`); all rows alike when None.
        table: train_index, manifest (raw and adopted shards), or auto: train_index where there is one.
        batch_size: samples of one batch of one rank.
        transform: see trainer/data/transforms.py; None gives pictures as stored bytes.
        tokenizer: list of captions → int64 `[n, 77]`; CLIP's own by default, None gives the captions.
        seed, epoch: decide the order. rank, world_size: which part of each global batch this loader gives.
        num_workers: processes; 0 works in this one. The order does not depend on it.
        shuffle: sizes of the shuffle, True for the default ones, False for the order of the shards.
        captions: columns to draw captions from, by weight; the stored caption when None.
        epoch_samples: samples of an epoch over all ranks; the number of selected rows by default.
        last: what happens to an epoch's incomplete global batch: "pad" fills it with the first samples of the same
            epoch (`batch["padding"]` says how many at the end of this rank's batch), "drop" leaves it out.
        verify: check every picture against its recorded sha256 (32 more bytes a row).
        max_failures: unreadable samples in a row, within a worker, after which UserError is raised.
        max_read_ratio: most bytes read per byte needed when ranges are joined.
        cache: local copy of what is read from remote roots. index_folder: where indexes are kept.

    Raises UserError: no row left, bad SQL, unknown source in mix, arguments that do not fit together.
    """

    def __init__(
        self,
        root: Root | str | Path | Sequence[Root | str | Path] | Mapping[str, Root | str | Path],
        where: str | None = None,
        *,
        mix: Mapping[str, float] | None = None,
        table: str = "auto",
        batch_size: int,
        transform: Transform | None,
        tokenizer: Tokenizer | _Default | None = _DEFAULT,
        seed: int = 0,
        epoch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        shuffle: bool | Shuffle = True,
        captions: Mapping[str, float] | None = None,
        epoch_samples: int | None = None,
        last: Literal["pad", "drop"] = "pad",
        verify: bool = False,
        max_failures: int = 100,
        max_read_ratio: float = 1.5,
        cache: Cache | None = None,
        index_folder: str | Path | None = None,
        mean: tuple[float, ...] = MEAN,
        std: tuple[float, ...] = STD,
        prefetch_batches: int = 2,
        pin_memory: bool = False,
    ) -> None:
        _require_arguments(batch_size, rank, world_size, num_workers, last)
        self.seed, self.epoch, self.samples_seen = seed, epoch, 0
        self.batch_size, self.rank, self.world_size, self.last = batch_size, rank, world_size, last
        self.num_workers, self.prefetch_batches, self.pin_memory = num_workers, prefetch_batches, pin_memory
        self.roots = _name_roots(root)
        self.index = open_index(
            Query(
                roots=self.roots,
                where=where or "",
                table=table,
                groups=tuple(mix) if mix else None,
                captions=tuple(captions or ()),
                verify=verify,
            ),
            Path(index_folder) if index_folder else None,
        )
        self._check_shards()
        if self.index.meta.num_without_caption:
            _LOG.info(
                "%s of %s samples have no caption", f"{self.index.meta.num_without_caption:,}", f"{len(self.index):,}"
            )
        self.weights = dict(mix or {})
        self.shuffle = (Shuffle() if shuffle else None) if isinstance(shuffle, bool) else shuffle
        self.epoch_samples = epoch_samples or len(self.index)
        self._source = SampleSource(
            index=self.index,
            roots=tuple(self.roots.values()),
            stream=_make_stream(self.index, self.weights, seed, self.shuffle),
            seed=seed,
            caption_weights=tuple((captions or dict.fromkeys(self.index.meta.captions, 1.0)).values()),
            verify=verify,
            max_read_ratio=max_read_ratio,
            cache=cache,
        )
        chosen = _default_tokenizer() if isinstance(tokenizer, _Default) else tokenizer
        self._form = SampleForm(transform=transform, tokenizer=chosen, max_failures=max_failures, mean=mean, std=std)
        self.num_replaced = 0
        self.replaced: dict[str, str] = {}
        """uid → reason of replaced samples, the first 1,000 of them."""
        self.bytes_read = self.bytes_needed = 0

    def _check_shards(self) -> None:
        """Raise UserError for a shard that lies where its root may not send readers, before any is read."""
        roots = list(self.roots.values())
        for number, path in self.index.meta.shards:
            roots[number].check_place(path)

    def __len__(self) -> int:
        """Batches of a whole epoch at this world size."""
        return len(self._make_schedule(0))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Batches from where the loader stands to the end of the epoch; then the next epoch begins.

        Each is {"pixels": float32 `[b, 3, s, s]`, "tokens": int64 `[b, 77]`, "uid": list of b, "padding": int}.
        """
        schedule = self._make_schedule(self.samples_seen)
        batches = self._start_batches(schedule)
        try:
            for batch in batches:
                self._count_batch(batch)
                self.samples_seen += schedule.global_batch_size
                yield batch.tensors
        except RuntimeError as error:
            # What torch raises, with the worker's process id and signal, when one is gone.
            if "DataLoader worker" not in str(error):
                raise
            raise _explain_dead_worker(error) from error
        finally:
            if isinstance(batches, Generator):
                batches.close()
        self.epoch, self.samples_seen = self.epoch + 1, 0

    def _has_more(self) -> bool:
        return self.samples_seen < self.epoch_samples and len(self._make_schedule(self.samples_seen)) > 0

    def _describe_order(self) -> dict[str, Any]:
        # The selection stands under its digest.
        return {
            "selection": self.index.meta.digest,
            "seed": self.seed,
            "mix": self.weights,
            "shuffle": asdict(self.shuffle) if self.shuffle else None,
            "epoch_samples": self.epoch_samples,
        }

    def _make_schedule(self, start: int) -> BatchSchedule:
        return BatchSchedule(
            epoch=self.epoch,
            epoch_samples=self.epoch_samples,
            start=start,
            batch_size=self.batch_size,
            rank=self.rank,
            world_size=self.world_size,
            pad=self.last == "pad",
        )

    def _start_batches(self, schedule: BatchSchedule) -> Iterator[Batch]:
        batches = Batches(self._source, self._form, schedule)
        if not self.num_workers:
            return iter(batches)
        workers = min(self.num_workers, max(1, len(schedule)))
        # What is garbage now must not be destroyed in a fork: threads that it would wait for are not there.
        gc.collect()
        made = iter(
            DataLoader(
                batches,
                batch_size=None,
                num_workers=workers,
                prefetch_factor=self.prefetch_batches,
                pin_memory=self.pin_memory,
                worker_init_fn=_start_worker,
            )
        )
        _watch_workers()
        return made

    def _count_batch(self, batch: Batch) -> None:
        if batch.error is not None:
            raise UserError(batch.error)
        self.bytes_read += batch.bytes_read
        self.bytes_needed += batch.bytes_needed
        for uid, reason in batch.replaced:
            self.num_replaced += 1
            if len(self.replaced) < MAX_NAMED:
                self.replaced[uid] = reason
                _LOG.warning("sample %s replaced: %s", uid, reason)


def _explain_dead_worker(error: RuntimeError) -> UserError:
    reason = str(error).splitlines()[0].rstrip(". ")
    return UserError(
        f"A worker of the loader died ({reason}): the machine is short of memory perhaps, which fewer num_workers "
        f"need less of; resume from the last checkpoint."
    )


def _watch_workers() -> None:
    """Say what a dead worker means, wherever it is noticed: torch raises from its SIGCHLD handler, at any line."""
    handler = signal.getsignal(signal.SIGCHLD)
    if not callable(handler) or isinstance(handler, _Watch) or current_thread() is not main_thread():
        return
    signal.signal(signal.SIGCHLD, _Watch(handler))


class _Watch:
    """torch's SIGCHLD handler, its error as a UserError."""

    def __init__(self, handler: Callable[[int, FrameType | None], Any]) -> None:
        self.handler = handler

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        try:
            self.handler(signum, frame)
        except RuntimeError as error:
            raise _explain_dead_worker(error) from error


def _start_worker(_: int) -> None:
    """Leave what the fork inherited alone, and ignore SIGTERM: workers end when their rank does.

    Schedulers send SIGTERM to every process of a job, and a rank that saves needs data to its last step.
    """
    gc.freeze()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _require_arguments(batch_size: int, rank: int, world_size: int, num_workers: int, last: str) -> None:
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, not {batch_size}.")
    if not 0 <= rank < world_size:
        raise UserError(f"rank must lie in 0..{world_size - 1} at world size {world_size}, not {rank}.")
    if num_workers < 0:
        raise UserError(f"num_workers must be at least 0, not {num_workers}.")
    if last not in ("pad", "drop"):
        raise UserError(f"last is {last!r}; allowed: pad, drop.")


def _name_roots(root: Any) -> dict[str, Root]:
    if isinstance(root, Mapping):
        roots = dict(root)
    else:
        many = [root] if isinstance(root, Root | str | Path) else list(root)
        roots = {f"root {number}": item for number, item in enumerate(many)}
    if not roots:
        raise UserError("The loader was given no root: name at least one.")
    return {name: item if isinstance(item, Root) else Root(item) for name, item in roots.items()}


def _make_stream(index: Index, weights: Mapping[str, float], seed: int, shuffle: Shuffle | None) -> Stream:
    groups = index.meta.groups
    mixing.check_mix(weights, {name: stop - start for name, start, stop in groups})
    starts = np.array([groups[0][1], *(stop for _, _, stop in groups)], np.int64)
    pattern = mixing.make_pattern([weights.get(name, 1.0) for name, _, _ in groups])
    return Stream(group_starts=starts, pattern=pattern, seed=seed, shuffle=shuffle)


def _default_tokenizer() -> Tokenizer:
    from trainer.data.tokenizer import tokenize  # compiles the word pattern, which loaders of raw captions do without

    return tokenize
