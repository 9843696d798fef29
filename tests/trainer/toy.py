"""A tiny CLIP task that needs no data: a loader over random pairs, and workers that train on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from trainer import config
from trainer.config import Config, PhaseConfig
from trainer.launch import Rank, this_rank

NUM_PAIRS = 48
RECIPE = """
folder = "{folder}"
[model]
name = "debug"
[train]
batch_size = 16
precision = "fp32"
[optim]
warmup_steps = 2
clip_norm = 1.0
[optim.image]
lr = 1e-3
weight_decay = 0.1
layer_decay = 0.8
[optim.text]
lr = 5e-4
weight_decay = 0.05
[[phases]]
samples = 96
"""


class ToyLoader:
    """What `trainer.data.Loader` promises, over pairs of random pixels and tokens that a seed determines.

    The order is one of the whole world: batch i of all ranks together is the same rows whatever the number of ranks.
    """

    def __init__(self, *, batch_size: int, image_size: int, seed: int, rank: Rank) -> None:
        self.batch_size, self.image_size, self.seed, self.rank = batch_size, image_size, seed, rank
        self.position = 0
        generator = torch.Generator().manual_seed(7)
        self.pixels = torch.randn(NUM_PAIRS, 3, 8, 8, generator=generator)
        self.tokens = torch.zeros(NUM_PAIRS, 77, dtype=torch.int64)
        self.tokens[:, 0], self.tokens[:, 6] = 49406, 49407
        self.tokens[:, 1:6] = torch.randint(300, 2000, (NUM_PAIRS, 5), generator=generator)

    def state_dict(self) -> dict[str, Any]:
        """Rows that the whole world has seen."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`, at any world size."""
        self.position = state["position"]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            epoch, start = divmod(self.position, NUM_PAIRS)
            order = torch.randperm(NUM_PAIRS, generator=torch.Generator().manual_seed(self.seed + epoch))
            rows = order[start + self.rank.rank * self.batch_size :][: self.batch_size]
            self.position += self.batch_size * self.rank.world_size
            pixels = torch.nn.functional.interpolate(self.pixels[rows], size=self.image_size)
            yield {"pixels": pixels, "tokens": self.tokens[rows], "uid": [str(int(row)) for row in rows]}


def configuration(folder: Path | str, overrides: list[str]) -> Config:
    """The toy recipe, written beside where it runs."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "toy.toml"
    if not file.exists():
        file.write_text(RECIPE.format(folder=folder))
    return config.load(file, overrides)


def train(folder: str, overrides: list[str], stop_at: int | None = None) -> None:
    """`trainer.train.train` on the toy loader; `stop_at` sends this process a SIGTERM during that step."""
    import os
    import signal

    from trainer import launch, loop
    from trainer import train as command

    rank = this_rank()
    launch.prepare(rank)
    settings = configuration(folder, overrides)

    def make(_: Config, rank: Rank) -> Any:
        def loader(phase: PhaseConfig) -> ToyLoader:
            micro = settings.train.batch_size // (rank.world_size * settings.train.num_micro_batches(rank.world_size))
            size = phase.image_size or settings.model.image_size or 64
            return ToyLoader(batch_size=micro, image_size=size, seed=settings.train.seed, rank=rank)

        return loader

    command.loader_maker = make
    if stop_at is not None:
        original = loop.Loop._step

        def step(self: loop.Loop, *arguments: Any) -> None:
            # Rank 0 alone is told: all ranks have to stop after the same step.
            if self.step + 1 == stop_at and rank.is_first:
                os.kill(os.getpid(), signal.SIGTERM)
            original(self, *arguments)

        loop.Loop._step = step  # type: ignore[method-assign]  # a test's hook
    finished = command.train(settings, rank)
    assert finished == (stop_at is None)
