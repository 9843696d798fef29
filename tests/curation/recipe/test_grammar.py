"""Operators, membership and case: precedence, kinds that go together, and files that a condition names."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curation.recipe.grammar import Grammar
from curation.recipe.sql import ExpressionError, Term

COLUMNS = {"n": pa.int32(), "t": pa.string(), "f": pa.bool_()}
N = "cast(m.n as double)"


class Bare(Grammar):
    """The grammar without a function."""

    def _call(self, name: str) -> Term:
        raise ExpressionError(f"there is no function {name}")


def _one(value: int) -> str:
    return f"cast('{float(value)}' as double)"


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("f or not f and f", "(m.f or ((not m.f) and m.f))"),
        ("n + 1 * 2 = 3", f"(({N} + ({_one(1)} * {_one(2)})) = {_one(3)})"),
        ("t not in ('a', 'b')", "(not ((m.t = 'a') or (m.t = 'b')))"),
        ("t in file('l')", "(m.t in ('x', 'y'))"),
        ("case when f then t end = 'a'", "((case when m.f then m.t end) = 'a')"),
        ("T IS NOT NULL", "(m.t is not null)"),
    ],
)
def test_a_condition_is_written_with_every_parenthesis(text: str, sql: str) -> None:
    grammar = Bare(text, COLUMNS, lambda name: ("x", "y"))
    assert grammar.condition() == sql


def test_files_and_columns_are_known_afterwards() -> None:
    grammar = Bare("t in file('a.txt') or n > 1", COLUMNS, lambda name: (f"entry of {name}",))
    grammar.condition()
    assert grammar.lists == {"a.txt": ("entry of a.txt",)} and grammar.used == {"t", "n"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("t in file('a.txt')", "a list in a file may change, and what is ingested may not: ask for it in a rule"),
        ("case when f then 1 else 'a' end = 1", "do not go together"),
        ("case when n then 1 end = 1", "a boolean is needed where it has a number"),
        ("case f when true then 1 end = 1", "'when' is missing before 'f'"),
        ("case when f then 1", "'end' is missing before the end"),
        ("end = 1", "'end' is unexpected there"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, words: str) -> None:
    with pytest.raises(ExpressionError, match=words):
        Bare(text, COLUMNS).condition()
