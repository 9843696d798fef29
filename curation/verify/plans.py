"""Checks of plans: each row of metadata became one sample or one reject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from curation.adopt.inputs import count_members
from curation.plan import read_plans
from curation.schema import RejectReason
from curation.storage import Root
from curation.tables import samples_file


def find_differences(root: Root) -> Iterator[str]:
    """Differences between the plans and the tables samples and rejects."""
    recorded = read_plans(root)
    for plan in recorded:
        yield from _check_totals(plan)
        yield from _check_units(root, plan)
        yield from _check_rejects(root, plan)
        yield from _check_members(root, plan)
    planned = {f"{plan['batch']}-{unit}.parquet" for plan in recorded for unit in plan["units"]}
    for name in root.list("samples", ".parquet"):
        if name not in planned:
            yield f"samples/{name} belongs to no finished plan: run `curate ingest` again."


def _check_totals(plan: dict[str, Any]) -> Iterator[str]:
    num_rows, accounted = sum(i["num_rows"] for i in plan["inputs"]), sum(plan["totals"].values())
    if num_rows != accounted:
        yield f"Plan {plan['batch']} read {num_rows} rows of metadata and accounts for {accounted} of them."
    num_samples = sum(plan["units"].values())
    if num_samples != plan["totals"]["samples"]:
        yield f"Plan {plan['batch']} counts {plan['totals']['samples']} samples, its units {num_samples}."


def _check_units(root: Root, plan: dict[str, Any]) -> Iterator[str]:
    for unit, num_rows in plan["units"].items():
        rel = samples_file(f"{plan['batch']}-{unit}")
        if not root.exists(rel):
            yield f"{rel} is planned and not there."
            continue
        count = root.read_parquet(rel, ["uid"]).num_rows
        if count != num_rows:
            yield f"{rel} has {count} rows, the plan says {num_rows}."


def _check_rejects(root: Root, plan: dict[str, Any]) -> Iterator[str]:
    counts: Counter[str] = Counter()
    for name in root.list("rejects", ".parquet"):
        if name.startswith(f"{plan['batch']}-"):
            counts.update(root.read_parquet(f"rejects/{name}", ["reason"])["reason"].to_pylist())
    for reason in (*RejectReason, *sorted(set(counts) - set(RejectReason))):
        planned = plan["totals"].get(str(reason), 0)
        if counts[reason] != planned:
            yield f"rejects of plan {plan['batch']} have {counts[reason]} rows with {reason}, the plan says {planned}."


def _check_members(root: Root, plan: dict[str, Any]) -> Iterator[str]:
    """Count the members of adopted inputs again; plans of earlier versions did not record them."""
    for number, item in enumerate(plan["inputs"]):
        if "num_members" in item:
            count = count_members(root, f"{plan['batch']}-{number:06d}", item)
            if count is not None and count != item["num_members"]:
                yield f"{item['path']} has {count} members; {item['num_members']} were accounted for when adopted."
