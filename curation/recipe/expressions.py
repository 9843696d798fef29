"""One condition on manifest columns, parsed and written out as SQL that means the same in Spark SQL and DuckDB.

The two engines agree on less than one hopes: NaN is larger than every number in both, `1 / 0` is an error in one and
infinity in the other, a float column against `0.3` is compared as float in one and as double in the other, `'it''s'`
has two meanings, and nulls sort first or last. So conditions are a subset of SQL (docs/filters.md), checked for
columns and types, and rendered with every such point made explicit. Table alias: `m`.

Grammar: and, or, not, = <> < <= > >=, between, in (…), in file('…'), like, is null, + - * / %, literals, columns,
`case when … then … else … end`, `least`, `greatest`, `abs`, `length`, `lower`, `trim`, `contains`,
`regexp_matches(text, 'pattern')`, `draw('seed')`, `coalesce`, `nullif`, `count(*) over (partition by …)`,
`row_number() over (partition by … order by …)`, `quantile(column, q)`, `quantile(column, q) over (partition by …)` and
`balance(entries, t, 'seed')`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from curation.recipe.balance import Balance
from curation.recipe.grammar import Grammar
from curation.recipe.patterns import match_sql
from curation.recipe.sql import FUNCTIONS, ExpressionError, Term, column_sql, compare, draw_sql, number_sql, string_sql


class Quantile(NamedTuple):
    """The smallest value of `column` that at least the share `share` of its known values does not exceed.

    With `by` for each combination of values of these text columns by itself.
    """

    column: str
    share: float
    by: tuple[str, ...] = ()


QuantileValues = Mapping[tuple[str | None, ...], float | None]
"""Values of the columns `by` → the quantile; the only key is () where there are none."""

_SPECIAL = ("balance", "coalesce", "count", "draw", "nullif", "quantile", "regexp_matches", "row_number")
_NAMES = tuple(sorted((*FUNCTIONS, *_SPECIAL)))


@dataclass
class Parser(Grammar):
    """A condition with its functions. `quantiles` are the known values; afterwards `wanted` names those it asks for.

    With `is_alone` it is rendered for a row that shares no partition with another one: counts and row numbers are 1.
    """

    quantiles: Mapping[Quantile, QuantileValues] = field(default_factory=dict)
    is_alone: bool = False
    wanted: set[Quantile] = field(default_factory=set, init=False)
    balances: set[Balance] = field(default_factory=set, init=False)
    """What it balances; the rows that it is asked about have the bounds of these as columns."""
    is_global: bool = field(default=False, init=False)
    """Whether one row's answer depends on other rows."""
    partitions: list[tuple[str, ...]] = field(default_factory=list, init=False)
    """The keys of each `partition by` of a count or a row number, as SQL."""

    def _call(self, name: str) -> Term:
        if name in _SPECIAL:
            term: Term = getattr(self, f"_call_{name}")()
            return term
        if name not in FUNCTIONS:
            raise ExpressionError(f"there is no function {name!r} (there are {', '.join(_NAMES)})")
        function = FUNCTIONS[name]
        arguments = self._words.take_list(self._sum)
        if len(arguments) != len(function.kinds) and not (function.variadic and len(arguments) > len(function.kinds)):
            raise ExpressionError(f"{name} takes {len(function.kinds)} arguments, not {len(arguments)}")
        kinds = function.kinds + function.kinds[-1:] * (len(arguments) - len(function.kinds))
        return Term(
            f"({function.render(*(self._of(a, k).sql for a, k in zip(arguments, kinds, strict=True)))})",
            function.result,
        )

    def _call_coalesce(self) -> Term:
        return self._alike("coalesce")

    def _call_nullif(self) -> Term:
        return self._alike("nullif", 2)

    def _alike(self, name: str, count: int | None = None) -> Term:
        arguments = self._words.take_list(self._or)
        kinds = {a.kind for a in arguments if a.kind != "null"}
        if len(kinds) != 1 or (count or len(arguments)) != len(arguments):
            raise ExpressionError(f"the arguments of {name} do not go together")
        return Term(f"{name}({', '.join(a.sql for a in arguments)})", kinds.pop())

    def _call_count(self) -> Term:
        self._words.expect("*", ")")
        return self._over("count(*)", self._partition())

    def _call_row_number(self) -> Term:
        self._words.expect(")")
        return self._over("row_number()", self._partition(ordered=True))

    def _over(self, function: str, partition: str) -> Term:
        return Term(number_sql(1.0) if self.is_alone else f"cast({function} over ({partition}) as double)", "number")

    def _partition(self, ordered: bool = False) -> str:
        """`over (partition by …)` is required: without a partition one task would see every row.

        The status is a key of its own, so that rows are counted among those whose picture came.
        """
        self._words.expect("over", "(", "partition", "by")
        keys = [self._sum()]
        while self._words.accept(","):
            keys.append(self._sum())
        self.is_global = True
        self.used.add("status")
        self.partitions.append(tuple(key.sql for key in keys))
        sql = f"partition by m.status, {', '.join(self.partitions[-1])}"
        if ordered:
            self._words.expect("order", "by")
            sql += f" order by {', '.join((*self._order(), 'm.uid'))}"
            self.used.add("uid")
        self._words.expect(")")
        return sql

    def _order(self) -> Iterable[str]:
        while True:
            term = self._sum()
            direction = "desc" if self._words.accept("desc") else "asc"
            self._words.accept("asc")
            yield f"{term.sql} {direction} nulls last"
            if not self._words.accept(","):
                return

    def _call_draw(self) -> Term:
        seed = self._words.take_string("a seed, any word,")
        self._words.expect(")")
        self.used.add("uid")
        return Term(draw_sql(seed), "number")

    def _call_balance(self) -> Term:
        entries, columns = self._entries()
        self._words.expect(",")
        target = self._of(self._sum(), "number")
        if target.literal is not None and not target.literal > 0:
            raise ExpressionError("t of balance, the rows that each entry keeps, must be more than 0")
        self._words.expect(",")
        balance = Balance(entries.sql, self._words.take_string("a seed, any word,"), tuple(sorted(columns)))
        self._words.expect(")")
        self.balances.add(balance)
        self.is_global = True
        return compare(Term(f"m.{balance.bound}", "number"), "<", target)

    def _entries(self) -> tuple[Term, set[str]]:
        """The entries of a row, and the columns that only they may need. They are of the row alone."""
        outside, self.used = self.used, {"status"}
        was_global, self.is_global = self.is_global, False
        entries = self._of(self._sum(), "string")
        if self.is_global:
            raise ExpressionError("the entries that balance goes by depend on other rows: name a column of the row")
        columns, self.used, self.is_global = self.used, outside, was_global
        return entries, columns

    def _call_regexp_matches(self) -> Term:
        text = self._of(self._sum(), "string")
        self._words.expect(",")
        pattern = self._words.take_string("a pattern")
        self._words.expect(")")
        return Term(f"({match_sql(text.sql, pattern)})", "boolean")

    def _call_quantile(self) -> Term:
        kind, name = self._words.take()
        column = self._column(name) if kind == "name" else self._unexpected(name)
        self._words.expect(",")
        share = self._primary().literal
        self._words.expect(")")
        if column.kind != "number" or share is None or not 0 <= share <= 1:
            raise ExpressionError("quantile takes a number column and a share in [0, 1]")
        wanted = Quantile(name.lower(), share, self._quantile_keys())
        self.wanted.add(wanted)
        self.is_global = True
        values = self.quantiles.get(wanted, {})
        if not wanted.by:
            value = values.get(())
            return Term(number_sql(value), "number", value)
        keys = [column_sql(key, self.columns[key]) for key in wanted.by]
        return Term(_look_up_sql(keys, values), "number")

    def _quantile_keys(self) -> tuple[str, ...]:
        if not self._words.accept("over"):
            return ()
        self._words.expect("(", "partition", "by")
        names = [name.lower() for _, name in self._words.take_list(self._words.take)]
        if any(self._column(name).kind != "string" for name in names):
            raise ExpressionError("quantile goes over partitions by columns of text, such as source")
        return tuple(names)


def _look_up_sql(keys: list[str], values: QuantileValues) -> str:
    """The value of the row whose `keys` (SQL) have the key's texts; null where none has."""
    known = sorted(values.items(), key=lambda item: [(text is not None, text or "") for text in item[0]])
    cases = []
    for texts, value in known:
        same = (f"{k} is null" if t is None else f"{k} = {string_sql(t)}" for k, t in zip(keys, texts, strict=True))
        cases.append(f" when {' and '.join(same)} then {number_sql(value)}")
    return f"(case{''.join(cases)} else {number_sql(None)} end)" if cases else number_sql(None)
