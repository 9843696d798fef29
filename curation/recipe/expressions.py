"""One condition on manifest columns, parsed and written out as SQL that means the same in Spark SQL and DuckDB.

The two engines agree on less than one hopes: NaN is larger than every number in both, `1 / 0` is an error in one and
infinity in the other, a float column against `0.3` is compared as float in one and as double in the other, `'it''s'`
has two meanings, and nulls sort first or last. So conditions are a subset of SQL (docs/filters.md), checked for
columns and types, and rendered with every such point made explicit. Table alias: `m`.

Grammar: and, or, not, = <> < <= > >=, between, in, like, is null, + - * / %, literals, columns, `least`, `greatest`,
`abs`, `length`, `lower`, `trim`, `contains`, `coalesce`, `nullif`, `count(*) over (partition by …)`,
`row_number() over (partition by … order by …)` and `quantile(column, q)`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from curation.recipe.sql import (
    FUNCTIONS,
    ExpressionError,
    Kind,
    Term,
    column_sql,
    compare,
    kind_of,
    number_sql,
    string_sql,
)

Quantile = tuple[str, float]
"""(column, q): the smallest value of the column that at least the share q of its known values does not exceed."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)|(?P<string>'(?:[^']|'')*')"
    r"|(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<symbol><=|>=|<>|!=|[-+*/%=<>(),]))"
)
_RESERVED = {"and", "or", "not", "in", "is", "null", "between", "like", "true", "false", "over", "partition", "by"}


_SPECIAL = ("coalesce", "count", "nullif", "quantile", "row_number")
_NAMES = tuple(sorted((*FUNCTIONS, *_SPECIAL)))


