"""Vectors of stored pictures, and of captions where the model is a CLIP, in clip-retrieval's layout.

    curate embed --recipe R.toml --root ROOT
    spark-submit jobs/embed.py --recipe R.toml --root ROOT

Row i of a .npy belongs to row i of the metadata. Each model has a table of its own: embed.model `embeddings`,
[embed.models.NAME] `embeddings_NAME`. A Spark task takes one unit, or several where there are very many of them; the
metadata file, published last, makes a unit done.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from curation.errors import UserError
from curation.plan import measure_units
from curation.recipe.config import EmbedConfig, Recipe
from curation.records import STAGE_CONFIG
from curation.remedies import remedy
from curation.schema import EMBEDDINGS as EMBEDDINGS_SCHEMA
from curation.schema import Status
from curation.shards import read_member
from curation.storage import CONFIG, Root
from curation.sums.cover import EVERY_EMBEDDING
from curation.tables import (
    EMBEDDINGS,
    downloads_file,
    embedded_units,
    embeddings_table,
    metadata_file,
    metadata_folder,
    samples_file,
    texts_file,
    texts_folder,
    vectors_file,
)
from jobs.embedders import (
    Embedder,
    find_embedder,
    find_text_side,
    identify_model,
    is_same_model,
    load_embedder,
    load_text_embedder,
    resolve_models,
)
from jobs.embedders._pictures import PictureEmbedder
from jobs.spark.sealing import Run, seals
from jobs.spark.tasks import is_repeated, map_units

SMALL = 0.01
"""No row of length 1 in up to 10,000 dimensions has a largest component below this."""


@dataclass(frozen=True, kw_only=True)
class EmbedTask:
    """What is done for one unit: its vectors by one model, or those of its captions alone."""

    table: str
    model: str
    batch_size: int
    num_decoders: int
    unit: str
    is_text_alone: bool

    def run(self, root: Root) -> None:
        """Do it, unless an earlier attempt of the same Spark task has done it."""
        if is_repeated() and root.exists(self._last_file):
            return
        if self.is_text_alone:
            embed_captions(root, self.unit, self.model, self.batch_size, self.table)
        else:
            embed_unit(root, self.unit, self.model, self.batch_size, self.table, self.num_decoders)

    @property
    def _last_file(self) -> str:
        """The file that is published last."""
        return texts_file(self.unit, self.table) if self.is_text_alone else metadata_file(self.unit, self.table)


def check(recipe: Recipe, root: Root) -> None:
    """Raise UserError for a model that is unknown, damaged, or another one than the root was embedded with."""
    check_models(recipe, root, tuple(resolve_models(recipe)))


def check_models(recipe: Recipe, root: Root, names: Sequence[str]) -> None:
    """As `check`, of the models called `names` alone."""
    for name, model in resolve_models(recipe).items():
        if name not in names:
            continue
        find_embedder(model, name_setting(name)).check(model)
        if embedded_units(root, embeddings_table(name)):
            check_same_model(root, model, name)


def name_setting(name: str) -> str:
    """Where the recipe says which model `name` is."""
    return f"embed.models.{name}.model" if name else "embed.model"


def run(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Embed every downloaded unit that a model has no vectors of. Raises UserError before anything is written."""
    make_run(tuple(resolve_models(recipe)))(spark, recipe, root)


def make_run(names: Sequence[str]) -> Run:
    """A `run` that embeds by the models called `names` alone."""

    @seals(EVERY_EMBEDDING, reads=("samples", "downloads"))
    def run_models(spark: SparkSession, recipe: Recipe, root: Root) -> None:
        check_models(recipe, root, names)
        _embed_missing(spark, root, {n: m for n, m in resolve_models(recipe).items() if n in names}, recipe.embed)

    return run_models


def _embed_missing(spark: SparkSession, root: Root, models: Mapping[str, str], config: EmbedConfig) -> None:
    downloaded = root.units("downloads")
    if not downloaded:
        raise UserError(f"{root.base} has no downloads to embed: run `curate download` first.")
    for name, model in models.items():
        table = embeddings_table(name)
        made = check_same_model(root, model, name) if embedded_units(root, table) else identify_model(model)
        root.begin_stage(metadata_folder(table), {"model": made})
        tasks = plan_tasks(root, table, model, config, downloaded)
        units = [task.unit for task in tasks]
        map_units(
            spark,
            f"embed {name}".strip(),
            tasks,
            lambda task: task.run(root),
            partial(measure_units, root, units),
        )


def plan_tasks(root: Root, table: str, model: str, config: EmbedConfig, downloaded: Sequence[str]) -> list[EmbedTask]:
    """The tasks that are left, in the order of the units `downloaded`.

    Earlier versions embedded pictures alone, so that a unit may have vectors and none of its captions.
    """
    done, with_texts = set(embedded_units(root, table)), set(root.list(texts_folder(table), ".npy"))
    has_texts = find_text_side(model) != "none"
    tasks = []
    for unit in downloaded:
        lacks_texts = has_texts and texts_file(unit, table).rpartition("/")[2] not in with_texts
        if unit not in done or lacks_texts:
            tasks.append(
                EmbedTask(
                    table=table,
                    model=model,
                    batch_size=config.batch_size,
                    num_decoders=config.num_decoders,
                    unit=unit,
                    is_text_alone=unit in done,
                )
            )
    return tasks


