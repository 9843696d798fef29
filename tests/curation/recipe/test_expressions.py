"""One condition becomes SQL over alias m whose value plain Python computes too; whatever else is refused."""

from __future__ import annotations

import hashlib

import duckdb
import pyarrow as pa
import pytest

from curation.recipe.expressions import Parser, Quantile, QuantileValues
from curation.recipe.sql import ExpressionError

COLUMNS = {"n": pa.int32(), "x": pa.float32(), "t": pa.string(), "f": pa.bool_()}
ROWS = pa.table(
    {
        "n": pa.array([1, -7, None, 4], pa.int32()),
        "x": pa.array([0.5, float("nan"), 2.0, None], pa.float32()),
        "t": pa.array(["Ab ", None, "it's", "100%"]),
        "f": pa.array([True, False, None, True]),
    }
)


def _draw(seed: str, uids: list[str]) -> list[float]:
    uid = pa.table({"uid": uids})
    sql = Parser(f"draw('{seed}') is not null", {"uid": pa.string()}).condition().removesuffix(" is not null)")[1:]
    with duckdb.connect() as connection:
        connection.register("m", uid)
        return [row[0] for row in connection.sql(f"select {sql} from m").fetchall()]


def test_a_draw_is_made_of_the_decimal_digits_of_an_md5_of_seed_and_uid() -> None:
    uids = [f"{number:032x}" for number in range(1_000)]
    drawn = _draw("it", uids)
    sums = [hashlib.md5(f"it {uid}".encode()).hexdigest() for uid in uids]
    assert drawn == [float("0." + "".join(filter(str.isdecimal, text))[:15]) for text in sums]
    assert all(abs(sum(value < share for value in drawn) / 1_000 - share) < 0.05 for share in (0.1, 0.5, 0.9))


def test_draws_of_two_seeds_have_nothing_to_do_with_each_other_or_with_the_order_of_uids() -> None:
    uids = [hashlib.md5(str(number).encode()).hexdigest() for number in range(4_000)]
    one, other = _draw("a", uids), _draw("b", uids)
    below = sorted(range(4_000), key=lambda row: uids[row])[:1_000]
    assert abs(sum(one[row] < 0.5 for row in below) / 1_000 - 0.5) < 0.06
    both = sum(a < 0.5 and b < 0.5 for a, b in zip(one, other, strict=True))
    assert abs(both / 4_000 - 0.25) < 0.03


def _evaluate(text: str) -> list[bool | None]:
    sql = Parser(text, COLUMNS).condition()
    with duckdb.connect() as connection:
        connection.register("m", ROWS)
        return [row[0] for row in connection.sql(f"select {sql} from m").fetchall()]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("n > 0", [True, False, None, True]),
        ("x >= 0.5", [True, None, True, None]),
        ("n / 0 > 1", [None, None, None, None]),
        ("n % 2 = 0", [False, False, None, True]),
        ("least(n, x) < 1", [True, None, None, None]),
        ("coalesce(x, n) = 4", [False, False, False, True]),
        ("nullif(n, 4) is null", [False, False, True, True]),
        ("lower(trim(t)) = 'ab'", [True, None, False, False]),
        ("t = 'it''s'", [False, None, True, False]),
        ("contains(t, '0%')", [False, None, False, True]),
        ("length(t) between 3 and 4", [True, None, True, True]),
        ("n in (1, 4) and not f", [False, False, None, False]),
        ("f is not null or n = 1", [True, True, None, True]),
        ("case when n = 1 then 0.1 when f then x else 0.5 end <= x", [True, None, True, None]),
        ("case when n > 0 then t end = '100%'", [False, None, None, True]),
        ("regexp_matches(t, '^[a-z0-9]')", [False, None, True, True]),
        ("not regexp_matches(lower(t), 'b |\\d{3}')", [False, None, True, False]),
    ],
)
def test_the_value_of_each_row(text: str, values: list[bool | None]) -> None:
    assert _evaluate(text) == values


def test_what_a_condition_needs_is_known_afterwards() -> None:
    known: dict[Quantile, QuantileValues] = {Quantile("x", 0.5): {(): 1.0}}
    parser = Parser("quantile(x, 0.5) < x and count(*) over (partition by t) < 3", COLUMNS, quantiles=known)
    parser.condition()
    assert parser.used == {"x", "t", "status"} and parser.wanted == {Quantile("x", 0.5)} and parser.is_global


@pytest.mark.parametrize(
    "text",
    [
        "case n when 1 then f end",
        "case when n then f end",
        "case when f then 1 else 'a' end",
        "case when f then f",
        "regexp_matches(t, t)",
        "regexp_matches(t, '(')",
        "n in file('x')",
        "f in file('x')",
        "",
        "n >",
        "n > 'a'",
        "n + t = 1",
        "(n > 1",
        "n > 1)",
        "m > 1",
        "n",
        "rand() > 0.5",
        "n > 1; select 1",
        "n = -",
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        Parser(text, COLUMNS).condition()
