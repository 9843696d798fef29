"""From edges to removed rows, searched again until no two kept rows are found alike, on this machine.

As jobs/duplicates/graph.py says: kept rows that a search has cut short are searched again among all kept rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from curation.deduplication.near import NO_EDGES, Edges, unite_edges
from curation.duplicates.components import label_components, select_removing

Search = Callable[[np.ndarray | None, np.ndarray | None], tuple[Edges, np.ndarray]]
"""As `curation.deduplication.near.PerceptualSearch.search`."""


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What the edges decide."""

    removing: Edges
    """For each removed row the edge that removes it, from a row that is kept."""
    rows: np.ndarray
    """The rows that have an edge, int64, rising."""
    components: np.ndarray
    """For each of `rows` the smallest row of its component."""
    rounds: list[dict[str, int]]
    """Of each round the edges known after it, and the kept rows that were searched again."""


def find_removing_edges(search: Search | None, num_rows: int) -> Decided:
    """Search until nothing more is found; without a search no row is removed."""
    edges, cut = search(None, None) if search else (NO_EDGES, np.zeros(0, np.int64))
    rounds = list[dict[str, int]]()
    while True:
        chosen = select_removing(edges.left, edges.right)
        removing = Edges(edges.left[chosen], edges.right[chosen], edges.distance[chosen])
        removed = np.zeros(num_rows, bool)
        removed[removing.right] = True
        again = cut[~removed[cut]]
        rounds.append({"edges": len(edges), "searched_again": len(again)})
        more = NO_EDGES
        if search and len(again):
            asked = np.zeros(num_rows, bool)
            asked[again] = True
            more, further = search(removed, asked)
            cut = np.union1d(cut, further)
        if not len(more):
            rows, components = label_components(edges.left, edges.right)
            return Decided(removing=removing, rows=rows, components=components, rounds=rounds)
        edges = unite_edges([edges, more])
