"""The limit on the neighbours that each row remembers: it remembers its best ones, and whether there were more."""

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
