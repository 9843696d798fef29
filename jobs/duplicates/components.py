"""Connected components of more edges than one machine holds: large-star and small-star, alternating.

Kiveris, Lattanzi, Mirrokni, Rastogi, Vassilvitskii, "Connected Components in MapReduce and Beyond", SoCC 2014,
algorithm 2. Gives the labels of `curation.duplicates.components.label_components`.
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def label_components(edges: DataFrame) -> DataFrame:
    """`row`, `component` of every row that has an edge in `edges` (bigint `left`, `right`); named by smallest row."""
    stars = edges.selectExpr("greatest(left, right) as a", "least(left, right) as b").where("a > b").distinct()
    stars = stars.localCheckpoint()
    before = None
    while (digest := _digest(stars)) != before:
        before = digest
        stars = _small_star(_large_star(stars)).localCheckpoint()
    centres = stars.selectExpr("b as row", "b as component").distinct()
    return stars.selectExpr("a as row", "b as component").unionAll(centres)


def _large_star(edges: DataFrame) -> DataFrame:
    """Connects every larger neighbour of a node with the node's smallest neighbour (or itself)."""
    both = edges.unionAll(edges.selectExpr("b as a", "a as b"))
    smallest = both.groupBy("a").agg(F.least(F.min("b"), "a").alias("m"))
    return both.where("b > a").join(smallest, "a").selectExpr("b as a", "m as b").distinct()


def _small_star(edges: DataFrame) -> DataFrame:
    """Connects a node and its smaller neighbours with the smallest of them."""
    smallest = edges.groupBy("a").agg(F.min("b").alias("m"))
    moved = edges.join(smallest, "a").where("b > m").selectExpr("b as a", "m as b")
    return moved.unionAll(smallest.selectExpr("a", "m as b")).distinct()


def _digest(edges: DataFrame) -> tuple[int, int]:
    """Count and an order-free checksum of the edges: equal when nothing has moved."""
    row = edges.selectExpr("count(*) as n", "bit_xor(xxhash64(a, b)) as x").first()
    assert row is not None  # an aggregate without groups has one row
    return row["n"], row["x"]