def check_same_model(root: Root, model: str, name: str = "") -> str:
    """What `identify_model` said of the model that made the root's vectors; of `model` where nobody wrote it down.

    `name` is that of the model in the recipe, empty for embed.model. Raises UserError when `model` is another one: a
    calibrated cosine or a score would say nothing of these vectors.
    """
    table = embeddings_table(name)
    rel = f"{metadata_folder(table)}/{CONFIG}"
    if not root.exists(rel):
        return identify_model(model)
    made = str(root.read_record(rel, STAGE_CONFIG)["config"].get("model"))
    # A file that was deleted since can be told by its name only.
    is_gone = not Path(model).exists() and made.startswith(f"{Path(model).name}:")
    if not is_gone and not is_same_model(made, model):
        raise UserError(
            f"{root.base} was embedded with {made} and the recipe's {name_setting(name)} is {identify_model(model)}: "
            f"name the former, or delete {root.url(table)} and run `curate embed`."
        )
    return made


def embed_unit(
    root: Root, unit: str, model: str, batch_size: int, table: str = EMBEDDINGS, num_decoders: int = 1
) -> int:
    """Embed the ok rows of one unit in order of uid and publish them; their number.

    A picture that cannot be decoded gets a row of NaN, which later stages read as "no vector". Captions are embedded
    too where `model` has a text side. Raises UserError when a shard is missing or truncated.
    """
    embedder = load_embedder(model)
    columns = ["uid", "status", "shard", "offset", "size", "stored_sha256"]
    found = root.read_parquet(downloads_file(unit), columns)
    rows = sorted((row for row in found.to_pylist() if row["status"] == Status.OK), key=lambda row: row["uid"])
    vectors, start = np.zeros((len(rows), embedder.dim), np.float16), 0
    for made in _embed_rows(root, embedder, rows, batch_size, num_decoders):
        vectors[start : start + len(made)] = to_half(made)
        start += len(made)
    _publish_vectors(root, vectors_file(unit, table), vectors)
    uids = [row["uid"] for row in rows]
    if find_text_side(model) != "none":
        _embed_captions_of(root, unit, uids, model, batch_size, table)
    metadata = pa.table({"uid": pa.array(uids, pa.string())}, schema=EMBEDDINGS_SCHEMA)
    root.publish_parquet(metadata_file(unit, table), metadata)
    return len(rows)


def _embed_rows(
    root: Root, embedder: Embedder, rows: Sequence[dict[str, Any]], batch_size: int, num_decoders: int
) -> Iterator[np.ndarray]:
    """Vectors of the pictures of `rows`, batch after batch."""
    if isinstance(embedder, PictureEmbedder):
        reads = [partial(read_stored_picture, root, row) for row in rows]
        yield from embedder.embed_ahead(reads, batch_size, num_decoders)
        return
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        yield embedder.embed([row["uid"] for row in batch], (read_stored_picture(root, row) for row in batch))


def embed_captions(root: Root, unit: str, model: str, batch_size: int, table: str = EMBEDDINGS) -> int:
    """Embed the captions of a unit whose pictures have vectors already; the number of rows."""
    uids = root.read_parquet(metadata_file(unit, table), ["uid"])["uid"].to_pylist()
    _embed_captions_of(root, unit, uids, model, batch_size, table)
    return len(uids)


def _embed_captions_of(root: Root, unit: str, uids: Sequence[str], model: str, batch_size: int, table: str) -> None:
    """Publish the vectors of the captions of `uids`, in their order; a row of NaN where there is no caption."""
    embedder = load_text_embedder(model)
    samples = root.read_parquet(samples_file(unit), ["uid", "caption"])
    captions = dict(zip(samples["uid"].to_pylist(), samples["caption"].to_pylist(), strict=True))
    vectors = np.zeros((len(uids), embedder.dim), np.float16)
    for start in range(0, len(uids), batch_size):
        batch = uids[start : start + batch_size]
        vectors[start : start + len(batch)] = to_half(embedder.embed_texts(batch, [captions.get(uid) for uid in batch]))
    _publish_vectors(root, texts_file(unit, table), vectors)


def _publish_vectors(root: Root, rel: str, vectors: np.ndarray) -> None:
    sink = io.BytesIO()
    np.save(sink, vectors)
    root.publish(rel, sink.getvalue())


def to_half(vectors: np.ndarray) -> np.ndarray:
    """float16 of `vectors` `[n, d]`; rows too large or too small for half precision are scaled to length 1 first."""
    largest = np.abs(vectors).max(axis=1, initial=0)
    outside = (largest > np.finfo(np.float16).max) | ((largest > 0) & (largest < SMALL))
    lengths = np.where(outside, np.linalg.norm(vectors.astype(np.float64), axis=1), 1)
    return (vectors / lengths[:, None]).astype(np.float16)


def read_stored_picture(root: Root, row: dict[str, Any]) -> bytes:
    """The picture that `row` of downloads names. Raises UserError when its shard is missing or damaged."""
    try:
        return read_member(root, row["shard"], row["offset"], row["size"], row["stored_sha256"])
    except FileNotFoundError as error:
        raise UserError(f"{root.url(row['shard'])} is gone: {remedy(row['shard'], is_there=False)}.") from error


if __name__ == "__main__":
    from jobs.spark.stage import main

    main("embed", check, run)
