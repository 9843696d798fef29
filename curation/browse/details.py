"""All that the root says of one picture: its columns, each decision on it and why, and the group of its duplicates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from curation.browse.conditions import is_of_one_row
from curation.browse.desk import Desk
from curation.browse.wall import Row, find_rows
from curation.errors import UserError
from curation.manifest.quoting import quote_identifier, quote_text
from curation.recipe.expressions import Quantile, QuantileValues
from curation.recipe.rules import Rule, parse, passes_sql
from curation.report.selection import read_quantiles
from curation.schema import Status

MAX_GROUP = 60
"""Pictures of a group that are shown; a group of a logo may have millions."""
ORIGIN = ("source", "source_id", "url", "domain", "license", "shard", "offset", "size", "train_shard")


def describe_picture(desk: Desk, uid: str) -> dict[str, Any]:
    """`uid`, its `columns` by table, `decisions` and `group`. Raises UserError for a uid that is not in the root."""
    manifest = desk.manifest
    tables = {table: names for table, names in manifest.columns_by_table().items() if names}
    listed = ", ".join(quote_identifier(name) for names in tables.values() for name in names)
    found = desk.fetch(manifest.query(f"select {listed} from manifest where uid = {quote_text(uid)}"))
    if not found:
        raise UserError(f"The root has no row with the uid {uid[:64]}.")
    row = found[0]
    return {
        "uid": uid,
        "columns": {table: {name: row[name] for name in names} for table, names in tables.items()},
        "origin": {name: row[name] for name in ORIGIN if row.get(name) is not None},
        "decisions": [*_list_decisions(desk, row)],
        "group": _find_group(desk, row),
    }


def _decide(step: str, passed: bool | None, why: str, *, values: Row | None = None) -> Row:
    """One decision; `passed` is None where the step was not asked."""
    return {"step": step, "passed": passed, "why": why, "values": values or {}}


def _list_decisions(desk: Desk, row: Row) -> Iterator[Row]:
    status = row.get("status")
    if status is None:
        yield _decide("download", None, "not fetched yet")
        return
    came = status == Status.OK.value
    yield _decide("download", came, f"{status}: {row['detail']}" if row.get("detail") else status)
    if not came:
        return
    if row.get("duplicate_of"):
        why = f"{row['duplicate_tier']}, similarity {row['duplicate_similarity']:.4g}: {row['duplicate_of']} is kept"
        yield _decide("duplicates", False, why)
    elif desk.manifest.files("duplicates"):
        yield _decide("duplicates", True, "a copy of no other picture")
    yield from _ask_rules(desk, row)
    if row.get("train_shard"):
        yield _decide("packed", True, str(row["train_shard"]))


def _ask_rules(desk: Desk, row: Row) -> Iterator[Row]:
    """What each rule of the current selection says of `row`, in the order of the rules; then what was recorded."""
    current = desk.manifest.root.current("selection")
    if current is None:
        return
    texts: dict[str, str] = current["config"].get("rules", {})
    types, quantiles = read_types(desk), read_quantiles(desk.manifest.root)
    order = current["config"].get("order", sorted(texts))
    rules = {name: _parse_rule(name, texts.get(name, ""), types, quantiles) for name in order}
    asked = {name: rule for name, rule in rules.items() if rule and is_of_one_row(rule, quantiles)}
    answers = _ask(desk, asked, row["uid"])
    for name, rule in rules.items():
        values = {column: row[column] for column in sorted(rule.reads) if column in row} if rule else {}
        decision = _decide(name, answers.get(name), texts.get(name, ""), values=values)
        yield decision | {"is_reason": row.get("reason") == name, "is_rule": True}
    if row.get("kept") is not None:
        yield _decide("selection", row["kept"], "kept" if row["kept"] else f"not kept: {row['reason']}")


def read_types(desk: Desk) -> dict[str, pa.DataType]:
    """The columns of the manifest with their types."""
    schema = desk.manifest.query("select * from manifest limit 0").to_arrow_table().schema
    return {field.name: field.type for field in schema}


def _parse_rule(
    name: str, text: str, types: dict[str, pa.DataType], quantiles: dict[Quantile, QuantileValues]
) -> Rule | None:
    """The rule; None where it needs what is not here: a list beside its recipe, a score that was deleted."""
    try:
        return parse({name: text}, types, quantiles)[0]
    except (UserError, OSError):
        return None


def _ask(desk: Desk, rules: dict[str, Rule], uid: str) -> dict[str, bool]:
    """Whether each of `rules` passes the row of `uid`."""
    if not rules:
        return {}
    asked = ", ".join(f"{passes_sql(rule)} as {quote_identifier(name)}" for name, rule in rules.items())
    found = desk.fetch(desk.manifest.query(f"select {asked} from manifest as m where m.uid = {quote_text(uid)}"))
    return dict(found[0]) if found else {}


def _find_group(desk: Desk, row: Row) -> list[Row]:
    """The pictures that are copies of one another: the kept one, then those that it stands for. Empty without any."""
    kept = quote_text(row.get("duplicate_of") or row["uid"])
    members = desk.fetch(
        desk.manifest.query(
            f"select uid, tier, similarity from duplicates where kept_uid = {kept} "
            f"order by similarity desc, uid limit {MAX_GROUP}"
        )
    )
    if not members:
        return []
    why = {member["uid"]: member for member in members}
    rows = find_rows(desk, [row.get("duplicate_of") or row["uid"], *why])
    nothing: Row = {"tier": None, "similarity": None}
    return [one | nothing | why.get(one["uid"], {}) for one in rows]
