"""Train shards of what selection kept: a seeded global shuffle, plain webdataset, an index with offsets and sha256.

    curate pack --recipe R.toml --root ROOT
    spark-submit jobs/pack.py --recipe R.toml --root ROOT

A shard is done if and only if its part of train_index stands, so an interrupted run goes on where it was. The order
is a function of the seed and the uids alone: neither partitioning nor the number of executors changes a byte.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.config import Recipe
from curation.errors import UserError
from curation.schema import DOWNLOADS, SAMPLES, TRAIN_INDEX
from curation.settings import to_dict
from curation.shards import ShardWriter, picture_extension, read_member
from curation.storage import Root, fingerprint
from jobs.ingest import by_unit
from jobs.selection import table_fingerprint

ROWS_PER_BUCKET = 100_000
KEY_BITS = 32
ROW_DDL = "uid string, shard string, offset bigint, size bigint, record string"
_LOCATION = ("shard", "offset", "size", "stored_sha256")
"""Columns of downloads that say where a picture lies now; the index says where it lies in the train shard."""


def run(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Pack the current selection, unless the current train shards are its. Raises UserError when nothing is kept."""
    selection = root.current("selection")
    if selection is None:
        raise UserError(f"{root.base} has no selection: run `curate select` first.")
    scores = score_columns(root, root.units("samples"))
    inputs = {name: table_fingerprint(root, name) for name in ("samples", "downloads", *scores)}
    inputs["selection"] = selection["fingerprint"]
    config = to_dict(recipe.pack)
    fp = fingerprint({"pack": config, "inputs": inputs})
    previous = root.current("train_index")
    if previous is not None and previous["fingerprint"] == fp:
        return
    columns = index_columns(scores)
    kept = kept_rows(spark, root, selection["files"], scores, columns)
    per_bucket = count_buckets(kept, recipe.pack.seed, selection_rows(root, selection["files"]))
    total = sum(per_bucket.values())
    if not total:
        raise UserError("The selection keeps no row: relax the rules (`curate status ROOT` shows which one says no).")
    shards = write_shards(kept, per_bucket, recipe, root, fp, columns)
    publish(root, fp, shards, config, inputs)
    _report_difference(root, previous, shards)


def score_columns(root: Root, units: list[str]) -> dict[str, pa.Schema]:
    """Score tables that cover every unit, with their columns besides uid."""
    found = {}
    for entry in root.folders():
        if entry.startswith("scores_") and set(units) <= set(root.units(entry)):
            schema = root.read_parquet(f"{entry}/{units[0]}.parquet").schema
            found[entry] = pa.schema([field for field in schema if field.name != "uid"])
    return dict(sorted(found.items()))


def index_columns(scores: Mapping[str, pa.Schema]) -> pa.Schema:
    """Columns of train_index: where each member lies, then all that is known of the sample."""
    fields = {field.name: field for field in TRAIN_INDEX}
    for field in [
        *SAMPLES,
        *(f for f in DOWNLOADS if f.name not in _LOCATION),
        *(f for s in scores.values() for f in s),
    ]:
        # The index's own `sha256` is that of the stored picture, as readers check it.
        fields.setdefault("fetched_sha256" if field.name == "sha256" and "sha256" in fields else field.name, field)
    return pa.schema([field.with_name(name) for name, field in fields.items()])


def unit_rows(root: Root, selection_file: str, scores: Iterable[str]) -> pa.Table:
    """Kept rows of one unit with every column known of them."""
    unit = Path(selection_file).stem
    chosen = root.read_parquet(selection_file)
    rows = chosen.filter(chosen["kept"]).select(["uid"])
    for table in ("samples", "downloads", *scores):
        found = root.read_parquet(f"{table}/{unit}.parquet")
        taken = [c for c in found.column_names if c == "uid" or c not in rows.column_names]
        rows = rows.join(found.select(taken), "uid")
    return rows


