"""Checks of train shards: place and checksum of each member, no other members, and sizes.json."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from curation.manifest.manifest import Manifest
from curation.shards import index
from curation.storage import Root
from curation.tables import train_sizes_file
from curation.verify import shards

_COLUMNS = ("uid", "shard", "offset", "size", "sha256", "json_offset", "json_size", "txt_offset", "txt_size", "caption")


def find_differences(manifest: Manifest) -> Iterator[str]:
    """Differences that the tables show without the shards: which shards there are, and their numbers of samples."""
    root = manifest.root
    current, listed = root.current("train"), root.current("train_index")
    if current is None or listed is None:
        if current is not listed:
            yield "One of train/current.json and train_index/current.json is missing: run `curate pack` again."
        return
    counts = dict(manifest.query("select shard, count(*) from train_index group by shard").fetchall())
    named = {rel for rel in current["files"] if rel.endswith(".tar")}
    yield from (f"{rel} is in train/current.json and no row of train_index lies in it." for rel in named - set(counts))
    yield from (f"{rel} is in train_index and not in train/current.json." for rel in set(counts) - named)
    rel = train_sizes_file(current["fingerprint"])
    if not root.exists(rel):
        yield f"{rel} is missing: run `curate pack` again."
        return
    sizes = root.read_record(rel, {})
    expected = {shard.rsplit("/", 1)[-1]: count for shard, count in counts.items()}
    for name in sorted({*sizes, *expected}):
        if sizes.get(name) != expected.get(name):
            yield f"{rel} counts {sizes.get(name, 0)} samples in {name}, train_index {expected.get(name, 0)}."


def list_differences(root: Root, part: str) -> list[str]:
    """The first difference of each shard from the rows of `part`, one file of train_index."""
    table = root.read_parquet(part)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.select([name for name in _COLUMNS if name in table.column_names]).to_pylist():
        rows.setdefault(row["shard"], []).append(row)
    return [wrong for shard, members in rows.items() if (wrong := _check_shard(root, shard, members))]


def _check_shard(root: Root, shard: str, rows: list[dict[str, Any]]) -> str | None:
    wrong = shards.find_difference(
        root, shard, [place for row in rows for place in _list_places(row)], _read_recorded_sha256(root, shard)
    )
    if wrong:
        return wrong
    indexed = {row[column] for row in rows for column in ("offset", "json_offset", "txt_offset")}
    extra = [member.name for member in index(root, shard) if member.offset not in indexed]
    return f"{shard} has the member {extra[0]}, which train_index does not name." if extra else None


def _read_recorded_sha256(root: Root, shard: str) -> str | None:
    """The sha256 of the whole shard that pack recorded, which covers padding and everything between members too."""
    expected = root.expected(shard)
    if expected is not None:
        return expected.sha256
    folder, _, name = shard.rpartition("/")
    summary = f"{folder}/summary.json"
    if not root.exists(summary):
        return None
    shards_of = root.read_record(summary, {"shards": dict})["shards"]
    return str((shards_of.get(name) or {}).get("sha256", "nothing"))


def _list_places(row: dict[str, Any]) -> list[shards.Place]:
    """The places of one row: the picture is checked by its sha256, the caption by its text, the JSON by its name."""
    uid = row["uid"]
    text = hashlib.sha256((row["caption"] or "").encode()).hexdigest() if "caption" in row else None
    return [
        shards.Place(offset=row["offset"], size=row["size"], uid=uid, sha256=row["sha256"], prefix=f"{uid}."),
        shards.Place(offset=row["txt_offset"], size=row["txt_size"], uid=uid, sha256=text, prefix=f"{uid}.txt"),
        shards.Place(offset=row["json_offset"], size=row["json_size"], uid=uid, prefix=f"{uid}.json"),
    ]
