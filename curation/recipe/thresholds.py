"""Where a rule compares a column with a number: what a page draws on the distribution of that column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from curation.recipe.expressions import Parser, Quantile, QuantileValues
from curation.recipe.sql import FUNCTIONS, ExpressionError, Term, column_sql, compare, number_sql

_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
"""What a comparison is when its sides change places."""
_OF_EACH = {">": "least", ">=": "least", "<": "greatest", "<=": "greatest"}
"""`least(a, b) >= n` says the same of a and of b, and so does `greatest(a, b) <= n`."""


@dataclass(frozen=True)
class Threshold:
    """`column` `operator` `value`, and the same as SQL over alias `m`, which is null where the column is unknown."""

    column: str
    operator: str
    value: float
    sql: str


def find_thresholds(
    text: str, columns: Mapping[str, pa.DataType], quantiles: Mapping[Quantile, QuantileValues]
) -> tuple[Threshold, ...]:
    """The thresholds that the rule `text` names, each once; none of a text that is no rule on `columns`.

    A comparison with a quantile has its value from `quantiles`; one that goes by partitions has several, and is none.
    """
    finder = _Finder(text, columns, lambda _: (), quantiles)
    try:
        finder.condition()
    except (ExpressionError, RecursionError):
        return ()
    return tuple(dict.fromkeys(finder.found))


@dataclass
class _Finder(Parser):
    """Notes each comparison while the rule is parsed."""

    found: list[Threshold] = field(default_factory=list, init=False)
    _terms: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict, init=False)
    """SQL of a term → "" and the one column that it is, or least or greatest and the columns that it is of."""
    _seen: list[str] = field(default_factory=list, init=False)

    def _column(self, name: str) -> Term:
        term = super()._column(name)
        self._seen.append(name.lower())
        self._terms[term.sql] = ("", (name.lower(),))
        return term

    def _call(self, name: str) -> Term:
        before = len(self._seen)
        term = super()._call(name)
        names = tuple(self._seen[before:])
        if name in _OF_EACH.values():
            plain = (column_sql(column, self.columns[column]) for column in names)
            if term.sql == f"({FUNCTIONS[name].render(*plain)})":
                self._terms[term.sql] = (name, names)
        return term

    def _compare(self, left: Term, operator: str, right: Term) -> Term:
        term = super()._compare(left, operator, right)
        for one, other, sign in ((left, right, operator), (right, left, _TURNED.get(operator, operator))):
            function, names = self._terms.get(one.sql, ("", ()))
            if other.literal is not None and sign in _TURNED and function in ("", _OF_EACH[sign]):
                self.found += [self._name(name, sign, other.literal) for name in names]
        return term

    def _name(self, column: str, operator: str, value: float) -> Threshold:
        dtype = self.columns[column]
        alone = Term(column_sql(column, dtype), "number", narrow=pa.types.is_float32(dtype))
        sql = compare(alone, operator, Term(number_sql(value), "number", value)).sql
        return Threshold(column, operator, value, sql)
