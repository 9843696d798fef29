"""Join roots into one that has each uid once.

    curate merge ROOT OTHER … --into NEW

Which root's row of a uid is taken is said in `curation.merging.rows`; a row that is left out is a reject of its plan.
What was forgotten in one root comes from none, and what a site or a list refused in one is refused. Pictures, vectors
and scores are copied; what depends on all rows at once (duplicates, selection, train shards) is made anew by
`curate dedupe`, `select` and `pack`. Nothing of the roots is changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from curation.adopt import list_unfinished
from curation.errors import UserError
from curation.merging.plans import MergedPlan, arrange_plans, describe_plan
from curation.merging.rows import Fate, decide_fates, find_refused_urls, unite_tombstones
from curation.merging.settings import check_without, find_configs, list_merged_tables
from curation.merging.units import merge_unit
from curation.moving import check_adopted
from curation.plan import find_lost_units, read_plans
from curation.progress import track
from curation.records import Kinds
from curation.schema import SEALED_FORMAT
from curation.storage import Root, fingerprint
from curation.sums.record import RootRecord
from curation.sums.recorder import sealing
from curation.sums.seal import check_tables
from curation.tables import TOMBSTONES, plan_file, samples_file
from curation.version import __version__

RECORD = "merge.json"
"""At the top of the new root: of what it was merged, and in the end how many rows of each root became what."""
_KINDS: Kinds = {"roots": list, "without": list}
ROWS = "rows"
Counts = list[dict[str, int]]
"""Of each root: how many rows there are of each `Fate`, by its name in lower case."""


def merge(roots: Sequence[Root], target: Root, without: Collection[str] = ()) -> Counts:
    """Make `target` a root with every uid of `roots` once, or finish it; what became of the rows of each root.

    Tables `without` (embeddings…, scores_…) are left out. Raises UserError, before anything is written, for fewer than
    two roots, for one that lacks files or is not adopted to its end, for settings that clash, and for a target that is
    another root; later for a file that does not hold what was published.
    """
    _check(roots, without)
    configs = find_configs(roots, without)
    wanted = {
        "roots": [{"root": root.url(), "state": _describe_state(root, without)} for root in roots],
        "without": sorted(without),
    }
    done = _begin(target, wanted)
    if done is not None:
        return done
    plans = arrange_plans(roots)
    tables = {table for root in roots for table in list_merged_tables(root, without)}
    with sealing(target, ["plans", "forgotten", *sorted(tables)]) as recording:
        for rel, data in configs.items():
            recording.publish(rel, data)
        counts = _merge_units(roots, plans, recording, without)
        for plan in plans:
            recording.publish_json(plan_file(plan.batch), describe_plan(plan, recording))
    target.publish_json(RECORD, {**wanted, ROWS: counts})
    return counts


def _check(roots: Sequence[Root], without: Collection[str]) -> None:
    if len(roots) < 2:
        raise UserError("One root alone is nothing to merge: name two or more.")
    for root in roots:
        root.check_format()
        check_adopted(root)
        if root.exists(RECORD) and ROWS not in root.read_record(RECORD, _KINDS):
            raise UserError(f"{root.base} is a merge that was interrupted: run its `curate merge` again first.")
        check_tables(root, list_merged_tables(root, without))
        _check_units(root)
        if not root.units("samples"):
            raise UserError(f"{root.base} has no samples to merge: run `curate ingest` first.")
    check_without(roots, without)


def _check_units(root: Root) -> None:
    for plan in read_plans(root):
        for number in find_lost_units(root, plan):
            unit = f"{plan['batch']}-{number:06d}"
            raise UserError(f"{root.base} lacks samples or rejects of {unit}: `curate verify` says what mends it.")
    if unread := list_unfinished(root):
        raise UserError(
            f"{root.base} has {len(unread)} adopted shards left to read: run the same `curate adopt` again."
        )


def _describe_state(root: Root, without: Collection[str]) -> str:
    """A fingerprint of what is merged of `root`: by its ledgers, without them by the sizes of its files."""
    sums, tables = root.record().sums, list_merged_tables(root, without)
    if sums is not None:
        return fingerprint({table: sums.get(table) for table in tables})
    return fingerprint({table: root.sizes(table) for table in tables})


def _begin(target: Root, wanted: Mapping[str, Any]) -> Counts | None:
    """Say in the target what it is merged of, before it is a root; the counts of one that is finished."""
    if not target.exists(RECORD):
        if target.exists("root.json"):
            raise UserError(f"{target.base} is a root already: name a new folder for the merged one.")
        target.check_can_create()
        target.publish_json(RECORD, wanted)
    record = target.read_record(RECORD, _KINDS)
    _check_same(target, record, wanted)
    if not target.exists("root.json"):
        target.publish_record(RootRecord(format=SEALED_FORMAT, version=__version__, sums={}))
    target.check_format()
    return record.get(ROWS)


def _check_same(target: Root, record: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    named = ([one["root"] for one in each["roots"]] + each["without"] for each in (record, wanted))
    first, second = named
    if first != second:
        raise UserError(
            f"{target.base} is merged of other roots ({RECORD} says which): name a new folder for this one."
        )
    for before, now in zip(record["roots"], wanted["roots"], strict=True):
        if before != now:
            raise UserError(
                f"{now['root']} has changed since {target.base} was merged of it: name a new folder for this."
            )


def _merge_units(roots: Sequence[Root], plans: Sequence[MergedPlan], target: Root, without: Collection[str]) -> Counts:
    tombstones = unite_tombstones(roots)
    if tombstones.rows:
        target.publish_parquet(TOMBSTONES, tombstones.to_table())
    sources = [source for plan in plans for source in plan.list_sources()]
    with_samples = [one for one in sources if one.root.exists(samples_file(one.unit))]
    refused_urls = find_refused_urls(with_samples)
    fates = dict(zip(with_samples, decide_fates(with_samples, tombstones), strict=True))
    nothing = np.zeros(0, np.uint8)
    for source in track(sources, len(sources), "merge", "unit"):
        merge_unit(source, target, fates.get(source, nothing), refused_urls, tombstones, without)
    return [_count_fates([found for source, found in fates.items() if source.root is root]) for root in roots]


def _count_fates(found: Sequence[np.ndarray]) -> dict[str, int]:
    counts = np.bincount(np.concatenate(found), minlength=len(Fate))
    return {fate.name.lower(): int(counts[fate]) for fate in Fate}
