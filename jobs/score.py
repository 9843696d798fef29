"""One table of scores a filter, computed once: `scores_FILTER/UNIT.parquet`, rows only for pictures that came.

    curate score --recipe R.toml --root ROOT
    spark-submit jobs/score.py --recipe R.toml --root ROOT

A Spark task takes one unit, or several where there are very many of them, and computes every filter that a unit still
lacks, reading each picture once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from curation.errors import UserError
from curation.plan import measure_units
from curation.recipe.config import Recipe
from curation.schema import DOWNLOADS, SAMPLES, Status, is_further_caption, name_captions
from curation.shards import check_member
from curation.storage import CONFIG, Root
from curation.tables import downloads_file, read_samples, scores_table, unit_file
from curation.terminal import write_error
from filters._gray import MAX_BATCH
from filters.base import IMAGE, Filter
from jobs.embedders import resolve_models
from jobs.scoring.coverage import check_joined_scores
from jobs.scoring.joined_columns import plan_joined_scores
from jobs.scoring.joined_scores import join_scores
from jobs.scoring.score_columns import build_filters, check_owners, resolve_num_captions
from jobs.scoring.vector_columns import (
    bind_prompts,
    check_models,
    check_texts_there,
    check_vectors_there,
    describe_scores,
    list_columns,
    read_vectors,
)
from jobs.spark.sealing import seals
from jobs.spark.tasks import is_repeated, map_units

ROWS_PER_BATCH = {True: MAX_BATCH // 4, False: 16_384}
"""Rows of one batch, with pictures (their bytes are held) and without."""


def check(recipe: Recipe, root: Root) -> None:
    """Raise UserError for filters that are unknown, badly configured, or lack a file, a package or a model,
    and for scores of one's own that are of other rows than those of `root`.
    """
    wanted = build_filters(recipe)
    for item in wanted.values():
        item.config()
        item.check_ready()
    check_models(recipe, root, wanted)
    check_owners(recipe)
    _check_captions(wanted, resolve_num_captions(recipe, root))
    check_joined_scores(recipe, root)


def _check_captions(wanted: Mapping[str, Filter], num_captions: int) -> None:
    known = name_captions(num_captions)
    for name, item in wanted.items():
        lacking = sorted(column for column in item.reads if is_further_caption(column) and column not in known)
        if lacking:
            raise UserError(
                f"Filter {name} reads {lacking[0]}, and samples have {', '.join(known)} alone: name more captions in "
                f"columns of [[sources]], or leave the filter out."
            )


@seals("scores_", reads=("samples", "downloads"))
def run(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Score every downloaded unit that lacks a filter of the recipe. Raises UserError before anything is written."""
    wanted = build_filters(recipe)
    downloaded = root.units("downloads")
    if not downloaded:
        raise UserError(f"{root.base} has no downloads to score: run `curate download` first.")
    check_vectors_there(root, wanted, downloaded)
    for item in wanted.values():
        item.check_ready()
    check_models(recipe, root, wanted)
    check_texts_there(root, wanted, downloaded)
    for joined in plan_joined_scores(recipe):
        write_error(join_scores(spark, root, joined))
    configs = {name: describe_scores(root, item, f"{scores_table(name)}/{CONFIG}") for name, item in wanted.items()}
    for name, config in configs.items():
        root.begin_stage(scores_table(name), config)
    done = {name: set(root.units(scores_table(name))) for name in wanted}
    work = [(unit, lacking) for unit in downloaded if (lacking := [n for n in wanted if unit not in done[n]])]
    if not work:
        return
    bound = bind_prompts(resolve_models(recipe), wanted)
    map_units(
        spark,
        "score",
        work,
        lambda item: score_missing(root, item[0], {name: bound[name] for name in item[1]}),
        lambda: measure_units(root, [unit for unit, _ in work]),
    )


def score_missing(root: Root, unit: str, wanted: Mapping[str, Filter]) -> None:
    """As `score_unit`, without what an earlier attempt of the same Spark task has published."""
    done = {n for n in wanted if is_repeated() and root.exists(unit_file(scores_table(n), unit))}
    if wanted.keys() - done:
        score_unit(root, unit, {name: wanted[name] for name in wanted if name not in done})


def score_unit(root: Root, unit: str, wanted: Mapping[str, Filter]) -> int:
    """Compute and publish the scores of `wanted` for one unit; returns the number of rows scored."""
    columns = {name: list_columns(item) for name, item in wanted.items()}
    reads = {column for listed in columns.values() for column in listed}
    parts: dict[str, list[pa.RecordBatch]] = {name: [] for name in wanted}
    uids: list[str] = []
    for batch in read_batches(root, unit, reads):
        uids += batch["uid"].to_pylist()
        for name, item in wanted.items():
            parts[name].append(item.apply(batch.select(columns[name]).rename_columns(list(item.reads))))
    for name, item in wanted.items():
        scores = pa.Table.from_batches(parts[name], schema=item.writes)
        table = scores.add_column(0, SAMPLES.field("uid"), pa.array(uids, pa.string()))
        root.publish_parquet(unit_file(scores_table(name), unit), table.sort_by("uid"))
    return len(uids)


def read_batches(root: Root, unit: str, reads: set[str]) -> Iterator[pa.RecordBatch]:
    """The unit's rows with status ok: `uid` and the columns `reads`, in the order of the pictures in their shard.

    Columns of vectors are named as by `jobs.scoring.vector_columns.list_columns`.
    """
    rows = _read_rows(root, unit, reads)
    for column in sorted(name for name in reads if "@" in name):
        rows = rows.append_column(column, read_vectors(root, unit, column, rows["uid"].to_pylist()))
    with_images = IMAGE.name in reads
    for batch in rows.combine_chunks().to_batches(ROWS_PER_BATCH[with_images]):
        images = _read_images(root, batch) if with_images else None
        yield batch if images is None else batch.append_column(IMAGE, images)


def _read_rows(root: Root, unit: str, reads: set[str]) -> pa.Table:
    place = {"status", "shard", "offset", "size", "stored_sha256"}
    from_downloads = [f.name for f in DOWNLOADS if f.name == "uid" or f.name in reads | place]
    from_samples = [f.name for f in SAMPLES if f.name == "uid" or f.name in reads]
    from_samples += sorted(filter(is_further_caption, reads))
    downloads = root.read_parquet(downloads_file(unit), from_downloads)
    downloads = downloads.filter(pc.equal(downloads["status"], Status.OK.value))
    samples = read_samples(root, unit, from_samples)
    joined = downloads.join(samples, "uid", join_type="left outer")
    return joined.sort_by([("shard", "ascending"), ("offset", "ascending"), ("uid", "ascending")])


def _read_images(root: Root, batch: pa.RecordBatch) -> pa.Array:
    """Stored bytes of each row, by one range read for each shard of the batch. Raises UserError for damaged ones."""
    images: list[bytes] = []
    names = ("shard", "offset", "size", "stored_sha256")
    places = list(zip(*(batch[name].to_pylist() for name in names), strict=True))
    for shard in dict.fromkeys(place[0] for place in places):
        spans = [place[1:] for place in places if place[0] == shard]
        start = spans[0][0]
        data = root.read_bytes(shard, start, max(offset + size for offset, size, _ in spans) - start)
        for offset, size, sha256 in spans:
            images.append(data[offset - start : offset - start + size])
            check_member(root, shard, offset, size, sha256, images[-1])
    return pa.array(images, IMAGE.type)


if __name__ == "__main__":
    from jobs.spark.stage import main

    main("score", check, run)
