"""Graphs and an oracle for the tests of connected components, here and in Spark."""

from __future__ import annotations

import numpy as np

Edges = list[tuple[int, int]]


def brute_force(edges: Edges) -> dict[int, int]:
    """Smallest reachable row of each row that has an edge, by repeated relaxation."""
    label = {row: row for edge in edges for row in edge}
    changed = True
    while changed:
        changed = False
        for a, b in edges:
            low = min(label[a], label[b])
            changed |= label[a] != low or label[b] != low
            label[a] = label[b] = low
    return label


def shuffled_path(length: int, seed: int) -> Edges:
    """A chain whose row numbers are in no order."""
    rows = np.random.default_rng(seed).permutation(length).tolist()
    return list(zip(rows, rows[1:], strict=False))


def random_graph(seed: int, num_rows: int, num_edges: int) -> Edges:
    ends = np.random.default_rng(seed).integers(0, num_rows, (num_edges, 2)).tolist()
    return [(a, b) for a, b in ends if a != b]


SHAPES: dict[str, Edges] = {
    "chain": [(i, i + 1) for i in range(60)],
    "shuffled chain": shuffled_path(60, 4),
    "star": [(100, i) for i in range(50)],
    "bridge": [(a, b) for base in (0, 20) for a in range(base, base + 6) for b in range(base, a)] + [(5, 20)],
    "two far rows": [(3, 10**12)],
    "repeated and reversed": [(1, 2), (2, 1), (1, 2)],
    "random": random_graph(1, 300, 250),
}
