"""The pictures nearest to one or to a vector: by cosine over all vectors of a table, by bits of perceptual hashes.

Vectors are compared unit by unit, so that memory holds those of one unit and the best that were found. Nothing is
indexed: an index of a root would have to be made before the first look, and be made anew after each change.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from curation.browse.desk import Desk
from curation.browse.wall import find_rows
from curation.errors import UserError
from curation.manifest.quoting import quote_text
from curation.npy import parse_array, read_vectors_shape
from curation.remedies import remedy
from curation.storage import Root
from curation.sums.reading import check_sums
from curation.tables import embedded_units, metadata_file, vectors_file

NUM_NEIGHBOURS = 180
MAX_BITS = 16
"""Of 64: beyond so many different bits two pictures are as alike as any."""
CHUNK_ROWS = 8_192
Row = dict[str, Any]


@dataclass
class Best:
    """The best rows so far: cosines, and for each its unit's number and its row there; all `[k]`, best first."""

    cosines: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    places: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))

    def add(self, cosines: np.ndarray, unit: int, first: int) -> None:
        """Take the best of `cosines` (float32 `[n]`), which are of the rows from `first` on of `unit`."""
        if len(cosines) > NUM_NEIGHBOURS:
            rows = np.argpartition(-cosines, NUM_NEIGHBOURS - 1)[:NUM_NEIGHBOURS]
        else:
            rows = np.arange(len(cosines))
        places = np.stack([np.full(len(rows), unit), rows + first], axis=1)
        cosines = np.concatenate([self.cosines, cosines[rows]])
        order = np.argsort(-cosines, kind="stable")[:NUM_NEIGHBOURS]
        order = order[np.isfinite(cosines[order])]
        self.cosines, self.places = cosines[order], np.concatenate([self.places, places])[order]


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Rows of the manifest, nearest first, with `cosine` or `bits`; `num_units` of all units were looked through."""

    rows: list[Row]
    num_units: int
    num_all: int


def find_by_vector(desk: Desk, table: str, vector: np.ndarray, seconds: float) -> Neighbours:
    """The pictures whose vectors in `table` have the greatest cosine to `vector` (float `[d]`).

    After `seconds` they are the best of the units that were looked through by then. Raises UserError for vectors that
    are damaged or of another length.
    """
    root, best, until = desk.manifest.root, Best(), time.monotonic() + seconds
    units, num_done = embedded_units(root, table), 0
    wanted = vector.astype(np.float32)
    wanted /= max(float(np.linalg.norm(wanted)), 1e-12)
    for number, unit in enumerate(units):
        if desk.is_stopped or time.monotonic() > until:
            break
        matrix = _read_vectors(root, table, unit, len(wanted))
        for first in range(0, len(matrix), CHUNK_ROWS):
            best.add(compare(matrix[first : first + CHUNK_ROWS], wanted), number, first)
        num_done += 1
    cosines = _name_rows(root, table, units, best)
    rows = [row | {"cosine": cosines[row["uid"]]} for row in find_rows(desk, [*cosines])]
    return Neighbours(rows=rows, num_units=num_done, num_all=len(units))


def compare(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Cosines of the rows of `matrix` (`[n, d]`, any float type) to `vector` (of length 1); -inf for rows without."""
    block = matrix.astype(np.float32)
    lengths = np.linalg.norm(block, axis=1)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        cosines = block @ vector / lengths
    return np.where(np.isfinite(cosines) & (lengths > 0), cosines, -np.inf).astype(np.float32)


def _read_vectors(root: Root, table: str, unit: str, dim: int) -> np.ndarray:
    """The vectors of a unit, mapped into memory on this machine. Raises UserError."""
    rel = vectors_file(unit, table)
    shape = read_vectors_shape(root, rel, remedy(rel))
    if shape[0] and shape[1] != dim:
        raise UserError(f"{root.url(rel)} has vectors of {shape[1]} numbers, and {dim} are looked for: {remedy(rel)}.")
    if not root.is_local:
        return parse_array(root.read_whole(rel))
    check_sums(root, [rel])
    matrix: np.ndarray = np.load(root.full(rel), mmap_mode="r" if shape[0] else None, allow_pickle=False)
    return matrix


def _name_rows(root: Root, table: str, units: Sequence[str], best: Best) -> dict[str, float]:
    """uid → cosine, best first; a uid that stands twice has the better one."""
    uids = {int(n): root.read_parquet(metadata_file(units[n], table), ["uid"])["uid"] for n in set(best.places[:, 0])}
    found: dict[str, float] = {}
    for (number, row), cosine in zip(best.places.tolist(), best.cosines.tolist(), strict=True):
        if row < len(uids[number]):
            found.setdefault(uids[number][row].as_py(), cosine)
    return found


def find_vector(desk: Desk, table: str, uid: str) -> np.ndarray:
    """The vector of `uid` in `table`. Raises UserError when there is none."""
    root = desk.manifest.root
    embedded = set(embedded_units(root, table))
    for unit in desk.manifest.units_with([uid]):
        if unit in embedded and not desk.is_stopped:
            known = root.read_parquet(metadata_file(unit, table), ["uid"])["uid"].to_pylist()
            if uid in known:
                rel = vectors_file(unit, table)
                matrix = _read_vectors(root, table, unit, read_vectors_shape(root, rel, remedy(rel))[1])
                vector: np.ndarray = np.asarray(matrix[known.index(uid)], np.float32)
                if np.isfinite(vector).all() and vector.any():
                    return vector
    raise UserError(
        f"{root.url(table)} has no vector of {uid[:64]}: its picture did not decode, or is not embedded yet."
    )


def find_by_hash(desk: Desk, uid: str) -> Neighbours:
    """The pictures whose perceptual hashes differ in at most MAX_BITS bits. Raises UserError without a hash."""
    hashes = desk.fetch(desk.manifest.query(f"select phash from downloads where uid = {quote_text(uid)}"))
    wanted = hashes[0]["phash"] if hashes else None
    if not wanted:
        raise UserError(f"There is no perceptual hash of {uid[:64]}.")
    number = "try_cast('0x' || {} as ubigint)".format
    bits = f"bit_count(xor({number('phash')}, {number(quote_text(wanted))}))"
    near = f"select uid, {bits} as bits from downloads where phash is not null"
    sql = f"select uid, bits from ({near}) as n where bits <= {MAX_BITS} order by bits, uid limit {NUM_NEIGHBOURS}"
    found = {row["uid"]: row["bits"] for row in desk.fetch(desk.manifest.query(sql))}
    rows = [row | {"bits": found[row["uid"]]} for row in find_rows(desk, [*found])]
    num = len(desk.manifest.root.units("downloads"))
    return Neighbours(rows=rows, num_units=num, num_all=num)
