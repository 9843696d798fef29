"""Skipping: what is sound, what is counted, when it is too much."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import UserError
from trainer.config import TrainConfig
from trainer.guard import SpikeGuard


def _guard(**settings: float) -> SpikeGuard:
    return SpikeGuard(TrainConfig(batch_size=1, **settings))  # type: ignore[arg-type]


def test_only_finite_losses_are_sound() -> None:
    guard = _guard()
    guard.count_step(True, 1.0)
    assert guard.is_sound(1e9)
    assert not any(guard.is_sound(loss) for loss in (math.nan, math.inf, -math.inf))


@pytest.mark.parametrize("mean", [2.0, -0.5])
def test_a_spike_is_measured_from_the_mean_whatever_its_sign(mean: float) -> None:
    guard = _guard(spike_factor=2.0)
    assert guard.is_sound(1e9), "there is no mean yet"
    guard.count_step(True, mean)
    assert guard.is_sound(mean) and guard.is_sound(mean + 0.99 * abs(mean))
    assert not guard.is_sound(mean + 1.01 * abs(mean))


def test_skipped_losses_stay_out_of_the_mean() -> None:
    guard = _guard(spike_factor=2.0)
    guard.count_step(True, 1.0)
    guard.count_step(False, 1e6)
    assert (guard.mean_loss, guard.num_skipped, guard.skipped_in_a_row) == (1.0, 1, 1)


@given(st.lists(st.booleans(), max_size=40))
def test_training_stops_after_so_many_in_a_row_and_not_before(applied: list[bool]) -> None:
    guard, in_a_row = _guard(max_skipped_steps=3), 0
    for ok in applied:
        guard.count_step(ok, 1.0)
        in_a_row = 0 if ok else in_a_row + 1
        if in_a_row >= 3:
            with pytest.raises(UserError, match="steps in a row were skipped"):
                guard.require_progress("here")
        else:
            guard.require_progress("here")
    assert guard.num_skipped == applied.count(False)
