"""From edges to decisions: the connected components, and which rows of each are removed.

Rows are numbered in the order of the keep rule, 0 first. Single linkage chains: a ~ b ~ c does not make c like a. So a
row is removed only by a row that is kept and has an edge to it. The rest of a component forms groups of its own.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def label_components(left: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Component of every row that has an edge: `(rows, component)`, int64 `[m]`, rows rising.

    A component is named by its smallest row. Memory grows with the edges, not with the largest row number.
    """
    rows, compact = np.unique(np.concatenate([left, right]), return_inverse=True)
    a, b = compact[: len(left)], compact[len(left) :]
    graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(len(rows), len(rows)))
    _, labels = connected_components(graph, directed=False)
    smallest = rows[np.unique(labels, return_index=True)[1]]
    return rows.astype(np.int64), smallest[labels].astype(np.int64)


MAX_STEPS = 64
"""Steps over all edges before the rest is decided edge by edge: a chain takes a step for every two rows."""


def select_removing(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """What `RemovalSelector` selects of edges (int64 `[n]`) sorted by (left, right), as their places, by right row.

    A row is kept once no better one that may still be kept has an edge to it: all such rows are found at a time.
    """
    rows, compact = np.unique(np.concatenate([left, right]), return_inverse=True)
    a, b = compact[: len(left)], compact[len(left) :]
    removed, open_edges = np.zeros(len(rows), bool), np.arange(len(a))
    for _ in range(MAX_STEPS):
        if not len(open_edges):
            break
        is_waiting = np.zeros(len(rows), bool)
        is_waiting[b[open_edges]] = True
        is_decided = ~is_waiting[a[open_edges]]
        removed[b[open_edges[is_decided]]] = True
        open_edges = open_edges[~is_decided]
        open_edges = open_edges[~removed[a[open_edges]] & ~removed[b[open_edges]]]
    for one, other in zip(a[open_edges].tolist(), b[open_edges].tolist(), strict=True):
        if not removed[one]:
            removed[other] = True
    removing = np.flatnonzero(~removed[a])
    _, first = np.unique(b[removing], return_index=True)
    return np.asarray(removing[first])


class RemovalSelector:
    """Selects the edges that remove their right row, from a stream of edges sorted by (component, left, right).

    In the order of the rows, a row that no other row has removed is kept, and removes its neighbours that are not
    removed yet. Remembers the removed rows of one component at a time.
    """

    def __init__(self) -> None:
        self._component = -1
        self._removed: set[int] = set()

    def select(self, component: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Mask of those among the next edges of the stream that remove their right row; one edge a removed row."""
        mask = np.zeros(len(left), bool)
        edges = zip(component.tolist(), left.tolist(), right.tolist(), strict=True)
        for position, (name, a, b) in enumerate(edges):
            if name != self._component:
                self._component, self._removed = name, set()
            if a not in self._removed and b not in self._removed:
                self._removed.add(b)
                mask[position] = True
        return mask
