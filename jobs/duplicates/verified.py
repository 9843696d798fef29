"""The second look at pairs in doubt, in Spark: fingerprints where pictures are stored, then one correlation a pair.

A pair in doubt often concerns rows that are removed already. What it says of them it says of the rows that are kept in
their place, so each row is first replaced by the one that is kept for it. Then each kept row is compared with the
nearest few, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from curation.duplicates.verification import SIDE, correlate, make_fingerprint
from curation.storage import Root
from curation.tables import downloads_file
from curation.unit_streams import by_unit
from jobs.duplicates.vectors import BatchTask
from jobs.embed import read_stored_picture
from jobs.spark.tasks import materialise

_FINGERPRINT_DDL = "row bigint, fingerprint binary"
_SCORED_DDL = "left bigint, right bigint, similarity double"
TASKS_PER_CORE = 4
_STORED = ["uid", "shard", "offset", "size", "stored_sha256"]


@dataclass
class PictureVerifier:
    """See `jobs.duplicates.graph.Verifier`. `rows` has `row`, `uid` and `unit`, a position in `units`.

    An edge of `tier` is a pair whose correlation is at least `min_correlation`, which is its similarity then. Of each
    row at most `max_doubtful` pairs are looked at in a round.
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
    _seen: DataFrame | None = field(default=None, repr=False)

    def __call__(self, doubtful: DataFrame, removing: DataFrame) -> DataFrame:
        pairs = choose_pairs(doubtful, removing, self.max_doubtful)
        if self._seen is not None:
            pairs = pairs.join(self._seen, ["left", "right"], "left_anti")
        pairs = materialise(pairs)
        num_pairs = pairs.count()
        self.num_looks += num_pairs
        if not num_pairs:  # the last round, where reading and comparing nothing would cost seconds
            return pairs.select("left", "right", F.lit(self.tier).alias("tier"), F.lit(1.0).alias("similarity"))
        self._seen = pairs if self._seen is None else self._seen.unionByName(pairs)
        scored = self._compare(pairs).where(F.col("similarity") >= self.min_correlation)
        return scored.select("left", "right", F.lit(self.tier).alias("tier"), "similarity")

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
                scores = [correlate(_unpack(a), _unpack(b), enough) for a, b in pictures]
                columns = [batch["left"], batch["right"], pa.array(scores, pa.float64())]
                yield pa.RecordBatch.from_arrays(columns, ["left", "right", "similarity"])

        together = (
            pairs.join(left, "left").join(right, "right").select("left", "right", "left_picture", "right_picture")
        )
        num_tasks = self.spark.sparkContext.defaultParallelism * TASKS_PER_CORE
        spread = together.repartition(num_tasks, "right").sortWithinPartitions("right", "left")
        return spread.mapInArrow(compare, _SCORED_DDL)


def choose_pairs(doubtful: DataFrame, removing: DataFrame, count: int) -> DataFrame:
    """`left`, `right` of kept rows, left being the better one: of each right row the `count` nearest.

    `doubtful` has pairs (`left`, `right`, `similarity`) of any rows, `removing` the edges (`left`, `right`) that remove
    their right row.
    """
    kept = removing.selectExpr("right as row", "left as kept")
    for side in ("left", "right"):
        doubtful = doubtful.join(kept.withColumnsRenamed({"row": side, "kept": f"{side}_kept"}), side, "left")
    a, b = "coalesce(left_kept, left)", "coalesce(right_kept, right)"
    pairs = doubtful.selectExpr(f"least({a}, {b}) as left", f"greatest({a}, {b}) as right", "similarity")
    pairs = pairs.where("left < right").groupBy("left", "right").agg(F.max("similarity").alias("similarity"))
    nearest = Window.partitionBy("right").orderBy(F.desc("similarity"), "left")
    return pairs.withColumn("place", F.row_number().over(nearest)).where(f"place <= {count}").select("left", "right")


def _make_reader(root: Root, units: list[str]) -> BatchTask:
    """Task that reads the stored pictures of rows sorted by (unit, uid) and yields their fingerprints."""

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for unit, table in by_unit(batches):
            numbers = dict(zip(table["uid"].to_pylist(), table["row"].to_pylist(), strict=True))
            stored = root.read_parquet(downloads_file(units[unit]), _STORED).to_pylist()
            rows, pictures = [], []
            for item in (item for item in stored if item["uid"] in numbers):
                fingerprint = make_fingerprint(read_stored_picture(root, item))
                if fingerprint is not None:
                    rows.append(numbers[item["uid"]])
                    pictures.append(fingerprint.tobytes())
            yield pa.RecordBatch.from_pydict(
                {"row": pa.array(rows, pa.int64()), "fingerprint": pa.array(pictures, pa.binary())}
            )

    return read


def _unpack(fingerprint: bytes) -> np.ndarray:
    return np.frombuffer(fingerprint, np.uint8).reshape(SIDE, SIDE)
