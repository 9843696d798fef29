"""One task a unit, results in order, failures raised."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curation.errors import UserError
from jobs.spark.tasks import map_units

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_results_come_in_the_order_of_the_items(spark: SparkSession) -> None:
    assert map_units(spark, "square", list(range(7)), lambda n: n * n) == [n * n for n in range(7)]


def test_of_nothing_to_do_spark_does_not_hear() -> None:
    """A job without tasks starts a Python process all the same, which takes seconds, and shows a bar of no steps."""
    no_spark: Any = None
    assert map_units(no_spark, "nothing", [], lambda n: n) == []


def test_as_many_tasks_run_at_once_as_there_are_cores(spark: SparkSession, tmp_path: Path) -> None:
    """Each task waits until all of a first wave have begun: run one after the other, they would never end."""
    wave = spark.sparkContext.defaultParallelism
    folder = str(tmp_path)

    def rendezvous(number: int) -> bool:
        Path(folder, str(number)).touch()
        deadline = time.monotonic() + 60
        while len(list(Path(folder).iterdir())) < wave and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(list(Path(folder).iterdir())) >= wave

    assert all(map_units(spark, "meet", list(range(wave)), rendezvous))


def test_a_user_error_stays_one_sentence(spark: SparkSession) -> None:
    def work(number: int) -> None:
        raise UserError(f"File {number} is bad: delete it.")

    with pytest.raises(UserError) as caught:
        map_units(spark, "fail", [7], work)
    assert str(caught.value) == "File 7 is bad: delete it."


def test_a_failed_task_is_raised(spark: SparkSession) -> None:
    def work(number: int) -> None:
        if number == 1:
            raise ValueError("unit 1 is bad")

    with pytest.raises(Exception, match="unit 1 is bad"):
        map_units(spark, "fail", [0, 1], work)
    assert map_units(spark, "again", [5], lambda n: n) == [5]
