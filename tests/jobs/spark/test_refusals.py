"""What a stage raises stays what it is, whether a task has refused its input or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from curation.errors import UserError
from jobs.spark.errors import unwrap_task_errors
from jobs.spark.refusals import end_at_refusal

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_all_lines_of_a_refusal_are_said(spark: SparkSession) -> None:
    def refuse(number: int) -> int:
        raise UserError(f"Row {number} is bad:\nmend it.")

    numbers = spark.sparkContext.parallelize([7], 1)
    with pytest.raises(UserError) as caught, unwrap_task_errors(), end_at_refusal(spark):
        numbers.map(refuse).collect()
    assert str(caught.value) == "Row 7 is bad:\nmend it."


def test_another_error_stays_what_it_is(spark: SparkSession) -> None:
    with pytest.raises(ValueError, match="mine"), end_at_refusal(spark):
        raise ValueError("mine")
    with pytest.raises(UserError, match="ours"), end_at_refusal(spark):
        raise UserError("ours")
