"""What the training loop asks of an objective, so that the loop is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from trainer.data.feed import Batch

Seeder = Callable[[int], None]
"""Called with a micro-batch's number before each forward of it: a second forward must draw what the first one drew."""
Judge = Callable[[Tensor], bool]
"""Called once a step with this rank's loss, before any gradient is made; False leaves the step without a backward."""


class Objective(Protocol):
    """What is trained: a module, its parameters' groups, and one step of it."""

    def check_files(self) -> None:
        """Raise UserError for settings and files that cannot work; no tensor is read and no process group needed."""

    def build(self, image_size: int | None, weights_file: Path | None) -> nn.Module:
        """The module to train; `weights_file` is a consolidated file of this run's earlier resolution."""

    def list_readers(self, module: Any, weights_file: Path) -> dict[str, Callable[[], Tensor]]:
        """How to read each parameter whole, by its name in `module`, from a consolidated file of this run."""

    def parameter_groups(self, module: Any) -> list[dict[str, Any]]:
        """Groups of parameters for `trainer.optim.build_optimizer`."""

    def follow_masters(self, engine: Any) -> None:
        """Note what the module computes with in float32; every rank calls this whenever the masters have changed."""

    def set_patch_drop(self, module: Any, share: float) -> None:
        """Drop this share of the patches, in [0, 1), in every forward that follows."""

    def step(self, engine: Any, batches: list[Batch], seed: Seeder, is_sound: Judge) -> tuple[Tensor, Tensor | None]:
        """Forward and backward; returns this rank's loss, `[]`, and the inverse temperature, `[1]`, if there is one."""

    def sample_flops(self, image_size: int | None, patch_drop: float, batch: Batch) -> float:
        """Model FLOPs to train on one sample of such a batch, forward and backward; recomputation does not count."""

    def export(self, tensors: dict[str, Tensor], image_size: int | None, path: Path) -> None:
        """Write the consolidated tensors as one safetensors file; only the first rank calls this."""
