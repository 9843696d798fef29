"""Mixing by weight with a guarantee: the groups of consecutive samples follow a fixed pattern, not dice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from curation.errors import UserError

PERIOD = 10_000
"""Slots of the pattern, so weights are kept to 1/10,000."""


def make_pattern(weights: Sequence[float]) -> np.ndarray:
    """The group of each slot of one period, uint16 `[PERIOD]` (`[1]` for one group).

    After any number n of slots, group k has come n · w_k times up to less than the number of groups, and in each whole
    period exactly as often as its weight, rounded to 1/PERIOD, says. Greedy: each slot goes to the group furthest
    behind its share.
    """
    if len(weights) == 1:
        return np.zeros(1, np.uint16)
    counts = _apportion(np.asarray(weights, np.float64) / sum(weights))
    shares, given = counts / PERIOD, np.zeros(len(counts))
    slots = np.empty(PERIOD, np.uint16)
    for slot in range(PERIOD):
        behind = np.where(given < counts, shares * (slot + 1) - given, -np.inf)
        slots[slot] = behind.argmax()
        given[slots[slot]] += 1
    return slots


def _apportion(shares: np.ndarray) -> np.ndarray:
    """Whole slots that add up to PERIOD, at least one each, by largest remainder."""
    exact = shares * PERIOD
    counts: np.ndarray = np.maximum(np.floor(exact).astype(np.int64), 1)
    while counts.sum() != PERIOD:
        step = 1 if counts.sum() < PERIOD else -1
        gap = np.where((counts > 1) | (step > 0), step * (exact - counts), -np.inf)
        counts[gap.argmax()] += step
    return counts


def check_mix(mix: Mapping[str, float], available: Mapping[str, int]) -> None:
    """Raise UserError when `mix` names what has no row, or a weight is not positive.

    `available`: rows of each source or root.
    """
    for name, weight in mix.items():
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight > 0):
            raise UserError(f"mix gives {name!r} the weight {weight!r}: weights must be positive numbers.")
        if not available.get(name):
            known = ", ".join(f"{k} ({v:,})" for k, v in sorted(available.items()) if v) or "none"
            raise UserError(f"mix names {name!r}, which has no selected row; sources with rows: {known}.")
    if len(mix) > PERIOD // 10:
        raise UserError(f"mix names {len(mix)} sources; at most {PERIOD // 10} can be mixed.")
