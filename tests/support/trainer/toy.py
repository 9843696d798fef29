"""A tiny CLIP task that needs no data: a loader over random pairs, and workers that train on it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from curation.command import end_process
from trainer import config
from trainer.config import Config, PhaseConfig
from trainer.launch import Rank, read_rank

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
    Batches whose number is in `poisoned` have pixels that are not numbers.
    """

    def __init__(
        self, *, batch_size: int, image_size: int, seed: int, rank: Rank, poisoned: Sequence[int] = ()
    ) -> None:
        self.batch_size, self.image_size, self.seed, self.rank = batch_size, image_size, seed, rank
        self.poisoned = set(poisoned)
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
            number = self.position // (self.batch_size * self.rank.world_size)
            self.position += self.batch_size * self.rank.world_size
            pixels = torch.nn.functional.interpolate(self.pixels[rows], size=self.image_size)
            if number in self.poisoned:
                pixels = pixels * float("nan")
            yield {"pixels": pixels, "tokens": self.tokens[rows], "uid": [str(int(row)) for row in rows]}


def configuration(folder: Path | str, overrides: list[str]) -> Config:
    """The toy recipe, written beside where it runs."""
    return config.load_config(recipe(folder), overrides)


def recipe(folder: Path | str) -> Path:
    """The toy recipe's file in `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"toy-{os.getpid()}.toml"
    file.write_text(RECIPE.format(folder=folder))
    return file


def prepare_loaders(settings: Config, rank: Rank, poisoned: Sequence[int] = ()) -> Any:
    """As `trainer.preflight.prepare_loaders`."""

    def make(phase: PhaseConfig) -> ToyLoader:
        parts = settings.num_micro_batches(rank.world_size, phase)
        micro = settings.train.batch_size // (rank.world_size * parts)
        size = phase.image_size or settings.model.image_size or 64
        return ToyLoader(batch_size=micro, image_size=size, seed=settings.train.seed, rank=rank, poisoned=poisoned)

    return make


def train(
    folder: str,
    overrides: list[str],
    stop_at: int | None = None,
    die_at: int | None = None,
    poisoned: Sequence[int] = (),
    distil: bool = False,
) -> None:
    """The command `trainer.train`, or `trainer.distill`, on the toy loader; exits with its status.

    Rank 0 gets a SIGTERM during step `stop_at`, and every rank a SIGKILL at the end of step `die_at`.
    """
    from trainer import distill, loop, preflight
    from trainer import train as train_command

    rank = read_rank()
    command: Any = distill if distil else train_command
    preflight.prepare_loaders = lambda settings, rank: prepare_loaders(settings, rank, poisoned)
    original = loop.Loop._step

    def step(self: loop.Loop, *arguments: Any) -> None:
        # Rank 0 alone is told: all ranks have to stop after the same step.
        if self.step + 1 == stop_at and rank.is_first:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, *arguments)
        if self.step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    loop.Loop._step = step  # type: ignore[method-assign,assignment]  # a test's hook
    argv = ["--config", str(recipe(folder)), *(part for override in overrides for part in ("--set", override))]
    end_process(command.main(argv))


def records(folder: Path | str) -> dict[int, dict[str, Any]]:
    """Step → its record in metrics.jsonl; of a step that was run again, the last one."""
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return {record["step"]: record for record in map(json.loads, lines)}


def losses(folder: Path | str) -> dict[int, float]:
    """Step → loss."""
    return {step: record["loss"] for step, record in records(folder).items()}
