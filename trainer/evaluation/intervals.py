"""Intervals of what is measured, by drawing the measured items anew with replacement.

(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13: the percentile interval.) A draw of n items
out of n is known by how often each of them came, which is multinomial; items of equal value are drawn together, so a
thousand draws of a million hits and misses cost as much as those of two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

NUM_RESAMPLES = 1_000
LEVEL = 0.95
_DRAWS_AT_ONCE = 100


def bootstrap_interval(values: Tensor | Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of `values`, `[n]`."""
    levels, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    return resample(counts, lambda draws: draws @ levels / counts.sum(), seed)


def bootstrap_class_mean(labels: Tensor, values: Tensor, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean over classes of the mean of a class's `values`, `[n]`; `labels` are int64 `[n]`.

    A class that a draw leaves out is left out of that draw's mean.
    """
    pairs = np.stack((labels.numpy().astype(np.float64), values.numpy().astype(np.float64)))
    cells, counts = np.unique(pairs, axis=1, return_counts=True)
    starts = np.flatnonzero(np.diff(cells[0], prepend=-1.0))

    def measure(draws: np.ndarray) -> np.ndarray:
        seen = np.add.reduceat(draws, starts, axis=1)
        hits = np.add.reduceat(draws * cells[1], starts, axis=1)
        return np.asarray(np.nanmean(np.where(seen > 0, hits / np.maximum(seen, 1), np.nan), axis=1))

    return resample(counts, measure, seed)


def resample(counts: np.ndarray, measure: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> tuple[float, float]:
    """The percentile interval of `measure` over draws with replacement of items that came `counts` times each.

    `measure` gets how often each was drawn, int64 `[draws, len(counts)]`, and returns float64 `[draws]`.
    """
    rng, size = np.random.default_rng(seed), int(counts.sum())
    parts = [
        measure(rng.multinomial(size, counts / size, size=_DRAWS_AT_ONCE))
        for _ in range(NUM_RESAMPLES // _DRAWS_AT_ONCE)
    ]
    low, high = np.quantile(np.concatenate(parts), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def with_interval(name: str, value: float, interval: tuple[float, float]) -> dict[str, float]:
    """A measure and the ends of its interval, by the names that results have: NAME, NAME_low, NAME_high."""
    return {name: value, f"{name}_low": interval[0], f"{name}_high": interval[1]}
