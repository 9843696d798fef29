"""Samples and balance by rules: a larger target contains a smaller one, whatever the order of the rows."""

from __future__ import annotations

import hashlib
import random

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.recipe.rules import parse, passes_sql

COLUMNS = {"uid": pa.string(), "status": pa.string(), "concept": pa.string(), "nearest_centroid": pa.int32()}
RULES = {
    "share": "draw('s') < {} / 100.0",
    "share_by_concept": "draw('s') < case when concept = 'c1' then {} / 100.0 else {} / 200.0 end",
    "concept_exactly": "row_number() over (partition by concept order by draw('s')) <= {}",
    "concept_about": "draw('s') < {} / count(*) over (partition by concept)",
    "cluster_exactly": "row_number() over (partition by nearest_centroid order by draw('s')) <= {}",
    "cluster_about": "draw('s') < {} / count(*) over (partition by nearest_centroid)",
}


def keep(text: str, target: int, rows: list[int]) -> set[str]:
    """The uids that the rule keeps of the rows with these numbers, in this order."""
    (rule,) = parse({"it": text.format(target, target)}, COLUMNS)
    uids = [hashlib.md5(str(number).encode()).hexdigest() for number in rows]
    columns = [[f"c{number % 5 % 3}" for number in rows], [number % 4 for number in rows]]
    table = pa.table([uids, ["ok"] * len(rows), *columns], schema=pa.schema(list(COLUMNS.items())))
    with duckdb.connect() as connection:
        connection.register("m", table)
        found = connection.sql(f"select uid from (select uid, {passes_sql(rule)} as passed from m) as e where passed")
        return {row[0] for row in found.fetchall()}


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=12, deadline=None)
@given(target=st.integers(0, 100), more=st.integers(0, 100), seed=st.integers(0, 99))
def test_a_larger_target_contains_a_smaller_one_in_any_order(name: str, target: int, more: int, seed: int) -> None:
    rows = list(range(150))
    few = keep(RULES[name], target, rows)
    random.Random(seed).shuffle(rows)
    assert keep(RULES[name], target, rows) == few
    assert few <= keep(RULES[name], target + more, rows)


def test_targets_are_met() -> None:
    rows = list(range(6_000))
    assert len(keep(RULES["concept_exactly"], 100, rows)) == 3 * 100
    assert len(keep(RULES["cluster_exactly"], 100, rows)) == 4 * 100
    assert abs(len(keep(RULES["concept_about"], 1_000, rows)) - 3_000) < 200
    assert abs(len(keep(RULES["cluster_about"], 1_000, rows)) - 4_000) < 200
    assert abs(len(keep(RULES["share"], 30, rows)) - 1_800) < 200
