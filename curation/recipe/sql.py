"""Pieces of SQL that mean the same in Spark SQL and DuckDB, over table alias `m`.

Every point where the engines differ is made explicit here: NaN, division by zero, nulls in `least`, the width of
floats, escapes in strings, case mapping.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Kind = Literal["number", "string", "boolean", "null"]
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class ExpressionError(ValueError):
    """What is wrong with a condition, as a clause that a sentence can end with."""


@dataclass(frozen=True)
class Term:
    """A rendered part. `literal` is set for number literals, `narrow` for what holds values of float32 columns alone.

    `rounded` is the SQL beside such a column where that is another one: its literals are rounded to float32.
    """

    sql: str
    kind: Kind
    literal: float | None = None
    narrow: bool = False
    rounded: str = ""


@dataclass(frozen=True)
class Function:
    """A function of the language: kinds of its arguments (the last one repeats if variadic), its kind, its SQL."""

    kinds: tuple[Kind, ...]
    result: Kind
    render: Callable[..., str]
    variadic: bool = False


def _strict(name: str) -> Callable[..., str]:
    """`least` and `greatest` skip nulls in both engines; an unknown side must make the whole unknown."""

    def render(*arguments: str) -> str:
        known = " and ".join(f"{argument} is not null" for argument in arguments)
        return f"case when {known} then {name}({', '.join(arguments)}) end"

    return render


FUNCTIONS = {
    "abs": Function(("number",), "number", "abs({})".format),
    "contains": Function(("string", "string"), "boolean", "contains({}, {})".format),
    "greatest": Function(("number", "number"), "number", _strict("greatest"), variadic=True),
    "least": Function(("number", "number"), "number", _strict("least"), variadic=True),
    "length": Function(("string",), "number", "cast(length({}) as double)".format),
    # Full Unicode lower-casing differs between Java and DuckDB (final sigma, dotted I), so only ASCII is mapped.
    "lower": Function(("string",), "string", f"translate({{}}, '{_LETTERS}', '{_LETTERS.lower()}')".format),
    "trim": Function(("string",), "string", "trim({})".format),
}


def column_sql(name: str, dtype: pa.DataType) -> str:
    """Column `name`, numbers as double (no integer overflow, one type for all) and NaN as null."""
    if pa.types.is_floating(dtype):
        return f"nullif(cast(m.{name} as double), cast('NaN' as double))"
    return f"cast(m.{name} as double)" if pa.types.is_integer(dtype) else f"m.{name}"


def number_sql(value: float | None) -> str:
    """A double literal, exact in both engines; null for None."""
    return f"cast('{value!r}' as double)" if value is not None else "cast(null as double)"


def string_sql(text: str) -> str:
    """A string literal; quote, backslash and dollar (Spark substitutes `${x}`) by their code."""
    parts = [p if len(p) != 1 or p not in "'\\$" else ord(p) for p in re.split(r"(['\\$])", text) if p]
    pieces = [f"chr({p})" if isinstance(p, int) else f"'{p}'" for p in parts]
    return pieces[0] if len(pieces) == 1 else f"concat({', '.join(pieces)})" if pieces else "''"


def shuffle_sql(seed: str) -> str:
    """A text that orders rows by chance, the same in every run: the md5 of `seed` and the uid."""
    return f"md5(concat({string_sql(f'{seed} ')}, m.uid))"


def draw_sql(seed: str) -> str:
    """A number in [0, 1) by chance, the same in every run: behind the point stand the first 15 decimal digits among the
    hexadecimal ones of `shuffle_sql`, each of which is any of the ten with equal probability.
    """
    return f"cast(concat('0.', substr(translate({shuffle_sql(seed)}, 'abcdef', ''), 1, 15), '0') as double)"


def kind_of(dtype: pa.DataType) -> Kind | None:
    """What conditions take a column of type `dtype` for, None when they cannot use it."""
    if pa.types.is_boolean(dtype):
        return "boolean"
    if pa.types.is_integer(dtype) or pa.types.is_floating(dtype):
        return "number"
    return "string" if pa.types.is_string(dtype) else None


def compare(left: Term, operator: str, right: Term) -> Term:
    """A comparison. A literal beside a float32 column is rounded to float32, so that 0.26 means the stored 0.26."""
    if left.kind != right.kind and "null" not in (left.kind, right.kind):
        raise ExpressionError(f"a {left.kind} is compared with a {right.kind}")
    return Term(f"({_beside(left, right)} {operator} {_beside(right, left)})", "boolean")


def choose(conditions: Sequence[str], values: Sequence[Term]) -> Term:
    """`case when`: the value of the first condition that holds, else the last value where it has no condition.

    Raises ExpressionError when the values are of several kinds.
    """
    kinds = {value.kind for value in values if value.kind != "null"}
    if len(kinds) != 1:
        raise ExpressionError("the values of case do not go together")
    narrow = any(value.narrow for value in values) and all(
        value.narrow or value.literal is not None or value.kind == "null" for value in values
    )
    rounded = _render_case(conditions, [_round(value) for value in values])
    sql = rounded if narrow else _render_case(conditions, [value.sql for value in values])
    return Term(sql, kinds.pop(), narrow=narrow, rounded=rounded)


def _render_case(conditions: Sequence[str], values: Sequence[str]) -> str:
    cases = "".join(f" when {c} then {v}" for c, v in zip(conditions, values, strict=False))
    other = f" else {values[-1]}" if len(values) > len(conditions) else ""
    return f"(case{cases}{other} end)"


def _beside(term: Term, other: Term) -> str:
    return _round(term) if other.narrow else term.sql


def _round(term: Term) -> str:
    """`term` with its literals rounded to float32, as they are meant beside a column of that type."""
    if term.literal is None:
        return term.rounded or term.sql
    try:
        return number_sql(struct.unpack("f", struct.pack("f", term.literal))[0])
    except OverflowError:
        return term.sql
