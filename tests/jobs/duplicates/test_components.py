import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from curation.duplicates import components as local
from jobs.duplicates.components import label_components
from tests.support.graphs import SHAPES, Edges, brute_force, random_graph


def labels(spark: SparkSession, edges: Edges) -> dict[int, int]:
    frame = spark.createDataFrame(edges, "left bigint, right bigint").repartition(3)
    rows = label_components(frame).collect()
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


def by_scipy(edges: Edges) -> dict[int, int]:
    ends = np.array(edges, np.int64).reshape(-1, 2)
    return dict(zip(*(column.tolist() for column in local.label_components(ends[:, 0], ends[:, 1])), strict=True))


@pytest.mark.slow
@settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(2, 60), st.integers(1, 120)), min_size=20, max_size=20))
def test_spark_scipy_and_brute_force_agree(spark: SparkSession, drawn: list[tuple[int, int, int]]) -> None:
    """Twenty random graphs at a time, sparse to dense, side by side."""
    edges: Edges = []
    for number, (seed, num_rows, num_edges) in enumerate(drawn):
        edges += [(a + number * 10**6, b + number * 10**6) for a, b in random_graph(seed, num_rows, num_edges)]
    assert labels(spark, edges) == by_scipy(edges) == brute_force(edges)


@pytest.mark.parametrize("edges", [[], [(7, 7)]])
def test_no_edges(spark: SparkSession, edges: Edges) -> None:
    assert labels(spark, edges) == {}
