"""What one ingest plans: its input files with fingerprints, and how rows become units.

A unit owns its hosts: rows are grouped by registered domain. Small domains hash into shared units, medium ones are
packed into units that they fill, a domain with more rows than a unit holds is split into units of its own. Which unit a
row belongs to is a function of its domain and uid alone.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from curation.errors import UserError
from curation.metadata.inputs import Input
from curation.metadata.known import NewInputs, choose_new_inputs, sum_input
from curation.records import PLAN, PLAN_INPUT, are_counts, check_record
from curation.remedies import remedy
from curation.storage import Root, fingerprint
from curation.sums.seal import lost_files
from curation.tables import PLANS, REJECTS, SAMPLES, plan_file, samples_file

Unit = TypeVar("Unit")
NUM_SHOWN = 5
ADOPTED = "adopted"
"""Key of a plan whose units are shards of img2dataset folders: only `curate adopt` ends them."""
MERGED = "merged"
"""Key of a plan that `curate merge` took over: the batch that it was in its own root."""
NUM_LARGEST = 20
ALL_HOSTS = "*"
"""Stands among the large domains of such a plan for every host, as its units were not grouped by host."""


def select_new_inputs(root: Root, found: list[Input]) -> NewInputs:
    """Those of `found` that no plan of `root` holds yet. Raises UserError as `choose_new_inputs` does."""
    planned = [record for plan in read_plans(root) if not plan.get(ADOPTED) for record in plan["inputs"]]
    return choose_new_inputs(found, planned, root.base)


def read_plans(root: Root) -> list[dict[str, Any]]:
    """Every finished plan of `root`, in the order of their ingests. Raises UserError for a damaged one."""
    plans = [_read_plan(root, f"plans/{name}") for name in root.list("plans", ".json")]
    return sorted(plans, key=lambda plan: plan["number"])


def count_unit_rows(plans: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """The rows of each unit of `plans`."""
    return {f"{plan['batch']}-{number}": rows for plan in plans for number, rows in plan["units"].items()}


def measure_units(root: Root, units: Iterable[str]) -> list[int]:
    """The rows of each of `units`, as the plans of `root` say; 1 of a unit that none of them has."""
    known = count_unit_rows(read_plans(root))
    return [known.get(unit, 1) for unit in units]


def _read_plan(root: Root, rel: str) -> dict[str, Any]:
    plan = root.read_record(rel, PLAN)
    for item in plan["inputs"]:
        check_record(item, PLAN_INPUT, root.url(rel), remedy(rel))
    if not are_counts(plan["totals"]) or not are_counts(plan["units"]):
        raise UserError(f"{root.url(rel)} is damaged (its counts are no numbers): {remedy(rel)}.")
    return plan


def group_by_rows(
    units: Iterable[tuple[Unit, int]], max_rows: int, max_units: int | None = None
) -> Iterator[list[Unit]]:
    """`units` (each with its rows) in their order, in groups of at most `max_rows` rows; a larger unit is alone."""
    group, num_rows = list[Unit](), 0
    for unit, rows in units:
        if group and (num_rows + rows > max_rows or len(group) == max_units):
            yield group
            group, num_rows = [], 0
        group.append(unit)
        num_rows += rows
    if group:
        yield group


def first_free_number(root: Root) -> int:
    """The number of the next plan: the first one that no plan has, so a plan that was lost is made again as it was."""
    taken = {plan["number"] for plan in read_plans(root)}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def check_lost_plans(root: Root, batch: str | None = None) -> None:
    """Raise UserError when plans are lost and `batch`, which is about to be planned, is none of them."""
    lost = lost_files(root, PLANS)
    if lost and (batch is None or plan_file(batch) not in lost):
        raise UserError(
            f"{root.url(lost[0])} is missing: restore it from a copy, or run `curate ingest` once with the sources, "
            f"`where` and num_rows_per_unit that the recipe had then."
        )


def find_lost_units(root: Root, plan: Mapping[str, Any]) -> list[int]:
    """Units of `plan` whose samples do not stand any more, or whose rejects, as far as a ledger knows of them."""
    batch = plan["batch"]
    standing = {*root.list(SAMPLES, ".parquet")}
    lost = {int(unit) for unit in plan["units"] if f"{batch}-{unit}.parquet" not in standing}
    for rel in (*lost_files(root, SAMPLES), *lost_files(root, REJECTS)):
        found, _, unit = rel.rpartition("/")[2].removesuffix(".parquet").rpartition("-")
        if found == batch:
            lost.add(int(unit))
    return sorted(lost)


def count_domains(root: Root, units: Iterable[str]) -> Counter[str]:
    """Rows of each registered domain in the samples of `units`; those without one are under an empty name."""
    counts: Counter[str] = Counter()
    for unit in units:
        counts.update(
            domain or "" for domain in root.read_parquet(samples_file(unit), ["domain"])["domain"].to_pylist()
        )
    return counts


def describe_hosts(domains: Mapping[str, int]) -> dict[str, Any]:
    """What a plan records of its hosts, from the rows of each domain."""
    largest = sorted(domains.items(), key=lambda item: (-item[1], item[0]))[:NUM_LARGEST]
    return {"num_rows": sum(domains.values()), "num_domains": len(domains), "largest": dict(largest)}


def find_plan_inputs(plan: Mapping[str, Any], found: Sequence[Input], wheres: Sequence[tuple[str, str]]) -> list[Input]:
    """The inputs of `plan` among those that the recipe names, in the plan's order and under the plan's names.

    A file that was moved, or whose source was renamed, is known by its content. `wheres` has each source's name and its
    `where`, in the order of the recipe.

    Raises UserError, naming what is needed, when one is not there or when the recipe would plan them otherwise now.
    """
    if plan.get(ADOPTED):
        raise UserError(
            f"Samples of plan {plan['batch']} are missing, which `curate adopt` made: adopt the folder into a new root."
        )
    if MERGED in plan:
        raise UserError(
            f"Samples of plan {plan['batch']} are missing, which `curate merge` took over: merge into a new root."
        )
    pairs = [(_find_input(plan["batch"], wanted, found), wanted) for wanted in plan["inputs"]]
    inputs = [replace(item, source=wanted["source"], planned_path=wanted["path"]) for item, wanted in pairs]
    earlier = {item.source: wanted["source"] for item, wanted in pairs}
    named = [(earlier.get(source, source), where) for source, where in wheres]
    # A batch is named by all sources that the recipe had then; others may have been added behind them.
    likely = (dict(named[:n]) for n in range(len(named), 0, -1))
    size = plan["num_rows_per_unit"]
    if all(name_batch(inputs, some, size, plan["number"]) != plan["batch"] for some in likely):
        raise UserError(
            f"Samples of plan {plan['batch']} are missing, and making them again needs each source's `where` as it was "
            f"then: put it back into the recipe for this run."
        )
    return inputs


def _find_input(batch: str, wanted: Mapping[str, Any], found: Sequence[Input]) -> Input:
    """The file that the record `wanted` of a plan is about: the one at its place, or one that holds the same."""
    alike = [item for item in found if item.fingerprint == wanted["fingerprint"]]
    for item in sorted(alike, key=lambda item: (item.source, item.path) != (wanted["source"], wanted["path"])):
        if wanted.get("sha256") in (None, sum_input(item)):
            return item
    raise UserError(
        f"Samples of plan {batch} are missing, and making them again needs {wanted['path']} of source "
        f"{wanted['source']!r}, or a file that holds the same: name it in the recipe."
    )


def name_batch(found: list[Input], wheres: Mapping[str, str], num_rows_per_unit: int, number: int) -> str:
    """Name of the batch: 8 hex digits over everything that decides its rows and units."""
    described = [[i.source, i.file, i.format, i.fingerprint, *([dict(i.columns)] if i.mapped else [])] for i in found]
    return fingerprint([described, dict(wheres), num_rows_per_unit, number])[:8]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How rows spread over units: small domains hash into `num_shared`, `placed` maps the others to (first, pieces)."""

    num_shared: int
    placed: Mapping[str, tuple[int, int]]

    @property
    def num_units(self) -> int:
        return max([self.num_shared, *(first + pieces for first, pieces in self.placed.values())])

    @property
    def large(self) -> dict[str, tuple[int, int]]:
        """Domains that are split."""
        return {domain: place for domain, place in self.placed.items() if place[1] > 1}


