"""Pieces of SQL: literals that hold any text, and numbers that mean what is stored beside a float32 column."""

from __future__ import annotations

import struct

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.recipe.sql import ExpressionError, Term, choose, compare, number_sql, string_sql

NARROW = Term("m.x", "number", narrow=True)
WIDE = Term("m.y", "number")


def _literal(value: float) -> Term:
    return Term(number_sql(value), "number", value)


def _rounded(value: float) -> str:
    return number_sql(struct.unpack("f", struct.pack("f", value))[0])


@given(st.text())
def test_a_string_is_itself(text: str) -> None:
    if "\0" not in text:
        assert duckdb.sql(f"select {string_sql(text)}").fetchall() == [(text,)]


def test_a_number_beside_a_float32_column_is_rounded_to_it() -> None:
    assert compare(NARROW, ">=", _literal(0.26)).sql == f"(m.x >= {_rounded(0.26)})"
    assert compare(WIDE, ">=", _literal(0.26)).sql == f"(m.y >= {number_sql(0.26)})"


def test_so_are_the_numbers_of_a_case() -> None:
    either = choose(["f"], [_literal(0.28), _literal(0.26)])
    assert (
        compare(NARROW, ">=", either).sql == f"(m.x >= (case when f then {_rounded(0.28)} else {_rounded(0.26)} end))"
    )
    assert (
        compare(WIDE, ">=", either).sql == f"(m.y >= (case when f then {number_sql(0.28)} else {number_sql(0.26)} end))"
    )
    column = choose(["f"], [NARROW, _literal(0.26)])
    assert column.narrow and compare(column, "=", _literal(0.3)).sql.endswith(f"= {_rounded(0.3)})")
    assert not choose(["f"], [NARROW, WIDE]).narrow


def test_kinds_that_do_not_go_together_are_refused() -> None:
    text = Term("m.t", "string")
    with pytest.raises(ExpressionError, match="a number is compared with a string"):
        compare(NARROW, "=", text)
    with pytest.raises(ExpressionError, match="do not go together"):
        choose(["f"], [NARROW, text])
    assert choose(["f"], [text, Term("null", "null")]).kind == "string"
