"""Pictures that are known already (an evaluation set), and which rows of a unit match one of them."""

from __future__ import annotations

from functools import cached_property

import faiss
import numpy as np
import pyarrow as pa

from curation.duplicates.blocks import ROUNDING
from curation.duplicates.clustering import normalise, train, usable
from curation.duplicates.hamming import BITS
from curation.duplicates.phash import NUM_SET_BITS
from curation.errors import UserError

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("key", pa.string()),
        ("sha256", pa.string()),
        ("pixel_sha256", pa.string()),
        ("phash", pa.uint64()),
        ("vector", pa.large_list(pa.float32())),
    ]
)
"""One row a known picture: its set, its name there, and whatever is known of it."""
EXACT_ROWS = 100_000
"""Known vectors up to which a row is compared with all of them: less than a tenth of what embedding it has cost."""
ROWS_PER_CELL, PROBES, SAMPLES_PER_CELL = 200, 64, 64
"""Above, known vectors lie in cells, and a row is compared with those of the nearest PROBES."""
Matches = dict[int, tuple[int, float]]
"""Row of the unit → (known picture, similarity)."""


class KnownPictures:
    """The known pictures, ready to be searched; `tables` have SCHEMA. Raises UserError when their dimensions differ."""

    def __init__(self, tables: list[pa.Table]) -> None:
        table = pa.concat_tables(tables).sort_by([("name", "ascending"), ("key", "ascending")]).combine_chunks()
        self._names, self._keys = table["name"], table["key"]
        self._by_sha256 = _index_values(table["sha256"].to_pylist())
        self._by_pixels = _index_values(table["pixel_sha256"].to_pylist())
        self._hashed = np.flatnonzero(table["phash"].is_valid().to_numpy())
        self._hashes = faiss.IndexBinaryFlat(BITS)
        if len(self._hashed):
            self._hashes.add(table["phash"].drop_null().to_numpy().view(np.uint8).reshape(-1, BITS // 8))
        self._embedded, self._vectors = _unpack_vectors(table["vector"])

    def match(
        self,
        rows: pa.Table,
        vectors: np.ndarray | None,
        max_hamming: int | None,
        min_entropy: float,
        min_cosine: float | None,
    ) -> pa.RecordBatch:
        """The strongest match of each row of one unit that has one: `row`, `key`, `tier`, `similarity`.

        `rows` has row, place (its row of `vectors`), sha256, pixel_sha256, phash (int64) and entropy. Without
        `max_hamming` or `min_cosine` that tier is not asked. Raises UserError when dimensions differ.
        """
        matches: Matches = {}
        if min_cosine is not None and vectors is not None and len(self._vectors):
            matches |= self._by_vector(rows["place"], vectors, min_cosine)
        if max_hamming is not None and len(self._hashed):
            matches |= self._by_hash(rows, max_hamming, min_entropy)
        for column, lookup in (("pixel_sha256", self._by_pixels), ("sha256", self._by_sha256)):
            for i, value in enumerate(rows[column].to_pylist()):
                if value in lookup:
                    matches[i] = lookup[value], 1.0
        places = sorted(matches)
        known = pa.array([matches[i][0] for i in places], pa.int64())
        return pa.RecordBatch.from_pydict(
            {
                "row": rows["row"].combine_chunks().take(pa.array(places, pa.int64())),
                "key": self._keys.take(known).combine_chunks(),
                "tier": pa.array(
                    [f"decontamination:{name}" for name in self._names.take(known).to_pylist()], pa.string()
                ),
                "similarity": pa.array([matches[i][1] for i in places], pa.float64()),
            }
        )

    def _by_hash(self, rows: pa.Table, max_hamming: int, min_entropy: float) -> Matches:
        hashes = rows["phash"].fill_null(0).to_numpy().view(np.uint64)
        detailed = rows["entropy"].fill_null(8.0).to_numpy() >= min_entropy
        asked = np.flatnonzero(detailed & (np.bitwise_count(hashes) == NUM_SET_BITS))
        if not len(asked):
            return {}
        distance, nearest = self._hashes.search(hashes[asked].view(np.uint8).reshape(-1, BITS // 8), 1)
        close = np.flatnonzero(distance[:, 0] <= max_hamming)
        return {int(asked[i]): (int(self._hashed[nearest[i, 0]]), 1 - int(distance[i, 0]) / BITS) for i in close}

    def _by_vector(self, place: pa.ChunkedArray, vectors: np.ndarray, min_cosine: float) -> Matches:
        if vectors.shape[1] != self._vectors.shape[1]:
            raise UserError(
                f"dedupe.against has vectors of {self._vectors.shape[1]} dimensions, the root of {vectors.shape[1]}: "
                f"embed the evaluation set with the recipe's model."
            )
        places = place.fill_null(-1).to_numpy()
        asked = np.flatnonzero(places >= 0)
        wanted = vectors[places[asked]]
        known = usable(wanted)
        asked = asked[known]
        if not len(asked):
            return {}
        cosine, nearest = self._index.search(normalise(wanted[known]), 1)
        close = np.flatnonzero(cosine[:, 0] >= min_cosine - ROUNDING)
        return {
            int(asked[i]): (int(self._embedded[nearest[i, 0]]), min(1.0, float(cosine[i, 0])))
            for i in close.tolist()
            if nearest[i, 0] >= 0
        }

    @cached_property
    def _index(self) -> faiss.Index:
        flat = faiss.IndexFlatIP(self._vectors.shape[1])
        if len(self._vectors) <= EXACT_ROWS:
            flat.add(self._vectors)
            return flat
        num_cells = len(self._vectors) // ROWS_PER_CELL
        step = max(1, len(self._vectors) // (num_cells * SAMPLES_PER_CELL))
        centroids = train(np.ascontiguousarray(self._vectors[::step]), num_cells).centroids
        flat.add(centroids)
        index = faiss.IndexIVFFlat(flat, self._vectors.shape[1], len(centroids), faiss.METRIC_INNER_PRODUCT)
        index.nprobe = PROBES
        index.add(self._vectors)
        return index


def _unpack_vectors(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the usable vectors of `column`, and those of length 1, float32 `[n, d]`."""
    valid = np.flatnonzero(column.is_valid().to_numpy())
    lists = pa.concat_arrays(column.drop_null().chunks) if len(valid) else pa.array([], column.type)
    dims = sorted(set(np.diff(lists.offsets.to_numpy()).tolist()))
    if len(dims) > 1:
        raise UserError(f"dedupe.against holds vectors of {dims} dimensions: embed it with the recipe's model.")
    matrix = lists.flatten().to_numpy().reshape(len(valid), dims[0] if dims else 0)
    known = usable(matrix)
    return valid[known], normalise(matrix[known])


def _index_values(values: list[str | None]) -> dict[str, int]:
    return {value: i for i, value in reversed(list(enumerate(values))) if value is not None}
