"""Train shards of what selection kept: a seeded global shuffle, plain webdataset, an index with offsets and sha256.

    curate pack --recipe R.toml --root ROOT
    spark-submit jobs/pack.py --recipe R.toml --root ROOT

A shard is done if and only if it and its part of train_index stand, so an interrupted run goes on where it was. The
order is a function of the seed and the uids alone: neither partitioning nor the number of executors changes a byte.
Another selection, seed or table of scores gives another version with shards of its own; nothing of the earlier one is
used again, and what was added and removed is said.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.download.withdrawn import describe_lists, resolve_lists
from curation.errors import UserError
from curation.freshness import Fingerprints, check_fresh
from curation.recipe.config import PackConfig, Recipe
from curation.schema import DOWNLOADS, SELECTION, TRAIN_INDEX, samples_schema
from curation.settings import content_settings
from curation.shards import BLOCK, ShardWriter, file_sha256, picture_extension, read_member
from curation.storage import Root, fingerprint
from curation.sums.seal import is_whole
from curation.tables import (
    count_all_captions,
    score_tables,
    train_index_file,
    train_shard,
    train_sizes_file,
    train_summary_file,
    unit_file,
)
from jobs.packing.difference import report_difference
from jobs.scoring.score_columns import build_score_schemas, resolve_num_captions
from jobs.spark.sealing import seals
from jobs.spark.slices import read_files
from jobs.spark.tasks import by_unit

ROWS_PER_BUCKET = 100_000
KEY_BITS = 32
NUM_READERS = 16
ROWS_AHEAD = 128
"""Rows whose pictures a task holds at a time."""
ROW_DDL = "uid string, shard string, offset bigint, size bigint, record string, packed_bytes bigint"
SHARD_DDL = "shard bigint, num_samples bigint, num_bytes bigint, sha256 string"
_LOCATION = ("shard", "offset", "size", "stored_sha256")
"""Columns of downloads that say where a picture lies now; the index says where it lies in the train shard."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """What every task of one packing needs: `fp` names the version, `columns` are those of its index."""

    root: Root
    fp: str
    pack: PackConfig
    columns: pa.Schema

    def shard(self, number: int) -> str:
        return train_shard(self.fp, number)

    def part(self, number: int) -> str:
        return train_index_file(self.fp, number)


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """One part of the shuffle's range of keys: how many rows and bytes lie in it, and how large the largest is."""

    num_rows: int = 0
    num_bytes: int = 0
    max_bytes: int = 0


def check(recipe: Recipe, root: Root) -> None:
    """Raise UserError for caption columns that are no columns of text of samples, downloads and scores.

    Samples have the captions of the recipe's sources and those that `root` has; scores are those of the recipe's
    filters and those that `root` has.
    """
    units = root.units("samples")
    scores = build_score_schemas(recipe) | read_score_schemas(root, units)
    build_index_schema(scores, recipe.pack.captions, resolve_num_captions(recipe, root))


