"""Duplicates by Spark: what `spark-submit jobs/dedupe.py` runs, and `curate dedupe` where vectors are compared.

A row is removed only when it has an edge to a row that is kept (jobs/duplicates/graph.py). Of kept rows whose
embeddings leave doubt, the pictures are compared (jobs/duplicates/verified.py).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.download.withdrawn import NO_LISTS, Lists, find_withdrawn
from curation.duplicates.captions import number_captions
from curation.duplicates.clustering import usable
from curation.duplicates.keep import order_sql
from curation.duplicates.phash import NUM_SET_BITS
from curation.errors import UserError
from curation.recipe.config import DedupeConfig, Recipe
from curation.schema import DUPLICATES, Status
from curation.storage import Root
from curation.sums.seal import is_whole
from curation.tables import downloads_file, duplicates_file, metadata_file, samples_file, vectors_file
from curation.unit_streams import by_unit
from jobs.duplicates import graph
from jobs.duplicates.arrays import remove_stale_work
from jobs.duplicates.checks import check_vectors_by_tasks
from jobs.duplicates.decontaminate import match_evaluation_sets
from jobs.duplicates.hashes import PerceptualSearch
from jobs.duplicates.plan import READS, ROWS_PER_FILE, TABLE, DedupePlan, plan_dedupe
from jobs.duplicates.vectors import EmbeddingSearch
from jobs.duplicates.verified import PictureVerifier
from jobs.spark.sealing import seals
from jobs.spark.slices import spread_numbers
from jobs.spark.tasks import materialise

TIERS = ("exact", "perceptual", "embedding", "verified")
"""In the order of their evidence; of two edges between the same rows the earlier tier is recorded."""
FROM_DOWNLOADS = ("width", "height", "num_bytes", "sha256", "pixel_sha256", "phash", "entropy")
FROM_SAMPLES = ("caption", "source", "clip_similarity", "clip_similarity_l14", "aesthetic", "punsafe", "pwatermark")
_SCANNED = (
    "uid string, unit int, place int, has_direction boolean, width int, height int, num_bytes bigint, sha256 string, "
    "pixel_sha256 string, phash bigint, entropy float, text bigint, source string, clip_similarity float, "
    "clip_similarity_l14 float, aesthetic float, punsafe float, pwatermark float"
)


@seals(TABLE, reads=READS)
def run_on_spark(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Write the duplicates, unless the current ones have this config and these inputs. Raises UserError."""
    plan = plan_dedupe(recipe, root)
    remove_stale_work(root, TABLE, plan.fp)
    if plan.is_done and is_whole(root, TABLE):
        return
    if plan.min_cosine is not None:
        check_vectors_by_tasks(spark, root, plan.units)
    root.remove(f"{TABLE}/{plan.fp}")
    try:
        rows = fold_exact_copies(number_rows(spark, root, plan), plan.config).persist(StorageLevel.DISK_ONLY)
        contaminated, set_counts = match_evaluation_sets(spark, root, plan, rows)
        removed, found = decide_removed(spark, root, plan, rows, contaminated)
        files = write_removed(removed, root, plan.fp)
        counts = count_rows(root, plan, rows, files)
        statistics = {**counts, "against": set_counts, **found}
        root.publish_json(f"{TABLE}/{plan.fp}/statistics.json", statistics)
    finally:
        spark.catalog.clearCache()
    root.publish_current(TABLE, plan.fp, files, plan.recorded, plan.inputs)
    root.remove(plan.work)


