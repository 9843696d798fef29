"""Thresholds of rules: which columns are compared with which numbers, in SQL that counts what passes."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest

from curation.recipe.expressions import Quantile
from curation.recipe.thresholds import find_thresholds

COLUMNS = {
    "width": pa.int32(),
    "height": pa.int32(),
    "clip": pa.float32(),
    "language": pa.string(),
    "source": pa.string(),
}
QUANTILES = {Quantile("clip", 0.7): {(): 0.25}, Quantile("clip", 0.5, ("source",)): {("a",): 0.1, ("b",): 0.2}}


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("clip >= 0.26", [("clip", ">=", 0.26)]),
        ("clip is null or clip >= 0.2", [("clip", ">=", 0.2)]),
        ("200 <= width", [("width", ">=", 200)]),
        ("clip between 0.1 and 0.3", [("clip", ">=", 0.1), ("clip", "<=", 0.3)]),
        ("least(width, height) >= 200", [("width", ">=", 200), ("height", ">=", 200)]),
        ("greatest(width, height) < 9", [("width", "<", 9), ("height", "<", 9)]),
        ("clip >= quantile(clip, 0.7)", [("clip", ">=", 0.25)]),
        ("clip > -0.5 and (width > 3 or clip > -0.5)", [("clip", ">", -0.5), ("width", ">", 3)]),
        ("least(width, height) <= 200", []),
        ("least(width * 2, height) > 3", []),
        ("width / height <= 3", []),
        ("clip >= quantile(clip, 0.5) over (partition by source)", []),
        ("clip >= case when source = 'a' then 0.2 else 0.3 end", []),
        ("language = 'en'", []),
        ("language in file('languages.txt')", []),
        ("nothing > 3", []),
        ("clip >", []),
    ],
)
def test_columns_are_found_with_the_numbers_that_they_are_compared_with(
    rule: str, found: list[tuple[str, str, float]]
) -> None:
    assert [(each.column, each.operator, each.value) for each in find_thresholds(rule, COLUMNS, QUANTILES)] == found


def test_the_sql_of_a_threshold_compares_as_the_rule_does() -> None:
    values = pa.table({"clip": pa.array([0.26, 0.2599, 0.3, None, float("nan")], pa.float32())})
    (threshold,) = find_thresholds("clip >= 0.26", COLUMNS, {})
    with duckdb.connect() as connection:
        connection.register("v", values)
        (counted,) = connection.execute(f"select count(*) filter (where {threshold.sql}) from v as m").fetchall()
    assert counted == (2,)
