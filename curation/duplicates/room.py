"""How many of its neighbours each row remembers: the best-ranked ones, and whether there were more."""

from __future__ import annotations

import numpy as np


def take(later: np.ndarray, wanted: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Mask of the `wanted` pairs for which their `later` row has `room` left, which is taken; the first ones first.

    `room` int `[rows]` falls below zero for a row that had more wanted pairs than that: it was cut short.
    """
    pairs = np.flatnonzero(wanted)
    pairs = pairs[np.argsort(later[pairs], kind="stable")]
    counts = np.bincount(later[pairs], minlength=len(room))
    place = np.arange(len(pairs)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = np.zeros(len(later), bool)
    taken[pairs[place < room[later[pairs]]]] = True
    room -= counts
    return taken
