"""From the rows that are forgotten to everything that has to change: the tables, shards, plans and versions."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.download.tombstones import read_tombstones
from curation.forget.looked import list_looked
from curation.forget.matches import (
    NUM_READERS,
    Match,
    find_answered,
    find_matches,
    list_requested_uids,
    read_pairs,
)
from curation.forget.pending import Pending
from curation.forget.requests import Requests, describe_unknown
from curation.freshness import MADE_BY, Fingerprints
from curation.garbage import list_other_versions
from curation.places import is_elsewhere
from curation.plan import ADOPTED, read_plans
from curation.schema import RejectReason
from curation.shards import index
from curation.storage import Root, fingerprint
from curation.tables import (
    DUPLICATES,
    REJECTS,
    SELECTION,
    TOMBSTONES,
    TRAIN,
    TRAIN_INDEX,
    batch_of,
    downloads_file,
    embedding_tables,
    listings_file,
    metadata_file,
    plan_file,
    rejects_file,
    samples_file,
    score_tables,
    selection_file,
    texts_file,
    train_sizes_file,
    train_summary_file,
    unit_file,
    vectors_file,
)


def plan_removal(
    root: Root, requests: Requests, *, reason: str, date: str, with_copies: bool
) -> tuple[Pending | None, list[str]]:
    """What is to be done, None when nothing is; and what those requests were called by that name no row.

    Raises UserError for damaged tables. Writes nothing.
    """
    matches = find_matches(root, requests, with_copies)
    standing = read_tombstones(root)
    known = {(kind, sha256) for kind, sha256, _, _ in standing.rows}
    own = [*requests.list_tombstones(), *Requests(labels={f"uid {m.uid}": "" for m in matches}).list_tombstones()]
    tombstones = sorted({*own} - known)
    answered = find_answered(requests, matches)
    uids = sorted({match.uid for match in matches} | {*list_requested_uids(requests)})
    rejected = _find_rejects(root, uids)
    answered |= {f"uid {uid}" for found in rejected.values() for uid in found["uids"]}
    earlier = {key for key in requests.labels if Requests(labels={key: ""}).list_tombstones()[0] in known}
    unknown = describe_unknown(requests, answered | earlier)
    if not (matches or rejected or tombstones):
        return None, unknown
    units = _group_by_unit(matches)
    index_rows = _find_train_rows(root, uids)
    identity = fingerprint([tombstones, sorted(_hash(uid) for uid in uids), date])
    follow = [removed for removed, kept in read_pairs(root, uids) if kept in set(uids) and removed not in set(uids)]
    pending = Pending(
        id=identity,
        date=date,
        reason=reason,
        tombstones=[list(one) for one in tombstones],
        num_requests=dict(Counter(key.partition(" ")[0] for key in requests.labels)),
        num_unknown=len(unknown),
        units={unit: [match.uid for match in found] for unit, found in units.items()},
        listed=_find_listed(root, units),
        rejects=_plan_rejects(root, units, rejected),
        plans=_plan_plans(root, units, rejected),
        parts=sorted(index_rows),
        shards={s: _rename(s, identity) for found in index_rows.values() for s in found},
        versions=_find_fresh(root),
        old_versions=[rel for rel in list_other_versions(root) if _holds_any(root, rel, set(uids))],
        files=_list_files(root, units, rejected, index_rows),
        outside=sorted(
            {m.columns["shard"] for m in matches if m.columns["shard"] and is_elsewhere(m.columns["shard"])}
        ),
        follow=sorted(follow),
        looked=list_looked(root, units, uids),
    )
    return pending, unknown


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _group_by_unit(matches: Iterable[Match]) -> dict[str, list[Match]]:
    units: dict[str, list[Match]] = {}
    for match in matches:
        units.setdefault(match.unit, []).append(match)
    return units


def _find_rejects(root: Root, uids: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """Unit → uids, sources and reasons of those of its rejects that have one of `uids`."""
    wanted, units = pa.array(uids, pa.string()), root.units(REJECTS) if uids else []

    def read(unit: str) -> pa.Table:
        rows = root.read_parquet(rejects_file(unit), ["uid", "source", "reason"])
        return rows.filter(pc.is_in(rows["uid"], wanted)) if len(rows) else rows

    with ThreadPoolExecutor(NUM_READERS) as pool:
        found = zip(units, pool.map(read, units), strict=True)
        names = ("uid", "source", "reason")
        return {unit: {f"{name}s": rows[name].to_pylist() for name in names} for unit, rows in found if len(rows)}


def _plan_rejects(
    root: Root, units: Mapping[str, Sequence[Match]], rejected: Mapping[str, Mapping[str, list[str]]]
) -> dict[str, list[str]]:
    """Unit → the sources of all its forgotten rejects in the end: earlier ones, rejects and samples of now."""
    planned = {}
    for unit in sorted({*units, *rejected}):
        sources = [match.columns["source"] for match in units.get(unit, ())]
        sources += rejected.get(unit, {}).get("sources", [])
        if root.exists(rejects_file(unit)):
            rows = root.read_parquet(rejects_file(unit), ["source", "reason"])
            sources += rows.filter(pc.equal(rows["reason"], RejectReason.FORGOTTEN.value))["source"].to_pylist()
        planned[unit] = sorted(source or "" for source in sources)
    return planned


def _plan_plans(
    root: Root, units: Mapping[str, Sequence[Match]], rejected: Mapping[str, Mapping[str, list[str]]]
) -> dict[str, Any]:
    """Path → content of each plan that counts rows which are forgotten."""
    batches = {batch_of(unit) for unit in (*units, *rejected)}
    return {
        plan_file(plan["batch"]): _plan_plan(plan, units, rejected)
        for plan in read_plans(root)
        if plan["batch"] in batches
    }


def _plan_plan(
    plan: Mapping[str, Any], units: Mapping[str, Sequence[Match]], rejected: Mapping[str, Mapping[str, list[str]]]
) -> dict[str, Any]:
    mine = {unit: found for unit, found in units.items() if batch_of(unit) == plan["batch"]}
    reasons = Counter(
        r for unit, found in rejected.items() if batch_of(unit) == plan["batch"] for r in found["reasons"]
    )
    num_samples = sum(map(len, mine.values()))
    totals = {reason: count - reasons[reason] for reason, count in plan["totals"].items()}
    totals["samples"] -= num_samples
    totals[RejectReason.FORGOTTEN.value] = plan["totals"].get(RejectReason.FORGOTTEN.value, 0)
    totals[RejectReason.FORGOTTEN.value] += num_samples + reasons.total()
    counts = {number: count - len(mine.get(f"{plan['batch']}-{number}", ())) for number, count in plan["units"].items()}
    changed = {**plan, "totals": totals, "units": {number: count for number, count in counts.items() if count}}
    return changed | _plan_hosts(plan, Counter(m.columns["domain"] or "" for found in mine.values() for m in found))


def _plan_hosts(plan: Mapping[str, Any], removed: Counter[str]) -> dict[str, Any]:
    """What the plan says of its hosts, where it says anything: a host without rows is not named any more."""
    if "hosts" not in plan:
        return {}
    hosts, large = plan["hosts"], plan.get("large_domains", {})
    left = {domain: count - removed[domain] for domain, count in hosts["largest"].items()}
    gone = {domain for domain, count in left.items() if count <= 0}
    named = {
        "largest": {domain: count for domain, count in left.items() if domain not in gone},
        "num_rows": hosts["num_rows"] - removed.total(),
        "num_domains": hosts["num_domains"] - len(gone),
    }
    return {"hosts": {**hosts, **named}, "large_domains": {d: place for d, place in large.items() if d not in gone}}


def _find_listed(root: Root, units: Mapping[str, Sequence[Match]]) -> dict[str, list[str]]:
    """Unit of an adopted folder → those of its files whose every row is forgotten."""
    adopted = {plan["batch"] for plan in read_plans(root) if plan.get(ADOPTED)}
    found = {}
    for unit, matches in units.items():
        if batch_of(unit) in adopted and root.exists(listings_file(unit)):
            rows = root.read_parquet(samples_file(unit), ["uid", "source_id"]).to_pylist()
            uids = {match.uid for match in matches}
            staying = {row["source_id"] for row in rows if row["uid"] not in uids}
            found[unit] = sorted({m.columns["source_id"] for m in matches if m.columns["source_id"]} - staying)
    return found


def _find_train_rows(root: Root, uids: Sequence[str]) -> dict[str, list[str]]:
    """Part of train_index with forgotten rows → the train shards in which they lie."""
    wanted, parts = pa.array(uids, pa.string()), (root.current(TRAIN_INDEX) or {"files": []})["files"]

    def read(part: str) -> list[str]:
        rows = root.read_parquet(part, ["uid", "shard"])
        return sorted(rows.filter(pc.is_in(rows["uid"], wanted))["shard"].unique().to_pylist())

    with ThreadPoolExecutor(NUM_READERS) as pool:
        return {part: shards for part, shards in zip(parts, pool.map(read, parts), strict=True) if shards}


def _rename(shard: str, identity: str) -> str:
    """The name of a train shard without its forgotten rows: who still has the index of the old one misses it."""
    folder, _, name = shard.rpartition("/")
    stem = "-".join(name.removesuffix(".tar").split("-")[:2])
    return f"{folder}/{stem}-{identity}.tar"


def _find_fresh(root: Root) -> dict[str, list[str]]:
    """Versioned table → its inputs that are what it was made from."""
    known, fresh = Fingerprints(root), {}
    for table in MADE_BY:
        recorded = (root.current(table) or {}).get("inputs")
        if isinstance(recorded, dict):
            fresh[table] = sorted(name for name, value in recorded.items() if known.holds(name, value))
    return fresh


def _holds_any(root: Root, folder: str, uids: set[str]) -> bool:
    """Whether an old version holds one of `uids`, or vectors and hashes of pictures without their uids."""
    for path in sorted(root.fs.find(root.full(folder))):
        rel = f"{folder}/{path.rpartition(f'/{folder}/')[2]}"
        if "/work/" in rel or _file_holds(root, rel, uids):
            return True
    return False


def _file_holds(root: Root, rel: str, uids: set[str]) -> bool:
    if rel.endswith(".tar"):
        return any(member.key in uids for member in index(root, rel))
    if not rel.endswith(".parquet"):
        return False
    named = [name for name in root.read_schema(rel).names if name in ("uid", "kept_uid", "component")]
    columns = root.read_parquet(rel, named)
    return any(not uids.isdisjoint(columns[name].to_pylist()) for name in named)


def list_unit_files(root: Root, unit: str) -> Iterator[str]:
    """Every file of `unit` under a sum that may stand."""
    yield from (samples_file(unit), listings_file(unit), downloads_file(unit))
    for table in embedding_tables(root):
        yield from (metadata_file(unit, table), vectors_file(unit, table), texts_file(unit, table))
    yield from (unit_file(table, unit) for table in score_tables(root))
    current = root.current(SELECTION)
    if current is not None:
        yield selection_file(current["fingerprint"], unit)


def _list_files(
    root: Root, units: Iterable[str], rejected: Iterable[str], index_rows: Mapping[str, Sequence[str]]
) -> list[str]:
    """Every file that changes or goes, as it is called before."""
    listed = [TOMBSTONES, *(rel for unit in units for rel in list_unit_files(root, unit))]
    listed += [rejects_file(unit) for unit in {*units, *rejected}]
    listed += [plan_file(batch_of(unit)) for unit in {*units, *rejected}]
    listed += (root.current(DUPLICATES) or {"files": []})["files"]
    listed += [f"{table}/current.json" for table in (*MADE_BY, TRAIN)]
    train = root.current(TRAIN)
    if train is not None and index_rows:
        listed += [train_sizes_file(train["fingerprint"]), train_summary_file(train["fingerprint"])]
        listed += [*index_rows, *(shard for found in index_rows.values() for shard in found)]
    return sorted({rel for rel in listed if root.exists(rel)})
