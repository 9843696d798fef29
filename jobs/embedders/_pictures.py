"""What embedders share that read pictures: decoding by threads while the device computes, and which device that is."""

from __future__ import annotations

import abc
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

BATCHES_AHEAD = 2
"""Batches that are decoded, or being decoded, while one is on the device."""


class PictureEmbedder(abc.ABC):
    """An embedder whose pictures are decoded apart from being encoded, so that both are done at once."""

    dim: int

    @abc.abstractmethod
    def decode(self, picture: bytes) -> np.ndarray | None:
        """An encoded picture as input of the model, None when it does not decode. Threads call it at once."""

    @abc.abstractmethod
    def encode(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """Decoded pictures, at least one → float32 `[n, dim]`."""

    def embed(self, uids: Sequence[str], pictures: Iterable[bytes]) -> np.ndarray:
        """See `jobs.embedders.Embedder.embed`."""
        return self.encode_known([self.decode(picture) for picture in pictures])

    def encode_known(self, decoded: Sequence[np.ndarray | None]) -> np.ndarray:
        """float32 `[n, dim]`, NaN rows in the place of None."""
        known = [position for position, pixels in enumerate(decoded) if pixels is not None]
        vectors = np.full((len(decoded), self.dim), np.nan, np.float32)
        if known:
            vectors[known] = self.encode([pixels for pixels in decoded if pixels is not None])
        return vectors

    def embed_ahead(
        self, reads: Iterable[Callable[[], bytes]], batch_size: int, num_decoders: int
    ) -> Iterator[np.ndarray]:
        """Vectors of batch after batch, the next BATCHES_AHEAD of which threads read and decode meanwhile.

        `reads` give encoded pictures. What one of them raises is raised here.
        """
        waiting: deque[list[Future[np.ndarray | None]]] = deque()
        with ThreadPoolExecutor(num_decoders) as pool:
            try:
                for batch in _split(reads, batch_size):
                    waiting.append([pool.submit(self._read_and_decode, read) for read in batch])
                    if len(waiting) > BATCHES_AHEAD:
                        yield self.encode_known([future.result() for future in waiting.popleft()])
                while waiting:
                    yield self.encode_known([future.result() for future in waiting.popleft()])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _read_and_decode(self, read: Callable[[], bytes]) -> np.ndarray | None:
        return self.decode(read())


def _split(reads: Iterable[Callable[[], bytes]], size: int) -> Iterator[list[Callable[[], bytes]]]:
    listed = list(reads)
    for start in range(0, len(listed), size):
        yield listed[start : start + size]


def find_device() -> torch.device:
    """The GPU that Spark gave to this task, else the first one, else the CPU."""
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    # A task has loaded pyspark; elsewhere it need not be there.
    spark = sys.modules.get("pyspark")
    context = None if spark is None else spark.TaskContext.get()
    given = context.resources().get("gpu") if context is not None else None
    return torch.device(f"cuda:{given.addresses[0]}" if given is not None else "cuda")
