"""The plan of an ingest as it is recorded: its inputs, totals, units and hosts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from curation.errors import UserError
from curation.ingest.engine import UnitCounts
from curation.ingest.unit import REASONS
from curation.metadata.inputs import Input
from curation.metadata.known import describe_input
from curation.plan import Spread, describe_hosts
from curation.schema import RejectReason

UNCOMMON = (RejectReason.NOT_TEXT, RejectReason.MALFORMED, RejectReason.FORGOTTEN)
"""Reasons that a plan names only where they occur."""


def take_counts(fresh: Sequence[Input], counts: Mapping[int, int]) -> list[Input]:
    """The files with the number of rows that were read, `counts` by position, which only some had said before.

    Raises UserError when a file has not given the rows that it has.
    """
    for position, item in enumerate(fresh):
        if item.num_rows is not None and counts.get(position, 0) != item.num_rows:
            raise UserError(
                f"{item.path} has {item.num_rows:,} rows and {counts.get(position, 0):,} were read: nothing was "
                f"ingested; it may have changed meanwhile, so run `curate ingest` again."
            )
    return [replace(item, num_rows=counts.get(position, 0)) for position, item in enumerate(fresh)]


def check_totals(plan: Mapping[str, Any]) -> None:
    """Raise UserError unless each row that was read became a sample or a reject."""
    num_rows, accounted = sum(i["num_rows"] for i in plan["inputs"]), sum(plan["totals"].values())
    if num_rows != accounted:
        raise UserError(
            f"{num_rows:,} rows were read and {accounted:,} became samples or rejects: nothing of it counts; run "
            f"`curate ingest` again, and report it if this stays."
        )


def sum_hosts(written: Sequence[UnitCounts]) -> dict[str, Any]:
    """What the plan records of the hosts of its samples: a row that is a repeat is fetched from none."""
    counts: Counter[str] = Counter()
    for unit in written:
        counts.update(json.loads(unit["hosts"]))
    num_rows, num_others = (sum(unit[key] for unit in written) for key in ("samples", "num_others"))
    return describe_hosts(counts) | {"num_rows": num_rows, "num_domains": num_others + len(counts)}


def describe_plan(
    fresh: Sequence[Input], written: Sequence[UnitCounts], spread: Spread, number: int, size: int
) -> dict[str, Any]:
    """The record of the plan: inputs, totals by reason, units with their rows, and how the hosts were spread."""
    totals = {key: sum(w.get(key, 0) for w in written) for key in ("samples", *(r.value for r in REASONS))}
    totals = {key: count for key, count in totals.items() if count or key not in UNCOMMON}
    return {
        "number": number,
        "hosts": sum_hosts(written),
        "inputs": [describe_input(item) for item in fresh],
        "totals": totals,
        "num_rows_per_unit": size,
        "units": {f"{w['unit']:06d}": w["samples"] for w in written if w["samples"]},
        "large_domains": {d: {"first_unit": u, "num_units": n} for d, (u, n) in spread.large.items()},
    }
