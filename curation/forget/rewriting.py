"""Take forgotten rows out of the tables of their units, of duplicates and rejects, and out of raw shards.

Every function can be called again: it writes a file only where it still holds such a row.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.download.log import FOLDER as DOWNLOAD_LOGS
from curation.download.opt_out import digest_key
from curation.download.tombstones import append_forgotten, hide_name, read_tombstones, uid_key
from curation.errors import UserError
from curation.forget.pending import Pending
from curation.forget.planning import list_unit_files
from curation.npy import parse_array
from curation.schema import LISTINGS, REJECTS, RejectReason
from curation.shards import copy_shard
from curation.storage import Root
from curation.tables import (
    DUPLICATES,
    RAW,
    SELECTION,
    TOMBSTONES,
    downloads_file,
    embedding_tables,
    listings_file,
    metadata_file,
    move_pictures,
    raw_shard,
    rejects_file,
    samples_file,
    score_tables,
    selection_file,
    texts_file,
    unit_file,
    vectors_file,
)

FORGOTTEN = "forgotten:"
"""Stands before the hash of a uid, or the tier, of a row of duplicates that names a forgotten row."""


def write_tombstones(root: Root, pending: Pending) -> None:
    """Add the tombstones, so that nothing brings the rows back."""
    standing = read_tombstones(root)
    known = {(kind, sha256) for kind, sha256, _, _ in standing.rows}
    added = [(kind, sha256, pending.reason, pending.date) for kind, sha256 in pending.tombstones]
    rows = [*standing.rows, *(row for row in added if row[:2] not in known)]
    if len(rows) > len(standing.rows):
        root.publish_parquet(TOMBSTONES, type(standing)(tuple(sorted(rows))).to_table())


def rewrite_rejects(root: Root, unit: str, pending: Pending) -> None:
    """Put a forgotten row that says nothing but its source in the place of each reject and sample that is forgotten."""
    rel = rejects_file(unit)
    rows = root.read_parquet(rel) if root.exists(rel) else REJECTS.empty_table()
    is_other = pc.not_equal(rows["reason"], RejectReason.FORGOTTEN.value)
    kept = rows.filter(pc.and_(is_other, pc.invert(pc.is_in(rows["uid"], _array(pending.uids)))))
    table = append_forgotten(kept, pending.rejects[unit])
    if not table.equals(rows):
        root.publish_parquet(rel, table)


def rewrite_unit(root: Root, unit: str, pending: Pending) -> None:
    """Take the rows out of everything that is known of one unit; a unit without samples left has no files."""
    uids = pending.uids
    for table in embedding_tables(root):
        _rewrite_vectors(root, unit, table, uids)
    selection = root.current(SELECTION)
    tables = [unit_file(table, unit) for table in score_tables(root)]
    tables += [selection_file(selection["fingerprint"], unit)] if selection else []
    for rel in tables:
        _rewrite_rows(root, rel, uids)
    _rewrite_downloads(root, unit, uids)
    _rewrite_listing(root, unit, pending.listed.get(unit, ()))
    _rewrite_rows(root, samples_file(unit), uids)
    _rewrite_log(root, unit)
    if not root.exists(samples_file(unit)) or not root.read_parquet(samples_file(unit), ["uid"]).num_rows:
        for rel in (*list_unit_files(root, unit), f"{DOWNLOAD_LOGS}/{unit}.0.json"):
            if rel != listings_file(unit):  # a later adoption asks for it
                root.remove(rel)


def _array(uids: Iterable[str]) -> pa.Array:
    return pa.array(sorted(uids), pa.string())


def _drop_rows(rows: pa.Table, uids: Iterable[str]) -> pa.Table:
    return rows.filter(pc.invert(pc.is_in(rows["uid"], _array(uids)))).combine_chunks()


def _rewrite_rows(root: Root, rel: str, uids: Iterable[str]) -> None:
    if root.exists(rel):
        rows = root.read_parquet(rel)
        rest = _drop_rows(rows, uids)
        if len(rest) < len(rows):
            root.publish_parquet(rel, rest)


def _rewrite_vectors(root: Root, unit: str, table: str, uids: Iterable[str]) -> None:
    """Metadata name the rows of the arrays, so they are written last: until then the same rows are dropped again.

    An array that is shorter than they are has lost its rows already.
    """
    rel = metadata_file(unit, table)
    if not root.exists(rel):
        return
    rows = root.read_parquet(rel)
    gone = np.array(pc.is_in(rows["uid"], _array(uids)).to_numpy(zero_copy_only=False), bool)
    if not gone.any():
        return
    for array in (vectors_file(unit, table), texts_file(unit, table)):
        if root.exists(array):
            vectors = parse_array(root.read_whole(array))
            if len(vectors) == len(gone):
                _publish_array(root, array, vectors[~gone])
            elif len(vectors) != np.count_nonzero(~gone):
                raise UserError(f"{root.url(array)} has {len(vectors)} rows for {len(gone)} of metadata: embed again.")
    root.publish_parquet(rel, _drop_rows(rows, uids))


def _publish_array(root: Root, rel: str, vectors: np.ndarray) -> None:
    sink = io.BytesIO()
    np.save(sink, vectors)
    root.publish(rel, sink.getvalue())


def _rewrite_downloads(root: Root, unit: str, uids: Iterable[str]) -> None:
    """New raw shards, then the row file that names them; then shards of the unit that no row names are deleted."""
    rel = downloads_file(unit)
    if root.exists(rel):
        table = root.read_parquet(rel)
        rest = _drop_rows(table, uids)
        if len(rest) < len(table):
            shards = {row["shard"] for row in table.to_pylist() if row["uid"] in set(uids) and row["shard"]}
            gone, name_shard = frozenset(uids), partial(raw_shard, unit)
            own = sorted(shard for shard in shards if shard.startswith(f"{RAW}/"))
            places = {shard: copy_shard(root, shard, root, lambda key: key not in gone, name_shard) for shard in own}
            root.publish_parquet(rel, move_pictures(rest, places))
    named = set(root.read_parquet(rel, ["shard"])["shard"].to_pylist()) if root.exists(rel) else set()
    for name in root.list(RAW, ".tar"):
        if name.startswith(f"{unit}-") and f"{RAW}/{name}" not in named:
            root.remove(f"{RAW}/{name}")


def _rewrite_listing(root: Root, unit: str, names: Sequence[str]) -> None:
    """Hide the names of files whose rows are forgotten; a later adoption still knows them."""
    rel = listings_file(unit)
    if not names or not root.exists(rel):
        return
    rows, gone = root.read_parquet(rel), set(names)
    files = [hide_name(file) if file in gone else file for file in rows["file"].to_pylist()]
    if files != rows["file"].to_pylist():
        root.publish_parquet(rel, pa.table([pa.array(files), rows["fingerprint"].combine_chunks()], schema=LISTINGS))


def _rewrite_log(root: Root, unit: str) -> None:
    """Take the hosts out of the logs of the unit's download of which no row stays."""
    for name in root.list(DOWNLOAD_LOGS, ".json"):
        if name.startswith(f"{unit}."):
            with contextlib.suppress(UserError):
                _drop_hosts(root, f"{DOWNLOAD_LOGS}/{name}", unit)


