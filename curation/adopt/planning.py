"""What one adoption plans: which rows of its inputs become samples, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.adopt.columns import REFUSED
from curation.adopt.inputs import Input, describe_input, list_files
from curation.adopt.rows import SUCCESS, InputRows
from curation.download.tombstones import append_forgotten, find_forgotten, read_tombstones
from curation.fetch.domains import registered_domain
from curation.plan import ADOPTED, ALL_HOSTS
from curation.schema import LISTINGS, REJECTS, RejectReason, count_captions, samples_schema
from curation.storage import Root
from curation.tables import listings_file, rejects_file, samples_file

NUM_LARGEST = 20
FORGOTTEN = RejectReason.FORGOTTEN.value
_UNCOMMON = (RejectReason.NOT_TEXT, RejectReason.MALFORMED, RejectReason.NO_PICTURE, RejectReason.FORGOTTEN)
"""Reasons that a plan names only where they occur."""


class Keys(NamedTuple):
    """What `choose_rows` compares of one input, in the order of its rows that are not refused."""

    uids: np.ndarray
    """Uint64 `[n, 2]`."""
    has_picture: np.ndarray
    """Bool `[n]`."""
    num_captions: int = 1
    """Columns of captions of its rows."""


def list_keys(rows: InputRows) -> Keys:
    """The keys of one input."""
    table = rows.table.filter(pc.is_null(rows.table[REFUSED]))
    has_picture = np.array(pc.equal(table["status"], SUCCESS), bool)
    return Keys(split_uids(table["uid"]), has_picture, count_captions(table.column_names))


def split_uids(uids: pa.ChunkedArray) -> np.ndarray:
    """The two halves of each uid as uint64 `[n, 2]`."""
    return np.frombuffer(bytes.fromhex("".join(uids.to_pylist())), dtype=">u8").reshape(-1, 2).astype(np.uint64)


def choose_rows(root: Root, keys: Sequence[Keys]) -> list[np.ndarray]:
    """For each input, a mask of the rows that become samples: of rows with one uid the first success, else the first.

    A row whose uid is in an earlier plan does not become a sample. Sorting takes 40 bytes of memory a row.
    """
    earlier = [split_uids(root.read_parquet(samples_file(unit), ["uid"])["uid"]) for unit in root.units("samples")]
    uids = np.concatenate([*earlier, *(one.uids for one in keys)])
    num_earlier = sum(map(len, earlier))
    worse = np.concatenate(
        [np.zeros(num_earlier, np.int8), *(np.where(one.has_picture, 1, 2).astype(np.int8) for one in keys)]
    )
    order = np.lexsort((worse, uids[:, 1], uids[:, 0]))
    ranked = uids[order]
    first = np.ones(len(order), bool)
    first[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    kept = np.zeros(len(order), bool)
    kept[order[first]] = True
    return np.split(kept[num_earlier:], np.cumsum([len(one.uids) for one in keys])[:-1])


def write_unit(
    root: Root, unit: str, item: Input, rows: InputRows, kept: np.ndarray, num_captions: int = 1
) -> dict[str, Any]:
    """Publish the rejects, then the samples of one input with `num_captions` columns of captions, which all units of
    its plan have; returns what the plan records of it.
    """
    files = list_files(item)
    if files:
        names, fingerprints = zip(*files, strict=True)
        root.publish_parquet(listings_file(unit), pa.table([names, fingerprints], schema=LISTINGS))
    table = rows.table
    reasons = np.array([reason or "" for reason in table[REFUSED].to_pylist()], object)
    reasons[np.flatnonzero(reasons == "")[~kept]] = RejectReason.REPEATED.value
    named = find_forgotten(read_tombstones(root), table, [reason or None for reason in reasons])
    reasons[np.array(named, bool)] = FORGOTTEN
    accepted = table.filter(pa.array(reasons == ""))
    domains = [registered_domain(url) for url in accepted["url"].to_pylist()]
    added = {"source": pa.array([item.source] * len(accepted), pa.string()), "domain": pa.array(domains, pa.string())}
    schema = samples_schema(num_captions)
    lacking = set(schema.names) - {*added, *table.column_names}
    added |= {name: pa.nulls(len(accepted), pa.string()) for name in lacking}
    samples = pa.table([added[n] if n in added else accepted[n] for n in schema.names], schema.names)
    rejects = _make_rejects(item, rows, reasons)
    if len(rejects):
        root.publish_parquet(rejects_file(unit), rejects)
    if len(samples):
        root.publish_parquet(samples_file(unit), samples.cast(schema).sort_by("uid"))
    counts = {str(one["values"]): one["counts"] for one in pc.value_counts(rejects["reason"]).to_pylist()}
    totals = {r.value: counts.get(r.value, 0) for r in RejectReason if r is not RejectReason.WHERE}
    totals = {reason: count for reason, count in totals.items() if count or reason not in _UNCOMMON}
    hosts: dict[str, int] = {}
    for domain in domains:
        hosts[domain] = hosts.get(domain, 0) + 1
    return {
        "rows": rows.count,
        "members": rows.num_members,
        "without_caption": sum(not caption for caption in accepted["caption"].to_pylist()),
        "hosts": hosts,
        "totals": {"samples": len(domains)} | totals,
    }


def _make_rejects(item: Input, rows: InputRows, reasons: np.ndarray) -> pa.Table:
    """The rejects of one input, in the order of its rows, then the rows that are lost."""
    forgotten = [item.source] * int(np.count_nonzero(reasons == FORGOTTEN))
    reasons = np.where(reasons == FORGOTTEN, "", reasons)
    refused = pa.array(np.flatnonzero(reasons != ""))
    uids, files, numbers = (rows.table[name].take(refused).to_pylist() for name in ("uid", "file", "row"))
    number = len(refused) + len(rows.lost)
    columns = {
        "source": pa.array([item.source] * number, pa.string()),
        "file": pa.array(files + [item.file_name] * len(rows.lost), pa.string()),
        "row": pa.array([*numbers, *rows.lost], pa.int64()),
        "uid": pa.array(uids + [None] * len(rows.lost), pa.string()),
        "reason": pa.array(
            [*reasons[reasons != ""], *[RejectReason.LOST_BY_ENGINE.value] * len(rows.lost)], pa.string()
        ),
    }
    return append_forgotten(pa.table(columns, schema=REJECTS), forgotten)


def describe_plan(fresh: Sequence[Input], written: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The record of the plan, with the fields that ingest writes."""
    hosts = _sum_counts(w["hosts"] for w in written)
    totals = _sum_counts(w["totals"] for w in written)
    largest = sorted(hosts.items(), key=lambda item: (-item[1], item[0]))[:NUM_LARGEST]
    return {
        ADOPTED: True,
        "inputs": [describe_input(item, w) for item, w in zip(fresh, written, strict=True)],
        "totals": totals,
        "units": {f"{i:06d}": count for i, w in enumerate(written) if (count := w["totals"]["samples"])},
        "hosts": {"num_rows": totals["samples"], "num_domains": len(hosts), "largest": dict(largest)},
        # Adopted units share their hosts, as units of one large domain do, so rounds must queue them in the same way.
        "large_domains": {ALL_HOSTS: {"first_unit": 0, "num_units": len(fresh)}},
    }


def _sum_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for counts_of_shard in counts:
        for key, count in counts_of_shard.items():
            total[key] = total.get(key, 0) + count
    return total
