"""The rules of a recipe: checked against the manifest's columns, and written as one SQL expression for the reason.

The rendered text is valid in Spark SQL and in DuckDB and gives the same rows in both; null and NaN never pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from curation.errors import UserError
from curation.recipe.balance import Balance
from curation.recipe.expressions import Parser, Quantile, QuantileValues
from curation.recipe.grammar import ReadList
from curation.recipe.lists import read_list
from curation.recipe.sql import ExpressionError, column_sql, number_sql, string_sql
from curation.schema import DOWNLOADS, DUPLICATES, samples_schema

DUPLICATE_COLUMNS = {
    "duplicate_of": DUPLICATES.field("kept_uid").type,
    "duplicate_tier": DUPLICATES.field("tier").type,
    "duplicate_similarity": DUPLICATES.field("similarity").type,
}
"""Columns that the duplicates table adds to the manifest; null for rows that are not duplicates."""
RANK_TOLERANCE = 1e-6
"""Keeps 0.07 · 100, which is 7.000000000000001 in binary, at the seventh value."""
_RULE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
RESERVED_NAMES = ("metadata", "samples", "pictures", "kept", "packed", "pending", "ok", "opted_out")
"""What the funnel calls its own rows; a rule of such a name could not be told from them."""


@dataclass(frozen=True)
class Rule:
    """One rule: its name (the recorded reason), its text, its SQL over alias `m`, and what it needs."""

    name: str
    text: str
    sql: str
    columns: frozenset[str]
    """The columns that its SQL names."""
    quantiles: frozenset[Quantile]
    balances: frozenset[Balance]
    """What it balances: its SQL names the bounds of these, too."""
    lists: Mapping[str, tuple[str, ...]]
    """The files that it names, with their entries."""
    is_global: bool
    """Whether one row's answer depends on other rows."""
    partitions: tuple[tuple[str, ...], ...]
    """The keys, as SQL over `m`, of the partitions in which it counts or numbers rows."""
    alone_sql: str
    """Its SQL for a row that has each of its `partitions` to itself."""

    @property
    def reads(self) -> frozenset[str]:
        """The columns of the manifest that it needs."""
        return self.columns.union(*(balance.columns for balance in self.balances))


def manifest_columns(scores: Iterable[pa.Schema] = (), num_captions: int = 1) -> dict[str, pa.DataType]:
    """Name and type of every column that rules may use: samples with so many captions, downloads, duplicates and the
    given scores.
    """
    tables = (samples_schema(num_captions), DOWNLOADS, *scores)
    return {field.name: field.type for table in tables for field in table} | DUPLICATE_COLUMNS


def parse(
    rules: Mapping[str, str],
    columns: Mapping[str, pa.DataType],
    quantiles: Mapping[Quantile, QuantileValues] | None = None,
    resolve: Callable[[str], str] = str,
) -> list[Rule]:
    """The rules in order. `quantiles` gives the values of `quantile(column, q)`; unknown ones are null.

    `resolve` gives the full path of a file that a rule names (`Recipe.resolve`).
    Raises UserError naming the rule and what is wrong with it, the closest column for an unknown one.
    """

    def read(name: str) -> tuple[str, ...]:
        return read_list(resolve(name))

    return [_parse_one(name, text, columns, quantiles or {}, read) for name, text in rules.items()]


def _parse_one(
    name: str,
    text: str,
    columns: Mapping[str, pa.DataType],
    quantiles: Mapping[Quantile, QuantileValues],
    read: ReadList,
) -> Rule:
    if not _RULE_NAME.fullmatch(name):
        raise UserError(f"Rule name {name!r} must be letters, digits, _ . - and begin with a letter: rename it.")
    if name.lower() in RESERVED_NAMES:
        raise UserError(f"Rule name {name!r} is a word of the funnel ({', '.join(RESERVED_NAMES)}): rename the rule.")
    try:
        parser = Parser(text, columns, read, quantiles)
        sql = parser.condition()
        alone_sql = Parser(text, columns, read, quantiles, is_alone=True).condition() if parser.partitions else sql
    except ExpressionError as error:
        raise UserError(f"Rule {name} ({text.strip()!r}): {error}.") from error
    except RecursionError as error:
        raise UserError(f"Rule {name} is nested too deeply: split it in two rules.") from error
    return Rule(
        name=name,
        text=text,
        sql=sql,
        columns=frozenset(parser.used),
        quantiles=frozenset(parser.wanted),
        balances=frozenset(parser.balances),
        lists=parser.lists,
        is_global=parser.is_global,
        partitions=tuple(parser.partitions),
        alone_sql=alone_sql,
    )


