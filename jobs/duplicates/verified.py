"""The second look at pairs in doubt, in Spark: fingerprints where pictures are stored, then one correlation a pair.

A pair in doubt often concerns rows that are removed already. What it says of them it says of the rows that are kept in
their place, so each row is first replaced by the one that is kept for it. Then each kept row is compared with the
nearest few, once.

Of few pairs the driver holds the fingerprints, for the next round too, and sends tasks what they compare. Of more they
move from tasks to tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.duplicates.graph import EDGES
from curation.duplicates.verification import SIDE, correlate, make_fingerprint
from curation.plan import group_by_rows
from curation.storage import Root
from curation.tables import downloads_file
from curation.unit_streams import by_unit
from jobs.duplicates.vectors import BatchTask
from jobs.embed import read_stored_picture
from jobs.spark.tasks import materialise

_FINGERPRINT_DDL = "row bigint, fingerprint binary"
_SCORED_DDL = "left bigint, right bigint, similarity double"
TASKS_PER_CORE = 4
MAX_LOCAL_PAIRS = 10_000
"""Pairs whose fingerprints the driver holds: 80 MB of them, and ten seconds of one core to compare."""
MAX_LOCAL_ROWS = 250_000
"""Rows whose places the driver holds, 15 MB of them: Spark takes half a second to find those of a few."""
WORK_PER_TASK = 250
"""Pictures or pairs of one task: as many as half a second is enough for."""
WORK_PER_UNIT = 25
"""Pictures that take as long as the table of their unit, which says where they are."""
_STORED = ["uid", "shard", "offset", "size", "stored_sha256"]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass
class PictureVerifier:
    """See `jobs.duplicates.graph.Verifier`. `rows` has `row`, `uid` and `unit`, a position in `units`.

    An edge of `tier` is a pair whose correlation is at least `min_correlation`, which is its similarity then.
    """

    spark: SparkSession
    root: Root
    units: list[str]
    rows: DataFrame
    tier: int
    min_correlation: float
    max_doubtful: int
    num_looks: int = 0
    """Pairs that were looked at."""
    _fingerprints: dict[int, bytes | None] = field(default_factory=dict, repr=False)
    """Of the rows of the last look by `look_here`, and some before it."""

    def look(self, pairs: DataFrame, num_pairs: int) -> DataFrame:
        """See `jobs.duplicates.graph.Verifier`."""
        self.num_looks += num_pairs
        scored = self._compare(pairs).where(F.col("similarity") >= self.min_correlation)
        return scored.select("left", "right", F.lit(self.tier).alias("tier"), "similarity")

    def look_here(self, pairs: pa.Table) -> pa.Table:
        """See `jobs.duplicates.graph.Verifier`."""
        if len(pairs) > MAX_LOCAL_PAIRS:
            return self.look(self.spark.createDataFrame(pairs), len(pairs)).toArrow().cast(EDGES)
        self.num_looks += len(pairs)
        pairs = pairs.sort_by([("right", "ascending"), ("left", "ascending")])
        left, right = (pairs[name].to_pylist() for name in ("left", "right"))
        seen = self._read_fingerprints({*left, *right})
        compare = partial(_compare_pairs, enough=self.min_correlation)
        scores = self._map_runs(compare, [((seen[a], seen[b]), 1) for a, b in zip(left, right, strict=True)])
        found = {"left": left, "right": right, "tier": [self.tier] * len(pairs), "similarity": scores}
        edges = pa.Table.from_pydict(found, EDGES)
        return edges.filter(pc.greater_equal(edges["similarity"], self.min_correlation))

    def _read_fingerprints(self, wanted: set[int]) -> dict[int, bytes | None]:
        """The fingerprints of the `wanted` rows and perhaps of more, None where a picture cannot be decoded."""
        missing = sorted(wanted - self._fingerprints.keys())
        if len(self._fingerprints) + len(missing) > 2 * MAX_LOCAL_PAIRS:
            self._fingerprints = {row: self._fingerprints[row] for row in wanted & self._fingerprints.keys()}
        if missing:
            places = self._find_places(pa.table({"row": missing})).sort_by("unit")
            items = zip(*(places[name].to_pylist() for name in ("unit", "uid", "row")), strict=True)
            begins = np.diff(places["unit"].to_numpy(), prepend=-1) > 0
            work = (1 + WORK_PER_UNIT * begins).tolist()
            read = partial(_read_rows, self.root, self.units)
            self._fingerprints |= dict.fromkeys(missing) | dict(self._map_runs(read, zip(items, work, strict=True)))
        return self._fingerprints

    def _find_places(self, rows: pa.Table) -> pa.Table:
        """`row`, `uid`, `unit` of `rows` (`row`)."""
        if self._places is None:
            return self.rows.join(F.broadcast(self.spark.createDataFrame(rows)), "row").toArrow()
        return self._places.filter(pc.is_in(self._places["row"], rows["row"].combine_chunks()))

    @cached_property
    def _places(self) -> pa.Table | None:
        """All rows, None where they are too many."""
        return self.rows.toArrow() if self.rows.count() <= MAX_LOCAL_ROWS else None

    def _map_runs(
        self, function: Callable[[list[Item]], list[Result]], items: Iterable[tuple[Item, int]]
    ) -> list[Result]:
        """What `function` gives for all of `items`, each with its work, a run in each task; here if it is one."""
        runs = list(group_by_rows(items, WORK_PER_TASK))
        if len(runs) == 1:  # a task would take longer to begin
            return function(runs[0])
        results = self.spark.sparkContext.parallelize(runs, max(1, len(runs))).map(function).collect()
        return [result for part in results for result in part]

    def _compare(self, pairs: DataFrame) -> DataFrame:
        """`left`, `right`, `similarity` of those of `pairs` whose pictures can both be decoded."""
        wanted = pairs.select(F.col("left").alias("row")).union(pairs.select("right")).distinct()
        stored = self.rows.select("row", "uid", "unit").join(wanted, "row", "left_semi")
        partitions = max(1, min(len(self.units), 10_000))
        stored = stored.repartition(partitions, "unit").sortWithinPartitions("unit", "uid")
        seen = materialise(stored.mapInArrow(_make_reader(self.root, self.units), _FINGERPRINT_DDL))
        left = seen.withColumnsRenamed({"row": "left", "fingerprint": "left_picture"})
        right = seen.withColumnsRenamed({"row": "right", "fingerprint": "right_picture"})
        enough = self.min_correlation

        def compare(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                pictures = zip(batch["left_picture"].to_pylist(), batch["right_picture"].to_pylist(), strict=True)
                scores = _compare_pairs(list(pictures), enough)
                columns = [batch["left"], batch["right"], pa.array(scores, pa.float64())]
                yield pa.RecordBatch.from_arrays(columns, ["left", "right", "similarity"])

        together = (
            pairs.join(left, "left").join(right, "right").select("left", "right", "left_picture", "right_picture")
        )
        num_tasks = self.spark.sparkContext.defaultParallelism * TASKS_PER_CORE
        spread = together.repartition(num_tasks, "right").sortWithinPartitions("right", "left")
        return spread.mapInArrow(compare, _SCORED_DDL)


def _make_reader(root: Root, units: list[str]) -> BatchTask:
    """Task that reads the stored pictures of rows sorted by (unit, uid) and yields their fingerprints."""

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for unit, table in by_unit(batches):
            rows = dict(zip(table["uid"].to_pylist(), table["row"].to_pylist(), strict=True))
            found = list(_read_unit(root, units[unit], rows))
            columns = [
                pa.array([row for row, _ in found], pa.int64()),
                pa.array([data for _, data in found], pa.binary()),
            ]
            yield pa.RecordBatch.from_arrays(columns, ["row", "fingerprint"])

    return read


def _read_rows(root: Root, units: list[str], items: Sequence[tuple[int, str, int]]) -> list[tuple[int, bytes]]:
    """The rows and fingerprints of `items` (unit, uid, row), those of a unit one after the other."""
    return [
        found
        for unit, own in groupby(items, itemgetter(0))
        for found in _read_unit(root, units[unit], {uid: row for _, uid, row in own})
    ]


def _read_unit(root: Root, unit: str, rows: dict[str, int]) -> Iterator[tuple[int, bytes]]:
    """The rows and fingerprints of those of `rows` (by uid) whose pictures can be decoded."""
    stored = root.read_parquet(downloads_file(unit), _STORED).to_pylist()
    for item in (item for item in stored if item["uid"] in rows):
        fingerprint = make_fingerprint(read_stored_picture(root, item))
        if fingerprint is not None:
            yield rows[item["uid"]], fingerprint.tobytes()


def _compare_pairs(pairs: Sequence[tuple[bytes | None, bytes | None]], enough: float) -> list[float | None]:
    """The correlations of `pairs` of fingerprints, None where there is none of a picture."""
    return [
        None if left is None or right is None else correlate(_unpack(left), _unpack(right), enough)
        for left, right in pairs
    ]


def _unpack(fingerprint: bytes) -> np.ndarray:
    return np.frombuffer(fingerprint, np.uint8).reshape(SIDE, SIDE)
