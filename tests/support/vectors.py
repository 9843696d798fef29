"""Vectors of which some are alike, and all of their pairs by brute force."""

from __future__ import annotations

import numpy as np

from curation.duplicates.blocks import Pairs
from curation.duplicates.clustering import normalise


def planted(count: int, dim: int = 32, seed: int = 0, lowest: float = 0.9) -> np.ndarray:
    """Random directions of which each in the last third is near one in the first third."""
    rng = np.random.default_rng(seed)
    vectors = normalise(rng.standard_normal((count, dim)))
    third = count // 3
    cosine = rng.uniform(lowest, 1, (third, 1))
    noise = rng.standard_normal((third, dim))
    noise -= (noise * vectors[:third]).sum(1, keepdims=True) * vectors[:third]
    vectors[count - third :] = cosine * vectors[:third] + np.sqrt(1 - cosine**2) * normalise(noise)
    return vectors


def brute_force(vectors: np.ndarray, min_cosine: float) -> set[tuple[int, int]]:
    """Every pair (smaller row, larger row) whose cosine is at least `min_cosine`."""
    cosines = np.triu(normalise(vectors) @ normalise(vectors).T, 1)
    return set(zip(*(axis.tolist() for axis in np.nonzero(cosines >= min_cosine)), strict=True))


def unique_pairs(found: Pairs) -> set[tuple[int, int]]:
    """The pairs of `found`, none of which may come twice."""
    rows = list(zip(found[0].tolist(), found[1].tolist(), strict=True))
    assert len(rows) == len(set(rows)), "a pair was reported twice"
    return set(rows)


def split_cut_short(left: np.ndarray, right: np.ndarray) -> tuple[set[tuple[int, int]], set[int]]:
    """The pairs of different rows, and the rows that were reported as cut short."""
    pairs = set(zip(left.tolist(), right.tolist(), strict=True))
    return {(a, b) for a, b in pairs if a != b}, {a for a, b in pairs if a == b}
