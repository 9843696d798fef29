import pytest
from pyspark.sql import SparkSession

from jobs.components import components
from tests.curation.duplicates.graphs import SHAPES, Edges, brute_force, random_graph


def labels(spark: SparkSession, edges: Edges) -> dict[int, int]:
    frame = spark.createDataFrame(edges, "left bigint, right bigint").repartition(3)
    rows = components(frame).collect()
    assert len({row["row"] for row in rows}) == len(rows)
    return {row["row"]: row["component"] for row in rows}


def test_shapes_and_random_graphs_together(spark: SparkSession) -> None:
    """Each graph gets rows of its own, so that one run over all of them settles them all."""
    edges: Edges = []
    expected: dict[int, int] = {}
    graphs = [*SHAPES.values(), *(random_graph(seed, 40, 10 * seed) for seed in range(1, 7))]
    for number, graph in enumerate(graphs):
        shift = number * 10**13
        edges += [(a + shift, b + shift) for a, b in graph]
        expected |= {row + shift: name + shift for row, name in brute_force(graph).items()}
    assert labels(spark, edges) == expected


@pytest.mark.parametrize("edges", [[], [(7, 7)]])
def test_no_edges(spark: SparkSession, edges: Edges) -> None:
    assert labels(spark, edges) == {}