@seals("train", "train_index", reads=("samples", "downloads", "scores_", "selection"))
def run(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Pack the current selection, unless the current train shards are its. Raises UserError when nothing is kept."""
    selection = root.current("selection")
    if selection is None:
        raise UserError(f"{root.base} has no selection: run `curate select` first.")
    known = Fingerprints(root)
    check_fresh(known, "selection")
    lists = describe_lists(resolve_lists(recipe), root)
    if any(selection["inputs"].get(name) != value for name, value in lists.items()):
        raise UserError(
            "selection was made with other opt-out lists or blocklists than the recipe names now: run `curate select`."
        )
    units = root.units("samples")
    scores = read_score_schemas(root, units)
    inputs = {name: known.of(name) for name in ("samples", "downloads", *scores)}
    inputs["selection"] = selection["fingerprint"]
    config = content_settings(recipe.pack)
    fp = fingerprint({"pack": config, "inputs": inputs})
    previous = root.current("train_index")
    if previous is not None and known.is_current("train_index", config, inputs) and is_packed(root):
        return
    num_captions = count_all_captions(root)
    columns = build_index_schema(scores, recipe.pack.captions, num_captions)
    version = Version(root=root, fp=fp, pack=recipe.pack, columns=columns)
    kept = find_kept_rows(spark, selection["files"], scores, version)
    buckets = count_buckets(kept, recipe.pack.seed, count_selection_rows(spark, root, selection["files"]))
    if not any(bucket.num_rows for bucket in buckets):
        raise UserError("The selection keeps no row: relax the rules (`curate status ROOT` shows which one says no).")
    shards = write_shards(kept, buckets, version)
    publish_version(version, shards, config, inputs)
    report_difference(spark, root, previous)


def is_packed(root: Root) -> bool:
    """Whether every file of the current index and its shards is there; what somebody deleted is packed again."""
    return is_whole(root, "train") and is_whole(root, "train_index")


def read_score_schemas(root: Root, units: list[str]) -> dict[str, pa.Schema]:
    """Score tables that cover every unit, with their columns besides uid; none while there are no units."""
    schemas = {}
    for table in score_tables(root):
        if units and set(units) <= set(root.units(table)):
            schema = root.read_parquet(unit_file(table, units[0])).schema
            schemas[table] = pa.schema([field for field in schema if field.name != "uid"])
    return schemas


def build_index_schema(
    scores: Mapping[str, pa.Schema], captions: Mapping[str, float], num_captions: int = 1
) -> pa.Schema:
    """Columns of train_index: where each member lies, then all that is known of the sample.

    `caption` is what the .txt says; the sample's own is `original_caption` where another may have been taken.
    Raises UserError when a column of `captions` is not among them, or no text.
    """
    fields = {field.name: field for field in TRAIN_INDEX}
    for field in [
        *samples_schema(num_captions),
        *(f for f in DOWNLOADS if f.name not in _LOCATION),
        *(f for s in scores.values() for f in s),
    ]:
        # The index's own `sha256` is that of the stored picture, as readers check it.
        fields.setdefault("fetched_sha256" if field.name == "sha256" and "sha256" in fields else field.name, field)
    for name in captions:
        if name not in fields or fields[name].type != pa.string():
            texts = ", ".join(n for n, f in fields.items() if f.type == pa.string() and n not in TRAIN_INDEX.names)
            raise UserError(f"pack.captions names {name!r}, which is no column of text; those are {texts}.")
    if set(captions) != {"caption"}:
        fields["original_caption"] = fields["caption"]
    return pa.schema([field.with_name(name) for name, field in fields.items()])


def read_unit_rows(root: Root, selection_file: str, scores: Iterable[str]) -> pa.Table:
    """Kept rows of one unit with every column known of them."""
    unit = Path(selection_file).stem
    chosen = root.read_parquet(selection_file)
    rows = chosen.filter(chosen["kept"]).select(["uid"])
    for table in ("samples", "downloads", *scores):
        known = root.read_parquet(unit_file(table, unit))
        taken = [c for c in known.column_names if c == "uid" or c not in rows.column_names]
        rows = rows.join(known.select(taken), "uid")
    return rows


def find_kept_rows(
    spark: SparkSession, files: list[str], scores: Mapping[str, pa.Schema], version: Version
) -> DataFrame:
    """Kept rows of all units: where the picture lies, `record`, the other index columns as JSON, and bytes to pack."""

    def scan(positions: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for position in (row for batch in positions for row in batch["id"].to_pylist()):
            rows = read_unit_rows(version.root, files[position], scores)
            records = [_build_record(row, version.pack) for row in rows.to_pylist()]
            sizes = [
                _count_packed_bytes(size, record)
                for size, record in zip(rows["size"].to_pylist(), records, strict=True)
            ]
            kept = rows.select(["uid", "shard", "offset", "size"])
            kept = kept.append_column("record", pa.array([json.dumps(r, sort_keys=True) for r in records], pa.string()))
            yield from kept.append_column("packed_bytes", pa.array(sizes, pa.int64())).to_batches()

    return spark.range(0, len(files), 1, max(1, len(files))).mapInArrow(scan, ROW_DDL)


def _build_record(row: dict[str, Any], pack: PackConfig) -> dict[str, Any]:
    renamed = {k: v for k, v in row.items() if k not in _LOCATION and k != "sha256"}
    renamed |= {"sha256": row["stored_sha256"], "fetched_sha256": row["sha256"]}
    if set(pack.captions) == {"caption"}:
        return renamed
    return renamed | {"original_caption": row["caption"], "caption": choose_caption(row, pack)}


def choose_caption(row: Mapping[str, Any], pack: PackConfig) -> str | None:
    """The text of the column that is drawn by weight, from the seed and the uid; of the next one that has any."""
    digest = hashlib.md5(f"{pack.seed}:caption:{row['uid']}".encode(), usedforsecurity=False).digest()
    drawn = int.from_bytes(digest[:7], "big") / 2**56 * sum(pack.captions.values())
    names = sorted(pack.captions)
    ends = accumulate(pack.captions[name] for name in names)
    first = next((k for k, end in enumerate(ends) if drawn < end), len(names) - 1)
    return next((text for name in names[first:] + names[:first] if (text := row.get(name))), None)


def _encode_texts(record: Mapping[str, Any]) -> dict[str, bytes]:
    """The members beside the picture."""
    described = {k: v for k, v in record.items() if v is not None}
    return {
        "txt": (record["caption"] or "").encode(),
        "json": json.dumps(described, sort_keys=True, ensure_ascii=False).encode(),
    }


def _count_packed_bytes(picture_bytes: int, record: Mapping[str, Any]) -> int:
    """What one sample takes in a shard, headers and padding included."""
    sizes = [picture_bytes, *map(len, _encode_texts(record).values())]
    return sum(BLOCK + size + -size % BLOCK for size in sizes)


def count_selection_rows(spark: SparkSession, root: Root, files: Sequence[str]) -> int:
    """An upper bound of the kept rows, for choosing the number of buckets; the files are read by tasks."""
    return read_files(spark, root, files, pa.schema([SELECTION.field("uid")])).count()


def order_key(seed: int) -> Any:
    """The 128-bit position of a row in the global shuffle, as 32 hex digits: md5 of seed and uid."""
    return F.md5(F.concat(F.lit(f"{seed}:"), F.col("uid")))


def count_buckets(kept: DataFrame, seed: int, at_most: int) -> list[Bucket]:
    """What each bucket of the shuffle holds, in order; buckets divide the range of keys evenly."""
    bits = max(0, (at_most // ROWS_PER_BUCKET).bit_length())
    size = F.col("packed_bytes")
    grouped = kept.groupBy(_bucket(seed, bits).alias("bucket"))
    summed = grouped.agg(F.count("*").alias("num_rows"), F.sum(size).alias("num_bytes"), F.max(size).alias("max_bytes"))
    buckets = {row.pop("bucket"): Bucket(**row) for row in map(_as_dict, summed.collect())}
    return [buckets.get(number, Bucket()) for number in range(1 << bits)]


def _as_dict(row: Any) -> dict[str, Any]:
    values: dict[str, Any] = row.asDict()
    return values


def _bucket(seed: int, bits: int) -> Any:
    leading = F.conv(F.substring(order_key(seed), 1, KEY_BITS // 4), 16, 10).cast("bigint")
    return F.shiftright(leading, KEY_BITS - bits)


def cut_shards(buckets: list[Bucket], pack: PackConfig) -> tuple[list[int], int, int]:
    """(measure of the rows before each bucket, measure of a shard, number of shards); rows or bytes are measured.

    The sample at which a multiple of the measure is passed begins a shard. Raises UserError when one sample is larger.
    """
    if pack.num_bytes_per_shard is None:
        sizes, per_shard = [bucket.num_rows for bucket in buckets], pack.num_samples_per_shard
    else:
        sizes, per_shard = [bucket.num_bytes for bucket in buckets], pack.num_bytes_per_shard
        largest = max(bucket.max_bytes for bucket in buckets)
        if largest > per_shard:
            raise UserError(f"pack.num_bytes_per_shard is {per_shard:,}, and one sample alone takes {largest:,} bytes.")
    return list(accumulate(sizes, initial=0))[:-1], per_shard, -(-sum(sizes) // per_shard)


def write_shards(kept: DataFrame, buckets: list[Bucket], version: Version) -> list[dict[str, Any]]:
    """Number the rows in shuffled order, send each to its shard, write the shards; what each one holds."""
    seed, by_bytes = version.pack.seed, version.pack.num_bytes_per_shard is not None
    starts, per_shard, num_shards = cut_shards(buckets, version.pack)
    bits = (len(buckets) - 1).bit_length()
    keyed = kept.withColumn("key", order_key(seed)).withColumn("unit", _bucket(seed, bits))
    sorted_rows = keyed.repartition(len(buckets), "unit").sortWithinPartitions("unit", "key")

    def number(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for bucket, table in by_unit(batches):
            sizes = table["packed_bytes"].to_numpy() if by_bytes else np.ones(len(table), np.int64)
            before = starts[bucket] + np.cumsum(sizes) - sizes
            numbers = pa.array(before // per_shard, pa.int64())
            yield from table.drop_columns(["key", "unit"]).append_column("unit", numbers).to_batches()

    numbered = sorted_rows.mapInArrow(number, f"{ROW_DDL}, unit bigint")
    by_shard = numbered.repartition(num_shards, "unit").sortWithinPartitions("unit", "uid")

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for shard, table in by_unit(batches):
            yield pa.RecordBatch.from_pylist([{"shard": shard, **write_shard(version, shard, table)}])

    return sorted(map(_as_dict, by_shard.mapInArrow(write, SHARD_DDL).collect()), key=lambda row: row["shard"])


def write_shard(version: Version, number: int, table: pa.Table) -> dict[str, Any]:
    """Write and publish one shard, then its part of the index; only counted when both stand. What the shard holds."""
    root, rel, part = version.root, version.shard(number), version.part(number)
    if root.exists(part) and root.exists(rel):
        return {"num_samples": len(table), "num_bytes": root.size(rel), "sha256": file_sha256(root, rel)}
    rows = []
    with tempfile.TemporaryDirectory(prefix="pack-", dir=root.scratch()) as folder:
        path = Path(folder, "shard.tar")
        with ShardWriter(path) as writer:
            for row, data in _read_pictures(root, table.to_pylist()):
                rows.append(_add_sample(writer, row, data, rel))
        root.publish(rel, path)
    root.publish_parquet(part, pa.Table.from_pylist(rows, schema=version.columns))
    return {"num_samples": len(rows), "num_bytes": writer.num_bytes, "sha256": writer.sha256}


def _read_pictures(root: Root, rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Each row with its picture, several requests at a time: from an object store each one waits."""

    def picture(row: dict[str, Any]) -> bytes:
        sha256 = json.loads(row["record"])["sha256"]
        return read_member(root, row["shard"], row["offset"], row["size"], sha256)

    with ThreadPoolExecutor(NUM_READERS) as pool:
        for start in range(0, len(rows), ROWS_AHEAD):
            part = rows[start : start + ROWS_AHEAD]
            yield from zip(part, pool.map(picture, part), strict=True)


def _add_sample(writer: ShardWriter, row: dict[str, Any], data: bytes, rel: str) -> dict[str, Any]:
    """Append one sample to the shard; its row of the index."""
    record: dict[str, Any] = json.loads(row["record"])
    extension = picture_extension(data)
    members = writer.add(row["uid"], {extension: data, **_encode_texts(record)})
    places = {f"{e}_{what}": getattr(members[e], what) for e in ("txt", "json") for what in ("offset", "size")}
    picture = members[extension]
    return record | places | {"shard": rel, "offset": picture.offset, "size": picture.size}


def publish_version(version: Version, shards: list[dict[str, Any]], config: Any, inputs: Any) -> None:
    """Write sizes.json and summary.json and make this version of shards and index the current one, the index last."""
    root, fp = version.root, version.fp
    sizes, summary = train_sizes_file(fp), train_summary_file(fp)
    named = {Path(version.shard(row["shard"])).name: {k: v for k, v in row.items() if k != "shard"} for row in shards}
    root.publish_json(sizes, {name: row["num_samples"] for name, row in named.items()})
    totals = {key: sum(row[key] for row in shards) for key in ("num_samples", "num_bytes")}
    root.publish_json(summary, {**totals, "num_shards": len(shards), "shards": named})
    tars = [version.shard(row["shard"]) for row in shards]
    root.publish_current("train", fp, [sizes, summary, *tars], config, inputs)
    root.publish_current("train_index", fp, [version.part(row["shard"]) for row in shards], config, inputs)


if __name__ == "__main__":
    from jobs.spark.stage import main

    main("pack", check, run)
