"""Balancing over all entries: the rows that plain Python keeps by algorithm 1, in any order, more for a larger t."""

from __future__ import annotations

import hashlib
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import NormalDist

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.recipe.expressions import Parser
from curation.recipe.rules import parse, passes_sql
from curation.recipe.sql import ExpressionError
from tests.support.balances import join_bounds_in_duckdb

COLUMNS = {"uid": pa.string(), "status": pa.string(), "matched_entries": pa.string(), "width": pa.int32()}
Rows = Mapping[str, Sequence[str]]
"""Uid → entries."""
ENTRIES = ["cat", "hot dog", "it's", "a", "A", "猫", "100%", "tab\there"]
some_rows = st.lists(st.lists(st.sampled_from(ENTRIES), max_size=5), max_size=60).map(
    lambda lists: {hashlib.md5(f"{number} {names}".encode()).hexdigest(): names for number, names in enumerate(lists)}
)


def keep(
    rows: Rows, target: float, seed: str = "t", text: str = "matched_entries", lost: Sequence[str] = ()
) -> set[str]:
    """The uids that the rule keeps; those in `lost` have no picture."""
    (rule,) = parse({"it": f"balance({text}, {target!r}, '{seed}')"}, COLUMNS)
    statuses = ["timeout" if uid in lost else "ok" for uid in rows]
    lines = ["\n".join(names) or None for names in rows.values()]
    table = pa.table([list(rows), statuses, lines, [7] * len(rows)], schema=pa.schema(list(COLUMNS.items())))
    with duckdb.connect() as connection:
        connection.register("m", table)
        join_bounds_in_duckdb(connection, "m", rule.balances)
        found = connection.sql(f"select uid, {passes_sql(rule)} as passed from m").fetchall()
    return {uid for uid, passed in found if passed}


def keep_by_hand(rows: Rows, target: float, seed: str = "t") -> set[str]:
    """Algorithm 1, with draws of uid and entry in the place of random ones."""
    counts = Counter(entry for names in rows.values() for entry in set(names))
    kept = set()
    for uid, names in rows.items():
        for entry in names:
            digits = hashlib.md5(f"{seed} {uid} {entry}".encode()).hexdigest()[:13]
            if int(digits, 16) / 16**13 * counts[entry] < target:
                kept.add(uid)
    return kept


@settings(max_examples=60, deadline=None)
@given(rows=some_rows, target=st.floats(0.01, 30), seed=st.sampled_from(["t", "it is", "$1"]))
def test_it_keeps_what_plain_python_keeps(rows: Rows, target: float, seed: str) -> None:
    assert keep(rows, target, seed) == keep_by_hand(rows, target, seed)


@settings(max_examples=30, deadline=None)
@given(rows=some_rows, target=st.floats(0.01, 20), more=st.floats(0, 20), order=st.randoms(use_true_random=False))
def test_a_larger_t_keeps_all_that_a_smaller_one_keeps_in_any_order(
    rows: Rows, target: float, more: float, order: random.Random
) -> None:
    few = keep(rows, target)
    shuffled = order.sample([*rows.items()], len(rows))
    assert keep(dict(shuffled), target) == few <= keep(rows, target + more)


@settings(max_examples=30, deadline=None)
@given(rows=some_rows)
def test_where_no_entry_has_more_than_t_rows_all_that_have_one_are_kept(rows: Rows) -> None:
    assert keep(rows, len(rows) + 1) == {uid for uid, names in rows.items() if names}
    assert keep(rows, max(Counter(name for names in rows.values() for name in set(names)).values(), default=1)) == {
        uid for uid, names in rows.items() if names
    }


def test_each_row_is_kept_with_the_probability_of_algorithm_1() -> None:
    chance = random.Random(0)
    weights = [2.0**-number for number in range(len(ENTRIES))]
    rows = {
        hashlib.md5(str(number).encode()).hexdigest(): sorted(
            {*chance.choices(ENTRIES, weights, k=chance.randint(1, 4))}
        )
        for number in range(6_000)
    }
    counts, target = Counter(name for names in rows.values() for name in names), 400
    shares = {uid: 1 - math.prod(1 - min(1, target / counts[name]) for name in names) for uid, names in rows.items()}
    kept = keep(rows, target)
    for names in {tuple(names) for names in rows.values()}:
        uids = [uid for uid, own in rows.items() if tuple(own) == names]
        share, spread = shares[uids[0]], math.sqrt(sum(shares[uid] * (1 - shares[uid]) for uid in uids))
        bound = NormalDist().inv_cdf(1 - 1e-6) * spread + 1
        assert abs(len(kept.intersection(uids)) - share * len(uids)) <= bound, names
    assert 0.2 < len(kept) / len(rows) < 0.6


def test_another_seed_keeps_other_rows() -> None:
    rows = {hashlib.md5(str(number).encode()).hexdigest(): ["cat"] for number in range(400)}
    one, other = keep(rows, 200), keep(rows, 200, "u")
    assert 150 < len(one) < 250 and 60 < len(one & other) < 140


def test_an_entry_counts_once_a_row_and_among_rows_whose_picture_came() -> None:
    rows = {f"{number:032x}": ["cat", "cat", ""] for number in range(6)}
    lost = list(rows)[:3]
    assert keep(rows, 3, lost=lost) == set(rows) - set(lost)
    assert len(keep(rows, 0.5, lost=lost)) < 3


def test_a_condition_says_which_rows_are_balanced() -> None:
    rows = {f"{number:032x}": ["cat"] if number < 4 else ["dog"] for number in range(8)}
    found = keep(rows, 100, text="case when contains(matched_entries, 'dog') and width = 7 then matched_entries end")
    assert found == set(list(rows)[4:])


def test_what_it_needs_is_known_apart_from_what_the_rule_names() -> None:
    text = "width > 3 and balance(matched_entries, case when width > 9 then 2 else 1 end, 't')"
    (rule,) = parse({"it": text}, COLUMNS)
    (balance,) = rule.balances
    assert balance.columns == ("matched_entries", "status") and balance.seed == "t" and rule.is_global
    assert rule.columns == {"width"} and rule.reads == {"width", "matched_entries", "status"}
    assert f"m.{balance.bound} < " in rule.sql and balance.bound not in balance.counts.split("_of_")[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("balance(matched_entries, 0, 't')", "t of balance, .*, must be more than 0"),
        ("balance(matched_entries, -3, 't')", "must be more than 0"),
        ("balance(width, 3, 't')", "a string is needed where it has a number"),
        ("balance(matched_entries, 'x', 't')", "a number is needed where it has a string"),
        ("balance(matched_entries, 3)", "',' is missing"),
        ("balance(matched_entries, 3, 4)", "a seed, any word, .*"),
        ("balance(entries, 3, 't')", r"no column 'entries' \(did you mean matched_entries"),
        ("balance(matched_entries, 3, 't') > 2", "a boolean is compared with a number"),
        ("balance(case when count(*) over (partition by width) > 1 then uid end, 3, 't')", "depend on other rows"),
    ],
)
def test_what_cannot_be_balanced_is_refused(text: str, said: str) -> None:
    with pytest.raises(ExpressionError, match=said):
        Parser(text, COLUMNS).condition()
