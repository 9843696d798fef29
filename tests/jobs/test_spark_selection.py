"""The rows that Spark asks rules about: bounds of balances are further columns, and no row is lost or doubled."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from curation.recipe.balance import Balance
from jobs.spark_selection import join_bounds

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = {"a": "cat\ndog", "b": "cat", "c": None, "d": "", "e": "cat"}
LOST = "e"


def draw(seed: str, uid: str, entry: str) -> float:
    return int(hashlib.md5(f"{seed} {uid} {entry}".encode()).hexdigest()[:13], 16) / 16**13


def test_each_row_has_the_bound_of_each_balance(spark: SparkSession) -> None:
    rows = [(uid, entries, "timeout" if uid == LOST else "ok") for uid, entries in ROWS.items()]
    manifest = spark.createDataFrame(rows, "uid string, entries string, status string")
    balances = [Balance("m.entries", seed, ("entries",)) for seed in ("s", "it's")]
    found = {row["uid"]: row for row in join_bounds(spark, manifest, balances).collect()}
    assert sorted(found) == sorted(ROWS)
    for balance in balances:
        bounds = {uid: row[balance.bound] for uid, row in found.items()}
        cats = {uid: draw(balance.seed, uid, "cat") * 2 for uid in "ab"}
        dog = draw(balance.seed, "a", "dog")
        assert bounds == dict.fromkeys("cde") | {"a": pytest.approx(min(cats["a"], dog)), "b": pytest.approx(cats["b"])}


def test_without_a_balance_the_rows_are_as_they_were(spark: SparkSession) -> None:
    manifest = spark.createDataFrame([("a", "cat", "ok")], "uid string, entries string, status string")
    assert join_bounds(spark, manifest, []) is manifest
