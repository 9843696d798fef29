"""Encode pictures and captions on all ranks: each its own share, and every rank as many forwards as any other.

Under ZeRO-3 a forward on one rank alone hangs, for its parameters lie on all of them. So the ranks agree on the number
of batches first, and a rank that has run out encodes a blank one and forgets it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from curation.errors import UserError
from curation.progress import bar
from trainer.data.readers import SampleError
from trainer.data.tokenizer import tokenize, trim
from trainer.data.transforms import EvalTransform, decode, lookup_tables, normalise
from trainer.launch import Rank

Forward = Callable[[Tensor | None, Tensor | None], Any]
"""A `ContrastiveModel` (trainer/objectives) or an engine of one: pixels and tokens, either None, to `Outputs`."""
T = TypeVar("T")
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".tif", ".tiff"})
"""What is a picture by its name, in a folder and in a tar."""
_NO_DRAWS = np.empty(0)


class Stretch(NamedTuple):
    """A stretch of a file, in bytes."""

    path: Path
    offset: int
    size: int

    def read_bytes(self) -> bytes:
        """What stands there. Raises OSError."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class Picture(NamedTuple):
    """A picture to read when its turn comes, and its name in messages."""

    name: str
    source: Path | Stretch | bytes | memoryview

    def data(self) -> bytes | memoryview:
        """As stored. Raises OSError."""
        return self.source.read_bytes() if isinstance(self.source, Path | Stretch) else self.source

    def read_frames(self) -> list[np.ndarray]:
        """The picture, uint8 `[h, w, 3]`. Raises OSError and SampleError."""
        return [decode(self.data())]


class FrameSource(Protocol):
    """Something to encode that has one frame or several, such as a video, and its name in messages."""

    @property
    def name(self) -> str: ...

    def read_frames(self) -> Sequence[np.ndarray]:
        """The frames, uint8 `[h, w, 3]` each. Raises OSError and SampleError."""
        ...