def _drop_hosts(root: Root, rel: str, unit: str) -> None:
    log = root.read_record(rel, {"hosts": dict})
    rel_samples = samples_file(unit)
    samples = root.read_parquet(rel_samples, ["domain"])["domain"].to_pylist() if root.exists(rel_samples) else []
    staying = {domain or "" for domain in samples}
    hosts = {domain: counts for domain, counts in log["hosts"].items() if domain in staying}
    if hosts != log["hosts"]:
        per_s = {domain: rate for domain, rate in (log.get("hosts_per_s") or {}).items() if domain in staying}
        root.publish_json(rel, {**log, "hosts": hosts, "hosts_per_s": per_s})


def rewrite_duplicates(root: Root, pending: Pending) -> None:
    """Take the rows out; a row that was removed for a forgotten one stays removed, for a hash of it."""
    uids = pending.uids
    for rel in (root.current(DUPLICATES) or {"files": []})["files"]:
        rows = root.read_parquet(rel)
        changed = [_hide_names(row, uids) for row in rows.to_pylist() if row["uid"] not in uids]
        table = pa.Table.from_pylist(changed, schema=rows.schema)
        if not table.equals(rows):
            root.publish_parquet(rel, table)


def _hide_names(row: dict[str, Any], uids: frozenset[str]) -> dict[str, Any]:
    hidden = {name: hide_uid(row[name]) for name in ("kept_uid", "component") if row[name] in uids}
    tier = {"tier": f"{FORGOTTEN}{row['tier']}"} if "kept_uid" in hidden else {}
    return {**row, **hidden, **tier}


def hide_uid(uid: str) -> str:
    """What stands in the place of a forgotten uid."""
    return f"{FORGOTTEN}{digest_key(uid_key(uid)).hex()[:16]}"


def rewrite_plans(root: Root, pending: Pending) -> None:
    """Let the plans count what there is now."""
    for rel, plan in pending.plans.items():
        if root.read_json(rel) != json.loads(json.dumps(plan)):
            root.publish_json(rel, plan)
