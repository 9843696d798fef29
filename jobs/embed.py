"""One vector a stored picture, in clip-retrieval's layout: row i of the .npy belongs to row i of the metadata.

    curate embed --recipe R.toml --root ROOT
    spark-submit jobs/embed.py --recipe R.toml --root ROOT

One Spark task a unit; the metadata file is published last and makes the unit done.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from curation.errors import UserError
from curation.recipe.config import Recipe
from curation.records import STAGE_CONFIG
from curation.remedies import remedy
from curation.schema import EMBEDDINGS, Status
from curation.shards import read_member
from curation.storage import CONFIG, Root
from curation.tables import METADATA, downloads_file, embedded_units, metadata_file, vectors_file
from jobs.embedders import find_embedder, identify_model, is_same_model, load_embedder, resolve_model
from jobs.spark.sealing import seals
from jobs.spark.tasks import map_units

SMALL = 0.01
"""No row of length 1 in up to 10,000 dimensions has a largest component below this."""


def check(recipe: Recipe, root: Root) -> None:
    """Raise UserError for a model that is unknown, damaged, or another one than the root was embedded with."""
    model = resolve_model(recipe)
    find_embedder(model).check(model)
    if embedded_units(root):
        check_same_model(root, model)


@seals("embeddings", reads=("downloads",))
def run(spark: SparkSession, recipe: Recipe, root: Root) -> None:
    """Embed every downloaded unit that has no vectors. Raises UserError before anything is written."""
    check(recipe, root)
    model, batch_size = resolve_model(recipe), recipe.embed.batch_size
    downloaded = root.units("downloads")
    if not downloaded:
        raise UserError(f"{root.base} has no downloads to embed: run `curate download` first.")
    made = check_same_model(root, model) if embedded_units(root) else identify_model(model)
    root.begin_stage(METADATA, {"model": made})
    done = set(embedded_units(root))
    units = [unit for unit in downloaded if unit not in done]
    map_units(spark, "embed", units, lambda unit: embed_unit(root, unit, model, batch_size))


def check_same_model(root: Root, model: str) -> str:
    """What `identify_model` said of the model that made the root's vectors; of `model` where nobody wrote it down.

    Raises UserError when `model` is another one: its calibrated cosine would say nothing of these vectors.
    """
    rel = f"{METADATA}/{CONFIG}"
    if not root.exists(rel):
        return identify_model(model)
    made = str(root.read_record(rel, STAGE_CONFIG)["config"].get("model"))
    # A file that was deleted since can be told by its name only.
    is_gone = not Path(model).exists() and made.startswith(f"{Path(model).name}:")
    if not is_gone and not is_same_model(made, model):
        raise UserError(
            f"{root.base} was embedded with {made} and the recipe's embed.model is {identify_model(model)}: name the "
            f"former, or delete {root.url('embeddings')} and run `curate embed`."
        )
    return made


def embed_unit(root: Root, unit: str, model: str, batch_size: int) -> int:
    """Embed the ok rows of one unit in order of uid and publish them; their number.

    A picture that cannot be decoded gets a row of NaN, which later stages read as "no vector".
    Raises UserError when a shard is missing or truncated.
    """
    embedder = load_embedder(model)
    table = root.read_parquet(downloads_file(unit), ["uid", "status", "shard", "offset", "size", "stored_sha256"])
    rows = sorted((row for row in table.to_pylist() if row["status"] == Status.OK), key=lambda row: row["uid"])
    vectors = np.zeros((len(rows), embedder.dim), np.float16)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        made = embedder.embed([row["uid"] for row in batch], (read_stored_picture(root, row) for row in batch))
        vectors[start : start + len(batch)] = to_half(made)
    sink = io.BytesIO()
    np.save(sink, vectors)
    root.publish(vectors_file(unit), sink.getvalue())
    uids = pa.table({"uid": pa.array([row["uid"] for row in rows], pa.string())}, schema=EMBEDDINGS)
    root.publish_parquet(metadata_file(unit), uids)
    return len(rows)


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