def least_placed(num_rows_per_unit: int) -> int:
    """Rows from which a domain is placed by itself: hashed ones this small leave shared units about even."""
    return max(1, num_rows_per_unit // 20)


def spread_rows(num_rows: int, counts: Mapping[str, int], num_rows_per_unit: int) -> Spread:
    """Plan units of about `num_rows_per_unit` rows; `counts` has the rows of domains with `least_placed` or more."""
    num_shared = max(1, math.ceil((num_rows - sum(counts.values())) / num_rows_per_unit))
    first = num_shared
    medium = {domain: count for domain, count in counts.items() if count <= num_rows_per_unit}
    placed: dict[str, tuple[int, int]] = {}
    for domains in _fill_units(medium, num_rows_per_unit):
        placed |= dict.fromkeys(domains, (first, 1))
        first += 1
    for domain in sorted(set(counts) - set(medium)):
        pieces = math.ceil(counts[domain] / num_rows_per_unit)
        placed[domain] = (first, pieces)
        first += pieces
    return Spread(num_shared=num_shared, placed=placed)


def _fill_units(counts: Mapping[str, int], size: int) -> Iterator[list[str]]:
    """Groups of domains with at most `size` rows together: the largest that is left, filled up with the smallest."""
    left = deque(sorted(counts, key=lambda domain: (-counts[domain], domain)))
    while left:
        group = [left.popleft()]
        total = counts[group[0]]
        while left and total + counts[left[-1]] <= size:
            total += counts[left[-1]]
            group.append(left.pop())
        yield group


@dataclass(frozen=True, kw_only=True)
class Lane:
    """Units that one task downloads one after the other. `share` lanes with the same hosts run at once."""

    units: tuple[str, ...]
    share: int = 1


MIN_CONNECTIONS = 4
"""Of a lane to a host that it shares: with fewer it would hold a task's place for little."""


def plan_lanes(plan: Mapping[str, Any], missing: Collection[str], max_per_host: int) -> list[Lane]:
    """How the `missing` units of one plan are downloaded so that no host is asked by more than the recipe says.

    A unit owns its hosts and is a lane of its own. The units of a large domain have the same hosts: they queue in a
    few lanes, which share the domain's connections and rate between them. Large domains come first, as they take
    longest.
    """
    result, queued = [], set[str]()
    for _, place in sorted(plan.get("large_domains", {}).items(), key=lambda item: (-item[1]["num_units"], item[0])):
        numbers = range(place["first_unit"], place["first_unit"] + place["num_units"])
        units = [unit for number in numbers if (unit := f"{plan['batch']}-{number:06d}") in missing]
        queued.update(units)
        share = min(len(units), max(1, max_per_host // MIN_CONNECTIONS))
        result += [Lane(units=tuple(units[i::share]), share=share) for i in range(share)]
    own = (f"{plan['batch']}-{number}" for number in sorted(plan["units"]))
    return result + [Lane(units=(unit,)) for unit in own if unit in missing and unit not in queued]


def describe_spread(plan: Mapping[str, Any]) -> str:
    """How the hosts of one plan were spread, in lines for people."""
    sizes, hosts, rows = sorted(plan["units"].values()), plan["hosts"], plan["totals"]["samples"]
    if not sizes:
        return f"Plan {plan['batch']}: no row is left to fetch.\n"
    lines = [
        f"Plan {plan['batch']}: {rows:,} rows of {hosts['num_domains']:,} registered domains in {len(sizes):,} units "
        f"of {sizes[0]:,} to {sizes[-1]:,} rows (median {sizes[len(sizes) // 2]:,})."
    ]
    for domain, count in list(hosts["largest"].items())[:NUM_SHOWN]:
        large = plan["large_domains"].get(domain)
        where = f"split over {large['num_units']:,} units that share its rate" if large else "in one unit"
        where = "in the shards as they were" if plan.get(ADOPTED) else where
        lines.append(f"  {domain or '(no host)'}: {count:,} rows ({100 * count / hosts['num_rows']:.2f} %), {where}")
    return "\n".join(lines) + "\n"
