"""How many rows of each source a mix keeps, and which."""

from __future__ import annotations

import hashlib
from collections import Counter

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import UserError
from curation.recipe.select_config import MixConfig
from curation.selection.mix import allot_rows, count_passed_sql, mixed_sql

counts = st.dictionaries(st.sampled_from("abc"), st.integers(1, 10**10), min_size=1)
weights = st.floats(1e-3, 1e10, allow_nan=False)
REASON = "case when m.bad then 'rule' end"


def test_the_mix_of_merged_2b_is_four_to_one_and_as_much_as_there_is() -> None:
    mix = MixConfig(weights={"laion": 1.6, "coyo": 0.4})
    assert allot_rows(mix, {"laion": 1_000, "coyo": 1_000}) == {"coyo": 250, "laion": 1_000}
    assert allot_rows(mix, {"laion": 4_000, "coyo": 300}) == {"coyo": 300, "laion": 1_200}
    some = MixConfig(weights={"laion": 1.6e9, "coyo": 0.4e9}, rows=100)
    assert allot_rows(some, {"laion": 1_000, "coyo": 1_000}) == {"coyo": 20, "laion": 80}
    assert allot_rows(MixConfig(weights={"laion": 1, "coyo": 0}), {"laion": 7, "coyo": 9}) == {"coyo": 0, "laion": 7}


@given(counts, st.data())
def test_the_scarcest_source_is_kept_whole_and_the_others_in_proportion(
    passed: dict[str, int], data: st.DataObject
) -> None:
    mix = MixConfig(weights={source: data.draw(weights) for source in passed})
    kept = allot_rows(mix, passed)
    scale = min(passed[source] / mix.weights[source] for source in passed)
    assert any(kept[source] == passed[source] for source in passed)
    assert all(abs(kept[source] - mix.weights[source] * scale) <= 1 + kept[source] * 1e-9 for source in passed)


@given(counts, st.integers(1, 10**9), st.integers(0, 10**9))
def test_more_rows_are_more_of_each_source(passed: dict[str, int], few: int, more: int) -> None:
    share = dict.fromkeys(passed, 0.7)
    small, large = (allot_rows(MixConfig(weights=share, rows=rows), passed) for rows in (few, few + more))
    assert all(small[source] <= large[source] for source in passed) and sum(small.values()) <= few


def test_a_source_without_a_weight_and_one_without_rows_are_refused() -> None:
    mix = MixConfig(weights={"laion": 1, "coyo": 1})
    with pytest.raises(UserError, match="no weight for source 'cc12m'"):
        allot_rows(mix, {"laion": 3, "coyo": 3, "cc12m": 1})
    with pytest.raises(UserError, match="wants rows of source 'coyo', and none passes the rules"):
        allot_rows(mix, {"laion": 3, "coyo": 0})


def draw(rows: list[tuple[str, str, bool]], mix: MixConfig) -> dict[str, str | None]:
    """Reason by uid, of rows (uid, source, whether the rules say no) in this order."""
    columns = zip(*rows, strict=True)
    with duckdb.connect() as connection:
        connection.register("t", pa.table(dict(zip(("uid", "source", "bad"), map(list, columns), strict=True))))
        passed = dict(connection.sql(count_passed_sql("t", REASON)).fetchall())
        sql = mixed_sql("t", ["uid"], REASON, mix, allot_rows(mix, passed))
        return dict(connection.sql(sql).fetchall())


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 60), st.integers(0, 60), st.integers(0, 3))
def test_a_larger_mix_contains_a_smaller_one_whatever_the_order_of_rows(
    random_: object, few: int, more: int, seed: int
) -> None:
    assert hasattr(random_, "shuffle")
    rows = [(hashlib.md5(str(n).encode()).hexdigest(), "ab"[n % 3 > 0], n % 7 == 0) for n in range(100)]
    share = {"a": 1.0, "b": 2.0}
    small = draw(rows, MixConfig(weights=share, rows=few, seed=seed))
    random_.shuffle(rows)
    large = draw(rows, MixConfig(weights=share, rows=few + more, seed=seed))
    assert {uid for uid, why in small.items() if why is None} <= {uid for uid, why in large.items() if why is None}
    assert {uid for uid, why in small.items() if why == "rule"} == {uid for uid, _, bad in rows if bad}
    assert set(small.values()) <= {None, "rule", "mix:a", "mix:b"}
    random_.shuffle(rows)
    assert draw(rows, MixConfig(weights=share, rows=few, seed=seed)) == small


def test_what_is_drawn_is_what_has_the_smallest_md5_of_seed_and_uid() -> None:
    rows = [(f"{number:032x}", "a", number % 2 == 0) for number in range(200)]
    found = draw(rows, MixConfig(weights={"a": 1}, rows=30, seed=5))
    passed = [uid for uid, _, bad in rows if not bad]
    drawn = sorted(passed, key=lambda uid: hashlib.md5(f"mix 5 {uid}".encode()).hexdigest())[:30]
    assert sorted(uid for uid, why in found.items() if why is None) == sorted(drawn)
    assert Counter(found.values()) == {None: 30, "mix:a": 70, "rule": 100}