def number_rows(spark: SparkSession, root: Root, plan: DedupePlan) -> DataFrame:
    """Every downloaded row with `row`, its place in the order of the keep rule, 0 first."""
    units, embedded, lists, same_caption = plan.units, plan.min_cosine is not None, plan.lists, plan.config.same_caption

    def scan(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in (n for batch in batches for n in batch["id"].to_pylist()):
            yield from scan_unit(root, units[number], number, embedded, lists, same_caption).to_batches()

    spread_numbers(spark, len(units)).mapInArrow(scan, _SCANNED).createOrReplaceTempView("scanned")
    ordered = spark.sql(f"select * from scanned order by {', '.join(order_sql(plan.config.keep))}")
    # The number of a row is its partition's first number plus its place there, which this function encodes.
    ordered = ordered.withColumn("id", F.monotonically_increasing_id()).persist(StorageLevel.DISK_ONLY)
    sizes = ordered.groupBy(F.expr("shiftright(id, 33) as part")).count().collect()
    counts = {row["part"]: row["count"] for row in sizes}
    firsts = np.cumsum([0, *(counts.get(part, 0) for part in range(max(counts, default=0) + 1))]).tolist()
    first = F.array(*[F.lit(value).cast("bigint") for value in firsts])[F.expr("int(shiftright(id, 33))")]
    return ordered.withColumn("row", first + F.expr(f"id & {(1 << 33) - 1}L"))


def scan_unit(
    root: Root, unit: str, number: int, embedded: bool, lists: Lists = NO_LISTS, same_caption: bool = False
) -> pa.Table:
    """The pictures of one unit that came and are on none of the `lists`.

    `place` is the row of its .npy, null where there is none. `text` is the number of the caption, 0 unless these count.

    `has_direction` is false where that vector is zero or not finite: its embedding says nothing.
    Raises UserError when vectors and metadata differ in number.
    """
    rows = root.read_parquet(downloads_file(unit), ["uid", "status", *FROM_DOWNLOADS])
    rows = rows.filter(pc.equal(rows["status"], Status.OK.value)).drop_columns("status")
    rows = rows.filter(pc.invert(pc.is_in(rows["uid"], find_withdrawn(root, unit, lists)["uid"].combine_chunks())))
    rows = rows.join(root.read_parquet(samples_file(unit), ["uid", *FROM_SAMPLES]), "uid")
    rows = rows.join(_locate_vectors(root, unit, embedded), "uid")
    hashes = [None if h is None else int(h, 16) - (int(h, 16) >> 63 << 64) for h in rows["phash"].to_pylist()]
    columns = {name: rows[name] for name in rows.column_names}
    columns |= {"unit": pa.array([number] * len(rows), pa.int32()), "phash": pa.array(hashes, pa.int64())}
    columns["place"] = rows["place"].cast(pa.int32())
    texts = number_captions(rows["caption"]) if same_caption else np.zeros(len(rows), np.int64)
    columns["text"] = pa.array(texts)
    return pa.table({name: columns[name] for name in (field.split()[0] for field in _SCANNED.split(", "))})


def _locate_vectors(root: Root, unit: str, embedded: bool) -> pa.Table:
    uids, known = pa.array([], pa.string()), np.zeros(0, bool)
    if embedded:
        uids = root.read_parquet(metadata_file(unit), ["uid"])["uid"]
        vectors = np.load(io.BytesIO(root.read_whole(vectors_file(unit))), allow_pickle=False)
        if len(vectors) != len(uids):
            raise UserError(
                f"Unit {unit} has {len(vectors)} vectors for {len(uids)} rows of metadata: delete both, embed again."
            )
        known = usable(vectors)
    return pa.table({"uid": uids, "place": np.arange(len(uids)), "has_direction": known})


def fold_exact_copies(rows: DataFrame, config: DedupeConfig) -> DataFrame:
    """`rows` with `content`, equal for the same bytes or pixels; `best`, the best row of it (and caption, if asked).

    `vector` is the row, unit and place of the first usable vector among the rows of one `best`, null without any.
    """
    kept = rows.select("row", "uid", "unit", "place", "has_direction", "sha256", "pixel_sha256", "phash", "entropy",
                       "text")  # fmt: skip
    usable_vector = F.when(F.col("has_direction"), F.struct("row", "unit", "place"))
    if "exact" not in config.tiers:
        return kept.withColumns({"content": F.col("uid"), "best": F.col("row"), "vector": usable_vector})
    kept = kept.withColumn("sha256", F.coalesce("sha256", "uid"))
    pixels = kept.groupBy("sha256").agg(F.coalesce(F.max("pixel_sha256"), "sha256").alias("content"))
    kept = kept.join(pixels, "sha256")
    classes = kept.groupBy("content", "text").agg(F.min("row").alias("best"), F.min(usable_vector).alias("vector"))
    return kept.join(classes, ["content", "text"])


def prepare_searches(spark: SparkSession, root: Root, plan: DedupePlan, rows: DataFrame) -> dict[int, graph.Search]:
    """The searches of the recipe's tiers, by position in TIERS."""
    searches: dict[int, graph.Search] = {}
    if "perceptual" in plan.config.tiers:
        detailed = f"bit_count(phash) = {NUM_SET_BITS} and coalesce(entropy, 8) >= {plan.config.min_entropy}"
        hashes = rows.where(detailed).select("row", "phash", "text")
        by_hash = PerceptualSearch(spark, root, plan.work, hashes, plan.config.max_hamming)
        searches[TIERS.index("perceptual")] = by_hash.search
    if plan.min_cosine is not None:
        vectors = rows.where("vector is not null").select("row", "uid", "vector.unit", "vector.place", "text")
        limit = plan.config.max_training_rows
        by_vector = EmbeddingSearch(spark, root, plan.work, vectors, plan.units, plan.search, limit)
        searches[TIERS.index("embedding")] = by_vector.search
    return searches


def decide_removed(
    spark: SparkSession, root: Root, plan: DedupePlan, rows: DataFrame, contaminated: DataFrame
) -> tuple[DataFrame, dict[str, Any]]:
    """The removed rows as the table has them: uid, kept_uid, tier, similarity, component; and counts of the search."""
    best = materialise(rows.where("row = best").join(contaminated.select("row"), "row", "left_anti"))
    searches, verifier = prepare_searches(spark, root, plan, best), prepare_verifier(spark, root, plan, best)
    edges, labels, rounds = graph.find_removing_edges(
        spark, best.select("row"), searches, plan.config.max_local_edges, verifier
    )
    by_picture = name_contaminated(rows, contaminated)
    by_row = name_duplicates(rows, edges, labels).join(by_picture.select("row"), "row", "left_anti")
    counts: dict[str, Any] = {"rounds": rounds}
    if verifier is not None:
        counts["pairs_looked_at"] = verifier.num_looks
    return by_row.unionByName(by_picture).drop("row"), counts


def prepare_verifier(spark: SparkSession, root: Root, plan: DedupePlan, rows: DataFrame) -> PictureVerifier | None:
    """The second look at pairs in doubt; None where none is in doubt."""
    if plan.doubtful is None:
        return None
    stored, config = rows.select("row", "uid", "unit"), plan.config
    tier = TIERS.index("verified")
    return PictureVerifier(spark, root, plan.units, stored, tier, config.min_correlation, config.max_doubtful)


def name_duplicates(rows: DataFrame, edges: DataFrame, labels: DataFrame) -> DataFrame:
    """Every row that another row removes, itself or as a copy of its best row, with the uids of what the table names.

    `edges` (`left`, `right`, `tier`, `similarity`) remove their right row, a best one; `labels` has the components.
    """
    tiers = F.array(*[F.lit(tier) for tier in TIERS])
    edges = edges.select(F.col("right").alias("best"), F.col("left").alias("kept"),
                         tiers[F.col("tier")].alias("tier"), "similarity")  # fmt: skip
    removed = rows.select("row", "uid", "best").join(edges, "best", "left")
    removed = removed.join(labels.withColumnRenamed("row", "best"), "best", "left")
    removed = removed.where("row != best or kept is not null")
    uids = rows.select(F.col("row").alias("kept"), F.col("uid").alias("kept_uid"))
    removed = removed.withColumn("kept", F.coalesce("kept", "best")).join(uids, "kept")
    removed = removed.withColumn("component", F.coalesce("component", "best"))
    component_uids = uids.withColumnsRenamed({"kept": "component", "kept_uid": "component_uid"})
    return removed.join(component_uids, "component").selectExpr(
        "row", "uid", "kept_uid", "coalesce(tier, 'exact') as tier", "coalesce(similarity, 1D) as similarity",
        "component_uid as component",
    )  # fmt: skip


def name_contaminated(rows: DataFrame, contaminated: DataFrame) -> DataFrame:
    """Every row whose best row matches an evaluation picture, with that picture's key in the place of the uids."""
    matches = contaminated.select(F.col("row").alias("best"), "key", "tier", "similarity")
    return rows.select("row", "uid", "best").join(matches, "best").selectExpr(
        "row", "uid", "key as kept_uid", "tier", "similarity", "key as component"
    )  # fmt: skip


def write_removed(removed: DataFrame, root: Root, fp: str) -> list[str]:
    """Publish the table in files that cover equal ranges of uids, sorted by uid; their paths."""
    removed = removed.persist(StorageLevel.DISK_ONLY)
    num_files = -(-removed.count() // ROWS_PER_FILE)
    if not num_files:
        return []
    bucket = F.expr(f"int(conv(substring(uid, 1, 6), 16, 10) * {num_files} / 16777216) as unit")

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number, table in by_unit(batches):
            path = duplicates_file(fp, number)
            root.publish_parquet(path, table.select(DUPLICATES.names).cast(DUPLICATES).combine_chunks())
            yield pa.RecordBatch.from_pydict({"path": [path]})

    spread_out = removed.select(bucket, "*").repartition(num_files, "unit").sortWithinPartitions("unit", "uid")
    return sorted(row["path"] for row in spread_out.mapInArrow(write, "path string").collect())


def count_rows(root: Root, plan: DedupePlan, rows: DataFrame, files: list[str]) -> dict[str, Any]:
    """Counts of what was compared and removed, for people; nothing decides by it."""
    compared = rows.selectExpr(
        "count(*) as pictures", "count_if(row = best) as different", "count_if(place is null) as without_vector",
        "count_if(not has_direction) as zero_or_nan_vector",
        f"count_if(bit_count(phash) != {NUM_SET_BITS} or entropy < {plan.config.min_entropy}) as too_plain_for_phash",
    ).first()  # fmt: skip
    tiers: dict[str, int] = {}
    for file in files:
        for entry in root.read_parquet(file, ["tier"])["tier"].value_counts().to_pylist():
            tiers[entry["values"]] = tiers.get(entry["values"], 0) + entry["counts"]
    return {**(compared.asDict() if compared else {}), "removed": tiers}
