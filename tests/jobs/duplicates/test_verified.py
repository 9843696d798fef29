"""Which pairs in doubt are looked at; tests/jobs/test_dedupe.py has what the look decides."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from curation.storage import Root
from jobs.duplicates.verified import PictureVerifier, choose_pairs
from tests.support import small_root
from tests.support.small_root import UNITS


def test_pairs_are_those_of_the_rows_that_are_kept_and_of_each_row_the_nearest(spark: SparkSession) -> None:
    """Row 1 is removed by 0 and row 5 by 4, so what is said of 1 and 5 is said of 0 and 4."""
    removing = spark.createDataFrame([(0, 1), (4, 5)], "left bigint, right bigint")
    doubtful = [(1, 5, 0.7), (0, 4, 0.8), (0, 1, 0.75), (2, 4, 0.71), (3, 4, 0.72), (2, 3, 0.7), (5, 6, 0.7)]
    pairs = spark.createDataFrame(doubtful, "left bigint, right bigint, similarity double")
    chosen = choose_pairs(pairs, removing, 2)
    assert sorted((row["left"], row["right"]) for row in chosen.collect()) == [(0, 4), (2, 3), (3, 4), (4, 6)]


def test_a_pair_is_looked_at_once_and_where_none_is_left_no_picture_is_read(
    spark: SparkSession, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small_root.build(root)
    uids = sorted(uid for uid in made.images if made.units[uid] == UNITS[0])[:3]
    rows = spark.createDataFrame([(row, uid, 0) for row, uid in enumerate(uids)], "row bigint, uid string, unit int")
    verifier = PictureVerifier(spark, root, [*UNITS], rows, tier=3, min_correlation=-1.0, max_doubtful=5)
    doubtful = spark.createDataFrame([(0, 1, 0.75), (1, 2, 0.7)], "left bigint, right bigint, similarity double")
    removing = spark.createDataFrame([], "left bigint, right bigint")
    found = verifier(doubtful, removing).collect()
    assert sorted((row["left"], row["right"], row["tier"]) for row in found) == [(0, 1, 3), (1, 2, 3)]
    monkeypatch.setattr(PictureVerifier, "_compare", lambda *_: pytest.fail("it compared nothing"))
    again = verifier(doubtful, removing)
    assert again.collect() == [] and again.columns == ["left", "right", "tier", "similarity"]
    assert verifier.num_looks == 2
