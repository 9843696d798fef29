"""Checks of one unit in all its tables: samples, downloads with their shards, embeddings, scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from curation.npy import read_vectors_shape
from curation.remedies import remedy
from curation.schema import DOWNLOADS, Status, count_captions, samples_schema, uid
from curation.storage import Root
from curation.tables import (
    downloads_file,
    embedding_tables,
    metadata_file,
    samples_file,
    score_tables,
    texts_file,
    unit_file,
    vectors_file,
)
from curation.verify import shards

_ALWAYS = ("uid", "status", "detail", "fetch_round")
_NEEDED = ("width", "height", "shard", "offset", "size", "stored_sha256")
"""Columns that no picture can be without; folders that were adopted may lack the others."""


def find_difference(root: Root, unit: str) -> str | None:
    """The first difference within `unit`, None when its tables agree."""
    return next(_find_differences(root, unit), None)


def _find_differences(root: Root, unit: str) -> Iterator[str]:
    samples = root.read_parquet(samples_file(unit))
    yield from _check_samples(samples, samples_file(unit))
    uids = samples["uid"].to_pylist()
    rel = downloads_file(unit)
    if not root.exists(rel):
        if root.units("downloads"):
            yield f"{rel} is missing, though other units are downloaded: run `curate download` again."
        return
    downloads = root.read_parquet(rel)
    if not downloads.schema.equals(DOWNLOADS):
        yield f"{rel} has not the columns of downloads."
        return
    yield from _compare_uids(rel, downloads["uid"].to_pylist(), uids, "samples")
    rows = downloads.to_pylist()
    yield from (f"{rel}: row {row['uid']} {wrong}." for row in rows if (wrong := _find_fault(row)))
    ok = [row for row in rows if row["status"] == Status.OK]
    yield from _check_shards(root, ok)
    yield from _check_derived(root, unit, [row["uid"] for row in ok])


def _check_samples(table: pa.Table, rel: str) -> Iterator[str]:
    if not table.schema.equals(samples_schema(count_captions(table.column_names))):
        yield f"{rel} has not the columns of samples."
        return
    columns = (table[name].to_pylist() for name in ("uid", "url", "caption"))
    for recorded, url, caption in zip(*columns, strict=True):
        if recorded != uid(url, caption):
            yield f"{rel}: uid {recorded} is not the md5 of its url and caption, {uid(url, caption)}."


def _compare_uids(rel: str, uids: Iterable[str], wanted: Iterable[str], name: str) -> Iterator[str]:
    """Differences unless `uids` has each uid of `wanted` exactly once, and no other."""
    counts, expected = Counter(uids), set(wanted)
    for one, times in counts.items():
        if one not in expected:
            yield f"{rel}: uid {one} is not in {name}."
        elif times > 1:
            yield f"{rel}: uid {one} is there {times} times."
    missing = sorted(expected - set(counts))
    if missing:
        yield f"{rel}: uid {missing[0]} of {name} is missing."


def _find_fault(row: dict[str, Any]) -> str | None:
    if row["status"] not in set(Status):
        return f"has the unknown status {row['status']!r}"
    if row["status"] == Status.OK:
        missing = [name for name in _NEEDED if row[name] is None]
        return f"is ok and has no {missing[0]}" if missing else None
    extra = [name for name, value in row.items() if value is not None and name not in _ALWAYS]
    return f"is {row['status']} and has a {extra[0]}" if extra else None


def _check_shards(root: Root, ok: list[dict[str, Any]]) -> Iterator[str]:
    places: dict[str, list[shards.Place]] = {}
    for row in ok:
        # Shards of an adopted folder keep the names that their maker gave.
        prefix = f"{row['uid']}." if row["shard"].startswith("raw/") else None
        place = shards.Place(
            offset=row["offset"], size=row["size"], uid=row["uid"], sha256=row["stored_sha256"], prefix=prefix
        )
        places.setdefault(row["shard"], []).append(place)
    for shard, members in places.items():
        wrong = shards.find_difference(root, shard, members)
        if wrong:
            yield wrong


def _check_derived(root: Root, unit: str, ok: list[str]) -> Iterator[str]:
    for table in embedding_tables(root):
        yield from _check_vectors(root, unit, table, ok)
    for table in score_tables(root):
        rel = unit_file(table, unit)
        if root.exists(rel):
            scored = root.read_parquet(rel, ["uid"])["uid"].to_pylist()
            yield from _compare_uids(rel, scored, ok, "the downloads that are ok")


def _check_vectors(root: Root, unit: str, table: str, ok: list[str]) -> Iterator[str]:
    rel = metadata_file(unit, table)
    if not root.exists(rel):
        return
    uids = root.read_parquet(rel, ["uid"])["uid"].to_pylist()
    yield from _compare_uids(rel, uids, set(ok) & set(uids), "the downloads that are ok")
    arrays = [vectors_file(unit, table)]
    if root.exists(texts_file(unit, table)):  # only models with a text tower have them
        arrays.append(texts_file(unit, table))
    for array in arrays:
        num_rows, _ = read_vectors_shape(root, array, remedy(array))
        if num_rows != len(uids):
            yield f"{array} has {num_rows} rows, its metadata {len(uids)}."
