"""The plans of a merged root: those of all roots, one behind the other, each with its rows as they are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from curation.merging.rows import Source
from curation.plan import ALL_HOSTS, MERGED, count_domains, describe_hosts, read_plans
from curation.storage import Root, fingerprint
from curation.tables import REJECTS, SAMPLES, batch_of, rejects_file, samples_file


@dataclass(frozen=True, kw_only=True)
class MergedPlan:
    """A plan of one of the roots, and the batch and number that it gets."""

    root: Root
    plan: dict[str, Any]
    batch: str
    number: int

    def list_sources(self) -> Iterator[Source]:
        """Its units, also those whose rows are all rejects."""
        units = {unit for table in (SAMPLES, REJECTS) for unit in self.root.units(table)}
        for unit in sorted(unit for unit in units if batch_of(unit) == self.plan["batch"]):
            yield Source(root=self.root, unit=unit, name=self.rename(unit))

    def rename(self, unit: str) -> str:
        """What `unit` is called in the new root."""
        return f"{self.batch}-{unit.rpartition('-')[2]}"


def arrange_plans(roots: Sequence[Root]) -> list[MergedPlan]:
    """The plans of `roots` in their order. Two roots may have ingested the same files: the later batch is renamed."""
    arranged: list[MergedPlan] = []
    for root in roots:
        for plan in read_plans(root):
            batch, number = plan["batch"], len(arranged)
            while any(one.batch == batch for one in arranged):
                batch = fingerprint([MERGED, batch])[:8]
            arranged.append(MergedPlan(root=root, plan=plan, batch=batch, number=number))
    return arranged


def describe_plan(merged: MergedPlan, target: Root) -> dict[str, Any]:
    """The record of one plan, by what its units in `target` hold."""
    plan, units, totals = merged.plan, dict[str, int](), Counter[str]()
    for source in merged.list_sources():
        if target.exists(samples_file(source.name)):
            number = source.name.rpartition("-")[2]
            units[number] = target.read_parquet(samples_file(source.name), ["uid"]).num_rows
        if target.exists(rejects_file(source.name)):
            totals.update(target.read_parquet(rejects_file(source.name), ["reason"])["reason"].to_pylist())
    domains = count_domains(target, (f"{merged.batch}-{number}" for number in units))
    large = plan.get("large_domains", {})
    return {
        **plan,
        "batch": merged.batch,
        "number": merged.number,
        MERGED: plan["batch"],
        "totals": {**dict.fromkeys(plan["totals"], 0), **totals, "samples": sum(units.values())},
        "units": units,
        "hosts": describe_hosts(domains),
        "large_domains": {name: place for name, place in large.items() if name == ALL_HOSTS or name in domains},
    }
