"""Quantiles ranked in memory are those that the database counts."""

from __future__ import annotations

import math
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.recipe.expressions import Quantile
from curation.recipe.rules import quantile_sql, values_sql
from curation.recipe.select_config import SelectConfig
from curation.selection import quantiles
from curation.selection.engine import open_engine
from curation.selection.quantiles import rank_values
from curation.selection.rule_set import find_tables, read_rules
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS

TYPES = {"score": pa.float32(), "size": pa.int64(), "source": pa.string(), "language": pa.string()}
CONNECTION = duckdb.connect()
NAMES = st.sampled_from(["a", "b", "", None])
ROWS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.just(float("nan")), st.just(-0.0), st.floats(-2, 2, width=32)),
        st.one_of(st.none(), st.integers(-3, 2**40)),
        NAMES,
        NAMES,
        st.sampled_from(["ok", "ok", "ok", "timeout", None]),
    ),
    max_size=60,
)


def _table(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = dict(zip((*TYPES, "status"), zip(*rows, strict=True) if rows else [[]] * 5, strict=True))
    return pa.table({name: pa.array(list(v), TYPES.get(name, pa.string())) for name, v in columns.items()})


@given(
    ROWS,
    st.sampled_from(["score", "size"]),
    st.sampled_from([(), ("source",), ("source", "language")]),
    st.integers(0, 100).map(lambda percent: percent / 100),
    st.integers(1, 30),
)
def test_ranked_values_are_those_that_sql_counts(
    rows: list[tuple[Any, ...]], column: str, by: tuple[str, ...], share: float, batch_rows: int
) -> None:
    wanted = Quantile(column, share, by)
    CONNECTION.register("t", _table(rows))
    counted = CONNECTION.sql(quantile_sql("t", wanted, TYPES)).fetchall()
    ranked = rank_values(CONNECTION.sql(values_sql("t", wanted, TYPES)).to_arrow_reader(batch_rows), wanted)
    assert ranked is not None and len(ranked) == len(counted)
    assert {tuple(row) for row in ranked} == {tuple(row) for row in counted}
    assert all(math.copysign(1, row[-1]) > 0 for row in ranked if row[-1] == 0)


def test_too_many_values_or_partitions_are_left_to_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = pa.record_batch({"k0": [str(i) for i in range(1_001)], "v": [1.0] * 1_001})
    assert rank_values([batch], Quantile("score", 0.5, ("source",))) is None
    assert rank_values([batch.slice(0, 1_000)], Quantile("score", 0.5, ("source",))) is not None
    monkeypatch.setattr(quantiles, "MAX_VALUES", 1_000)
    assert rank_values([batch], Quantile("score", 0.5)) is None


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_engine_finds_the_same_either_way(root: Root, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    made = small_root.build(root)
    text = f"clip_similarity >= quantile(clip_similarity, {share}) over (partition by source)"
    rules = read_rules({"top": text}, {})
    found = []
    for most in (quantiles.MAX_VALUES, 5):
        monkeypatch.setattr(quantiles, "MAX_VALUES", most)
        with open_engine(made.root, rules, UNITS, SelectConfig(), made.root.scratch()) as engine:
            found.append(engine.compute_quantiles(find_tables(rules, {})))
    assert found[0] == found[1] and len(next(iter(found[0].values()))) == 2
