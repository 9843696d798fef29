"""Batches for the loop: endless, cut into micro-batches on the training device, with the waiting measured."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import torch
from torch import Tensor

from trainer.data.tokenizer import trim

Batch = dict[str, Any]


class Feed:
    """One rank's stream of micro-batches from a `trainer.data.Loader`, epoch after epoch."""

    def __init__(self, loader: Any, device: torch.device, *, trim_tokens: bool) -> None:
        self.loader, self.device, self.trim_tokens = loader, device, trim_tokens
        self.waited_s = 0.0
        """Time spent in `take` since the caller last set it to zero."""
        self._batches = self._repeat_epochs()

    def take(self, num_micro_batches: int) -> list[Batch]:
        """The micro-batches of one step, moved to the device."""
        start = time.perf_counter()
        batches = [next(self._batches) for _ in range(num_micro_batches)]
        self.waited_s += time.perf_counter() - start
        return [self._move_to_device(batch) for batch in batches]

    def close(self) -> None:
        """Let the loader's worker processes end; without it they live until the garbage collector comes by."""
        self._batches.close()

    def _repeat_epochs(self) -> Generator[Batch, None, None]:
        while True:
            yield from self.loader

    def _move_to_device(self, batch: Batch) -> Batch:
        moved = dict(batch)
        # Columns after the last end-of-text change nothing under the causal mask; a compiled model wants one shape.
        if self.trim_tokens and isinstance(batch["tokens"], Tensor):
            moved["tokens"] = trim(batch["tokens"])
        return {
            name: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in moved.items()
        }
