"""Files of units that a stage publishes joined from the start, in a root whose samples lie in packed files.

`curate select` is run many times over and writes little of each unit: 230,000 files of a few kilobytes would be most of
its work on an object store. Where the samples of consecutive units were joined, their decisions are published as the
packed file that `curate compact` would make of them, byte for byte.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from curation.compaction.compact import holds_last_copy, plan_groups, split_consecutive, sum_packed
from curation.compaction.joining import Joining
from curation.plan import read_plans
from curation.storage import Root, parquet_bytes
from curation.sums.cover import list_unnamed_packed
from curation.sums.ledger import Ledger, Sum, sum_bytes
from curation.sums.packed import list_packed_units, packed_file
from curation.sums.recorder import list_recorded
from curation.sums.seal import enter_packed
from curation.tables import SAMPLES, batch_of, samples_file, unit_file

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Units in their order, in runs of consecutive ones: a run of several becomes one packed file."""

    starts: Sequence[int]
    """The position of the first unit of each run, ascending."""

    def run_of(self, position: int) -> int:
        """The run of the unit at `position`, as the position of its first unit."""
        return self.starts[bisect.bisect_right(self.starts, position) - 1]

    def are_single(self, num_units: int) -> bool:
        """Whether each of `num_units` units is published alone."""
        return len(self.starts) == num_units

    def list_runs(self, num_units: int) -> list[int]:
        """`run_of` each of `num_units` units."""
        ends = [*self.starts[1:], num_units]
        return [start for start, end in zip(self.starts, ends, strict=True) for _ in range(start, end)]

    def gather(self, units: Iterable[tuple[int, Item]]) -> Iterator[list[tuple[int, Item]]]:
        """Positions and what belongs to them, ascending, those of one run together."""
        run, together = -1, list[tuple[int, Item]]()
        for position, item in units:
            if self.run_of(position) != run and together:
                yield together
                together = []
            run = self.run_of(position)
            together.append((position, item))
        if together:
            yield together


def plan_packed(root: Root, units: Sequence[str], written: Collection[str] = ()) -> Runs:
    """How files of `units`, sorted, are to be published of which those of `written` stand already.

    A run is a group that `curate compact` would join, if its samples were joined and none of it is written.
    """
    if not root.places(SAMPLES):
        return Runs(starts=range(len(units)))
    positions = {unit: position for position, unit in enumerate(units) if unit not in written}
    inside = set[int]()
    for run in _find_joined(root):
        found = [positions.get(unit) for unit in run]
        if None not in found:
            inside.update(position for position in found[1:] if position is not None)
    return Runs(starts=[position for position in range(len(units)) if position not in inside])


def _find_joined(root: Root) -> Iterator[list[str]]:
    """The groups of several units whose samples all lie in packed files."""
    places = root.places(SAMPLES)
    for plan in read_plans(root):
        for numbers in (run for group in plan_groups(plan["units"]) for run in split_consecutive(group)):
            units = [f"{plan['batch']}-{number:06d}" for number in numbers]
            if all(samples_file(unit) in places for unit in units):
                yield units


def publish_units(root: Root, folder: str, units: Sequence[tuple[str, pa.Table]]) -> None:
    """Publish the tables of a run of units in `folder`: of several as one packed file, which `enter_written` enters."""
    if len(units) == 1:
        root.publish_parquet(unit_file(folder, units[0][0]), units[0][1])
        return
    joining, data, sums = Joining(), bytearray(), dict[str, Sum]()
    for unit, table in units:
        own = parquet_bytes(table)
        joining.add(own)
        data += own
        sums[unit_file(folder, unit)] = sum_bytes(own)
    whole = bytes(data + joining.footer())
    first, last = (int(unit.rpartition("-")[2]) for unit in (units[0][0], units[-1][0]))
    target = packed_file(folder, batch_of(units[0][0]), first, last)
    root.put(target, whole)
    root.note_published({**sums, target: sum_bytes(whole)})


def enter_written(root: Root, folder: str) -> None:
    """Let the packed files count that stages have published in `folder`, also those of an interrupted one.

    Raises UserError for a damaged one.
    """
    recorded, found = list_recorded(root), dict[str, Sum]()
    for rel in list_unnamed_packed(root, folder):
        found |= _find_sums(root, rel, recorded)
    if found:
        enter_packed(root, folder.partition("/")[0], found)


def _find_sums(root: Root, rel: str, recorded: Ledger) -> Mapping[str, Sum]:
    """Sums of the packed file `rel` and of its units; none when they stand elsewhere, and it is deleted."""
    wanted = [*list_packed_units(rel), rel]
    if all(one in recorded for one in wanted):
        return {one: recorded[one] for one in wanted}
    if holds_last_copy(root, rel):
        return sum_packed(root, rel)
    root.delete(rel)
    return {}
