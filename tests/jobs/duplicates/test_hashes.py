import numpy as np
import pytest
from pyspark.sql import SparkSession

from curation.duplicates.hamming import find_near_values
from curation.storage import Root
from jobs.duplicates import hashes as hash_edges
from jobs.duplicates.hashes import PerceptualSearch, find_near_hashes
from tests.curation.duplicates.test_hamming import crowded


def frame_of(spark: SparkSession, hashes: np.ndarray):  # type: ignore[no-untyped-def]
    rows = [(i, int(value), i % 2) for i, value in enumerate(hashes.view(np.int64))]
    return spark.createDataFrame(rows, "row bigint, phash bigint, text bigint").repartition(3)


@pytest.mark.parametrize("rows_per_task", [10**6, 100], ids=["a task a table", "a task a block's value"])
def test_spark_finds_what_one_machine_finds(
    spark: SparkSession, root: Root, monkeypatch: pytest.MonkeyPatch, rows_per_task: int
) -> None:
    hashes = np.unique(crowded(3, 600))
    monkeypatch.setattr(hash_edges, "ROWS_PER_TASK", rows_per_task)
    monkeypatch.setattr(hash_edges.hamming, "MAX_BLOCKS", 4)
    frame = frame_of(spark, hashes).selectExpr("phash", "0L as text", "array(row) as best")
    found = find_near_hashes(spark, root, "work", frame, 2).collect()
    rows = sorted((row["a"] % 2**64, row["b"] % 2**64, row["distance"]) for row in found)
    expected = zip(*(column.tolist() for column in find_near_values(hashes, 2)), strict=True)
    assert rows == sorted(expected)


def test_rows_of_equal_hashes_hang_on_the_best_ones_and_on_their_own_text(spark: SparkSession, root: Root) -> None:
    hashes = np.array([0xFF] * 30 + [0xFE] * 4, np.uint64)
    found = PerceptualSearch(spark, root, "work", frame_of(spark, hashes), 1).search()
    edges = found.where("left != right").collect()
    pairs = {(row["left"], row["right"]): row["similarity"] for row in edges}
    assert len(pairs) == len(edges)
    assert all(left < right and left % 2 == right % 2 for left, right in pairs)
    for right in range(2, 34):
        best = right % 2
        assert pairs[best, right] == pytest.approx(1 if right < 30 else 1 - 1 / 64)


def test_a_root_without_hashes_has_no_pairs(spark: SparkSession, root: Root) -> None:
    none = frame_of(spark, np.array([1], np.uint64)).where("false")
    assert PerceptualSearch(spark, root, "work", none, 6).search().collect() == []
