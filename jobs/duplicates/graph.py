"""From the edges of all tiers to the removed rows, searched again until no two kept rows are found alike.

Where pictures crowd, a search remembers only some neighbours of a row, and reports that the row was cut short. When all
of those neighbours are removed, the row is kept though other kept rows may be like it. So the kept rows that were cut
short are searched again, among all kept rows, and the components and the removed rows are computed again from all
edges. When such a round finds nothing, no kept row resembles another kept row, and every removed row has an edge to a
better row that is kept: this is the result that all edges would have given. The set of edges only grows, so this ends.
Where nothing crowds, nothing is searched twice.

Pairs in doubt are looked at last, when the rest is decided: most of them concern rows that are removed by then, and a
second look costs a thousand times what a cosine does.
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

_EDGES_DDL = "left bigint, right bigint, similarity double, cluster bigint, in_doubt boolean, tier int"


class Search(Protocol):
    """The search of one tier: `left`, `right`, `similarity` of pairs that are alike, left being the better row.

    left = right is a row that was cut short, in `cluster` where the tier has such a column. Pairs that are `in_doubt`,
    where it has that one, are no edges yet. Given `kept` (`row`), it searches among these rows only, and of their pairs
    may leave out those without a row in `cut` (`row`, `cluster`).
    """

    def __call__(self, kept: DataFrame | None = None, cut: DataFrame | None = None) -> DataFrame: ...


class Verifier(Protocol):
    """The second look at pairs in doubt (`left`, `right`, `similarity`), given the edges that remove rows by now.

    Gives new edges between kept rows: `left`, `right`, `tier`, `similarity`.
    """

    def __call__(self, doubtful: DataFrame, removing: DataFrame) -> DataFrame: ...


def find_removing_edges(
    spark: SparkSession,
    rows: DataFrame,
    searches: Mapping[int, Search],
    max_local_edges: int,
    verify: Verifier | None = None,
) -> tuple[DataFrame, DataFrame, list[dict[str, int]]]:
    """The edges that remove their right row (`left`, `right`, `tier`, `similarity`), then `row` and `component`.

    `rows` (`row`) is everything that was compared, `searches` has each tier's place in the order of evidence. Also
    counts of each round: the edges known after it, and the kept rows that were searched again because they had been
    cut short. With `verify`, pairs in doubt are looked at when no search finds more.
    """
    found = _unite_results(spark, {tier: search() for tier, search in searches.items()})
    edges, rounds = _strongest_edges(found), list[dict[str, int]]()
    num_edges = edges.count()
    while True:
        labels = materialise(label_rows(spark, edges, num_edges, max_local_edges))
        removing = materialise(select_removing_edges(edges.join(labels.withColumnRenamed("row", "left"), "left")))
        cut = _find_cut_short(found, removing)
        num_cut = 0 if cut is None else cut.select("row").distinct().count()
        rounds.append({"edges": num_edges, "searched_again": num_cut})
        more, num_more = edges.limit(0), 0
        if cut is not None and num_cut:
            again = _search_again(spark, rows, searches, removing, cut)
            found, more = found.unionByName(again), _strongest_edges(again)
            num_more = more.count()
        if not num_more and verify is not None:
            more = materialise(verify(found.where("in_doubt"), removing))
            num_more = more.count()
        if not num_more:
            return removing, labels, rounds
        num_edges += num_more
        edges = edges.unionByName(more)


def _find_cut_short(found: DataFrame, removing: DataFrame) -> DataFrame | None:
    """`row`, `cluster`, `tier` of the kept rows that a search has cut short; None when no row was."""
    cut = found.where("left = right").selectExpr("left as row", "cluster", "tier")
    if cut.isEmpty():
        return None
    return materialise(cut.join(removing.select(F.col("right").alias("row")), "row", "left_anti"))


def _search_again(
    spark: SparkSession, rows: DataFrame, searches: Mapping[int, Search], removing: DataFrame, cut: DataFrame
) -> DataFrame:
    """What the searches that have cut rows short find among the kept rows."""
    kept = materialise(rows.join(removing.select(F.col("right").alias("row")), "row", "left_anti"))
    tiers = sorted(row["tier"] for row in cut.select("tier").distinct().collect())
    return _unite_results(spark, {n: searches[n](kept, cut.where(F.col("tier") == n)) for n in tiers})


def _unite_results(spark: SparkSession, results: Mapping[int, DataFrame]) -> DataFrame:
    parts = [spark.createDataFrame([], _EDGES_DDL)]
    parts += [part.withColumn("tier", F.lit(tier)) for tier, part in results.items()]
    return materialise(reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), parts))


def _strongest_edges(results: DataFrame) -> DataFrame:
    """One edge a pair: of the earliest tier, and of its similarities the largest."""
    strongest = F.min(F.struct("tier", (-F.col("similarity")).alias("distance"))).alias("e")
    united = results.where("left < right and in_doubt is not true").groupBy("left", "right").agg(strongest)
    return materialise(united.selectExpr("left", "right", "e.tier", "-e.distance as similarity"))


def label_rows(spark: SparkSession, edges: DataFrame, num_edges: int, max_local_edges: int) -> DataFrame:
    """`row`, `component` of every row with an edge, by scipy here or by Spark above `max_local_edges`."""
    if num_edges > max_local_edges:
        return spread.label_components(edges)
    pairs = edges.select("left", "right").toArrow()
    rows, names = local.label_components(pairs["left"].to_numpy(), pairs["right"].to_numpy())
    if not len(rows):
        return spark.createDataFrame([], "row bigint, component bigint")
    return spark.createDataFrame(pa.table({"row": rows, "component": names}))


def select_removing_edges(edges: DataFrame) -> DataFrame:
    """Those of `edges` (`component`, `left`, `right` …) that remove their right row: their left row is kept."""

    def choose(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        selector = local.RemovalSelector()
        for batch in batches:
            columns = [batch[name].to_numpy() for name in ("component", "left", "right")]
            yield batch.filter(pa.array(selector.select(*columns)))

    ordered = edges.repartition("component").sortWithinPartitions("component", "left", "right")
    return ordered.mapInArrow(choose, edges.schema)
