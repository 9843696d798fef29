"""Limits on the neighbours that each row remembers: its best ones and whether there were more, or its nearest ones."""

from __future__ import annotations

import numpy as np


def take_best(later: np.ndarray, wanted: np.ndarray, remaining: np.ndarray) -> np.ndarray:
    """Mask of the `wanted` pairs that are remembered: the first ones of each `later` row, up to its `remaining` number.

    `later` int `[pairs]` has the rows, `wanted` bool `[pairs]`. `remaining` int `[rows]` is lowered by the wanted pairs
    of each row. Below zero it says that the row had more of them than it may remember, and so was cut short.
    """
    pairs = np.flatnonzero(wanted)
    pairs = pairs[np.argsort(later[pairs], kind="stable")]
    counts = np.bincount(later[pairs], minlength=len(remaining))
    place = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = np.zeros(len(later), bool)
    taken[pairs[place < remaining[later[pairs]]]] = True
    remaining -= counts
    return taken


def find_nearest(left: np.ndarray, right: np.ndarray, similarity: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` most similar pairs of each `right` row, each pair once; all arguments `[pairs]`."""
    order = np.lexsort((left, -similarity, right))
    left, right = left[order], right[order]
    repeated = np.zeros(len(order), bool)
    repeated[1:] = (left[1:] == left[:-1]) & (right[1:] == right[:-1])
    order, right = order[~repeated], right[~repeated]
    starts = np.searchsorted(right, right)
    return np.asarray(order[np.arange(len(order)) - starts < count])