@dataclass
class Parser:
    """Recursive descent over one condition. `columns` maps names to Arrow types, `quantiles` are the known values."""

    text: str
    columns: Mapping[str, pa.DataType]
    quantiles: Mapping[Quantile, float | None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set, init=False)
    wanted: set[Quantile] = field(default_factory=set, init=False)
    is_global: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._tokens = list(_tokens(self.text))
        self._next = 0

    def condition(self) -> str:
        """The whole text as SQL of type boolean. Raises ExpressionError."""
        term = self._or()
        if self._next < len(self._tokens):
            raise ExpressionError(f"{self._tokens[self._next][1]!r} is unexpected there")
        return self._of(term, "boolean").sql

    def _peek(self, *words: str) -> bool:
        following = self._tokens[self._next : self._next + len(words)]
        return [t[1].lower() for t in following if t[0] != "string"] == list(words)

    def _accept(self, *words: str) -> bool:
        follows = self._peek(*words)
        self._next += len(words) if follows else 0
        return follows

    def _expect(self, *words: str) -> None:
        if not self._accept(*words):
            raise ExpressionError(f"{' '.join(words)!r} is missing before {self._here()}")

    def _here(self) -> str:
        return repr(self._tokens[self._next][1]) if self._next < len(self._tokens) else "the end"

    def _of(self, term: Term, kind: Kind) -> Term:
        if term.kind not in (kind, "null"):
            raise ExpressionError(f"a {kind} is needed where it has a {term.kind}")
        return term

    def _or(self) -> Term:
        return self._chain("or", self._and)

    def _and(self) -> Term:
        return self._chain("and", self._not)

    def _chain(self, word: str, operand: Callable[[], Term]) -> Term:
        terms = [operand()]
        while self._accept(word):
            terms.append(operand())
        if len(terms) == 1:
            return terms[0]
        return Term(f"({f' {word} '.join(self._of(t, 'boolean').sql for t in terms)})", "boolean")

    def _not(self) -> Term:
        if self._accept("not"):
            return Term(f"(not {self._of(self._not(), 'boolean').sql})", "boolean")
        return self._comparison()

    def _comparison(self) -> Term:
        left = self._sum()
        for operator in ("=", "<>", "!=", "<=", ">=", "<", ">"):
            if self._accept(operator):
                return compare(left, operator.replace("!=", "<>"), self._sum())
        if self._accept("is", "not", "null"):
            return Term(f"({left.sql} is not null)", "boolean")
        if self._accept("is", "null"):
            return Term(f"({left.sql} is null)", "boolean")
        negated = self._accept("not")
        term = self._membership(left)
        if term is None and negated:
            raise ExpressionError(f"in, between or like is missing before {self._here()}")
        if term is None:
            return left
        return Term(f"(not {term.sql})", "boolean") if negated else term

    def _membership(self, left: Term) -> Term | None:
        if self._accept("between"):
            low = self._sum()
            self._expect("and")
            return Term(f"({compare(left, '>=', low).sql} and {compare(left, '<=', self._sum()).sql})", "boolean")
        if self._accept("in"):
            self._expect("(")
            members = self._list(self._sum)
            return Term(f"({' or '.join(compare(left, '=', member).sql for member in members)})", "boolean")
        if self._accept("like"):
            kind, pattern = self._take()
            if kind != "string" or "\\" in pattern:
                raise ExpressionError("like needs a pattern in quotes, without a backslash")
            return Term(f"({self._of(left, 'string').sql} like {string_sql(pattern)})", "boolean")
        return None

    def _list(self, item: Callable[[], Term]) -> list[Term]:
        """Items separated by commas, up to and with the closing parenthesis."""
        items = [item()]
        while self._accept(","):
            items.append(item())
        self._expect(")")
        return items

    def _sum(self) -> Term:
        return self._arithmetic(("+", "-"), self._product)

    def _product(self) -> Term:
        return self._arithmetic(("*", "/", "%"), self._unary)

    def _arithmetic(self, operators: tuple[str, ...], operand: Callable[[], Term]) -> Term:
        left = operand()
        while operator := next((o for o in operators if self._accept(o)), None):
            right = operand()
            for term in (left, right):
                self._of(term, "number")
            divisor = f"nullif({right.sql}, 0)" if operator in "/%" else right.sql
            left = Term(f"({left.sql} {operator} {divisor})", "number")
        return left

    def _unary(self) -> Term:
        if not self._accept("-"):
            return self._primary()
        term = self._of(self._unary(), "number")
        literal = None if term.literal is None else -term.literal
        return Term(f"(- {term.sql})", "number", literal)

    def _take(self) -> tuple[str, str]:
        if self._next >= len(self._tokens):
            raise ExpressionError("it ends too early")
        kind, text = self._tokens[self._next]
        self._next += 1
        return kind, text[1:-1].replace("''", "'") if kind == "string" else text

    def _primary(self) -> Term:
        kind, text = self._take()
        if kind == "number":
            return Term(number_sql(float(text)), "number", float(text))
        if kind == "string":
            return Term(string_sql(text), "string")
        if text == "(":
            term = self._or()
            self._expect(")")
            return Term(f"({term.sql})", term.kind)
        return self._named(text) if kind == "name" else self._unexpected(text)

    def _unexpected(self, text: str) -> Term:
        raise ExpressionError(f"{text!r} is unexpected there")

    def _named(self, name: str) -> Term:
        word = name.lower()
        if word in ("true", "false"):
            return Term(word, "boolean")
        if word == "null":
            return Term("null", "null")
        if word in _RESERVED:
            return self._unexpected(name)
        return self._call(word) if self._accept("(") else self._column(name)

    def _column(self, name: str) -> Term:
        known = name.lower()
        if known not in self.columns:
            close = difflib.get_close_matches(known, self.columns, n=1, cutoff=0.5)
            raise ExpressionError(f"there is no column {name!r}" + (f" (did you mean {close[0]}?)" if close else ""))
        dtype = self.columns[known]
        kind = kind_of(dtype)
        if kind is None:
            raise ExpressionError(f"column {name!r} is of type {dtype}, which conditions cannot use")
        self.used.add(known)
        return Term(column_sql(known, dtype), kind, narrow=pa.types.is_float32(dtype))

    def _call(self, name: str) -> Term:
        if name in _SPECIAL:
            term: Term = getattr(self, f"_call_{name}")()
            return term
        if name not in FUNCTIONS:
            raise ExpressionError(f"there is no function {name!r} (there are {', '.join(_NAMES)})")
        function = FUNCTIONS[name]
        arguments = self._list(self._sum)
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
        arguments = self._list(self._or)
        kinds = {a.kind for a in arguments if a.kind != "null"}
        if len(kinds) != 1 or (count or len(arguments)) != len(arguments):
            raise ExpressionError(f"the arguments of {name} do not go together")
        return Term(f"{name}({', '.join(a.sql for a in arguments)})", kinds.pop())

    def _call_count(self) -> Term:
        self._expect("*", ")")
        return Term(f"cast(count(*) over ({self._partition()}) as double)", "number")

    def _call_row_number(self) -> Term:
        self._expect(")")
        return Term(f"cast(row_number() over ({self._partition(ordered=True)}) as double)", "number")

    def _partition(self, ordered: bool = False) -> str:
        """`over (partition by …)` is required: without a partition one task would see every row.

        The status is a key of its own, so that rows are counted among those whose picture came.
        """
        self._expect("over", "(", "partition", "by")
        keys = [self._sum()]
        while self._accept(","):
            keys.append(self._sum())
        self.is_global = True
        self.used.add("status")
        sql = f"partition by m.status, {', '.join(k.sql for k in keys)}"
        if ordered:
            self._expect("order", "by")
            sql += f" order by {', '.join((*self._order(), 'm.uid'))}"
            self.used.add("uid")
        self._expect(")")
        return sql

    def _order(self) -> Iterable[str]:
        while True:
            term = self._sum()
            direction = "desc" if self._accept("desc") else "asc"
            self._accept("asc")
            yield f"{term.sql} {direction} nulls last"
            if not self._accept(","):
                return

    def _call_quantile(self) -> Term:
        term_start = self._next
        column = self._column(self._take()[1])
        name = self._tokens[term_start][1].lower()
        self._expect(",")
        share = self._primary().literal
        self._expect(")")
        if column.kind != "number" or share is None or not 0 <= share <= 1:
            raise ExpressionError("quantile takes a number column and a share in [0, 1]")
        self.wanted.add((name, share))
        self.is_global = True
        value = self.quantiles.get((name, share))
        return Term(number_sql(value), "number", value)


def _tokens(text: str) -> Iterable[tuple[str, str]]:
    position = 0
    while text[position:].strip():
        found = _TOKEN.match(text, position)
        if not found or text[position:].lstrip().startswith("--"):  # a comment in SQL, not minus minus
            raise ExpressionError(f"{text[position:].strip()[0]!r} is unexpected there")
        yield str(found.lastgroup), found[str(found.lastgroup)]
        position = found.end()
