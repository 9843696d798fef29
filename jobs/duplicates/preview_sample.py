"""The rows whose pairs a preview shows: all of a small root, of a large one the whole neighbourhoods of a few rows.

When 20,000 rows are drawn one by one from 10⁸, a copy comes together with its original in 4 of 100 million cases, so
that no duplicate would be seen. The rows nearest to a probe hold a copy with its original about as often as the root
does, whatever its size. The task of each unit keeps the nearest rows of each probe, and so does the driver when it
unites the results of the tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from curation.duplicates.clustering import normalise, usable
from curation.duplicates.phash import NUM_SET_BITS
from curation.report.safety import SAFETY_COLUMNS
from curation.schema import Status
from curation.storage import Root
from curation.tables import downloads_file, metadata_file, samples_file, score_tables, unit_file, vectors_file
from jobs.duplicates.arrays import load_npy
from jobs.spark.tasks import map_units

MAX_ROWS = 20_000
NUM_PROBES = 20
"""Neighbourhoods by vector, and as many by hash."""
MAX_UNITS_TRIED = 10 * NUM_PROBES
BLOCK = 4_096
COLUMNS = ["uid", "status", "sha256", "pixel_sha256", "phash", "entropy", "shard", "offset", "size", "stored_sha256"]
NEIGHBOUR = np.dtype([("distance", "f4"), ("unit", "i4"), ("row", "i8"), ("content", "u8")])
"""A row of a unit's downloads, how far it is from a probe, and what is equal for exact copies."""


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Rows whose neighbourhoods are wanted: `vectors` float32 `[p, d]` of length 1, `hashes` uint64 `[q]`."""

    vectors: np.ndarray
    hashes: np.ndarray

    def __len__(self) -> int:
        return len(self.vectors) + len(self.hashes)


class UnitPictures:
    """The pictures of one unit that came, with their hashes and, where asked for, their vectors."""

    def __init__(self, root: Root, number: int, unit: str, embedded: bool, min_entropy: float) -> None:
        table = root.read_parquet(downloads_file(unit), COLUMNS)
        self.number, self.rows = number, np.flatnonzero(pc.equal(table["status"], Status.OK.value))
        self.table = table.take(self.rows)
        self.hashes = np.array([int(h or "0", 16) for h in self.table["phash"].to_pylist()], np.uint64)
        detailed = self.table["entropy"].fill_null(8.0).to_numpy() >= min_entropy
        self.telling = np.flatnonzero(detailed & (np.bitwise_count(self.hashes) == NUM_SET_BITS))
        self._vectors: np.ndarray | None = None
        self._places = np.full(len(self.rows), -1)
        if embedded:
            uids = root.read_parquet(metadata_file(unit), ["uid"])["uid"].combine_chunks()
            self._places = pc.index_in(self.table["uid"], uids).fill_null(-1).to_numpy()
            self._vectors = load_npy(root, vectors_file(unit))

    def vectors(self, wanted: np.ndarray) -> np.ndarray:
        """float32 `[n, d]` of the pictures `wanted`, NaN where there is none."""
        assert self._vectors is not None
        vectors = np.full((len(wanted), self._vectors.shape[1]), np.nan, np.float32)
        places = self._places[wanted]
        vectors[places >= 0] = self._vectors[places[places >= 0]]
        return vectors

    def describe(self, wanted: np.ndarray, distance: np.ndarray) -> np.ndarray:
        """Rows of NEIGHBOUR for the pictures `wanted`."""
        columns = [self.table[name].take(wanted).to_pylist() for name in ("pixel_sha256", "sha256", "uid")]
        rows = np.zeros(len(wanted), NEIGHBOUR)
        rows["distance"], rows["unit"], rows["row"] = distance, self.number, self.rows[wanted]
        rows["content"] = [int((pixels or data or uid)[:16], 16) for pixels, data, uid in zip(*columns, strict=True)]
        return rows


def take_nearest(neighbours: np.ndarray, count: int) -> np.ndarray:
    """The `count` nearest of `neighbours`, one of each content."""
    ordered = neighbours[np.lexsort((neighbours["row"], neighbours["unit"], neighbours["distance"]))]
    _, first = np.unique(ordered["content"], return_index=True)
    return ordered[np.sort(first)[:count]]


def draw_sample(
    spark: SparkSession, root: Root, embedded: bool, min_entropy: float
) -> tuple[pa.Table, np.ndarray | None, str]:
    """At most MAX_ROWS pictures (COLUMNS) in order of uid, their vectors where `embedded`, and how they were chosen."""
    units = root.units("downloads")
    if _is_small(root, units):
        parts = [UnitPictures(root, number, unit, False, min_entropy) for number, unit in enumerate(units)]
        everything = [part.describe(np.arange(len(part.rows)), np.zeros(len(part.rows))) for part in parts]
        chosen = take_nearest(np.concatenate([np.zeros(0, NEIGHBOUR), *everything]), MAX_ROWS)
        how = "all"
    else:
        probes = draw_probes(root, units, embedded, min_entropy)
        count = MAX_ROWS // max(1, len(probes))
        chosen = find_neighbourhoods(spark, root, units, probes, count, min_entropy)
        how = f"the {count} nearest to each of {len(probes.vectors)} by embedding and of {len(probes.hashes)} by hash"
    table, vectors = _read(spark, root, units, chosen, embedded)
    return table, vectors, how


def _is_small(root: Root, units: Iterable[str]) -> bool:
    num_rows = 0
    for unit in units:
        num_rows += len(root.read_parquet(downloads_file(unit), []))
        if num_rows > MAX_ROWS:
            return False
    return True


def draw_probes(root: Root, units: list[str], embedded: bool, min_entropy: float) -> Probes:
    """A seeded draw of rows from units drawn at random; fewer where those say too little."""
    rng = np.random.default_rng(0)
    share = -(-NUM_PROBES // len(units))
    vectors, hashes = list[np.ndarray](), list[int]()
    for number in rng.permutation(len(units))[:MAX_UNITS_TRIED].tolist():
        unit = UnitPictures(root, number, units[number], embedded, min_entropy)
        hashes += unit.hashes[rng.permutation(unit.telling)[:share]].tolist()
        if embedded:
            some = unit.vectors(rng.permutation(len(unit.rows))[:BLOCK])
            vectors += list(normalise(some[usable(some)][:share]))
        if len(hashes) >= NUM_PROBES and (len(vectors) >= NUM_PROBES or not embedded):
            break
    return Probes(vectors=np.array(vectors[:NUM_PROBES], np.float32), hashes=np.array(hashes[:NUM_PROBES], np.uint64))


def find_neighbourhoods(
    spark: SparkSession, root: Root, units: list[str], probes: Probes, count: int, min_entropy: float
) -> np.ndarray:
    """The rows (NEIGHBOUR) that are among the `count` nearest of any probe, one of each content."""
    # As many tasks as run at once: what a task returns does not grow with its units.
    num_tasks = max(1, min(len(units), spark.sparkContext.defaultParallelism))
    numbers = [list(range(first, len(units), num_tasks)) for first in range(num_tasks)]

    def search(mine: list[int]) -> list[np.ndarray]:
        neighbours = [np.zeros(0, NEIGHBOUR)] * len(probes)
        for number in mine:
            unit = UnitPictures(root, number, units[number], len(probes.vectors) > 0, min_entropy)
            for place, item in _find_near(unit, probes, [_limit_distance(part, count) for part in neighbours]):
                neighbours[place] = take_nearest(np.concatenate([neighbours[place], item]), count)
        return neighbours

    tasks = map_units(spark, "sample", numbers, search)
    each = [take_nearest(np.concatenate(parts), count) for parts in zip(*tasks, strict=True)]
    together = np.concatenate([np.zeros(0, NEIGHBOUR), *each])
    return take_nearest(together, len(together))


def _limit_distance(neighbours: np.ndarray, count: int) -> float:
    """Distance from which on a row is not among the nearest."""
    return float(neighbours["distance"][-1]) if len(neighbours) == count else np.inf


def _find_near(unit: UnitPictures, probes: Probes, limits: list[float]) -> Iterable[tuple[int, np.ndarray]]:
    """Pictures of `unit` nearer to a probe than its limit: (the probe's place, rows of NEIGHBOUR)."""
    for start in range(0, len(unit.rows) if len(probes.vectors) else 0, BLOCK):
        wanted = np.arange(start, min(start + BLOCK, len(unit.rows)))
        vectors = unit.vectors(wanted)
        known = usable(vectors)
        distance = 1 - normalise(vectors[known]) @ probes.vectors.T
        for place in range(len(probes.vectors)):
            close = np.flatnonzero(distance[:, place] < limits[place])
            yield place, unit.describe(wanted[known][close], distance[close, place])
    for number, probe in enumerate(probes.hashes):
        place = len(probes.vectors) + number
        distance = np.bitwise_count(unit.hashes[unit.telling] ^ probe)
        close = np.flatnonzero(distance < limits[place])
        yield place, unit.describe(unit.telling[close], distance[close])


def _read(
    spark: SparkSession, root: Root, units: list[str], chosen: np.ndarray, embedded: bool
) -> tuple[pa.Table, np.ndarray | None]:
    """COLUMNS of the `chosen` rows and what says how safe they are, in order of uid, and their vectors."""
    wanted = [(int(number), chosen["row"][chosen["unit"] == number]) for number in np.unique(chosen["unit"])]

    def read(item: tuple[int, np.ndarray]) -> tuple[pa.Table, np.ndarray | None]:
        unit = UnitPictures(root, item[0], units[item[0]], embedded, 0.0)
        places = np.searchsorted(unit.rows, item[1])
        table = add_safety(root, units[item[0]], unit.table.take(places))
        return table, unit.vectors(places) if embedded else None

    parts = map_units(spark, "read", wanted, read)
    if not parts:
        return pa.table({"uid": pa.array([], pa.string())}), None
    table = pa.concat_tables([part for part, _ in parts], promote_options="default")
    order = pc.sort_indices(table["uid"])
    vectors = [part for _, part in parts if part is not None and part.shape[1]]
    return table.take(order), np.concatenate(vectors)[order.to_numpy()] if vectors else None


def add_safety(root: Root, unit: str, rows: pa.Table) -> pa.Table:
    """`rows` of `unit` with the columns of samples and score tables by which pictures are blurred."""
    for rel in (samples_file(unit), *(unit_file(table, unit) for table in score_tables(root))):
        wanted = [name for name in _read_names(root, rel) if name in SAFETY_COLUMNS and name not in rows.column_names]
        if wanted:
            scores = root.read_parquet(rel, ["uid", *wanted])
            found = pc.index_in(rows["uid"], scores["uid"].combine_chunks())
            for name in wanted:
                rows = rows.append_column(name, scores[name].combine_chunks().take(found))
    return rows


def _read_names(root: Root, rel: str) -> list[str]:
    """Names of the columns of file `rel`; none where there is no such file."""
    if not root.exists(rel):
        return []
    with root.open(rel) as file:
        return list(pq.read_schema(file).names)
