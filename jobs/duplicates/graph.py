"""From the edges of all tiers to the removed rows, searched again until no two kept rows are found alike.

Where pictures crowd, a search remembers only some neighbours of a row, and reports that the row was cut short. When all
of those neighbours are removed, the row is kept though other kept rows may be like it. So the kept rows that were cut
short are searched again, among all kept rows, and the components and the removed rows are computed again from all
edges. When such a round finds nothing, no kept row resembles another kept row, and every removed row has an edge to a
better row that is kept: this is the result that all edges would have given. The set of edges only grows, so this ends.
Where nothing crowds, nothing is searched twice.

Pairs in doubt are looked at last, when the rest is decided: most of them concern rows that are removed by then, and a
second look costs a thousand times what a cosine does.

Up to MAX_LOCAL_RESULTS the driver holds what the searches have found and decides alone (curation/duplicates/graph.py):
a round of Spark's takes seconds however small its tables are. Above, frames do the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Protocol

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from curation.duplicates import components as local
from curation.duplicates.graph import LocalGraph
from jobs.duplicates import components as spread
from jobs.spark.tasks import materialise

_RESULTS_DDL = "left bigint, right bigint, similarity double, cluster bigint, in_doubt boolean, tier int"
MAX_LOCAL_RESULTS = 5_000_000
"""Pairs and rows cut short that the driver takes from the executors, about 200 MB of them."""


class Search(Protocol):
    """The search of one tier: `left`, `right`, `similarity` of pairs that are alike, left being the better row.

    left = right is a row that was cut short, in `cluster` where the tier has such a column. Pairs that are `in_doubt`,
    where it has that one, are no edges yet. Given `kept` (`row`), it searches among these rows only, and of their pairs
    may leave out those without a row in `cut` (`row`, `cluster`).
    """

    def __call__(self, kept: DataFrame | None = None, cut: DataFrame | None = None) -> DataFrame: ...


class Verifier(Protocol):
    """The second look at pairs of kept rows that are in doubt (`left`, `right`).

    Gives those that are edges: `left`, `right`, `tier`, `similarity`. `look` is for frames, `look_here` for what the
    driver holds. Of each row the `max_doubtful` nearest pairs are looked at in a round.
    """

    max_doubtful: int

    def look(self, pairs: DataFrame, num_pairs: int) -> DataFrame: ...

    def look_here(self, pairs: pa.Table) -> pa.Table: ...


class Graph(Protocol):
    """What the searches have found by now, and what the last call of `decide` made of it."""

    @property
    def num_edges(self) -> int: ...

    def decide(self) -> int:
        """Decide which rows are removed; the number of kept rows that were cut short."""

    def removing(self) -> DataFrame:
        """`left`, `right`, `tier`, `similarity` of the edges that remove their right row."""

    def labels(self) -> DataFrame:
        """`row`, `component` of every row with an edge."""

    def cut(self) -> DataFrame:
        """`row`, `cluster`, `tier` of the kept rows that were cut short."""

    def add(self, found: DataFrame) -> int:
        """Add what searches have found among kept rows; how many edges that is."""

    def look(self, verify: Verifier) -> int:
        """Have the pairs in doubt looked at that were not yet, and add those that agree; how many these are."""


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
    num_found, limit = found.count(), min(max_local_edges, MAX_LOCAL_RESULTS)
    graph: Graph
    if num_found <= limit:
        graph = DriverGraph(spark, LocalGraph(found.toArrow()))
    else:
        edges = _strongest_edges(found)
        graph = SpreadGraph(spark, max_local_edges, found, edges, edges.count())
    rounds = list[dict[str, int]]()
    while True:
        num_cut = graph.decide()
        rounds.append({"edges": graph.num_edges, "searched_again": num_cut})
        num_more = 0
        if num_cut:
            again = _search_again(spark, rows, searches, graph.removing(), graph.cut())
            num_found += again.count()
            if isinstance(graph, DriverGraph) and num_found > limit:
                graph = graph.spread(max_local_edges)
                graph.decide()
            num_more = graph.add(again)
        if not num_more and verify is not None:
            num_more = graph.look(verify)
        if not num_more:
            return graph.removing(), graph.labels(), rounds


@dataclass(frozen=True)
class DriverGraph:
    """A graph that the driver holds."""

    spark: SparkSession
    here: LocalGraph

    @property
    def num_edges(self) -> int:
        return len(self.here.edges)

    def decide(self) -> int:
        self.here.decide()
        return len(self.here.cut["row"].unique())

    def removing(self) -> DataFrame:
        return _send(self.spark, self.here.removing)

    def labels(self) -> DataFrame:
        return _send(self.spark, self.here.labels)

    def cut(self) -> DataFrame:
        return _send(self.spark, self.here.cut)

    def add(self, found: DataFrame) -> int:
        return self.here.add(found.toArrow())

    def look(self, verify: Verifier) -> int:
        pairs = self.here.choose_unseen_pairs(verify.max_doubtful)
        return self.here.add_edges(verify.look_here(pairs)) if len(pairs) else 0

    def spread(self, max_local_edges: int) -> SpreadGraph:
        """The same graph in frames."""
        found, edges, seen = (_send(self.spark, table) for table in (self.here.found, self.here.edges, self.here.seen))
        return SpreadGraph(self.spark, max_local_edges, found, edges, self.num_edges, seen)


@dataclass
class SpreadGraph:
    """A graph in frames that executors hold; the driver labels up to `max_local_edges` edges."""

    spark: SparkSession
    max_local_edges: int
    found: DataFrame
    edges: DataFrame
    num_edges: int
    seen: DataFrame | None = None
    _decided: tuple[DataFrame, DataFrame, DataFrame] = field(init=False, repr=False)

    def decide(self) -> int:
        labels = materialise(label_rows(self.spark, self.edges, self.num_edges, self.max_local_edges))
        removing = materialise(select_removing_edges(self.edges.join(labels.withColumnRenamed("row", "left"), "left")))
        cut = self.found.where("left = right").selectExpr("left as row", "cluster", "tier")
        cut = materialise(cut.join(removing.select(F.col("right").alias("row")), "row", "left_anti"))
        self._decided = removing, labels, cut
        return cut.select("row").distinct().count()

    def removing(self) -> DataFrame:
        return self._decided[0]

    def labels(self) -> DataFrame:
        return self._decided[1]

    def cut(self) -> DataFrame:
        return self._decided[2]

    def add(self, found: DataFrame) -> int:
        self.found = self.found.unionByName(found)
        return self._add_edges(_strongest_edges(found))

    def look(self, verify: Verifier) -> int:
        pairs = choose_pairs(self.found.where("in_doubt"), self.removing(), verify.max_doubtful)
        if self.seen is not None:
            pairs = pairs.join(self.seen, ["left", "right"], "left_anti")
        pairs = materialise(pairs)
        self.seen = pairs if self.seen is None else self.seen.unionByName(pairs)
        num_pairs = pairs.count()
        return self._add_edges(materialise(verify.look(pairs, num_pairs))) if num_pairs else 0

    def _add_edges(self, edges: DataFrame) -> int:
        num_more = edges.count()
        self.edges, self.num_edges = self.edges.unionByName(edges), self.num_edges + num_more
        return num_more


def _send(spark: SparkSession, table: pa.Table) -> DataFrame:
    # Of a table without rows Spark makes no frame.
    return spark.createDataFrame(table) if len(table) else spark.createDataFrame([], from_arrow_schema(table.schema))


def _search_again(
    spark: SparkSession, rows: DataFrame, searches: Mapping[int, Search], removing: DataFrame, cut: DataFrame
) -> DataFrame:
    """What the searches that have cut rows short find among the kept rows."""
    kept = materialise(rows.join(removing.select(F.col("right").alias("row")), "row", "left_anti"))
    tiers = sorted(row["tier"] for row in cut.select("tier").distinct().collect())
    return _unite_results(spark, {n: searches[n](kept, cut.where(F.col("tier") == n)) for n in tiers})


def _unite_results(spark: SparkSession, results: Mapping[int, DataFrame]) -> DataFrame:
    parts = [spark.createDataFrame([], _RESULTS_DDL)]
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
    return _send(spark, pa.table({"row": rows, "component": names}))


def select_removing_edges(edges: DataFrame) -> DataFrame:
    """Those of `edges` (`component`, `left`, `right` …) that remove their right row: their left row is kept."""

    def choose(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        selector = local.RemovalSelector()
        for batch in batches:
            columns = [batch[name].to_numpy() for name in ("component", "left", "right")]
            yield batch.filter(pa.array(selector.select(*columns)))

    ordered = edges.repartition("component").sortWithinPartitions("component", "left", "right")
    return ordered.mapInArrow(choose, edges.schema)


def choose_pairs(doubtful: DataFrame, removing: DataFrame, count: int) -> DataFrame:
    """`left`, `right` of kept rows, left being the better one: of each right row the `count` nearest.

    `doubtful` has pairs (`left`, `right`, `similarity`) of any rows, `removing` the edges (`left`, `right`) that remove
    their right row.
    """
    kept = removing.selectExpr("right as row", "left as kept")
    for side in ("left", "right"):
        doubtful = doubtful.join(kept.withColumnsRenamed({"row": side, "kept": f"{side}_kept"}), side, "left")
    a, b = "coalesce(left_kept, left)", "coalesce(right_kept, right)"
    pairs = doubtful.selectExpr(f"least({a}, {b}) as left", f"greatest({a}, {b}) as right", "similarity")
    pairs = pairs.where("left < right").groupBy("left", "right").agg(F.max("similarity").alias("similarity"))
    nearest = Window.partitionBy("right").orderBy(F.desc("similarity"), "left")
    return pairs.withColumn("place", F.row_number().over(nearest)).where(f"place <= {count}").select("left", "right")
