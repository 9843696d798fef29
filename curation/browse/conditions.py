"""What a person types after WHERE, checked by its syntax tree: it filters and orders, and reads the root's views alone.

The manifest's connection can neither write nor read outside of the root. What is refused here besides is refused so
that the page can say it in one sentence, and so that no function reads files of the root past the views.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import pyarrow as pa

from curation.errors import UserError
from curation.manifest.manifest import explain_error
from curation.manifest.quoting import quote_text
from curation.manifest.rewrite import walk_nodes
from curation.recipe.expressions import Quantile, QuantileValues
from curation.recipe.rules import Rule, parse, passes_sql

TABLE_FUNCTIONS = ("generate_series", "range", "unnest")
"""Functions that may stand in the place of a table: those that read nothing."""
STATEMENTS = re.compile(
    r"\s*(alter|attach|call|checkpoint|copy|create|delete|detach|drop|export|import|insert|install|load|merge|pragma|"
    r"reset|set|truncate|update|use|vacuum)\b",
    re.IGNORECASE,
)
WHERE = re.compile(r"\A\s*where\b", re.IGNORECASE)
ORDER = re.compile(r"\s*order\s+by\b", re.IGNORECASE)
QUERY = re.compile(r"\s*(describe|explain|from|select|show|summarize|table|values|with)\b", re.IGNORECASE)
FORM = "Write a condition, as it stands after WHERE, with at most ORDER BY and one expression behind it"
MAX_WORDS = 16
MAX_BRACKETS = 500
"""DuckDB's parser takes time in the square of brackets that are left open, half a minute for 5,000."""
Node = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Which rows are wanted, as SQL over the view manifest, and the expression by which they are ordered, if any.

    `names` are the words of both that may be columns, in the order in which they stand.
    """

    sql: str
    order: str = ""
    is_descending: bool = False
    names: tuple[str, ...] = ()


EVERYTHING = Condition(sql="true")


def parse_condition(text: str, views: Collection[str]) -> Condition:
    """`text` as a condition. Raises UserError, in one sentence, for what is none and for what reads anything but
    `views`.
    """
    text = WHERE.sub("", text, count=1).strip()
    if not text:
        return EVERYTHING
    if STATEMENTS.match(text):
        raise UserError(f"This page only reads, and {text.split()[0].upper()} does not: {_lower(FORM)}.")
    if text.count("(") > MAX_BRACKETS:
        raise UserError(f"The condition has more than {MAX_BRACKETS} brackets: split it.")
    if QUERY.match(text):
        raise UserError(f"This is a whole query, for which there is `curate query`. {FORM}.")
    try:
        with duckdb.connect() as parser:
            return _read_condition(parser, f"true {text}" if ORDER.match(text) else text, views)
    except RecursionError as error:
        raise UserError("The condition is nested too deeply: split it.") from error


def _read_condition(parser: duckdb.DuckDBPyConnection, text: str, views: Collection[str]) -> Condition:
    node = _parse_select(parser, text)
    condition, order = node["where_clause"], _find_order(node)
    _check_reads([condition, order or {}], views)
    names = [one["column_names"][-1] for one in walk_nodes([condition, order or {}]) if "column_names" in one]
    return Condition(
        sql=_write_expression(parser, condition),
        order=_write_expression(parser, order["expression"]) if order else "",
        is_descending=order is not None and order["type"] == "DESCENDING",
        names=tuple(dict.fromkeys(names)),
    )


def without(wanted: Condition, other: Condition) -> Condition:
    """The rows of `wanted` that are none of `other`."""
    return replace(wanted, sql=f"{wanted.sql} and not coalesce({other.sql}, false)")


def find_removed(
    text: str, types: Mapping[str, pa.DataType], quantiles: Mapping[Quantile, QuantileValues]
) -> Condition:
    """The pictures that the rule `text` would remove if it were asked alone. Raises UserError for what is no rule.

    `types` are those of the manifest's columns, `quantiles` the values that the selection has recorded.
    """
    (rule,) = parse({"rule": text}, types, quantiles)
    if not is_of_one_row(rule, quantiles):
        raise UserError("This rule depends on other rows: `curate select --what-if` counts what it removes.")
    with duckdb.connect() as parser:
        node = _parse_select(parser, passes_sql(rule))["where_clause"]
        for one in walk_nodes(node):  # rules name their columns as those of m
            if "column_names" in one:
                one["column_names"] = one["column_names"][-1:]
                one.pop("qualified_name", None)
        passes = _write_expression(parser, node)
    return Condition(sql=f"status = 'ok' and not {passes}", names=tuple(sorted(rule.columns)))


def is_of_one_row(rule: Rule, quantiles: Mapping[Quantile, QuantileValues]) -> bool:
    """Whether the row and the recorded quantiles answer the rule, without a look at other rows."""
    is_known = rule.quantiles <= set(quantiles) and not rule.balances
    return is_known and " over (partition by m." not in rule.sql


def find_words(text: str, columns: Collection[str]) -> Condition:
    """Rows one of whose `columns` has every word of `text`, in whatever case."""
    words = text.lower().split()[:MAX_WORDS]
    every = (
        "(" + " or ".join(f"contains(lower({name}), {quote_text(word)})" for name in columns) + ")" for word in words
    )
    return Condition(sql=" and ".join(every) or "true")


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _parse_select(parser: duckdb.DuckDBPyConnection, text: str) -> Node:
    """The syntax tree of a SELECT with `text` after WHERE, which adds nothing to it but conditions and an order."""
    sql = f"select uid from manifest where {text}"
    try:
        kinds = [statement.type for statement in parser.extract_statements(sql)]
        if kinds != [duckdb.StatementType.SELECT]:
            raise UserError(f"One condition at a time, and no statement behind it: {_lower(FORM)}.")
        tree = json.loads(parser.execute("select json_serialize_sql(?::varchar)", [sql]).fetchall()[0][0])
    except duckdb.Error as error:
        raise UserError(f"DuckDB does not understand the condition: {explain_error(error)}") from error
    node: Node = {} if tree["error"] else tree["statements"][0]["node"]
    has_more = node.get("type") != "SELECT_NODE" or any(
        node[key] for key in ("group_expressions", "having", "qualify", "sample")
    )
    if has_more or not node["where_clause"] or any(one["type"] != "ORDER_MODIFIER" for one in node["modifiers"]):
        raise UserError(f"{FORM}: no UNION, GROUP BY or LIMIT; more rows come as you scroll.")
    return node


def _find_order(node: Node) -> Node | None:
    orders = [order for modifier in node["modifiers"] for order in modifier["orders"]]
    if len(orders) > 1:
        raise UserError("ORDER BY takes one expression here: pictures of the same value are ordered by their uid.")
    return orders[0] if orders else None


def _check_reads(trees: list[Node], views: Collection[str]) -> None:
    nodes = [*walk_nodes(trees)]
    own = {entry["key"].lower() for node in nodes for entry in (node.get("cte_map") or {"map": []})["map"]}
    for node in nodes:
        if node.get("type") == "BASE_TABLE" and node["table_name"].lower() not in {*views, *own}:
            raise UserError(f"There is no view {node['table_name']!r}; this page reads {', '.join(sorted(views))}.")
        if node.get("type") == "TABLE_FUNCTION" and node["function"]["function_name"] not in TABLE_FUNCTIONS:
            name = node["function"]["function_name"]
            raise UserError(f"This page reads the views of the root and no files, so {name}() is refused.")


def _write_expression(parser: duckdb.DuckDBPyConnection, expression: Node) -> str:
    """`expression` as SQL that stands alone."""
    tree = json.loads(parser.execute("select json_serialize_sql('select 1')").fetchall()[0][0])
    tree["statements"][0]["node"]["select_list"] = [{**expression, "alias": ""}]
    (sql,) = parser.execute("select json_deserialize_sql(?::json)", [json.dumps(tree)]).fetchall()[0]
    return f"({str(sql).removeprefix('SELECT ')})"
