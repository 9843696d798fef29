"""Batches for the loop: endless, cut into micro-batches on the training device, with the waiting measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from trainer.tokenizer import trim

Batch = dict[str, Any]


class Feed:
    """One rank's stream of micro-batches from a `trainer.data.Loader`, epoch after epoch."""

    def __init__(self, loader: Any, device: torch.device, *, trim_tokens: bool) -> None:
        self.loader, self.device, self.trim_tokens = loader, device, trim_tokens
        self.waited_s = 0.0
        """Time spent in `take` since the caller last set it to zero."""
        self._batches = self._forever()

    def take(self, num_micro_batches: int) -> list[Batch]:
        """The micro-batches of one step, moved to the device."""
        start = time.perf_counter()
        batches = [next(self._batches) for _ in range(num_micro_batches)]
        self.waited_s += time.perf_counter() - start
        return [self._moved(batch) for batch in batches]

    def _forever(self) -> Iterator[Batch]:
        while True:
            yield from self.loader

    def _moved(self, batch: Batch) -> Batch:
        # Columns after the last end-of-text change nothing under the causal mask; a compiled model wants one shape.
        tokens = trim(batch["tokens"]) if self.trim_tokens else batch["tokens"]
        pixels = batch["pixels"].to(self.device, non_blocking=True)
        return {**batch, "pixels": pixels, "tokens": tokens.to(self.device, non_blocking=True)}