def parse_where(source: str, text: str, num_captions: int = 1) -> str:
    """`where` of one source as SQL over alias `m`, whose columns are those of samples; `true` when it says nothing.

    `num_captions` are the captions that its rows have.

    Raises UserError naming the source and what is wrong, the closest column for an unknown one.
    """
    if not text.strip():
        return "true"
    subject = f"where of source {source!r} is no condition on samples ({text.strip()!r})"
    try:
        parser = Parser(text, {field.name: field.type for field in samples_schema(num_captions)})
        sql = parser.condition()
    except ExpressionError as error:
        raise UserError(f"{subject}: {error}.") from error
    except RecursionError as error:
        raise UserError(f"{subject}: it is nested too deeply.") from error
    if parser.is_global or parser.wanted:
        raise UserError(f"{subject}: it asks about other rows; only rules can, once pictures came.")
    return sql


def passes_sql(rule: Rule) -> str:
    """`rule` as SQL that is true or false, never null."""
    return f"coalesce({rule.sql}, false)"


def reason_sql(rules: Iterable[Rule]) -> str:
    """SQL over `m`: `download:STATUS` when no picture came, else the first rule that says no, null when all pass."""
    cases = "".join(f" when not {passes_sql(rule)} then {string_sql(rule.name)}" for rule in rules)
    lost = "coalesce(m.status, 'missing')"
    return f"case when {lost} <> 'ok' then concat('download:', {lost}){cases} else cast(null as string) end"


def values_sql(table: str, wanted: Quantile, types: Mapping[str, pa.DataType]) -> str:
    """A query for what `wanted` is a quantile of, over the rows of `table` whose status is ok: columns `k0`, `k1` … for
    the columns that it goes by, and `v`, which may be null.
    """
    keys = [f"{column_sql(name, types[name])} as k{number}, " for number, name in enumerate(wanted.by)]
    value = column_sql(wanted.column, types[wanted.column])
    return f"select {''.join(keys)}{value} as v from {table} as m where m.status = 'ok'"


def least_rank(wanted: Quantile, num_values: int) -> int:
    """The place of `wanted` among that many values from the least on, the first being 1."""
    return max(1, math.ceil(wanted.share * num_values - RANK_TOLERANCE))


def quantile_sql(table: str, wanted: Quantile, types: Mapping[str, pa.DataType]) -> str:
    """A query for the values of `wanted` over the rows of `table` whose status is ok: columns `v`, and `k0`, `k1` … for
    the columns that it goes by.

    Counting distinct values first keeps the sorted part small: a float32 score of two billion rows has some 30 million
    of them.
    """
    keys = [f"k{number}" for number in range(len(wanted.by))]
    named = "".join(f"{key}, " for key in keys)
    window = f"partition by {', '.join(keys)}" if keys else ""
    each = values_sql(table, wanted, types)
    counts = f"select {named}v, count(*) as n from ({each}) as e group by {named}v"
    ranked = (
        f"select {named}v, sum(n) over ({window} order by v) as below, sum(n) over ({window}) as total "
        "from counts where v is not null"
    )
    least = f"{number_sql(wanted.share)} * total - {number_sql(RANK_TOLERANCE)}"
    chosen = f"select {named}min(v) as v from ranked where below >= {least}"
    return f"with counts as ({counts}), ranked as ({ranked}) {chosen}" + (
        f" group by {', '.join(keys)}" if keys else ""
    )