class Encoder:
    """A model's forward on this rank's share of what is measured."""

    def __init__(
        self,
        forward: Forward,
        *,
        rank: Rank,
        device: torch.device,
        image_size: int,
        batch_size: int,
        num_threads: int = 4,
    ) -> None:
        self.forward, self.rank, self.device = forward, rank, device
        self.image_size, self.batch_size, self.num_threads = image_size, batch_size, max(1, num_threads)
        self._tables = lookup_tables()

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part of what all ranks have."""
        return items[self.rank.rank :: self.rank.world_size]

    def encode_images(self, pictures: Sequence[Picture], resizes: Sequence[str], desc: str) -> dict[str, Tensor]:
        """Normalised features of this rank's pictures after each way of resizing, float32 `[n, d]` on the CPU.

        Every rank has to call this. Raises UserError, on all ranks alike, when any has a picture it cannot read.
        """
        return {name: rows[:, 0] for name, rows in self.encode_frames(pictures, 1, resizes, desc).items()}

    @torch.no_grad()
    def encode_frames(
        self, items: Sequence[FrameSource], num_frames: int, resizes: Sequence[str], desc: str, what: str = "pictures"
    ) -> dict[str, Tensor]:
        """As `encode_images` for items of `num_frames` frames each: float32 `[n, num_frames, d]`."""
        transforms = {name: EvalTransform(self.image_size, name) for name in resizes}  # type: ignore[arg-type]
        rows: dict[str, list[Tensor]] = {name: [] for name in resizes}
        broken: list[str] = []
        batches = self._cut_batches(items, max(1, self.batch_size // num_frames))
        with ThreadPoolExecutor(self.num_threads) as pool, bar(len(batches), desc, "batch") as progress:
            waiting = _submit(pool, batches[0], transforms) if batches else []
            for number in range(len(batches)):
                prepared = [future.result() for future in waiting]
                # The next batch is decoded while this one is encoded.
                waiting = _submit(pool, batches[number + 1], transforms) if number + 1 < len(batches) else []
                broken += [item for item in prepared if isinstance(item, str)]
                for name in resizes:
                    frames = [frame for item in prepared if not isinstance(item, str) for frame in item[name]]
                    features = self.forward(self._normalise(frames), None).image[: len(frames)].float().cpu()
                    rows[name].append(features.reshape(-1, num_frames, features.shape[-1]))
                progress.update()
        self._require_readable(broken, desc, what)
        return {name: torch.cat(parts) for name, parts in rows.items()}

    @torch.no_grad()
    def encode_texts(self, captions: Sequence[str], desc: str) -> Tensor:
        """Normalised features of this rank's captions, float32 `[n, d]` on the CPU. Every rank has to call this."""
        rows, batches = [], self._cut_batches(captions, self.batch_size)
        with bar(len(batches), desc, "batch") as progress:
            for batch in batches:
                tokens = trim(tokenize(batch or [""])).to(self.device)
                rows.append(self.forward(None, tokens).text[: len(batch)].float().cpu())
                progress.update()
        return torch.cat(rows)

    @torch.no_grad()
    def read_scale(self) -> tuple[float, float | None]:
        """The inverse temperature and SigLIP's bias, None without one. Every rank has to call this."""
        outputs = self.forward(None, trim(tokenize([""])).to(self.device))
        return outputs.scale.item(), None if outputs.bias is None else outputs.bias.item()

    def gather_rows(self, rows: Tensor) -> Tensor:
        """All ranks' rows, rank by rank, on every rank."""
        return torch.cat(self._gather_objects(rows))

    def gather_in_order(self, rows: Tensor) -> Tensor:
        """All ranks' rows of what `share` dealt out, back in their order, on every rank."""
        parts = self._gather_objects(rows)
        result = rows.new_empty(sum(map(len, parts)), *rows.shape[1:])
        for number, part in enumerate(parts):
            result[number :: len(parts)] = part
        return result

    def sum_over_ranks(self, counts: Tensor) -> Tensor:
        """The sum of every rank's counts."""
        return torch.stack(self._gather_objects(counts)).sum(0)

    def _gather_objects(self, rows: T) -> list[T]:
        if self.rank.world_size == 1:
            return [rows]
        parts: list[Any] = [None] * self.rank.world_size
        dist.all_gather_object(parts, rows)
        return parts

    def _cut_batches(self, items: Sequence[T], size: int) -> list[Sequence[T]]:
        """This rank's batches, empty ones at the end so that every rank has as many."""
        count = max(self._gather_objects(-(-len(items) // size)))
        return [items[start : start + size] for start in range(0, count * size, size)]

    def _normalise(self, pictures: Sequence[np.ndarray]) -> Tensor:
        if not pictures:
            return torch.zeros(1, 3, self.image_size, self.image_size, device=self.device)
        return normalise(pictures, len(pictures), self.image_size, self._tables).to(self.device)

    def _require_readable(self, broken: list[str], desc: str, what: str) -> None:
        everywhere = [message for messages in self._gather_objects(broken) for message in messages]
        if everywhere:
            raise UserError(f"{len(everywhere)} {what} of {desc} cannot be read, the first is {everywhere[0]}.")


def _submit(
    pool: Executor, batch: Sequence[FrameSource], transforms: Mapping[str, EvalTransform]
) -> list[Future[dict[str, list[np.ndarray]] | str]]:
    return [pool.submit(_prepare, item, transforms) for item in batch]


def _prepare(item: FrameSource, transforms: Mapping[str, EvalTransform]) -> dict[str, list[np.ndarray]] | str:
    """The frames after each transform, uint8 `[s, s, 3]`, or why they cannot be had."""
    try:
        frames = item.read_frames()
    except (OSError, SampleError) as error:
        return f"{item.name} ({error})"
    return {name: [transform(frame, _NO_DRAWS) for frame in frames] for name, transform in transforms.items()}
