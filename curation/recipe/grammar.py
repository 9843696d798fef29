"""The grammar of conditions: operators, literals, columns and `case`; the functions are in expressions.py."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from curation.recipe.sql import (
    ExpressionError,
    Kind,
    Term,
    choose,
    column_sql,
    compare,
    kind_of,
    number_sql,
    string_sql,
)
from curation.recipe.tokens import TokenReader

ReadList = Callable[[str], tuple[str, ...]]
"""The entries of the file that a rule names. Raises ExpressionError."""

_RESERVED = {
    *("and", "or", "not", "in", "is", "null", "between", "like", "true", "false", "over", "partition", "by"),
    *("case", "when", "then", "else", "end"),
}


def _refuse_list(_: str) -> tuple[str, ...]:
    raise ExpressionError(
        "a list in a file may change, and what is ingested may not: ask for it in a rule, or write the texts out, as "
        "in domain not in ('a.test', 'b.test')"
    )


@dataclass
class Grammar(ABC):
    """Recursive descent over one condition. `columns` maps names to Arrow types."""

    text: str
    columns: Mapping[str, pa.DataType]
    read_list: ReadList = _refuse_list
    used: set[str] = field(default_factory=set, init=False)
    lists: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False)
    """The files that the condition names, as it names them, with their entries."""

    def __post_init__(self) -> None:
        self._words = TokenReader(self.text)

    def condition(self) -> str:
        """The whole text as SQL of type boolean. Raises ExpressionError."""
        term = self._or()
        if not self._words.is_at_end:
            raise ExpressionError(f"{self._words.describe_next()} is unexpected there")
        return self._of(term, "boolean").sql

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
        while self._words.accept(word):
            terms.append(operand())
        if len(terms) == 1:
            return terms[0]
        return Term(f"({f' {word} '.join(self._of(t, 'boolean').sql for t in terms)})", "boolean")

    def _not(self) -> Term:
        if self._words.accept("not"):
            return Term(f"(not {self._of(self._not(), 'boolean').sql})", "boolean")
        return self._comparison()

    def _comparison(self) -> Term:
        left = self._sum()
        for operator in ("=", "<>", "!=", "<=", ">=", "<", ">"):
            if self._words.accept(operator):
                return self._compare(left, operator.replace("!=", "<>"), self._sum())
        if self._words.accept("is", "not", "null"):
            return Term(f"({left.sql} is not null)", "boolean")
        if self._words.accept("is", "null"):
            return Term(f"({left.sql} is null)", "boolean")
        negated = self._words.accept("not")
        term = self._membership(left)
        if term is None and negated:
            raise ExpressionError(f"in, between or like is missing before {self._words.describe_next()}")
        if term is None:
            return left
        return Term(f"(not {term.sql})", "boolean") if negated else term

    def _compare(self, left: Term, operator: str, right: Term) -> Term:
        """A comparison by an operator, or one of the two of `between`."""
        return compare(left, operator, right)

    def _membership(self, left: Term) -> Term | None:
        if self._words.accept("between"):
            low = self._sum()
            self._words.expect("and")
            above, below = self._compare(left, ">=", low), self._compare(left, "<=", self._sum())
            return Term(f"({above.sql} and {below.sql})", "boolean")
        if self._words.accept("in", "file", "("):
            return self._in_file(left)
        if self._words.accept("in"):
            self._words.expect("(")
            members = self._words.take_list(self._sum)
            return Term(f"({' or '.join(compare(left, '=', member).sql for member in members)})", "boolean")
        if self._words.accept("like"):
            kind, pattern = self._words.take()
            if kind != "string" or "\\" in pattern:
                raise ExpressionError("like needs a pattern in quotes, without a backslash")
            return Term(f"({self._of(left, 'string').sql} like {string_sql(pattern)})", "boolean")
        return None

    def _in_file(self, left: Term) -> Term:
        name = self._words.take_string("the name of a file")
        self._words.expect(")")
        entries = self.lists[name] = self.read_list(name)
        return Term(f"({self._of(left, 'string').sql} in ({', '.join(map(string_sql, entries))}))", "boolean")

    def _sum(self) -> Term:
        return self._arithmetic(("+", "-"), self._product)

    def _product(self) -> Term:
        return self._arithmetic(("*", "/", "%"), self._unary)

    def _arithmetic(self, operators: tuple[str, ...], operand: Callable[[], Term]) -> Term:
        left = operand()
        while operator := next((o for o in operators if self._words.accept(o)), None):
            right = operand()
            for term in (left, right):
                self._of(term, "number")
            divisor = f"nullif({right.sql}, 0)" if operator in "/%" else right.sql
            left = Term(f"({left.sql} {operator} {divisor})", "number")
        return left

    def _unary(self) -> Term:
        if not self._words.accept("-"):
            return self._primary()
        term = self._of(self._unary(), "number")
        literal = None if term.literal is None else -term.literal
        return Term(f"(- {term.sql})", "number", literal)

    def _primary(self) -> Term:
        kind, text = self._words.take()
        if kind == "number":
            return Term(number_sql(float(text)), "number", float(text))
        if kind == "string":
            return Term(string_sql(text), "string")
        if text == "(":
            term = self._or()
            self._words.expect(")")
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
        if word == "case":
            return self._case()
        if word in _RESERVED:
            return self._unexpected(name)
        return self._call(word) if self._words.accept("(") else self._column(name)

    def _case(self) -> Term:
        """`when … then …` once or more, and `else …` or null, up to and with `end`."""
        self._words.expect("when")
        conditions, values = [self._of(self._or(), "boolean")], [self._then()]
        while self._words.accept("when"):
            conditions.append(self._of(self._or(), "boolean"))
            values.append(self._then())
        if self._words.accept("else"):
            values.append(self._or())
        self._words.expect("end")
        return choose([c.sql for c in conditions], values)

    def _then(self) -> Term:
        self._words.expect("then")
        return self._or()

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

    @abstractmethod
    def _call(self, name: str) -> Term:
        """Function `name`, whose opening parenthesis was taken. Raises ExpressionError."""
