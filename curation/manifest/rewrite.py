"""Rewrites a query on the manifest so that it reads only the tables and files that it needs; the result is the same.

DuckDB joins every table of the wide view even where a query names columns of one, and a uid does not tell which file it
is in. So the query's syntax tree is searched for the columns that it names and for `uid = '…'`, and each view in it is
replaced by a narrower query. A query whose tree leaves this open (`*`, a whole row, PIVOT) keeps the full view.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

_UID = re.compile(r"[0-9a-f]{32}")
Node = dict[str, Any]
_OF_STARS = ("expr", "relation_name", "exclude_list", "qualified_exclude_list", "replace_list", "rename_list")
"""What says that a star is not all columns as they are."""


def is_uid(text: str) -> bool:
    """Whether `text` has the form of a uid."""
    return _UID.fullmatch(text) is not None


@dataclass(frozen=True, kw_only=True)
class Use:
    """What a query needs of one view: words that may be its columns (None: all columns), and uids (None: all rows)."""

    view: str
    names: frozenset[str] | None
    uids: tuple[str, ...] | None


def rewrite_query(
    parser: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Sequence[Any] | None,
    views: frozenset[str],
    narrow: Callable[[Use], str | None],
) -> str | None:
    """Replace each use of a view in `sql` by the query that `narrow` gives for it; None when nothing is replaced.

    `parser` converts SQL to a syntax tree and back; it needs no tables.
    """
    try:
        tree = _parse(parser, sql)
        if tree is None or not _replace_views(parser, tree, parameters, views, narrow):
            return None
        text: str = parser.execute("select json_deserialize_sql(?::json)", [json.dumps(tree)]).fetchall()[0][0]
    except duckdb.Error:
        return None
    return text


def list_tables(parser: duckdb.DuckDBPyConnection, sql: str) -> frozenset[str] | None:
    """Names in lower case of all tables that `sql` reads from; None for PIVOT and whatever else has no syntax tree."""
    try:
        tree = _parse(parser, sql)
    except duckdb.Error:
        return None
    named = (node.get("table_name") for node in walk_nodes(tree))
    return None if tree is None else frozenset(name.lower() for name in named if isinstance(name, str))


def _parse(parser: duckdb.DuckDBPyConnection, sql: str) -> Node | None:
    """The syntax tree of one SELECT; None for PIVOT and whatever else has none."""
    tree: Node = json.loads(parser.execute("select json_serialize_sql(?::varchar)", [sql]).fetchall()[0][0])
    return None if tree["error"] else tree


def _replace_views(
    parser: duckdb.DuckDBPyConnection,
    tree: Node,
    parameters: Sequence[Any] | None,
    views: frozenset[str],
    narrow: Callable[[Use], str | None],
) -> bool:
    nodes = list(walk_nodes(tree))
    if any(node.get("class") == "POSITIONAL_REFERENCE" for node in nodes):
        return False  # `#1` counts the columns of what is selected from
    tables = [n for n in nodes if n.get("type") == "BASE_TABLE" and not n["schema_name"]]
    uses = [n for n in tables if n["table_name"].lower() in views]
    if any(entry["key"].lower() in views for n in nodes for entry in (n.get("cte_map") or {"map": []})["map"]):
        return False  # the query defines one of our names itself
    names = _collect_words(nodes, uses)
    uids = {id(n["from_table"]): _find_uids(n, parameters) for n in nodes if n.get("type") == "SELECT_NODE"}
    changed = False
    for node in uses:
        if node["sample"] or node["column_name_alias"]:
            continue  # a sample is drawn from all rows, and other names are given to all columns in their order
        use = Use(view=node["table_name"].lower(), names=names, uids=uids.get(id(node)))
        query = narrow(use)
        if query is not None:
            alias = (node["alias"] or node["table_name"]).replace('"', '""')
            made = _parse(parser, f'select * from ({query}) as "{alias}"')
            assert made is not None
            fresh = made["statements"][0]["node"]["from_table"]
            node.clear()
            node.update(fresh)
            changed = True
    return changed


def walk_nodes(value: Any) -> Iterator[Node]:
    """Each node of a syntax tree, or of a list of them, before those below it."""
    if isinstance(value, dict):
        yield value
        for child in value.values():
            yield from walk_nodes(child)
    elif isinstance(value, list):
        for child in value:
            yield from walk_nodes(child)


def _collect_words(nodes: Sequence[Node], uses: Sequence[Node]) -> frozenset[str] | None:
    """Every word of the query in lower case, among them all columns that it names; None when it needs whole rows."""
    rows = {(n["alias"] or n["table_name"]).lower() for n in uses}
    order_by_all = {id(star) for star in map(_find_order_by_all, nodes) if star is not None}
    for node in nodes:
        if (node.get("class") == "STAR" and id(node) not in order_by_all) or node.get("ref_type") in (
            "NATURAL",
            "POSITIONAL",
        ):
            return None
        if node.get("class") == "COLUMN_REF" and node["column_names"][-1].lower() in rows:
            return None
    words: set[str] = set()
    for node in nodes:
        for value in node.values():
            words.update(v.lower() for v in (value if isinstance(value, list) else [value]) if isinstance(v, str))
    return frozenset(words)


def _find_order_by_all(node: Node) -> Node | None:
    """The star of ORDER BY ALL of a query: it stands for the columns of the result, and not for those of a table."""
    modifiers = node["modifiers"] if node.get("type") in ("SELECT_NODE", "SET_OPERATION_NODE") else []
    orders = [order["expression"] for modifier in modifiers for order in modifier.get("orders", [])]
    is_plain = len(orders) == 1 and orders[0]["class"] == "STAR" and not any(orders[0][key] for key in _OF_STARS)
    return orders[0] if is_plain else None


def _find_uids(select: Node, parameters: Sequence[Any] | None) -> tuple[str, ...] | None:
    """The uids that WHERE of `select` allows of the one table it selects from, when one of its conditions lists them.

    A condition that names another table's uid, as that of an enclosing query, says nothing about this one.
    """
    table = select["from_table"]
    pending = [select["where_clause"]]
    while pending:
        node = pending.pop()
        if not node:
            continue
        if node["type"] == "CONJUNCTION_AND":
            pending += node["children"]
            continue
        sides = node.get("children") if node["type"] == "COMPARE_IN" else None
        if node["type"] == "COMPARE_EQUAL":
            sides = sorted([node["left"], node["right"]], key=lambda side: side["class"] != "COLUMN_REF")
        if sides and sides[0]["class"] == "COLUMN_REF" and _names_uid(sides[0]["column_names"], table):
            values = [_constant_value(side, parameters) for side in sides[1:]]
            if all(isinstance(text, str) and is_uid(text) for text in values):
                return tuple(str(text) for text in values)
    return None


def _names_uid(names: Sequence[str], table: Node) -> bool:
    """Whether a column's name, qualified or not, is `uid` of `table`, the only table in its scope."""
    alias = table.get("alias") or table.get("table_name") or ""
    lowered = [name.lower() for name in names]
    return lowered == ["uid"] or lowered == [alias.lower(), "uid"]


def _constant_value(node: Node, parameters: Sequence[Any] | None) -> Any:
    """The value of a constant or of a parameter; None for anything else."""
    if node["class"] == "CONSTANT":
        return (node.get("literal") or {}).get("text") or (node.get("value") or {}).get("value")
    if node["class"] == "PARAMETER" and parameters is not None and node["identifier"].isdigit():
        return parameters[int(node["identifier"]) - 1]
    return None
