"""What stays is what all pairs would leave, also where the searches remember some of them only."""

import hashlib
import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession

from curation.duplicates import graph as local_graph
from curation.duplicates.clustering import normalise
from curation.duplicates.graph import EDGES
from curation.manifest.manifest import Manifest
from curation.recipe.config import DedupeConfig, Recipe
from curation.schema import DOWNLOADS, SAMPLES, uid
from curation.storage import Root
from jobs.dedupe import run
from jobs.duplicates import hashes as hash_edges
from jobs.duplicates.graph import choose_pairs, find_removing_edges
from jobs.duplicates.hashes import PerceptualSearch

HASH = 0x0F0F0F0F0F0F0F0F


def kept_by_all_pairs(num_rows: int, alike: Iterable[tuple[int, int]]) -> set[int]:
    """Rows in order of rank: who is not like a better row that stays, stays."""
    better: dict[int, list[int]] = {row: [] for row in range(num_rows)}
    for a, b in alike:
        better[max(a, b)].append(min(a, b))
    kept: set[int] = set()
    for row in range(num_rows):
        if kept.isdisjoint(better[row]):
            kept.add(row)
    return kept


@pytest.mark.slow
def test_hashes_in_a_crowd_leave_what_all_pairs_would(
    spark: SparkSession, root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """700 hashes close around one, some of them often, and others; two texts, which keep pictures apart."""
    monkeypatch.setattr(hash_edges, "NUM_HUBS", 2)
    monkeypatch.setattr(hash_edges, "MAX_NEIGHBOURS", 12)
    rng = np.random.default_rng(0)
    flips = rng.integers(0, 64, (700, 2), dtype=np.uint64)
    crowd = np.uint64(HASH) ^ (np.uint64(1) << flips[:, 0]) ^ (np.uint64(1) << flips[:, 1])
    hashes = np.concatenate([crowd, np.repeat(crowd[:3], 30), rng.integers(0, 2**64, 100, dtype=np.uint64)])
    hashes = rng.permutation(hashes)
    texts = rng.integers(0, 2, len(hashes))
    near = np.bitwise_count(hashes[:, None] ^ hashes) <= 3
    near &= texts[:, None] == texts
    rows = list(zip(range(len(hashes)), hashes.view(np.int64).tolist(), texts.tolist(), strict=True))
    frame = spark.createDataFrame(rows, "row bigint, phash bigint, text bigint").repartition(3)
    search = PerceptualSearch(spark, root, "work", frame, 3)
    gone, _, rounds = find_removing_edges(spark, frame.select("row"), {1: search.search}, 10**6)
    removing = [(row["left"], row["right"]) for row in gone.collect()]
    removed = {right for _, right in removing}
    kept = kept_by_all_pairs(len(hashes), zip(*(axis.tolist() for axis in np.nonzero(np.triu(near, 1))), strict=True))
    assert set(range(len(hashes))) - removed == kept
    assert len(removed) == len(removing)
    assert all(near[left, right] and left in kept for left, right in removing)
    assert len(rounds) > 1 and rounds[-1]["edges"] < 12 * len(rounds) * len(hashes)


def bare(root: Root, pictures: Sequence[tuple[int | None, np.ndarray]], num_units: int = 2) -> None:
    """A root of pictures (hash, vector), the first ones the largest, of which nobody has the bytes."""
    rows = []
    for number, (phash, vector) in enumerate(pictures):
        url, caption = f"http://host.test/{number}", str(number)
        rows.append((uid(url, caption), url, caption, phash, vector, 10_000 - number))
    for part in range(num_units):
        unit, own = f"0123abcd-{part:06d}", sorted(rows[part::num_units], key=lambda row: row[0])
        samples = [
            {**dict.fromkeys(SAMPLES.names), "uid": name, "url": url, "caption": caption, "source": "laion"}
            for name, url, caption, *_ in own
        ]
        downloads = [
            {
                **dict.fromkeys(DOWNLOADS.names),
                "uid": name,
                "status": "ok",
                "width": width,
                "height": 10,
                "num_bytes": 10,
                "sha256": hashlib.sha256(name.encode()).hexdigest(),
                "phash": None if phash is None else f"{phash:016x}",
            }
            for name, _, _, phash, _, width in own
        ]
        sink = io.BytesIO()
        np.save(sink, np.array([row[4] for row in own], np.float16))
        root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(samples, SAMPLES))
        root.publish_parquet(f"downloads/{unit}.parquet", pa.Table.from_pylist(downloads, DOWNLOADS))
        root.publish(f"embeddings/img_emb/img_emb_{unit}.npy", sink.getvalue())
        names = pa.table({"uid": [row[0] for row in own]})
        root.publish_parquet(f"embeddings/metadata/metadata_{unit}.parquet", names)
    root.publish_json("plans/0123abcd.json", {"number": 0, "inputs": []})


def recipe(**options: Any) -> Recipe:
    return Recipe(
        dedupe=DedupeConfig(**{"keep": ("resolution desc",), "tiers": ("perceptual", "embedding"), **options})
    )


