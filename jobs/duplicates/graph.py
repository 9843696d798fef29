"""From the edges of all tiers to who goes, searched again until no two rows that stay are found alike.

Where pictures crowd, a search remembers some neighbours of a row only, and tells that it was cut short. When all of
those are removed, the row stays though others like it may. So rows that are still there and were cut short are searched
again, among what is still there, and components and guard are redone on all edges. When such a round finds nothing, no
row that stays resembles another one that stays, and every other row has an edge to a better one that stays: the result
is the one that all edges would have given. Edges only grow, so this ends. Nothing is done twice where nothing crowds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from typing import Protocol

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.duplicates import components as local
from jobs.duplicates import components as spread
from jobs.spark.tasks import materialise

_FOUND = "left bigint, right bigint, similarity double, cluster bigint, tier int"


class Search(Protocol):
    """The search of one tier: `left`, `right`, `similarity` of pairs that are alike, left being the better row.

    left = right is a row that was cut short, in `cluster` where the tier has such a column. Given `kept` (`row`), it
    searches among these rows only, and of their pairs may leave out those without a row in `cut` (`row`, `cluster`).
    """

    def __call__(self, kept: DataFrame | None = None, cut: DataFrame | None = None) -> DataFrame: ...


def settled(
    spark: SparkSession, rows: DataFrame, searches: Mapping[int, Search], max_local_edges: int
) -> tuple[DataFrame, DataFrame, list[dict[str, int]]]:
    """The edges that remove their right row (`left`, `right`, `tier`, `similarity`), then `row` and `component`.

    `rows` (`row`) is everything that was compared, `searches` has each tier's place in the order of evidence. Also
    counts of each round: the edges known after it, and the rows that were then searched again, being there still though
    cut short.
    """
    found = _together(spark, {tier: search() for tier, search in searches.items()})
    edges, cut, rounds = _edges(found), found.where("left = right"), list[dict[str, int]]()
    num_edges = edges.count()
    while True:
        labels = materialise(labelled(spark, edges, num_edges, max_local_edges))
        gone = materialise(guarded(edges.join(labels.withColumnRenamed("row", "left"), "left")))
        num_cut = 0
        if not cut.isEmpty():
            still_cut = materialise(
                cut.selectExpr("left as row", "cluster", "tier").join(_rows(gone), "row", "left_anti")
            )
            num_cut = still_cut.select("row").distinct().count()
        rounds.append({"edges": num_edges, "searched_again": num_cut})
        if not num_cut:
            return gone, labels, rounds
        kept = materialise(rows.join(_rows(gone), "row", "left_anti"))
        tiers = sorted(row["tier"] for row in still_cut.select("tier").distinct().collect())
        found = _together(spark, {n: searches[n](kept, still_cut.where(F.col("tier") == n)) for n in tiers})
        more = _edges(found)
        if not (num_more := more.count()):
            return gone, labels, rounds
        num_edges += num_more
        edges, cut = edges.unionByName(more), cut.unionByName(found.where("left = right"))


def _rows(gone: DataFrame) -> DataFrame:
    return gone.select(F.col("right").alias("row"))


def _together(spark: SparkSession, found: Mapping[int, DataFrame]) -> DataFrame:
    parts = [spark.createDataFrame([], _FOUND)]
    parts += [part.withColumn("tier", F.lit(tier)) for tier, part in found.items()]
    return materialise(reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), parts))


def _edges(found: DataFrame) -> DataFrame:
    """One edge a pair: of the earliest tier, and of its similarities the largest."""
    strongest = F.min(F.struct("tier", (-F.col("similarity")).alias("distance"))).alias("e")
    united = found.where("left < right").groupBy("left", "right").agg(strongest)
    return materialise(united.selectExpr("left", "right", "e.tier", "-e.distance as similarity"))


def labelled(spark: SparkSession, edges: DataFrame, num_edges: int, max_local_edges: int) -> DataFrame:
    """`row`, `component` of every row with an edge, by scipy here or by Spark above `max_local_edges`."""
    if num_edges > max_local_edges:
        return spread.components(edges)
    pairs = edges.select("left", "right").toArrow()
    rows, names = local.components(pairs["left"].to_numpy(), pairs["right"].to_numpy())
    if not len(rows):
        return spark.createDataFrame([], "row bigint, component bigint")
    return spark.createDataFrame(pa.table({"row": rows, "component": names}))


def guarded(edges: DataFrame) -> DataFrame:
    """The edges that remove their right row: to a row that stays itself. Wants `component`, `left`, `right`."""

    def choose(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        guard = local.Guard()
        for batch in batches:
            columns = [batch[name].to_numpy() for name in ("component", "left", "right")]
            yield batch.filter(pa.array(guard.removing(*columns)))

    ordered = edges.repartition("component").sortWithinPartitions("component", "left", "right")
    return ordered.mapInArrow(choose, edges.schema)
