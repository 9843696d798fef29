"""Where a loader stands in its order of samples, to be saved and taken up again at any number of ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from curation.errors import UserError

STATE_VERSION = 1


class Positioned:
    """A loader that stands `samples_seen` samples, of all ranks together, behind the start of `epoch`."""

    epoch: int
    samples_seen: int

    def set_epoch(self, epoch: int) -> None:
        """Stand at the start of `epoch`."""
        self.epoch, self.samples_seen = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands, the same on every rank; for any world size and number of workers to go on from."""
        return {
            "version": STATE_VERSION,
            "epoch": self.epoch,
            "samples_seen": self.samples_seen,
            "order": self._describe_order(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`. Raises UserError when it belongs to another order of samples, saying what differs."""
        if state.get("version") != STATE_VERSION:
            raise UserError(
                f"The loader's state has version {state.get('version')}, this loader reads {STATE_VERSION}."
            )
        order, saved = self._describe_order(), state["order"]
        differing = sorted(key for key in order.keys() | saved.keys() if saved.get(key) != order.get(key))
        if differing:
            raise UserError(
                f"The loader's state belongs to another order of samples ({', '.join(differing)} differ): "
                f"resume with the settings it was saved with, or start anew."
            )
        self.epoch, self.samples_seen = int(state["epoch"]), int(state["samples_seen"])
        if not self._has_more():
            self.set_epoch(self.epoch + 1)

    def _describe_order(self) -> dict[str, Any]:
        """Everything that decides which sample is where."""
        raise NotImplementedError

    def _has_more(self) -> bool:
        """Whether the epoch has another batch from here."""
        raise NotImplementedError
