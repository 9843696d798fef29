"""Numbers and files are spread over a bounded number of tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from curation.storage import Root
from jobs.spark import slices
from jobs.spark.slices import cut_slices, read_files, spread_numbers

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.parametrize(("count", "tasks"), [(1, 1), (4_096, 4_096), (230_000, 4_096)])
def test_numbers_have_a_task_each_up_to_a_bound(spark: SparkSession, count: int, tasks: int) -> None:
    assert spread_numbers(spark, count).rdd.getNumPartitions() == tasks


def test_slices_are_of_a_least_number_or_larger() -> None:
    assert cut_slices(range(5), 2) == [[0, 1], [2, 3], [4]] and cut_slices([]) == []
    many = cut_slices(range(230_000))
    assert len(many) <= 4_096 and [number for slice in many for number in slice] == list(range(230_000))


def test_every_row_of_many_files_is_read_once(spark: SparkSession, root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MAX_TASKS", 3)
    files = [f"t/{number}.parquet" for number in range(40)]
    for number, file in enumerate(files):
        root.publish_parquet(file, pa.table({"n": [2 * number, 2 * number + 1]}))
    frame = read_files(spark, root, [*files, "t/gone.parquet"], pa.schema([("n", pa.int64())]))
    assert frame.rdd.getNumPartitions() == 3
    assert sorted(row["n"] for row in frame.collect()) == list(range(80))
