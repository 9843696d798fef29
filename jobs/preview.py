"""`curate dedupe --preview FILE.html`: pairs over bins of similarity, to choose max_hamming and min_cosine by eye.

Compares all pairs of a seeded sample of rows, well below the thresholds, and decides nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from curation.config import Recipe
from curation.duplicates.clustering import usable
from curation.duplicates.contact_sheet import Bin, Pair, page
from curation.duplicates.hamming import BITS
from curation.duplicates.vectors import Search, inside
from curation.errors import UserError
from curation.schema import Status
from curation.shards import read_member
from curation.storage import Root
from jobs import embedders
from jobs.embed import METADATA, VECTORS, model_of
from jobs.work import load_npy

MAX_ROWS = 20_000
PAIRS_PER_BIN = 12
COSINE_BIN = 0.025
LOWEST_COSINE = 0.5
MAX_HAMMING = 16


def preview(spark: SparkSession, recipe: Recipe, root: Root, output: str) -> None:
    """Write the contact sheet of `root` to `output`. Raises UserError when nothing has been downloaded."""
    rows = _sampled(root)
    if len(rows) < 2:
        raise UserError(f"{root.base} has {len(rows)} pictures to compare: run `curate download` first.")
    bins = []
    if all(root.exists(f"{METADATA}/metadata_{unit}.parquet") for unit in root.units("downloads")):
        limit = recipe.dedupe.min_cosine or embedders.kind(model_of(recipe)).min_cosine
        bins += _vector_bins(root, rows, limit)
    bins += _hash_bins(root, rows, recipe.dedupe.max_hamming)
    note = (
        f"{len(rows):,} of the root's pictures, compared with each other. The red line is where the recipe cuts; "
        f"where the pairs above it are not the same picture, move it up."
    )
    Path(output).write_text(page(f"Near-duplicates in {root.base}", note, bins), encoding="utf-8")


def _sampled(root: Root) -> pa.Table:
    """The rows whose hashed uids are smallest, at most MAX_ROWS, sorted by uid, each with its unit."""
    parts = []
    for unit in root.units("downloads"):
        table = root.read_parquet(f"downloads/{unit}.parquet", ["uid", "status", "phash", "shard", "offset", "size"])
        table = table.filter(pa.array([status == Status.OK for status in table["status"].to_pylist()]))
        drawn = [hashlib.md5(uid.encode(), usedforsecurity=False).hexdigest() for uid in table["uid"].to_pylist()]
        table = table.append_column("drawn", pa.array(drawn, pa.string()))
        parts.append(table.append_column("unit", pa.array([unit] * len(table), pa.string())))
        if sum(map(len, parts)) > 2 * MAX_ROWS:
            parts = [pa.concat_tables(parts).sort_by("drawn").slice(0, MAX_ROWS)]
    return (
        pa.concat_tables(parts).sort_by("drawn").slice(0, MAX_ROWS).sort_by("uid") if parts else pa.table({"uid": []})
    )


def _vector_bins(root: Root, rows: pa.Table, min_cosine: float | None) -> list[Bin]:
    vectors = _vectors(root, rows)
    search = Search(min_cosine=LOWEST_COSINE, max_cluster_rows=len(rows), max_neighbours=len(rows))
    known = np.flatnonzero(usable(vectors))
    found = [pairs for pairs in inside(vectors, known, search, None) if len(pairs[0])]
    left, right, cosine = (np.concatenate(column) for column in zip(*found, strict=True)) if found else (known[:0],) * 3
    edges = np.arange(1, LOWEST_COSINE - COSINE_BIN / 2, -COSINE_BIN)
    bins = []
    for high in edges[:-1]:
        low = high - COSINE_BIN
        inside_bin = (cosine >= low) & ((cosine < high) | (high == 1))
        title = f"cosine {low:.3f} to {high:.3f}"
        cut = min_cosine is not None and low >= min_cosine - 1e-9
        bins.append(_bin(root, rows, title, left[inside_bin], right[inside_bin], cosine[inside_bin], cut))
    return bins


def _vectors(root: Root, rows: pa.Table) -> np.ndarray:
    """The embedding of each of `rows`, NaN where there is none; float32, length 1."""
    uids, units = rows["uid"].to_pylist(), rows["unit"].to_pylist()
    vectors: list[np.ndarray | None] = [None] * len(uids)
    for unit in sorted(set(units)):
        known = root.read_parquet(f"{METADATA}/metadata_{unit}.parquet", ["uid"])["uid"].to_pylist()
        place, matrix = {uid: i for i, uid in enumerate(known)}, load_npy(root, VECTORS.format(unit=unit))
        for i, uid in enumerate(uids):
            if units[i] == unit and uid in place:
                vectors[i] = np.asarray(matrix[place[uid]], np.float32)
    dim = next((len(v) for v in vectors if v is not None), 1)
    return np.array([np.full(dim, np.nan, np.float32) if v is None else v for v in vectors])


def _hash_bins(root: Root, rows: pa.Table, max_hamming: int) -> list[Bin]:
    known = np.flatnonzero(rows["phash"].is_valid().to_numpy())
    values = np.array([int(h, 16) for h in rows["phash"].drop_null().to_pylist()], np.uint64)
    found = []
    for i in range(len(values)):
        distance = np.bitwise_count(values[i] ^ values[i + 1 :])
        close = np.flatnonzero(distance <= MAX_HAMMING)
        found.append((np.full(len(close), known[i]), known[i + 1 + close], distance[close]))
    left, right, distance = (np.concatenate(column) for column in zip(*found, strict=True))
    return [
        _bin(
            root, rows, f"perceptual hashes {d} bits apart", left[distance == d], right[distance == d],
            1 - distance[distance == d] / BITS, d <= max_hamming,
        )
        for d in range(0, MAX_HAMMING + 1, 2)
    ]  # fmt: skip


def _bin(
    root: Root, rows: pa.Table, title: str, left: np.ndarray, right: np.ndarray, similarity: np.ndarray, removed: bool
) -> Bin:
    shown = np.sort(np.random.default_rng(0).permutation(len(left))[:PAIRS_PER_BIN])
    places = rows.select(["uid", "shard", "offset", "size"]).to_pylist()

    def picture(i: int) -> bytes:
        return read_member(root, places[i]["shard"], places[i]["offset"], places[i]["size"])

    pairs = tuple(
        Pair(
            left=picture(left[i]),
            right=picture(right[i]),
            similarity=float(similarity[i]),
            label=f"{places[left[i]]['uid'][:6]} {places[right[i]]['uid'][:6]}",
        )
        for i in shown.tolist()
    )
    return Bin(title=title, total=len(left), pairs=pairs, is_removed=removed)
