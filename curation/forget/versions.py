"""Take forgotten rows out of train shards and their index, and say that versions are of what the tables hold now.

A version keeps its name, so that no stage makes it anew: what it was made from changed by the forgotten rows alone. Its
`current.json` names the removal, by which the loader's index of the rows before is no longer taken.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.forget.pending import Pending
from curation.freshness import MADE_BY, VECTORS_INPUT, Fingerprints
from curation.records import STAGE_CONFIG
from curation.shards import Member, copy_shard, file_sha256, index
from curation.storage import CONFIG, Root
from curation.tables import (
    DOWNLOADS,
    METADATA,
    SAMPLES,
    SCORES,
    TRAIN,
    TRAIN_INDEX,
    train_sizes_file,
    train_summary_file,
)

PLACES = {"offset": "", "json_offset": "json", "txt_offset": "txt"}
"""Columns of the index with the offset of a member → its extension; the picture has any other one."""


def rewrite_train(root: Root, pending: Pending) -> None:
    """New shards under new names, the parts of the index that name them, and then the records of the version.

    Shards that are not named any more go last.
    """
    for part in pending.parts:
        if root.exists(part):
            _rewrite_part(root, part, pending)
    train = root.current(TRAIN)
    if train is None or not pending.shards:
        return
    _rewrite_records(root, train, pending)
    for shard in pending.shards:
        root.remove(shard)


def _rewrite_part(root: Root, part: str, pending: Pending) -> None:
    rows = root.read_parquet(part)
    gone = pc.is_in(rows["uid"], pa.array(sorted(pending.uids), pa.string()))
    if not pc.any(gone).as_py():
        return
    rest = rows.filter(pc.invert(gone)).combine_chunks()
    shards = set(rows["shard"].to_pylist())
    members: dict[str, dict[str, Member]] = {}
    for shard, target in pending.shards.items():
        if shard in shards:
            copy_shard(root, shard, root, lambda key: key not in pending.uids, partial(_name, target))
            members[shard] = {m.name: m for m in index(root, target)} if root.exists(target) else {}
    if not len(rest):
        root.remove(part)
        return
    root.publish_parquet(part, _move_members(rest, members, pending))


def _name(target: str, _: str) -> str:
    return target


def _move_members(rows: pa.Table, members: dict[str, dict[str, Member]], pending: Pending) -> pa.Table:
    """`rows` of the index with the places of their members in the new shards."""
    found = rows.select(["uid", "shard", *(name for name in PLACES if name in rows.column_names)]).to_pylist()
    by_key: dict[tuple[str, str], int] = {}
    for shard, named in members.items():
        for member in named.values():
            kind = member.extension if member.extension in PLACES.values() else ""
            by_key[shard, f"{member.key}.{kind}"] = member.offset
    for row in found:
        shard = row["shard"]
        if shard in members:
            row |= {name: by_key[shard, f"{row['uid']}.{kind}"] for name, kind in PLACES.items() if name in row}
            row["shard"] = pending.shards[shard]
    for name in found[0]:
        field = rows.schema.field(name)
        values = pa.array([row[name] for row in found], field.type)
        rows = rows.set_column(rows.schema.get_field_index(name), field, values)
    return rows.combine_chunks()


def _rewrite_records(root: Root, train: dict[str, Any], pending: Pending) -> None:
    """sizes.json, summary.json, and the files that the current versions of shards and index name."""
    fp = train["fingerprint"]
    renamed = {old.rpartition("/")[2]: new for old, new in pending.shards.items()}
    standing = {new for new in pending.shards.values() if root.exists(new)}
    sizes, counts = root.read_record(train_sizes_file(fp), {}), _count_rows(root, standing)
    _publish_changed(
        root,
        train_sizes_file(fp),
        sizes,
        {**{name: n for name, n in sizes.items() if name not in renamed}, **{_base(s): counts[s] for s in standing}},
    )
    if root.exists(train_summary_file(fp)):
        summary = root.read_record(train_summary_file(fp), {"shards": dict})
        shards = {name: one for name, one in summary["shards"].items() if name not in renamed}
        for new in sorted(standing):
            shards[_base(new)] = shards.get(_base(new)) or _describe_shard(root, new, counts[new])
        totals = {key: sum(one[key] for one in shards.values()) for key in ("num_samples", "num_bytes")}
        changed = {**summary, **totals, "num_shards": len(shards), "shards": shards}
        _publish_changed(root, train_summary_file(fp), summary, changed)
    files = sorted({pending.shards.get(rel, rel) for rel in train["files"]})
    files = [rel for rel in files if rel not in pending.shards.values() or rel in standing]
    _publish_version(root, TRAIN, train, {**train, "files": files})
    current = root.current(TRAIN_INDEX) or {"files": []}
    parts = [rel for rel in current["files"] if rel not in pending.parts or root.exists(rel)]
    _publish_version(root, TRAIN_INDEX, current, {**current, "files": parts})


def _base(rel: str) -> str:
    return rel.rpartition("/")[2]


def _publish_changed(root: Root, rel: str, before: Any, after: Any) -> None:
    if before != after:
        root.publish_json(rel, after)


def _publish_version(root: Root, table: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    if before != after:
        root.publish_version(table, after)


def _count_rows(root: Root, shards: set[str]) -> dict[str, int]:
    """Samples in each of `shards`: members with one key are one."""
    return {shard: len({member.key for member in index(root, shard)}) for shard in shards}


def _describe_shard(root: Root, shard: str, num_samples: int) -> dict[str, Any]:
    return {"num_samples": num_samples, "num_bytes": root.size(shard), "sha256": file_sha256(root, shard)}


def renew_versions(root: Root, pending: Pending) -> None:
    """Record in each current version that it is of what the tables hold now, if it was before rows were forgotten."""
    known = Fingerprints(root)
    for table in MADE_BY:
        current = root.current(table)
        if current is None:
            continue
        inputs = current.get("inputs")
        if isinstance(inputs, dict):
            fresh = {
                name: _renew(known, name, inputs[name]) for name in pending.versions.get(table, ()) if name in inputs
            }
            inputs = {**inputs, **fresh}
        changed = {**current, "inputs": inputs, "forgotten": pending.id}
        changed["files"] = [rel for rel in current["files"] if rel not in pending.files or root.exists(rel)]
        _publish_version(root, table, current, changed)
    train, listed = root.current(TRAIN), root.current(TRAIN_INDEX)
    if train is not None and listed is not None and train["fingerprint"] == listed["fingerprint"]:
        _publish_version(root, TRAIN, train, {**train, "inputs": listed["inputs"]})


def _renew(known: Fingerprints, name: str, recorded: Any) -> Any:
    """The fingerprint of the input `name` as it is now; what is no table of units stays."""
    if name == VECTORS_INPUT:
        rel = f"{METADATA}/{CONFIG}"
        if not known.root.exists(rel):
            return recorded
        return known.of_vectors(known.root.read_record(rel, STAGE_CONFIG)["config"].get("model"))
    if name in (SAMPLES, DOWNLOADS, METADATA) or name.startswith(SCORES):
        return known.of(name)
    return recorded
