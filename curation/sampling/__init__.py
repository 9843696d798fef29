"""A share of the rows of a root as a root of its own, to try rules, thresholds and training on.

    curate sample ROOT --share 0.01 --root NEW

Which rows are taken is a function of their uids and the seed alone: the same share of the same rows gives the same
bytes, and a larger share has all rows of a smaller one. Their pictures, vectors and scores are copied; what depends on
all rows at once (duplicates, selection, train shards) is made anew by `curate dedupe`, `select` and `pack`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any

from curation.errors import UserError
from curation.plan import ADOPTED, count_domains, describe_hosts, read_plans
from curation.progress import track
from curation.records import Kinds
from curation.sampling.units import copy_configs, copy_unit
from curation.schema import SEALED_FORMAT
from curation.storage import Root
from curation.sums.cover import summed_tables
from curation.sums.record import RootRecord
from curation.sums.recorder import sealing
from curation.tables import TOMBSTONES, plan_file
from curation.version import __version__

RECORD = "sample.json"
"""At the top of the new root: what it is a sample of. An interrupted one goes on by it."""
_KINDS: Kinds = {"root": str, "share": (int, float), "seed": int}
FORMAT = "sample"
"""The format of the one input of each plan: the rows came from another root, not from metadata."""
TABLES = ("forgotten", "plans", "samples", "downloads")


def sample(root: Root, target: Root, share: float, seed: int = 0) -> int:
    """Make `target` a root with `share` of the rows of `root`, or finish it; how many rows it has.

    Raises UserError before anything is written for a share that takes nothing or everything, for a root without
    samples, and for a target that is another root.
    """
    _check(root, target, share)
    _begin(target, {"root": root.url(), "share": share, "seed": seed})
    with sealing(target, [*TABLES, *summed_tables(root)]) as recording:
        return _copy_plans(root, recording, make_chooser(share, seed))


def _begin(target: Root, wanted: dict[str, Any]) -> None:
    """Say in the target what it is a sample of, before it is a root: a kill leaves no root that nobody knows."""
    if not target.exists(RECORD):
        if target.exists("root.json"):
            raise UserError(f"{target.base} is a root already: name a new folder for the sample.")
        target.check_can_create()
        target.publish_json(RECORD, wanted)
    elif target.read_record(RECORD, _KINDS) != wanted:
        raise UserError(f"{target.base} is another sample ({RECORD} says of what): name a new folder for this one.")
    if not target.exists("root.json"):
        target.publish_record(RootRecord(format=SEALED_FORMAT, version=__version__, sums={}))
    target.check_format()


def _check(root: Root, target: Root, share: float) -> None:
    if not 0 < share < 1 or math.isnan(share):
        raise UserError(f"--share must be between 0 and 1, such as 0.01, not {share}.")
    root.check_format()
    if not root.units("samples"):
        raise UserError(f"{root.base} has no samples to take a share of: run `curate ingest` first.")


def make_chooser(share: float, seed: int) -> Callable[[str], bool]:
    """Whether a uid is in the sample: its hash with the seed lies in the first `share` of all hashes."""
    limit = int(share * 2**64)

    def chooses(uid: str) -> bool:
        return int.from_bytes(hashlib.sha256(f"{seed}:{uid}".encode()).digest()[:8], "big") < limit

    return chooses


def _copy_plans(root: Root, target: Root, chooses: Callable[[str], bool]) -> int:
    """Copy the units of each plan, then the plan that makes them count."""
    copy_configs(root, target)
    if root.exists(TOMBSTONES) and not target.exists(TOMBSTONES):
        target.publish(TOMBSTONES, root.read_whole(TOMBSTONES))
    num_rows, units = 0, root.units("samples")
    with_progress = track(units, len(units), "sample", "unit")
    counts = {unit: copy_unit(root, target, unit, chooses) for unit in with_progress}
    for plan in read_plans(root):
        mine = {unit.rpartition("-")[2]: n for unit, n in counts.items() if n and unit.startswith(f"{plan['batch']}-")}
        described = _describe_plan(root, target, plan, mine)
        if not target.exists(plan_file(plan["batch"])):
            target.publish_json(plan_file(plan["batch"]), described)
        num_rows += sum(mine.values())
    return num_rows


def _describe_plan(root: Root, target: Root, plan: Mapping[str, Any], units: Mapping[str, int]) -> dict[str, Any]:
    """`plan` with its units as they are in the sample, whose rows all became samples."""
    return {
        **plan,
        "inputs": _describe_inputs(root, plan, units),
        "totals": {"samples": sum(units.values())},
        "units": dict(units),
        "hosts": describe_hosts(count_domains(target, (f"{plan['batch']}-{unit}" for unit in units))),
    }


def _describe_inputs(root: Root, plan: Mapping[str, Any], units: Mapping[str, int]) -> list[dict[str, Any]]:
    """The inputs of an adopted plan, one a unit, which say where its pictures lie; else the sampled root alone."""
    if not plan.get(ADOPTED):
        facts = {"source": FORMAT, "path": root.url(), "format": FORMAT, "fingerprint": plan["batch"]}
        return [{**facts, "num_rows": sum(units.values())}]
    return [
        {**{key: value for key, value in item.items() if key != "num_members"}, "num_rows": units.get(f"{n:06d}", 0)}
        for n, item in enumerate(plan["inputs"])
    ]