def kept_of(root: Root, num_pictures: int) -> set[int]:
    gone = Manifest(root).query("select s.caption from duplicates d join samples s using (uid)").fetchall()
    return set(range(num_pictures)) - {int(caption) for (caption,) in gone}


def rounds_of(root: Root) -> list[dict[str, int]]:
    fp = (root.current("duplicates") or {})["fingerprint"]
    return root.read_json(f"duplicates/{fp}/statistics.json")["rounds"]


def at(degrees: float, noise: int = 0) -> np.ndarray:
    vector = np.r_[np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), np.zeros(6)]
    return vector + np.random.default_rng(noise).normal(0, 1e-3, 8) if noise else vector


def direction(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(64)


NEIGHBOURS = [(None, at(0)), *[(None, at(20))] * 8, *[(None, at(40))] * 100]
"""The first one removes the eight that each of the hundred remembers, and is not like those."""
LEADERS = [(None, at(0)), (None, at(20)), *[(None, at(40, noise=i)) for i in range(1, 2_100)]]
"""The first one removes the leader of a crowd."""
HUBS = [(None, direction(0)), *[(HASH, direction(0))] * 8, *[(HASH, direction(i)) for i in range(1, 60)]]
"""The first one removes by its vector the eight that each of the others, of the same hash, hangs on."""
WITHIN_25 = float(np.cos(np.radians(25)))


@pytest.mark.parametrize(
    ("pictures", "options", "kept"),
    [
        (NEIGHBOURS, {"min_cosine": WITHIN_25, "max_neighbours": 8}, {0, 9}),
        (LEADERS, {"min_cosine": WITHIN_25, "max_cluster_rows": 1_000}, {0, 2}),
        (HUBS, {"min_cosine": 0.8}, {0, 9}),
    ],
    ids=["all that are remembered go", "the leader of a crowd goes", "the hubs of a hash go"],
)
def test_rows_whose_remembered_neighbours_all_go_are_searched_again(
    spark: SparkSession,
    root: Root,
    pictures: list[tuple[int | None, np.ndarray]],
    options: dict[str, Any],
    kept: set[int],
) -> None:
    bare(root, pictures)
    run(spark, recipe(**options), root)
    assert kept_of(root, len(pictures)) == kept
    rounds = rounds_of(root)
    assert rounds[0]["searched_again"] > 1
    assert [r["edges"] for r in rounds] == sorted(r["edges"] for r in rounds)


@pytest.mark.slow
def test_vectors_in_a_blob_and_hashes_leave_what_all_pairs_would(spark: SparkSession, root: Root) -> None:
    """A third of all pairs are alike, and two neighbours a row are remembered; hashes link other rows."""
    rng = np.random.default_rng(1)
    count = 400
    vectors = normalise(normalise(np.eye(8)[rng.integers(0, 2, count)] + 0.2 * rng.standard_normal((count, 8))))
    stored = normalise(normalise(vectors.astype(np.float16)).astype(np.float16))
    cosines = stored @ stored.T
    levels = np.unique(cosines[(cosines > 0.79) & (cosines < 0.81)])
    widest = np.argmax(np.diff(levels))
    min_cosine = float(levels[widest : widest + 2].mean())
    alike = cosines >= min_cosine
    hashes: list[int | None] = [None] * count
    for number, row in enumerate(rng.choice(count, 60, replace=False).tolist()):
        hashes[row] = HASH ^ (0b10001 << number % 3)  # as many bits set; four differ at most
    alike |= np.array([[a is not None and b is not None for a in hashes] for b in hashes])
    bare(root, list(zip(hashes, vectors, strict=True)))
    run(spark, recipe(min_cosine=min_cosine, max_neighbours=2), root)
    assert len(rounds_of(root)) > 1 and 0.2 < alike.mean() < 0.6
    pairs = zip(*(axis.tolist() for axis in np.nonzero(np.triu(alike, 1))), strict=True)
    assert kept_of(root, count) == kept_by_all_pairs(count, pairs)


def test_nothing_is_searched_twice_where_nothing_crowds(spark: SparkSession, root: Root) -> None:
    bare(root, [(HASH, direction(0)), (HASH, direction(1)), (None, direction(0)), (None, direction(2))])
    run(spark, recipe(min_cosine=0.8), root)
    assert kept_of(root, 4) == {0, 3}
    assert rounds_of(root) == [{"edges": 2, "searched_again": 0}]


@pytest.mark.slow
def test_rounds_do_not_depend_on_partitions_units_and_the_components_engine(
    spark: SparkSession, tmp_path: Path
) -> None:
    pictures = [*itertools.chain(NEIGHBOURS, HUBS)]
    pictures = [(phash, np.r_[vector, np.zeros(64 - len(vector))]) for phash, vector in pictures]
    before = spark.conf.get("spark.sql.shuffle.partitions") or "2"
    results = []
    for number, (units, partitions, local) in enumerate([(1, 1, 10**6), (3, 5, 10**6), (2, 2, 0)]):
        root = Root(tmp_path / str(number))
        root.create()
        bare(root, pictures, units)
        spark.conf.set("spark.sql.shuffle.partitions", partitions)
        try:
            run(spark, recipe(min_cosine=WITHIN_25, max_neighbours=8, max_local_edges=local), root)
        finally:
            spark.conf.set("spark.sql.shuffle.partitions", before)
        assert len(rounds_of(root)) > 1
        results.append([root.read_bytes(file) for file in (root.current("duplicates") or {})["files"]])
    assert all(result == results[0] for result in results)


Found = list[tuple[int, int, float, int | None, bool, int]]
RESULTS = "left bigint, right bigint, similarity double, cluster bigint, in_doubt boolean"


class Agreement:
    """A second look that agrees to every third pair, and notes the pairs of each round."""

    max_doubtful = 2

    def __init__(self, spark: SparkSession) -> None:
        self.rounds, self._spark = list[list[tuple[int, int]]](), spark

    def look(self, pairs: DataFrame, num_pairs: int) -> DataFrame:
        assert pairs.count() == num_pairs
        return self._spark.createDataFrame(self.look_here(pairs.toArrow()))

    def look_here(self, pairs: pa.Table) -> pa.Table:
        chosen = sorted((row["left"], row["right"]) for row in pairs.to_pylist())
        self.rounds.append(chosen)
        edges = [{"left": a, "right": b, "tier": 3, "similarity": 0.7} for a, b in chosen if (a + b) % 3 == 0]
        return pa.Table.from_pylist(edges, EDGES)


def decide_by(spark: SparkSession, found: list[Found], max_local_edges: int) -> list[Any]:
    """What the graph says of a search that finds the lists of `found` one after the other, then nothing."""
    lists = iter(found)

    def search(kept: DataFrame | None = None, cut: DataFrame | None = None) -> DataFrame:
        rows = [row[:5] for row in next(lists, [])]
        if kept is not None and cut is not None:
            assert not cut.join(kept, "row", "left_anti").count()
            among = {row["row"] for row in kept.collect()}
            rows = [row for row in rows if among >= {*row[:2]} and row[0] != row[1]]
        return spark.createDataFrame(rows, RESULTS)

    verify = Agreement(spark)
    rows = spark.range(60).withColumnRenamed("id", "row")
    removing, labels, rounds = find_removing_edges(spark, rows, {2: search}, max_local_edges, verify)
    return [sorted(map(tuple, frame.collect())) for frame in (removing.select(EDGES.names), labels)] + [
        rounds,
        [looks for looks in verify.rounds if looks],
    ]


def make_found(seed: int, num_pairs: int) -> Found:
    rng = np.random.default_rng(seed)
    pairs = np.sort(rng.integers(0, 60, (num_pairs, 2)), axis=1)
    similarity = rng.choice([0.7, 0.75, 0.8], num_pairs)
    in_doubt = rng.random(num_pairs) < 0.7
    return [
        (a, b, s, 7 if a == b else None, d and a < b, 2)
        for (a, b), s, d in zip(pairs.tolist(), similarity.tolist(), in_doubt.tolist(), strict=True)
    ]


@pytest.mark.slow
def test_driver_and_executors_decide_the_same_and_so_does_a_graph_that_outgrows_the_driver(
    spark: SparkSession,
) -> None:
    """Rows cut short are found again in the first rounds, pairs in doubt are looked at in the later ones."""
    found = [make_found(0, 70) + [(55, 55, 1.0, 7, False, 2)], make_found(1, 300)]
    here, spread, outgrown = (decide_by(spark, found, limit) for limit in (10**6, 0, 100))
    assert here == spread == outgrown
    removing, _, rounds, looks = here
    assert rounds[0]["searched_again"] and len(rounds) > 2 and looks
    assert {edge[2] for edge in removing} == {2, 3}
    assert len(set(itertools.chain(*looks))) == sum(map(len, looks)), "each pair is looked at once"


def test_pairs_are_those_of_the_rows_that_are_kept_and_of_each_row_the_nearest(spark: SparkSession) -> None:
    """Row 1 is removed by 0 and row 5 by 4, so what is said of 1 and 5 is said of 0 and 4."""
    removing = spark.createDataFrame([(0, 1), (4, 5)], "left bigint, right bigint")
    doubtful = [(1, 5, 0.7), (0, 4, 0.8), (0, 1, 0.75), (2, 4, 0.71), (3, 4, 0.72), (2, 3, 0.7), (5, 6, 0.7)]
    pairs = spark.createDataFrame(doubtful, "left bigint, right bigint, similarity double")
    for chosen in (
        choose_pairs(pairs, removing, 2).toArrow(),
        local_graph.choose_pairs(pairs.toArrow(), removing.toArrow(), 2),
    ):
        assert sorted((row["left"], row["right"]) for row in chosen.to_pylist()) == [(0, 4), (2, 3), (3, 4), (4, 6)]
