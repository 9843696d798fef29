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


def test_one_spike_moves_the_mean_by_little_and_numbers_that_are_none_do_not() -> None:
    guard = _guard(spike_factor=2.0)
    guard.count_step(True, 1.0)
    guard.count_step(False, 1e6)
    assert guard.mean_loss == pytest.approx(1.02)
    guard.count_step(False, math.nan)
    assert guard.mean_loss == pytest.approx(1.02)
    assert (guard.num_skipped, guard.skipped_in_a_row) == (2, 2)


@pytest.mark.parametrize("spike_factor", [1.5, 2.0])
def test_a_loss_that_stays_higher_is_sound_before_the_run_would_end(spike_factor: float) -> None:
    guard = _guard(spike_factor=spike_factor)
    for _ in range(100):
        guard.count_step(True, 2.0)
    higher = 2.0 * spike_factor * 1.1
    num_skipped = 0
    while not guard.is_sound(higher):
        guard.count_step(False, higher)
        guard.require_progress("here")
        num_skipped += 1
    assert 0 < num_skipped < 20


def test_a_model_that_broke_still_ends_the_run() -> None:
    guard = _guard(spike_factor=2.0)
    guard.count_step(True, 2.0)
    with pytest.raises(UserError, match="20 steps in a row were skipped"):
        for _ in range(20):
            assert not guard.is_sound(11.8)
            guard.count_step(False, 11.8)
            guard.require_progress("here")


def test_a_phase_begins_without_a_mean() -> None:
    guard = _guard(spike_factor=2.0)
    guard.count_step(True, 1.0)
    guard.start_phase()
    assert guard.is_sound(7.0)
    guard.count_step(True, 7.0)
    assert guard.mean_loss == 7.0 and not guard.is_sound(14.5)


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
