"""The graph of alike rows where one machine holds all that searches have found; no Spark is needed.

jobs/duplicates/graph.py says what happens to it, and does the same with more results than one machine holds.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.duplicates.components import RemovalSelector, label_components
from curation.duplicates.limit import find_nearest

RESULTS = pa.schema(
    {
        "left": pa.int64(),
        "right": pa.int64(),
        "similarity": pa.float64(),
        "cluster": pa.int64(),
        "in_doubt": pa.bool_(),
        "tier": pa.int32(),
    }
)
"""What searches find: edges, left being the better row; pairs `in_doubt`, which are no edges yet; and as left = right
rows that a search has cut short, in `cluster` where the tier has such a column."""
EDGES = pa.schema([RESULTS.field(name) for name in ("left", "right", "tier", "similarity")])
EDGES_PER_STEP = 1_000_000
"""Edges that are Python's own numbers at a time, each of which takes four times the bytes."""


class LocalGraph:
    """The results of all searches by now, and what they decide of the rows, which are numbered best first.

    `labels` (`row`, `component`) has every row with an edge, `removing` those of `edges` that remove their right row,
    `cut` (`row`, `cluster`, `tier`) the kept rows that were cut short. They say what `edges` decides once `decide` ran.
    """

    def __init__(self, found: pa.Table) -> None:
        """`found` has the columns of RESULTS."""
        self.found = found
        self.edges = take_strongest(found)
        self.seen = pa.table({"left": pa.array([], pa.int64()), "right": pa.array([], pa.int64())})
        """The pairs in doubt that were looked at."""

    def decide(self) -> None:
        left, right = (self.edges[name].to_numpy() for name in ("left", "right"))
        rows, components = label_components(left, right)
        self.labels = pa.table({"row": rows, "component": components})
        self.removing = self.edges.filter(pa.array(_find_removing(left, right, components[rows.searchsorted(left)])))
        cut = self.found.filter(pc.equal(self.found["left"], self.found["right"]))
        cut = cut.select(["left", "cluster", "tier"]).rename_columns(["row", "cluster", "tier"])
        self.cut = cut.filter(pc.invert(pc.is_in(cut["row"], self.removing["right"].combine_chunks())))

    def add(self, found: pa.Table) -> int:
        """Add what searches have found among kept rows, the columns of RESULTS; how many edges that is."""
        self.found = pa.concat_tables([self.found, found])
        return self.add_edges(take_strongest(found))

    def add_edges(self, edges: pa.Table) -> int:
        """Add `edges` between kept rows, the columns of EDGES; how many."""
        self.edges = pa.concat_tables([self.edges, edges])
        return len(edges)

    def choose_unseen_pairs(self, count: int) -> pa.Table:
        """The pairs to look at now: those of `choose_pairs` that this has not named before."""
        doubtful = self.found.filter(self.found["in_doubt"])
        num_seen, pairs = len(self.seen), choose_pairs(doubtful, self.removing, count)
        together = pa.concat_tables([self.seen, pairs])
        left, right = (together[name].to_numpy() for name in ("left", "right"))
        order = np.lexsort((right, left))  # of equal pairs the seen one comes first
        first = np.sort(order[_find_starts(left[order], right[order])])
        self.seen = together.take(pa.array(first))
        return self.seen.slice(num_seen)


def take_strongest(found: pa.Table) -> pa.Table:
    """One edge a pair, as EDGES: of the earliest tier, and of its similarities the largest."""
    certain = pc.and_(pc.less(found["left"], found["right"]), pc.invert(pc.fill_null(found["in_doubt"], False)))
    edges = found.filter(certain).select(EDGES.names)
    left, right, tier, similarity = (edges[name].to_numpy() for name in EDGES.names)
    order = np.lexsort((-similarity, tier, right, left))
    return edges.take(pa.array(order[_find_starts(left[order], right[order])])).combine_chunks()


def choose_pairs(doubtful: pa.Table, removing: pa.Table, count: int) -> pa.Table:
    """`left`, `right` of kept rows, left being the better one: of each right row the `count` nearest.

    `doubtful` has pairs (`left`, `right`, `similarity`) of any rows, `removing` the edges (`left`, `right`) that remove
    their right row. A row that is removed stands for the one that is kept for it.
    """
    keeper, removed = (removing[name].to_numpy() for name in ("left", "right"))
    order = removed.argsort()
    keeper, removed = keeper[order], removed[order]
    one, other = (_replace(doubtful[name].to_numpy(), removed, keeper) for name in ("left", "right"))
    left, right, similarity = np.minimum(one, other), np.maximum(one, other), doubtful["similarity"].to_numpy()
    order = np.lexsort((-similarity, left, right))
    order = order[left[order] < right[order]]
    order = order[_find_starts(left[order], right[order])]
    left, right, similarity = left[order], right[order], similarity[order]
    nearest = find_nearest(left, right, similarity, count)
    return pa.table({"left": left[nearest], "right": right[nearest]})


def _find_removing(left: np.ndarray, right: np.ndarray, component: np.ndarray) -> np.ndarray:
    """Mask of the edges that remove their right row."""
    order = np.lexsort((right, left, component))
    mask, selector = np.zeros(len(order), bool), RemovalSelector()
    for start in range(0, len(order), EDGES_PER_STEP):
        step = order[start : start + EDGES_PER_STEP]
        mask[step] = selector.select(component[step], left[step], right[step])
    return mask


def _replace(rows: np.ndarray, removed: np.ndarray, keeper: np.ndarray) -> np.ndarray:
    """`rows`, where one of the sorted `removed` is replaced by its `keeper`."""
    if not len(removed):
        return rows
    place = np.minimum(removed.searchsorted(rows), len(removed) - 1)
    return np.where(removed[place] == rows, keeper[place], rows)


def _find_starts(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Mask of the first one of each run of equal pairs."""
    starts = np.ones(len(left), bool)
    starts[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    return starts
