"""Which steps are applied: those of non-finite or spiking losses are skipped, and too many in a row end the run."""

from __future__ import annotations

import math

from curation.errors import UserError
from trainer.config import TrainConfig

MOMENTUM = 0.98
"""Of the running mean that spikes are measured against."""


class SpikeGuard:
    """Decides which steps are skipped; the same on every rank, since all of them get the same mean loss."""

    def __init__(self, config: TrainConfig, *, num_skipped: int = 0, mean_loss: float | None = None) -> None:
        self.config = config
        self.num_skipped, self.mean_loss = num_skipped, mean_loss
        self.skipped_in_a_row = 0

    def is_sound(self, loss: float) -> bool:
        """Whether the loss of a step, the mean over all ranks, may become a gradient."""
        if not math.isfinite(loss):
            return False
        if not self.config.spike_factor or self.mean_loss is None:
            return True
        return loss <= self._highest_sound(self.mean_loss)

    def start_phase(self) -> None:
        """Forget the mean: other data, patch drop or resolution have another loss, which is no spike."""
        self.mean_loss = None

    def count_step(self, applied: bool, loss: float) -> None:
        """Note how the step ended.

        The loss of a skipped step enters the mean too, but as no more than the highest sound one. So one spike moves
        the mean by little, and a loss that stays higher (harder data) is sound after some steps.
        """
        self.skipped_in_a_row = 0 if applied else self.skipped_in_a_row + 1
        self.num_skipped += not applied
        if not math.isfinite(loss):
            return
        if self.mean_loss is None:
            self.mean_loss = loss
        elif self.config.spike_factor:
            loss = min(loss, self._highest_sound(self.mean_loss))
        self.mean_loss = MOMENTUM * self.mean_loss + (1 - MOMENTUM) * loss

    def _highest_sound(self, mean: float) -> float:
        # A distance above the mean, not a ratio to it: a cosine loss is negative.
        return mean + (self.config.spike_factor - 1) * abs(mean)

    def require_progress(self, where: str) -> None:
        """Raise UserError once train.max_skipped_steps in a row were skipped; `where` names the checkpoints."""
        if self.skipped_in_a_row >= self.config.max_skipped_steps:
            raise UserError(
                f"Training stopped: {self.skipped_in_a_row} steps in a row were skipped for a non-finite or spiking "
                f"loss or gradient; lower optim.*.lr or set optim.clip_norm and resume from {where}."
            )
