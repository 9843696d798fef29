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
from curation.duplicates.blocks import BLOCK
from curation.duplicates.clustering import normalised, usable
from curation.duplicates.contact_sheet import Bin, Pair, page
from curation.duplicates.hamming import BITS
from curation.duplicates.phash import NUM_SET_BITS
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
COLUMNS = ["uid", "status", "phash", "entropy", "shard", "offset", "size"]


def preview(spark: SparkSession, recipe: Recipe, root: Root, output: str) -> None:
    """Write the contact sheet of `root` to `output`. Raises UserError when nothing has been downloaded."""
    rows = _sampled(root)
    if len(rows) < 2:
        raise UserError(f"{root.base} has {len(rows)} pictures to compare: run `curate download` first.")
    bins = []
    if all(root.exists(f"{METADATA}/metadata_{unit}.parquet") for unit in root.units("downloads")):
        limit = recipe.dedupe.min_cosine or embedders.kind(model_of(recipe)).min_cosine
        bins += _vector_bins(root, rows, limit)
    bins += _hash_bins(root, rows, recipe.dedupe.max_hamming, recipe.dedupe.min_entropy)
    note = (
        f"{len(rows):,} of the root's pictures, compared with each other. The red line is where the recipe cuts; "
        f"where the pairs above it are not the same picture, move it up."
    )
    Path(output).write_text(page(f"Near-duplicates in {root.base}", note, bins), encoding="utf-8")


def _sampled(root: Root) -> pa.Table:
    """The rows whose hashed uids are smallest, at most MAX_ROWS, sorted by uid, each with its unit."""
    parts = []
    for unit in root.units("downloads"):
        table = root.read_parquet(f"downloads/{unit}.parquet", COLUMNS)
        table = table.filter(pa.array([status == Status.OK for status in table["status"].to_pylist()]))
        drawn = [hashlib.md5(uid.encode(), usedforsecurity=False).hexdigest() for uid in table["uid"].to_pylist()]
        table = table.append_column("drawn", pa.array(drawn, pa.string()))
        parts.append(table.append_column("unit", pa.array([unit] * len(table), pa.string())))
        if sum(map(len, parts)) > 2 * MAX_ROWS:
            parts = [pa.concat_tables(parts).sort_by("drawn").slice(0, MAX_ROWS)]
    return (
        pa.concat_tables(parts).sort_by("drawn").slice(0, MAX_ROWS).sort_by("uid") if parts else pa.table({"uid": []})
    )


class Draw:
    """A seeded sample of the pairs of each bin, from blocks of similarities; never holds more than the sample."""

    def __init__(self, rows: np.ndarray, num_bins: int) -> None:
        self._rows, self._random = rows, np.random.default_rng(0)
        self.totals = [0] * num_bins
        self._drawn = [np.zeros((0, 4)) for _ in range(num_bins)]

    def add(self, first: int, second: int, bins: np.ndarray, similarity: np.ndarray) -> None:
        """A block whose corner is pair (`first`, `second`) of the rows; `bins` int `[a, b]` is -1 for other pairs."""
        upper = np.arange(first, first + bins.shape[0])[:, None] < np.arange(second, second + bins.shape[1])
        for number in range(len(self.totals)):
            flat = np.flatnonzero((bins == number) & upper)
            self.totals[number] += len(flat)
            draws = self._random.random(len(flat))
            least = np.argsort(draws)[:PAIRS_PER_BIN]
            left, right = np.unravel_index(flat[least], bins.shape)
            pairs = (draws[least], self._rows[first + left], self._rows[second + right], similarity[left, right])
            together = np.concatenate([self._drawn[number], np.stack(pairs, axis=1)])
            self._drawn[number] = together[np.argsort(together[:, 0])[:PAIRS_PER_BIN]]

    def pairs(self, number: int) -> list[tuple[int, int, float]]:
        """The sample of a bin: (left, right, similarity), most alike first."""
        found = [(int(left), int(right), float(value)) for _, left, right, value in self._drawn[number]]
        return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _vector_bins(root: Root, rows: pa.Table, min_cosine: float | None) -> list[Bin]:
    vectors = _vectors(root, rows)
    known = np.flatnonzero(usable(vectors))
    vectors, edges = normalised(vectors[known]), _edges(min_cosine)
    draw = Draw(known, len(edges) - 1)
    for first in range(0, len(known), BLOCK):
        for second in range(first, len(known), BLOCK):
            cosine = vectors[first : first + BLOCK] @ vectors[second : second + BLOCK].T
            bins = (len(edges) - 1 - np.searchsorted(edges[::-1], cosine, side="right")).clip(min=0)
            draw.add(first, second, np.where(cosine >= edges[-1], bins, -1), cosine)
    bins = []
    for number, (high, low) in enumerate(zip(edges, edges[1:], strict=False)):
        is_removed = min_cosine is not None and low >= min_cosine
        title = f"cosine {low:.3f} to {high:.3f}"
        bins.append(_bin(root, rows, title, draw.totals[number], draw.pairs(number), is_removed))
    return bins


def _edges(min_cosine: float | None) -> np.ndarray:
    """Falling limits of the bins from 1 to about LOWEST_COSINE, `min_cosine` among them."""
    anchor = 1.0 if min_cosine is None else min_cosine
    above, below = (int((end - anchor) / COSINE_BIN) for end in (1.0, LOWEST_COSINE))
    inner = anchor + np.arange(above, below - 1, -1) * COSINE_BIN
    return np.r_[1.0, inner[inner < 1 - COSINE_BIN / 100]]


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


def _hash_bins(root: Root, rows: pa.Table, max_hamming: int, min_entropy: float) -> list[Bin]:
    """Bins of the hashes that the perceptual tier would compare: not those of plain pictures."""
    values = np.array([int(h or "0", 16) for h in rows["phash"].to_pylist()], np.uint64)
    detailed = rows["entropy"].fill_null(8.0).to_numpy() >= min_entropy
    known = np.flatnonzero(detailed & (np.bitwise_count(values) == NUM_SET_BITS))
    values, draw = values[known], Draw(known, MAX_HAMMING // 2 + 1)
    for first in range(0, len(known), BLOCK):
        for second in range(first, len(known), BLOCK):
            # Two such hashes have as many bits set, so they differ in an even number of bits.
            distance = np.bitwise_count(values[first : first + BLOCK, None] ^ values[second : second + BLOCK])
            bins = np.where(distance <= MAX_HAMMING, distance // 2, -1).astype(np.int32)
            draw.add(first, second, bins, 1 - distance / BITS)
    titles = [f"perceptual hashes {2 * number} bits apart" for number in range(len(draw.totals))]
    return [
        _bin(root, rows, title, draw.totals[number], draw.pairs(number), 2 * number <= max_hamming)
        for number, title in enumerate(titles)
    ]


def _bin(
    root: Root, rows: pa.Table, title: str, total: int, drawn: list[tuple[int, int, float]], is_removed: bool
) -> Bin:
    def picture(i: int) -> bytes:
        place = rows.slice(i, 1).to_pylist()[0]
        return read_member(root, place["shard"], place["offset"], place["size"])

    uids = rows["uid"]
    pairs = tuple(
        Pair(
            left=picture(left),
            right=picture(right),
            similarity=similarity,
            label=f"{uids[left].as_py()[:6]} {uids[right].as_py()[:6]}",
        )
        for left, right, similarity in drawn
    )
    return Bin(title=title, total=total, pairs=pairs, is_removed=is_removed)
