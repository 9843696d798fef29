"""Edges between pictures with near embeddings: overlapping clusters, assigned and searched in Spark tasks.

1. A seeded sample of vectors is gathered, along the strongest axes of a smaller one, and the driver trains the
   clusters on it.
2. Each unit's task memory-maps its .npy and gives every vector its nearest clusters.
3. Clusters are bundled into groups of bounded size. A vector is sent once to each group that has one of its clusters. A
   task writes a group to local disk and searches its clusters in blocks.

With `doubtful_from`, a group also names the nearest pairs in doubt of each row. The clusters are kept until the run
ends, so that kept rows that were cut short can be searched again.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.duplicates.blocks import Pairs, SearchSettings
from curation.duplicates.clustering import (
    ROWS_FOR_AXES,
    SAMPLES_PER_CENTROID,
    Clustering,
    normalise,
    num_centroids_for,
    principal_axes,
    project,
    train,
    usable,
)
from curation.duplicates.inside import search_cluster, split_by_cluster
from curation.duplicates.limit import find_nearest
from curation.storage import Root
from curation.tables import vectors_file
from curation.unit_streams import by_unit
from jobs.duplicates.arrays import load_npy, save_npy
from jobs.spark.tasks import materialise

ROWS_PER_GROUP = 50_000
"""Vectors of one group: 128 MB on disk at 1280 dimensions in half precision."""
ROWS_PER_BATCH = 2_048
MAX_DOUBTFUL_PAIRS = 1_000_000
"""Pairs in doubt that a task holds before it forgets all but the nearest ones of each row."""
MIN_SAMPLES = 4_096
"""Rows to train on, at least: a smaller random sample could come out empty."""
BatchTask = Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]]


EDGES_DDL = "left bigint, right bigint, similarity double, cluster bigint, in_doubt boolean"
"""Edges, with the better row left and no `cluster`; and rows that were cut short in `cluster`, as left and as right.
Pairs `in_doubt` are edges only if a second look says so."""


@dataclass(frozen=True)
class _Pass:
    """One clustering and its rows: `unit`, `place`, `row`, `text`, `clusters` (nearest first, -1 for none)."""

    num_clusters: int
    assigned: DataFrame


class EmbeddingSearch:
    """Search of `rows` (`row`, `uid`, `unit`, `place` in the unit's .npy, `text`) for pairs by the cosine.

    The units' vectors have one dimension (`jobs.duplicates.checks.check_vectors`).
    """

    def __init__(
        self,
        spark: SparkSession,
        root: Root,
        work: str,
        rows: DataFrame,
        units: list[str],
        search: SearchSettings,
        max_training_rows: int,
    ) -> None:
        self._spark, self._root, self._units, self._search = spark, root, units, search
        by_place = materialise(_sort_by_place(rows, units))
        num_rows = by_place.count()
        wanted = search.num_centroids or num_centroids_for(num_rows)
        num_samples = max(MIN_SAMPLES, min(wanted * SAMPLES_PER_CENTROID, max_training_rows))
        some = _gather_sample(root, work, by_place, units, min(1.0, ROWS_FOR_AXES / max(1, num_rows)), search.seed)
        axes = principal_axes(some) if len(some) else None
        self._passes = list[_Pass]()
        for number in range(search.passes(wanted) if axes is not None else 0):
            seed = search.seed + number
            sample = _gather_sample(root, work, by_place, units, min(1.0, num_samples / num_rows), seed, axes)
            clustering = train(sample, wanted, seed=seed, axes=axes)
            assigned = by_place.mapInArrow(_make_assigner(spark, root, units, clustering, search), _ASSIGNED_DDL)
            self._passes.append(_Pass(len(clustering.centroids), materialise(assigned)))

    def search(self, kept: DataFrame | None = None, cut: DataFrame | None = None) -> DataFrame:
        """The columns of EDGES_DDL, of all rows; or of the rows in `kept` (`row`), in the clusters that `cut` names."""
        results = [self._spark.createDataFrame([], EDGES_DDL)]
        chosen = None if cut is None else [row["cluster"] for row in cut.select("cluster").distinct().collect()]
        for number, clustered in enumerate(self._passes):
            assigned, wanted = clustered.assigned, np.ones(clustered.num_clusters, bool)
            if chosen is not None and kept is not None:
                wanted[:] = False
                wanted[[cluster & (1 << 32) - 1 for cluster in chosen if cluster >> 32 == number]] = True
                if not wanted.any():
                    continue
                near = assigned.mapInArrow(_make_cluster_filter(self._spark, wanted), _ASSIGNED_DDL)
                assigned = materialise(_sort_by_place(near.join(kept, "row", "left_semi"), self._units))
            results.append(self._search_pass(number, assigned, wanted))
        return reduce(DataFrame.unionByName, results).distinct()

    def _search_pass(self, number: int, assigned: DataFrame, wanted: np.ndarray) -> DataFrame:
        search = self._search
        exploded = assigned.select(F.posexplode("clusters").alias("place", "cluster")).where("cluster >= 0")
        near = F.count_if(F.col("place") < search.near_rank).alias("near")
        counts = exploded.groupBy("cluster").agg(F.count("*").alias("rows"), near).collect()
        counts = [row for row in counts if wanted[row["cluster"]]]
        huge = {row["cluster"] for row in counts if row["rows"] > search.max_cluster_rows}
        moving = {row["cluster"]: row["near" if row["cluster"] in huge else "rows"] for row in counts}
        group_of = bundle_clusters(moving, len(wanted))
        num_groups = int(group_of.max(initial=-1)) + 1
        if not num_groups:
            return self._spark.createDataFrame([], EDGES_DDL)
        is_huge = np.zeros(len(group_of), bool)
        is_huge[sorted(huge)] = True
        moved = assigned.mapInArrow(
            _make_mover(self._root, self._units, group_of, is_huge, search.near_rank), _MOVED_DDL
        )
        moved = moved.repartition(num_groups, "group").sortWithinPartitions("group", "row")
        return moved.mapInArrow(_make_searcher(search, number), EDGES_DDL)


def _sort_by_place(rows: DataFrame, units: list[str]) -> DataFrame:
    partitions = max(1, min(len(units), 10_000))
    return rows.repartition(partitions, "unit").sortWithinPartitions("unit", "place")


def _gather_sample(
    root: Root, work: str, rows: DataFrame, units: list[str], share: float, seed: int, axes: np.ndarray | None = None
) -> np.ndarray:
    """Vectors, float32 of length 1, of the usable rows whose hashed uid falls under `share`; projected on `axes`."""
    chosen = rows.where(F.expr(f"pmod(xxhash64(uid, {seed}), 1000000) < {math.ceil(share * 1_000_000)}"))

    def gather(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for unit, table in by_unit(batches):
            vectors = load_npy(root, vectors_file(units[unit]))[table["place"].to_numpy()]
            known = usable(vectors)
            sample = normalise(vectors[known])
            path = save_npy(root, f"{work}/sample", sample if axes is None else project(sample, axes))
            yield pa.RecordBatch.from_pydict({"vectors": [path], "rows": [table["row"].to_numpy()[known]]})

    written = chosen.mapInArrow(gather, "vectors string, rows array<bigint>").collect()
    if not written:
        return np.zeros((0, 0), np.float32)
    order = np.argsort(np.concatenate([part["rows"] for part in written]))
    return np.concatenate([load_npy(root, part["vectors"]) for part in written])[order]


_ASSIGNED_DDL = "unit int, place int, row bigint, text bigint, clusters array<int>"


def _make_assigner(
    spark: SparkSession, root: Root, units: list[str], clustering: Clustering, search: SearchSettings
) -> BatchTask:
    """Task that gives each vector its nearest clusters, and drops those without a direction."""
    shared = spark.sparkContext.broadcast(clustering)

    def assign(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for unit, table in by_unit(batches):
            vectors = load_npy(root, vectors_file(units[unit]))[table["place"].to_numpy()]
            nearest = shared.value.assign(vectors, search.num_probes)
            flat = pa.array(nearest.ravel(), pa.int32())
            lists = pa.FixedSizeListArray.from_arrays(flat, nearest.shape[1]).cast(pa.list_(pa.int32()))
            full = table.select(["unit", "place", "row", "text"]).append_column("clusters", lists).combine_chunks()
            yield from full.filter(pa.array(nearest[:, 0] >= 0)).to_batches()

    return assign


def _make_cluster_filter(spark: SparkSession, wanted: np.ndarray) -> BatchTask:
    """Task that yields the rows that have one of the clusters in the mask `wanted`."""
    shared = spark.sparkContext.broadcast(np.r_[wanted, False])  # the last for cluster -1

    def choose(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if len(batch):
                nearest = batch["clusters"].flatten().to_numpy().reshape(len(batch), -1)
                yield batch.filter(pa.array(shared.value[nearest].any(axis=1)))

    return choose


def bundle_clusters(counts: dict[int, int], num_clusters: int) -> np.ndarray:
    """Group of each cluster, int32 `[num_clusters]`: consecutive ones together up to ROWS_PER_GROUP; -1 when empty."""
    group_of = np.full(num_clusters, -1, np.int32)
    number, num_rows = 0, 0
    for cluster in sorted(cluster for cluster, count in counts.items() if count > 1):
        if num_rows and num_rows + counts[cluster] > ROWS_PER_GROUP:
            number, num_rows = number + 1, 0
        group_of[cluster] = number
        num_rows += counts[cluster]
    return group_of


_MOVED_DDL = "group int, row bigint, text bigint, clusters array<int>, dim int, vector binary"


def _make_mover(root: Root, units: list[str], group_of: np.ndarray, is_huge: np.ndarray, near_rank: int) -> BatchTask:
    """Task that sends each vector to every group with one of its clusters; those of other groups become -1 there.

    A huge cluster gets only the vectors for which it is among the nearest `near_rank`; it would not compare the others.
    """

    def move(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for unit, table in by_unit(batches):
            vectors = load_npy(root, vectors_file(units[unit]))
            for batch in table.to_batches(ROWS_PER_BATCH):
                nearest = batch["clusters"].flatten().to_numpy().reshape(len(batch), -1).copy()
                nearest[:, near_rank:][is_huge[nearest[:, near_rank:]]] = -1
                yield _copy_to_groups(batch, nearest, vectors, group_of)

    return move


def _copy_to_groups(
    batch: pa.RecordBatch, nearest: np.ndarray, vectors: np.ndarray, group_of: np.ndarray
) -> pa.RecordBatch:
    # There are fewer centroids than probes in the nearest cells now and then.
    group_of_cluster = np.where(nearest >= 0, group_of[nearest], -1)
    group = np.sort(group_of_cluster, axis=1)
    starts = group >= 0
    starts[:, 1:] &= group[:, 1:] != group[:, :-1]
    item, first = np.nonzero(starts)
    here = np.where(group_of_cluster[item] == group[item, first, None], nearest[item], -1)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(here.ravel(), pa.int32()), here.shape[1])
    block = normalise(vectors[batch["place"].to_numpy()]).astype(np.float16)
    return pa.RecordBatch.from_pydict(
        {
            "group": pa.array(group[item, first], pa.int32()),
            "row": batch["row"].take(pa.array(item)),
            "text": batch["text"].take(pa.array(item)),
            "clusters": lists.cast(pa.list_(pa.int32())),
            "dim": pa.array(np.full(len(item), block.shape[1]), pa.int32()),
            "vector": pa.array([block[i].tobytes() for i in item.tolist()], pa.binary()),
        }
    )


def _make_searcher(search: SearchSettings, number: int) -> BatchTask:
    """Task that writes its groups to local disk and searches their clusters, in pass `number`."""

    def task(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with tempfile.TemporaryDirectory(prefix="dedupe-") as folder:
            for group in write_groups(batches, Path(folder, "group")):
                yield from _search_group(group, search, number)

    return task


class Group:
    """Vectors of one group on local disk, in order of row, with what belongs to each."""

    def __init__(self, path: Path, parts: list[pa.RecordBatch], dim: int) -> None:
        self.vectors = np.memmap(path, np.float16, "r").reshape(-1, dim)
        self.rows = np.concatenate([part["row"].to_numpy() for part in parts])
        self.texts = np.concatenate([part["text"].to_numpy() for part in parts])
        flat = pa.chunked_array([part["clusters"] for part in parts]).combine_chunks().flatten().to_numpy()
        self.clusters = flat.reshape(len(self.rows), -1)


def write_groups(batches: Iterable[pa.RecordBatch], path: Path) -> Iterator[Group]:
    """The groups of a stream sorted by (group, row), their vectors written to `path` as they come."""
    group, dim, parts = -1, 0, list[pa.RecordBatch]()
    file = open(path, "wb")  # noqa: SIM115  # reopened for each group
    try:
        for batch in batches:
            numbers = batch["group"].to_numpy()
            bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
            for start, stop in zip(bounds, bounds[1:], strict=False):
                if start == stop:
                    continue
                if numbers[start] != group and parts:
                    file.close()
                    yield Group(path, parts, dim)
                    parts = []
                    file = open(path, "wb")  # noqa: SIM115
                group, dim = int(numbers[start]), batch["dim"][start].as_py()
                piece = batch.slice(start, stop - start)
                file.write(b"".join(piece["vector"].to_pylist()))
                parts.append(piece.select(["row", "text", "clusters"]))
        file.close()
        if parts:
            yield Group(path, parts, dim)
    finally:
        file.close()


def _search_group(group: Group, search: SearchSettings, number: int) -> Iterator[pa.RecordBatch]:
    labels = group.texts if group.texts.any() else None
    doubtful = list[Pairs]()
    for members, ranks in split_by_cluster(group.clusters):
        cluster = number << 32 | int(group.clusters[members[0], ranks[0] - 1])
        for left, right, cosine in search_cluster(group.vectors, members, search, labels, ranks):
            uncertain = search.in_doubt(cosine)
            if uncertain.any():
                doubtful.append((left[uncertain], right[uncertain], cosine[uncertain]))
                left, right, cosine = left[~uncertain], right[~uncertain], cosine[~uncertain]
            if len(left):
                yield _make_batch(group, (left, right, cosine), cluster)
        if sum(len(pairs[0]) for pairs in doubtful) > MAX_DOUBTFUL_PAIRS:
            doubtful = [_keep_nearest(doubtful, search)]
    if doubtful:
        yield _make_batch(group, _keep_nearest(doubtful, search), None)


def _keep_nearest(parts: list[Pairs], search: SearchSettings) -> Pairs:
    left, right, cosine = (np.concatenate(column) for column in zip(*parts, strict=True))
    nearest = find_nearest(left, right, cosine, search.max_doubtful)
    return left[nearest], right[nearest], cosine[nearest]


def _make_batch(group: Group, pairs: Pairs, cluster: int | None) -> pa.RecordBatch:
    """A batch of EDGES_DDL; pairs without a `cluster` are in doubt."""
    left, right, cosine = pairs
    columns = {"left": group.rows[left], "right": group.rows[right], "similarity": cosine.astype(np.float64)}
    columns["cluster"] = pa.array(np.full(len(left), cluster or 0), pa.int64(), mask=left != right)
    columns["in_doubt"] = pa.array([cluster is None] * len(left), pa.bool_())
    return pa.RecordBatch.from_pydict(columns)
