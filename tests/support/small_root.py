"""A whole root of a few dozen real pictures, written by hand with the standard library's tarfile: no job is run.

It is the oracle for what the jobs write: layout, offsets and checksums here come from tarfile and hashlib alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from curation import schema
from curation.storage import Root

BATCH = "0a1b2c3d"
UNITS = (f"{BATCH}-000000", f"{BATCH}-000001")
VERSION = "fedcba987654"
LOST = ("http_404", "timeout", "not_an_image")


def picture(seed: int, width: int = 48, height: int = 32) -> bytes:
    """A JPEG whose sharpness and entropy depend on `seed`."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 1 + (seed * 37) % 255, (height, width, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=90)
    return sink.getvalue()


def tar(members: Mapping[str, bytes]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """A tar of `members` in their order, and (offset, size) of each one's data."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as archive:
        places = {member.name: (member.offset_data, member.size) for member in archive}
    return sink.getvalue(), places


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class SmallRoot:
    """The root and the rows that were written into it, by uid."""

    root: Root
    samples: dict[str, dict[str, Any]] = field(default_factory=dict)
    downloads: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)


def sample(number: int) -> dict[str, Any]:
    url = f"http://host{number % 5}.test/{number}.jpg"
    caption = None if number % 11 == 10 else f"a photo of thing {number} on a table"
    return {
        **dict.fromkeys(schema.SAMPLES.names),
        "uid": schema.uid(url, caption),
        "url": url,
        "caption": caption,
        "source": "laion" if number % 2 else "coyo",
        "domain": f"host{number % 5}.test",
        "clip_similarity": 0.2 + (number % 17) / 100,
        "clip_similarity_l14": 0.1 + (number % 13) / 100,
        "punsafe": (number % 10) / 10,
        "pwatermark": (number % 7) / 7,
        "aesthetic": 4 + (number % 9) / 3,
    }


def build(root: Root, num_rows: int = 40) -> SmallRoot:
    """samples, rejects, plan, downloads and raw shards of `num_rows` rows in two units; every fifth picture is lost."""
    made = SmallRoot(root)
    for number in range(num_rows):
        row = sample(number)
        made.samples[row["uid"]] = row
        made.units[row["uid"]] = UNITS[number % 2]
        if number % 5:
            made.images[row["uid"]] = picture(number, 24 + number, 32)
    for unit in UNITS:
        _write_unit(made, unit, sorted(uid for uid, name in made.units.items() if name == unit))
    _write_plan(made, num_rows)
    return made


def finish(root: Root) -> SmallRoot:
    """A root with every stage behind it."""
    made = build(root)
    ok = [uid for uid, row in made.downloads.items() if row["status"] == "ok"]
    duplicates(made, {ok[0]: ok[1]})
    for number, unit in enumerate(UNITS):
        uids = sorted(uid for uid in ok if made.units[uid] == unit)
        scores = pa.table({"uid": uids, "caption_words": pa.array([3] * len(uids), pa.int32())})
        root.publish_parquet(f"scores_caption_length/{unit}.parquet", scores)
        root.publish_parquet(f"embeddings/metadata/metadata_{unit}.parquet", pa.table({"uid": uids}))
        sink = io.BytesIO()
        np.save(sink, np.random.default_rng(number).normal(size=(len(uids), 4)).astype(np.float16))
        root.publish(f"embeddings/img_emb/img_emb_{unit}.npy", sink.getvalue())
    pack(made, select(made))
    return made


def _write_unit(made: SmallRoot, unit: str, uids: list[str]) -> None:
    members: dict[str, bytes] = {f"{uid}.jpg": made.images[uid] for uid in uids if uid in made.images}
    data, places = tar(members)
    shard = f"raw/{unit}-{sha256(data)[:16]}.tar"
    made.root.publish(shard, data)
    for number, uid in enumerate(uids):
        made.downloads[uid] = _download(uid, made.images.get(uid), shard, places, LOST[number % len(LOST)])
    rows = [made.samples[uid] for uid in uids]
    made.root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(rows, schema.SAMPLES))
    write_downloads(made, unit)


def _download(
    uid: str, image: bytes | None, shard: str, places: dict[str, tuple[int, int]], lost: str
) -> dict[str, Any]:
    row = {**dict.fromkeys(schema.DOWNLOADS.names), "uid": uid}
    if image is None:
        return row | {"status": lost, "detail": "it is gone"}
    width, height = Image.open(io.BytesIO(image)).size
    offset, size = places[f"{uid}.jpg"]
    return row | {
        "status": "ok",
        "sha256": sha256(image),
        "pixel_sha256": sha256(uid.encode()),
        "phash": uid[:16],
        "format": "jpeg",
        "num_bytes": len(image),
        "width": width,
        "height": height,
        "stored_width": width,
        "stored_height": height,
        "sharpness": 100.0,
        "entropy": 7.0,
        "shard": shard,
        "offset": offset,
        "size": size,
        "stored_sha256": sha256(image),
    }


def write_downloads(made: SmallRoot, unit: str) -> None:
    """Publish the rows of `made.downloads` that belong to `unit`."""
    rows = [row for uid, row in sorted(made.downloads.items()) if made.units[uid] == unit]
    made.root.publish_parquet(f"downloads/{unit}.parquet", pa.Table.from_pylist(rows, schema.DOWNLOADS))


def _write_plan(made: SmallRoot, num_rows: int) -> None:
    rejects = [
        {"source": "laion", "file": "part-0.parquet", "row": num_rows, "uid": None, "reason": "no_url"},
        {"source": "laion", "file": "part-0.parquet", "row": num_rows + 1, "uid": "0" * 32, "reason": "where"},
    ]
    made.root.publish_parquet(f"rejects/{UNITS[0]}.parquet", pa.Table.from_pylist(rejects, schema.REJECTS))
    counts = {unit: sum(name == unit for name in made.units.values()) for unit in UNITS}
    plan = {
        "batch": BATCH,
        "number": 0,
        "inputs": [{"source": "laion", "path": "part-0.parquet", "num_rows": num_rows + 2, "fingerprint": "f"}],
        "totals": {"samples": num_rows, "no_url": 1, "where": 1, "repeated": 0},
        "units": {unit.removeprefix(f"{BATCH}-"): count for unit, count in counts.items()},
    }
    made.root.publish_json(f"plans/{BATCH}.json", plan)


def duplicates(made: SmallRoot, pairs: Mapping[str, str]) -> None:
    """Publish `pairs` (removed uid → kept uid) as the current duplicates."""
    rows = [
        {"uid": uid, "kept_uid": kept, "tier": "perceptual", "similarity": 0.97, "component": kept}
        for uid, kept in sorted(pairs.items())
    ]
    rel = f"duplicates/{VERSION}/part-00000.parquet"
    made.root.publish_parquet(rel, pa.Table.from_pylist(rows, schema.DUPLICATES))
    made.root.publish_current("duplicates", VERSION, [rel], {}, {})


def select(made: SmallRoot, min_aspect: float = 1.2) -> list[str]:
    """Publish a selection that keeps the wide pictures; returns the kept uids, sorted."""
    reasons = {}
    for uid, row in made.downloads.items():
        wide = row["status"] == "ok" and row["width"] / row["height"] >= min_aspect
        reasons[uid] = None if wide else "wide" if row["status"] == "ok" else f"download:{row['status']}"
    files = []
    for unit in UNITS:
        uids = sorted(uid for uid in reasons if made.units[uid] == unit)
        rows = [{"uid": uid, "kept": reasons[uid] is None, "reason": reasons[uid]} for uid in uids]
        files.append(f"selection/{VERSION}/{unit}.parquet")
        made.root.publish_parquet(files[-1], pa.Table.from_pylist(rows, schema.SELECTION))
    config = {"rules": {"wide": "width / height >= 1.2"}, "order": ["wide"], "quantiles": []}
    made.root.publish_current("selection", VERSION, files, config, {})
    return sorted(uid for uid, reason in reasons.items() if reason is None)


def pack(made: SmallRoot, kept: list[str], num_samples_per_shard: int = 8) -> None:
    """Publish train shards of `kept`, their index and sizes.json."""
    shards = [kept[i : i + num_samples_per_shard] for i in range(0, len(kept), num_samples_per_shard)]
    rows, sizes = [], {}
    for number, uids in enumerate(shards):
        name = f"{VERSION}-{number:06d}.tar"
        data, places = tar(
            {f"{uid}.{kind}": _member(made, uid, kind) for uid in uids for kind in ("jpg", "json", "txt")}
        )
        made.root.publish(f"train/{VERSION}/{name}", data)
        sizes[name] = len(uids)
        rows += [_index_row(made, uid, f"train/{VERSION}/{name}", places) for uid in uids]
    made.root.publish_json(f"train/{VERSION}/sizes.json", sizes)
    files = [f"train/{VERSION}/{name}" for name in (*sizes, "sizes.json")]
    made.root.publish_current("train", VERSION, files, {}, {})
    rel = f"train_index/{VERSION}/part-00000.parquet"
    extra = [pa.field("caption", pa.string()), pa.field("source", pa.string())]
    made.root.publish_parquet(rel, pa.Table.from_pylist(rows, pa.schema([*schema.TRAIN_INDEX, *extra])))
    made.root.publish_current("train_index", VERSION, [rel], {}, {})


def _member(made: SmallRoot, uid: str, kind: str) -> bytes:
    caption = made.samples[uid]["caption"] or ""
    return {
        "jpg": made.images[uid],
        "json": json.dumps({"uid": uid, "caption": caption}).encode(),
        "txt": caption.encode(),
    }[kind]


def _index_row(made: SmallRoot, uid: str, shard: str, places: dict[str, tuple[int, int]]) -> dict[str, Any]:
    (offset, size), (json_offset, json_size), (txt_offset, txt_size) = (
        places[f"{uid}.{kind}"] for kind in ("jpg", "json", "txt")
    )
    return {
        "uid": uid,
        "shard": shard,
        "offset": offset,
        "size": size,
        "sha256": sha256(made.images[uid]),
        "json_offset": json_offset,
        "json_size": json_size,
        "txt_offset": txt_offset,
        "txt_size": txt_size,
        "caption": made.samples[uid]["caption"],
        "source": made.samples[uid]["source"],
    }
