"""Intervals: the normal's where it holds, and the same as of draws one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.evaluation import intervals


def test_intervals_are_the_normal_s_where_it_holds_and_repeat() -> None:
    values = torch.bernoulli(torch.full((2_000,), 0.7), generator=torch.Generator().manual_seed(0))
    low, high = intervals.bootstrap_interval(values)
    share = values.mean().item()
    half = 1.96 * math.sqrt(share * (1 - share) / len(values))
    assert low == pytest.approx(share - half, abs=0.004) and high == pytest.approx(share + half, abs=0.004)
    assert intervals.bootstrap_interval(values) == (low, high)
    assert intervals.bootstrap_interval([1.0, 1.0]) == (1.0, 1.0)


def test_values_of_many_levels_have_the_interval_of_draws_one_by_one() -> None:
    rng = np.random.default_rng(1)
    values = rng.gamma(2.0, size=400)
    means = [values[rng.integers(0, 400, 400)].mean() for _ in range(4_000)]
    found = intervals.bootstrap_interval(torch.from_numpy(values))
    assert found == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.02)


def test_the_mean_over_classes_has_the_interval_of_draws_one_by_one() -> None:
    rng = np.random.default_rng(2)
    labels = rng.choice(4, size=300, p=[0.7, 0.2, 0.09, 0.01])
    hits = (rng.random(300) < 0.3 + 0.2 * labels).astype(float)

    def measure(chosen: np.ndarray) -> float:
        return float(np.mean([hits[chosen][labels[chosen] == c].mean() for c in np.unique(labels[chosen])]))

    means = [measure(rng.integers(0, 300, 300)) for _ in range(4_000)]
    found = intervals.bootstrap_class_mean(torch.from_numpy(labels), torch.from_numpy(hits))
    assert found == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])), abs=0.02)
