"""Adopt img2dataset's output folders: their shards stay where they are, and the root's tables point into them.

    curate adopt IMG2DATASET_DIR… --root ROOT

A shard becomes a unit. First all rows become samples or rejects and the plan is published; then each picture is read
once, where it lies, and measured. It may be killed at any moment and run again: finished work is not repeated.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.adopt.folder import FORMAT, Shard, list_shards, read_rows
from curation.adopt.pictures import SUCCESS, end_unit
from curation.errors import UserError
from curation.fetch.domains import registered_domain
from curation.plan import ADOPTED, ALL_HOSTS, describe_spread, read_plans
from curation.progress import bar
from curation.schema import REJECTS, SAMPLES, RejectReason
from curation.storage import Root, fingerprint
from curation.sums.recorder import sealing
from curation.tables import plan_file, rejects_file, samples_file
from curation.terminal import write_error

NUM_LARGEST = 20
Item = TypeVar("Item")
Result = TypeVar("Result")


def adopt(root: Root, folders: Sequence[str]) -> None:
    """Adopt every shard of `folders` that `root` does not hold yet. Raises UserError before anything is written."""
    shards = [shard for folder in dict.fromkeys(folders) for shard in list_shards(root, folder)]
    if root.exists("root.json"):
        root.check_format()
    fresh = _list_new_shards(root, shards)
    root.create(sealed=True)
    with sealing(root, ("plans", "samples", "rejects", "downloads")) as recording:
        if fresh:
            plan = _publish_plan(recording, fresh)
            write_error(describe_spread(plan))
        _end_units(recording)


def list_unfinished(root: Root) -> dict[str, Shard]:
    """Adopted units whose pictures were not read yet, each with its shard."""
    missing = set(root.missing_units("downloads"))
    return {unit: shard for unit, shard in _list_adopted(root) if unit in missing}


def _list_adopted(root: Root) -> Iterator[tuple[str, Shard]]:
    for plan in read_plans(root):
        if plan.get(ADOPTED):
            shards_of = [Shard(source=i["source"], path=i["path"], num_bytes=()) for i in plan["inputs"]]
            yield from ((f"{plan['batch']}-{number:06d}", shard) for number, shard in enumerate(shards_of))


def _list_new_shards(root: Root, shards: list[Shard]) -> list[Shard]:
    """The shards that no plan holds. Raises UserError when a shard has changed since it was adopted."""
    known = {i["path"]: i["fingerprint"] for plan in read_plans(root) if plan.get(ADOPTED) for i in plan["inputs"]}
    for shard in shards:
        if known.get(shard.path, shard.fingerprint) != shard.fingerprint:
            raise UserError(
                f"{shard.path} has changed since it was adopted into {root.base}: adopt it into a new root."
            )
    return [shard for shard in shards if shard.path not in known]


def _publish_plan(root: Root, fresh: list[Shard]) -> dict[str, Any]:
    """Publish samples and rejects of all `fresh` shards, then the plan that makes them count."""
    number = len(read_plans(root))
    batch = fingerprint([[[shard.path, shard.fingerprint] for shard in fresh], number])[:8]
    kept = _choose_rows(root, [*_map_in_threads("read shards", fresh, lambda shard: _read_keys(root, shard))])
    work = [(f"{batch}-{i:06d}", shard, kept[i]) for i, shard in enumerate(fresh)]
    written = [*_map_in_threads("adopt shards", work, lambda item: _write_unit(root, *item))]
    plan = {"batch": batch, "number": number, ADOPTED: True, **_describe_plan(fresh, written)}
    root.publish_json(plan_file(batch), plan)
    return plan


def _map_in_threads(desc: str, items: Sequence[Item], function: Callable[[Item], Result]) -> Iterator[Result]:
    """Yield `function(item)` in the order of `items`, from threads: they read and hash side by side."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, bar(len(items), desc, "shard") as progress:
        try:
            for result in pool.map(function, items):
                progress.update()
                yield result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _read_keys(root: Root, shard: Shard) -> tuple[np.ndarray, np.ndarray]:
    """Uids `[n, 2]` uint64 of the rows of `shard` in their order, and which of the rows have a picture."""
    table = read_rows(root, shard).table
    return _split_uids(table["uid"]), np.array(pc.equal(table["status"], SUCCESS), bool)


