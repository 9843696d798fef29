"""Small sealed roots whose rows overlap as a test wants, with pictures, vectors and scores."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curation import schema
from curation.storage import Root
from curation.sums.cover import summed_tables
from curation.sums.seal import seal_root
from tests.support.small_root import SmallRoot, picture, sample, sha256, tar

CONFIGS: dict[str, Any] = {
    "downloads": {"image_size": 64},
    "embeddings/metadata": {"model": "small"},
    "scores_caption_length": {"words": 3},
}
WAITING = "waiting"
"""Of a row: its unit was not downloaded."""


def build(
    folder: Path | str,
    batch: str,
    states: Mapping[int, str],
    *,
    captions: Mapping[int, str] | None = None,
    configs: Mapping[str, Any] | None = None,
    **options: Any,
) -> SmallRoot:
    """A sealed root of the rows `states`: number of the row → how its download ended, or WAITING.

    Rows that wait are a unit of their own. `captions` replaces those of some rows, `configs` what stages recorded.
    """
    made = SmallRoot(Root(folder, **options))
    made.root.create(sealed=True)
    for number, state in states.items():
        _add_row(made, number, batch, state, (captions or {}).get(number))
    for unit in sorted(set(made.units.values())):
        uids = sorted(uid for uid in made.samples if made.units[uid] == unit)
        rows = [made.samples[uid] for uid in uids]
        made.root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(rows, schema.SAMPLES))
        if unit.endswith("0"):
            _write_pictures(made, unit, uids)
            _write_derived(made, unit, [uid for uid in uids if uid in made.images])
    for table, config in (CONFIGS | dict(configs or {})).items():
        made.root.begin_stage(table, config)
    _write_plan(made, batch)
    seal_root(made.root, summed_tables(made.root))
    return made


def _add_row(made: SmallRoot, number: int, batch: str, state: str, caption: str | None) -> None:
    row = sample(number)
    if caption is not None:
        row |= {"caption": caption, "uid": schema.uid(row["url"], caption)}
    uid = row["uid"]
    made.samples[uid], made.units[uid] = row, f"{batch}-00000{1 if state == WAITING else 0}"
    if state != WAITING:
        made.downloads[uid] = {**dict.fromkeys(schema.DOWNLOADS.names), "uid": uid, "status": state, "fetch_round": 0}
    if state == "ok":
        made.images[uid] = picture(number, 24 + number % 40)


def _write_pictures(made: SmallRoot, unit: str, uids: list[str]) -> None:
    ok = [uid for uid in uids if uid in made.images]
    data, places = tar({f"{uid}.jpg": made.images[uid] for uid in ok})
    shard = f"raw/{unit}-{sha256(data)[:16]}.tar"
    if ok:
        made.root.publish(shard, data)
    for uid in ok:
        offset, size = places[f"{uid}.jpg"]
        known = {"sha256": sha256(made.images[uid]), "stored_sha256": sha256(made.images[uid]), "shard": shard}
        made.downloads[uid] |= {**known, "offset": offset, "size": size, "width": 24, "height": 32}
    rows = [made.downloads[uid] for uid in uids]
    made.root.publish_parquet(f"downloads/{unit}.parquet", pa.Table.from_pylist(rows, schema.DOWNLOADS))


def _write_derived(made: SmallRoot, unit: str, ok: list[str]) -> None:
    uids = pa.array(ok, pa.string())
    scores = pa.table({"uid": uids, "caption_words": pa.array([3] * len(ok), pa.int32())})
    made.root.publish_parquet(f"scores_caption_length/{unit}.parquet", scores)
    made.root.publish_parquet(f"embeddings/metadata/metadata_{unit}.parquet", pa.table({"uid": uids}))
    sink = io.BytesIO()
    np.save(sink, np.array([vector(uid) for uid in ok], np.float32).reshape(len(ok), 2))
    made.root.publish(f"embeddings/img_emb/img_emb_{unit}.npy", sink.getvalue())


def vector(uid: str) -> tuple[float, float]:
    """The vector of a picture, which its uid decides."""
    return int(uid[:4], 16) / 65_536, int(uid[4:8], 16) / 65_536


def _write_plan(made: SmallRoot, batch: str) -> None:
    rejects = [{"source": "laion", "file": "a.parquet", "row": 0, "uid": "0" * 32, "reason": "where"}]
    made.root.publish_parquet(f"rejects/{batch}-000000.parquet", pa.Table.from_pylist(rejects, schema.REJECTS))
    counts: dict[str, int] = {}
    for unit in made.units.values():
        counts[unit.rpartition("-")[2]] = counts.get(unit.rpartition("-")[2], 0) + 1
    number = len(made.samples)
    plan = {
        "batch": batch,
        "number": 0,
        "inputs": [{"source": "laion", "path": f"{batch}.parquet", "num_rows": number + 1, "fingerprint": batch}],
        "totals": {"samples": number, "where": 1, "repeated": 0},
        "units": counts,
        "num_rows_per_unit": 100,
        "large_domains": {},
    }
    made.root.publish_json(f"plans/{batch}.json", plan)
