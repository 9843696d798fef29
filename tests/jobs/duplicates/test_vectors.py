"""Edges between near embeddings, found in Spark, beside brute force over the stored vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from curation.duplicates.blocks import SearchSettings
from curation.storage import Root
from curation.tables import vectors_file
from jobs.duplicates import vectors as vector_search
from jobs.duplicates.arrays import save_npy
from jobs.duplicates.vectors import EmbeddingSearch, bundle_clusters, write_groups
from tests.support.vectors import brute_force, planted

UNITS = ["0123abcd-000000", "0123abcd-000001", "0123abcd-000002"]


def store(spark: SparkSession, root: Root, vectors: np.ndarray, texts: np.ndarray) -> DataFrame:
    """Write row i of `vectors` into unit i % 3; the frame that a search takes."""
    rows = []
    for number, unit in enumerate(UNITS):
        own = np.arange(number, len(vectors), len(UNITS))
        root.publish(vectors_file(unit), root.read_bytes(save_npy(root, "scratch", vectors[own])))
        rows += [(row, f"{row:032x}", number, place, int(texts[row])) for place, row in enumerate(own.tolist())]
    return spark.createDataFrame(rows, "row bigint, uid string, unit int, place int, text bigint")


def stored_pairs(vectors: np.ndarray, texts: np.ndarray, min_cosine: float) -> set[tuple[int, int]]:
    return {(a, b) for a, b in brute_force(vectors, min_cosine) if texts[a] == texts[b]}


@pytest.mark.parametrize(
    ("settings", "rows_per_group"),
    [
        ({"num_centroids": 1}, 50_000),
        ({"num_centroids": 7, "num_probes": 49}, 40),
        ({"num_centroids": 7, "num_probes": 49, "max_cluster_rows": 60}, 40),
    ],
    ids=["one cluster", "several groups", "huge clusters"],
)
def test_every_pair_is_found_whatever_groups_it_lies_in(
    spark: SparkSession, root: Root, monkeypatch: pytest.MonkeyPatch, settings: dict[str, int], rows_per_group: int
) -> None:
    """All clusters are probed, so no pair can be lost between them; a row is sent to several groups."""
    monkeypatch.setattr(vector_search, "ROWS_PER_GROUP", rows_per_group)
    vectors = planted(150, dim=16, lowest=0.93).astype(np.float16)
    texts = (np.arange(150) % 50) % 2
    vectors[3] = 0
    rows = store(spark, root, vectors, texts)
    chosen = SearchSettings(min_cosine=0.9, **settings)
    found = EmbeddingSearch(spark, root, "work", rows, UNITS, chosen, 1_000).search().where("left < right").collect()
    pairs = {(row["left"], row["right"]): row["similarity"] for row in found}
    vectors[3] = np.eye(16)[0]
    expected = {pair for pair in stored_pairs(vectors, texts, 0.9) if 3 not in pair}
    assert len(pairs) == len(found) and pairs.keys() == expected and len(expected) > 40
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    assert all(abs(cosine - unit[a] @ unit[b]) < 2e-3 for (a, b), cosine in pairs.items())


def test_kept_rows_that_were_cut_short_are_searched_among_kept_rows(spark: SparkSession, root: Root) -> None:
    vectors = np.repeat(planted(3, dim=16)[:1], 30, axis=0).astype(np.float16)
    rows = store(spark, root, vectors, np.zeros(30, int))
    search = EmbeddingSearch(
        spark, root, "work", rows, UNITS, SearchSettings(min_cosine=0.9, num_centroids=1, max_neighbours=4), 1_000
    )
    first = search.search().collect()
    assert {row["right"] for row in first if row["left"] == row["right"]} == set(range(5, 30))
    assert all(row["cluster"] is not None for row in first if row["left"] == row["right"])
    kept = spark.createDataFrame([(row,) for row in (10, 20, 29)], "row bigint")
    cut = spark.createDataFrame([(29, 0)], "row bigint, cluster bigint")
    again = {(row["left"], row["right"]) for row in search.search(kept, cut).collect()}
    assert again == {(10, 20), (10, 29), (20, 29)}


def test_a_search_without_rows_finds_nothing(spark: SparkSession, root: Root) -> None:
    rows = store(spark, root, np.zeros((6, 4), np.float16), np.zeros(6, int))
    search = EmbeddingSearch(spark, root, "work", rows, UNITS, SearchSettings(min_cosine=0.9), 1_000)
    assert search.search().collect() == []


def test_groups_are_bounded_and_skip_clusters_of_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_search, "ROWS_PER_GROUP", 10)
    found = bundle_clusters({0: 6, 1: 4, 2: 1, 3: 5, 4: 50, 5: 2}, 7)
    assert found.tolist() == [0, 0, -1, 1, 2, 3, -1]


def test_groups_of_a_stream_are_read_back_whole_whatever_its_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    group = np.sort(rng.integers(0, 4, 50))
    vectors = rng.standard_normal((50, 8)).astype(np.float16)
    table = pa.table(
        {
            "group": pa.array(group, pa.int32()),
            "row": pa.array(np.arange(50), pa.int64()),
            "text": pa.array(np.arange(50) % 3, pa.int64()),
            "clusters": pa.array([[i, -1] for i in range(50)], pa.list_(pa.int32())),
            "dim": pa.array(np.full(50, 8), pa.int32()),
            "vector": pa.array([vector.tobytes() for vector in vectors], pa.binary()),
        }
    )

    def batches() -> Iterator[pa.RecordBatch]:
        yield from table.slice(0, 17).to_batches(max_chunksize=5)
        yield from table.slice(17).to_batches()

    seen = []
    for found in write_groups(batches(), tmp_path / "group"):
        assert np.array_equal(found.vectors, vectors[found.rows])
        assert found.clusters.tolist() == [[row, -1] for row in found.rows.tolist()]
        assert found.texts.tolist() == (found.rows % 3).tolist()
        seen.append(found.rows.tolist())
    assert seen == [np.flatnonzero(group == number).tolist() for number in range(4)]