def _split_uids(uids: pa.ChunkedArray) -> np.ndarray:
    """The two halves of each uid as uint64 `[n, 2]`."""
    return np.frombuffer(bytes.fromhex("".join(uids.to_pylist())), dtype=">u8").reshape(-1, 2).astype(np.uint64)


def _choose_rows(root: Root, keys: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """For each shard, a mask of the rows that become samples: of rows with one uid the first success, else the first.

    A row whose uid is in an earlier plan does not become a sample. Sorting takes 40 bytes of memory a row.
    """
    earlier = [_split_uids(root.read_parquet(samples_file(unit), ["uid"])["uid"]) for unit in root.units("samples")]
    uids = np.concatenate([*earlier, *(k for k, _ in keys)])
    num_earlier = sum(map(len, earlier))
    worse = np.concatenate(
        [np.zeros(num_earlier, np.int8), *(np.where(success, 1, 2).astype(np.int8) for _, success in keys)]
    )
    order = np.lexsort((worse, uids[:, 1], uids[:, 0]))
    ranked = uids[order]
    first = np.ones(len(order), bool)
    first[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    kept = np.zeros(len(order), bool)
    kept[order[first]] = True
    return np.split(kept[num_earlier:], np.cumsum([len(k) for k, _ in keys])[:-1])


def _write_unit(root: Root, unit: str, shard: Shard, kept: np.ndarray) -> dict[str, Any]:
    """Publish the rejects, then the samples of one shard; returns what the plan records of it."""
    rows = read_rows(root, shard)
    table = rows.table
    has_url = np.array(pc.not_equal(pc.utf8_trim_whitespace(pc.fill_null(table["url"], "")), ""), bool)
    accepted = table.filter(pa.array(kept & has_url))
    domains = [registered_domain(url) for url in accepted["url"].to_pylist()]
    added = {"source": pa.array([shard.source] * len(accepted), pa.string()), "domain": pa.array(domains, pa.string())}
    samples = pa.table([added[n] if n in added else accepted[n] for n in SAMPLES.names], SAMPLES.names)
    refused = [
        *_reject_rows(table, ~has_url, RejectReason.NO_URL),
        *_reject_rows(table, has_url & ~kept, RejectReason.REPEATED),
        *({"row": row, "uid": None, "reason": RejectReason.LOST_BY_ENGINE.value} for row in rows.lost),
    ]
    if refused:
        named = [row | {"source": shard.source, "file": f"{shard.name}.tar"} for row in refused]
        root.publish_parquet(rejects_file(unit), pa.Table.from_pylist(named, schema=REJECTS))
    if len(samples):
        root.publish_parquet(samples_file(unit), samples.cast(SAMPLES).sort_by("uid"))
    reasons = [row["reason"] for row in refused]
    totals = {r.value: reasons.count(r.value) for r in RejectReason if r is not RejectReason.WHERE}
    hosts: dict[str, int] = {}
    for domain in domains:
        hosts[domain] = hosts.get(domain, 0) + 1
    return {"rows": rows.count, "hosts": hosts, "totals": {"samples": len(domains)} | totals}


def _reject_rows(table: pa.Table, which: np.ndarray, reason: RejectReason) -> Iterator[dict[str, Any]]:
    uids = table["uid"].to_pylist()
    return ({"row": int(row), "uid": uids[row], "reason": reason.value} for row in np.flatnonzero(which))


def _describe_plan(fresh: list[Shard], written: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of the plan, with the fields that ingest writes."""
    hosts = _sum_counts(w["hosts"] for w in written)
    totals = _sum_counts(w["totals"] for w in written)
    largest = sorted(hosts.items(), key=lambda item: (-item[1], item[0]))[:NUM_LARGEST]
    return {
        "inputs": [
            {"source": s.source, "path": s.path, "format": FORMAT, "fingerprint": s.fingerprint, "num_rows": w["rows"]}
            for s, w in zip(fresh, written, strict=True)
        ],
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


def _end_units(root: Root) -> None:
    """Read the pictures of every adopted unit that has no file in downloads."""
    work = list(list_unfinished(root).items())
    for _ in _map_in_threads("read pictures", work, lambda item: end_unit(root, *item)):
        pass
