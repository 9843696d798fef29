"""Which pairs in doubt are looked at; tests/jobs/test_dedupe.py has what the look decides."""

from __future__ import annotations

from pyspark.sql import SparkSession

from jobs.duplicates.verified import choose_pairs


def test_pairs_are_those_of_the_rows_that_are_kept_and_of_each_row_the_nearest(spark: SparkSession) -> None:
    """Row 1 is removed by 0 and row 5 by 4, so what is said of 1 and 5 is said of 0 and 4."""
    removing = spark.createDataFrame([(0, 1), (4, 5)], "left bigint, right bigint")
    doubtful = [(1, 5, 0.7), (0, 4, 0.8), (0, 1, 0.75), (2, 4, 0.71), (3, 4, 0.72), (2, 3, 0.7), (5, 6, 0.7)]
    pairs = spark.createDataFrame(doubtful, "left bigint, right bigint, similarity double")
    chosen = choose_pairs(pairs, removing, 2)
    assert sorted((row["left"], row["right"]) for row in chosen.collect()) == [(0, 4), (2, 3), (3, 4), (4, 6)]