def kept_rows(
    spark: SparkSession, root: Root, files: list[str], scores: Mapping[str, pa.Schema], columns: pa.Schema
) -> DataFrame:
    """Kept rows of all units: `uid`, where the picture lies, and `record`, the other index columns as JSON."""

    def scan(positions: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for position in (row for batch in positions for row in batch["id"].to_pylist()):
            rows = unit_rows(root, files[position], scores)
            records = [json.dumps(_record(row), sort_keys=True) for row in rows.to_pylist()]
            kept = rows.select(["uid", "shard", "offset", "size"]).append_column(
                "record", pa.array(records, pa.string())
            )
            yield from kept.to_batches()

    return spark.range(0, len(files), 1, max(1, len(files))).mapInArrow(scan, ROW_DDL)


def _record(row: dict[str, Any]) -> dict[str, Any]:
    renamed = {k: v for k, v in row.items() if k not in _LOCATION and k != "sha256"}
    return renamed | {"sha256": row["stored_sha256"], "fetched_sha256": row["sha256"]}


def selection_rows(root: Root, files: list[str]) -> int:
    """An upper bound of the kept rows, for choosing the number of buckets."""
    return sum(root.read_parquet(name, ["uid"]).num_rows for name in files)


def order_key(seed: int) -> Any:
    """The 128-bit position of a row in the global shuffle, as 32 hex digits: md5 of seed and uid."""
    return F.md5(F.concat(F.lit(f"{seed}:"), F.col("uid")))


def count_buckets(kept: DataFrame, seed: int, at_most: int) -> dict[int, int]:
    """Rows in each bucket of the shuffle, in bucket order; buckets divide the range of keys evenly."""
    bits = max(0, (at_most // ROWS_PER_BUCKET).bit_length())
    counted = kept.groupBy(_bucket(seed, bits).alias("bucket")).count().collect()
    counts = {row["bucket"]: row["count"] for row in counted}
    return {bucket: counts.get(bucket, 0) for bucket in range(1 << bits)}


def _bucket(seed: int, bits: int) -> Any:
    leading = F.conv(F.substring(order_key(seed), 1, KEY_BITS // 4), 16, 10).cast("bigint")
    return F.shiftright(leading, KEY_BITS - bits)


def write_shards(
    kept: DataFrame, per_bucket: dict[int, int], recipe: Recipe, root: Root, fp: str, columns: pa.Schema
) -> list[tuple[str, int]]:
    """Number the rows in shuffled order, send each to its shard, write the shards; (name, rows) of each."""
    per_shard, seed = recipe.pack.num_samples_per_shard, recipe.pack.seed
    starts = dict(zip(per_bucket, accumulate(per_bucket.values(), initial=0), strict=False))
    num_shards = -(-sum(per_bucket.values()) // per_shard)
    bits = (len(per_bucket) - 1).bit_length()
    keyed = kept.withColumn("key", order_key(seed)).withColumn("unit", _bucket(seed, bits))
    sorted_rows = keyed.repartition(len(per_bucket), "unit").sortWithinPartitions("unit", "key")

    def number(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for bucket, table in by_unit(batches):
            ranks = range(starts[bucket], starts[bucket] + len(table))
            numbers = pa.array([rank // per_shard for rank in ranks], pa.int64())
            yield from table.drop_columns(["key", "unit"]).append_column("unit", numbers).to_batches()

    numbered = sorted_rows.mapInArrow(
        number, "uid string, shard string, offset bigint, size bigint, record string, unit bigint"
    )
    by_shard = numbered.repartition(num_shards, "unit").sortWithinPartitions("unit", "uid")

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for shard, table in by_unit(batches):
            write_shard(root, fp, shard, table, columns)
            yield pa.RecordBatch.from_pydict({"shard": [shard], "rows": [len(table)]})

    counts = by_shard.mapInArrow(write, "shard bigint, rows bigint").collect()
    return [(f"{fp}-{row['shard']:06d}", row["rows"]) for row in sorted(counts, key=lambda row: row["shard"])]


def write_shard(root: Root, fp: str, number: int, table: pa.Table, columns: pa.Schema) -> None:
    """Write and publish one shard, then its part of the index; nothing to do when that part stands."""
    name = f"{fp}-{number:06d}"
    part = f"train_index/{fp}/{name}.parquet"
    if root.exists(part):
        return
    rel = f"train/{fp}/{name}.tar"
    rows = []
    with tempfile.TemporaryDirectory(prefix="pack-", dir=root.scratch()) as folder:
        path = Path(folder, "shard.tar")
        with ShardWriter(path) as writer:
            for row in table.to_pylist():
                rows.append(_add(root, writer, row, rel))
        root.publish(rel, path)
    root.publish_parquet(part, pa.Table.from_pylist(rows, schema=columns))


def _add(root: Root, writer: ShardWriter, row: dict[str, Any], rel: str) -> dict[str, Any]:
    """Append one sample to the shard; its row of the index."""
    record = json.loads(row["record"])
    data = read_member(root, row["shard"], row["offset"], row["size"])
    extension = picture_extension(data)
    described = {k: v for k, v in record.items() if v is not None}
    files = {
        extension: data,
        "txt": (record["caption"] or "").encode(),
        "json": json.dumps(described, sort_keys=True, ensure_ascii=False).encode(),
    }
    members = writer.add(row["uid"], files)
    places = {f"{e}_{what}": getattr(members[e], what) for e in ("txt", "json") for what in ("offset", "size")}
    picture = members[extension]
    return record | places | {"shard": rel, "offset": picture.offset, "size": picture.size}


def publish(root: Root, fp: str, shards: list[tuple[str, int]], config: Any, inputs: Any) -> None:
    """Write sizes.json and make this version of shards and index the current one, the index last."""
    sizes = f"train/{fp}/sizes.json"
    root.publish_json(sizes, {f"{name}.tar": rows for name, rows in shards})
    root.publish_current("train", fp, [sizes, *(f"train/{fp}/{name}.tar" for name, _ in shards)], config, inputs)
    index = [f"train_index/{fp}/{name}.parquet" for name, _ in shards]
    root.publish_current("train_index", fp, index, config, inputs)


def _report_difference(root: Root, previous: dict[str, Any] | None, shards: list[tuple[str, int]]) -> None:
    """Say how the new train shards differ from the version before."""
    current = root.current("train_index")
    if previous is None or current is None:
        return
    before, after = (_uids(root, version["files"]) for version in (previous, current))
    added, removed = len(np.setdiff1d(after, before)), len(np.setdiff1d(before, after))
    sys.stderr.write(f"pack: {sum(rows for _, rows in shards):,} samples; {added:,} added, {removed:,} removed\n")


def _uids(root: Root, files: Iterable[str]) -> np.ndarray:
    """Sorted 16-byte keys of all uids in `files`."""
    parts = [root.read_parquet(name, ["uid"])["uid"].to_pylist() for name in files if root.exists(name)]
    return np.sort(np.array([bytes.fromhex(uid) for part in parts for uid in part], dtype="S16"))


if __name__ == "__main__":
    from jobs.stage import main

    main("pack", run)
