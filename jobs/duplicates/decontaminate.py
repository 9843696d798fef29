"""Rows whose picture is in an evaluation set: compared by bytes, pixels, perceptual hash and embedding.

`dedupe.against` names the sets (jobs/duplicates/evaluation_sets.py). A match is recorded as tier
`decontamination:NAME`, NAME being the set's, with the evaluation picture in the place of the kept uid.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.adopt.folder import PICTURES
from curation.duplicates.clustering import usable
from curation.duplicates.known import SCHEMA, Known
from curation.duplicates.phash import NUM_SET_BITS
from curation.errors import UserError
from curation.images.probe import PictureError
from curation.images.process import process
from curation.recipe.config import Recipe
from curation.shards import index, read_member
from curation.storage import Root, fingerprint
from curation.tables import vectors_file
from jobs import embedders
from jobs.duplicates.arrays import load_npy
from jobs.duplicates.evaluation_sets import EvaluationSet, Kind
from jobs.embed import model_of
from jobs.spark.tasks import by_unit, map_units

PICTURES_PER_TASK = 1_000
MATCH_DDL = "row bigint, key string, tier string, similarity double"
COUNTS = ("pictures", "unreadable", "with_hash", "with_vector")
"""What is counted of an evaluation set; of embeddings every row is a picture, unreadable without a direction."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Files of one kind of one evaluation set, read together."""

    name: str
    base: str
    kind: Kind
    paths: list[str]


@dataclass(frozen=True, kw_only=True)
class Read:
    """What came of a task: the file with SCHEMA, COUNTS, the dimension (0 without vectors); or a sentence."""

    path: str
    counts: dict[str, int] = field(default_factory=dict)
    dim: int = 0
    error: str | None = None


class Plan(Protocol):
    """What of a dedupe run concerns evaluation sets. `dim` is the root's; None, as `min_cosine`, without embeddings."""

    @property
    def against(self) -> list[EvaluationSet]: ...
    @property
    def units(self) -> list[str]: ...
    @property
    def min_cosine(self) -> float | None: ...
    @property
    def dim(self) -> int | None: ...
    @property
    def work(self) -> str: ...


def contaminated(
    spark: SparkSession, recipe: Recipe, root: Root, plan: Plan, rows: DataFrame
) -> tuple[DataFrame, dict[str, dict[str, int]]]:
    """The best rows of classes of `rows` of which any row matches an evaluation picture, and COUNTS of each set.

    The former has `row`, `key`, `tier`, `similarity`, of the strongest match of the class. Raises UserError for a set
    that cannot be read.
    """
    units, min_cosine = plan.units, plan.min_cosine
    if not plan.against:
        return spark.createDataFrame([], MATCH_DDL), {}
    files, counts = _read_sets(spark, recipe, root, plan)
    config = recipe.dedupe
    max_hamming = config.max_hamming if "perceptual" in config.tiers else None

    def match(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        known = _known(root, files)
        for unit, table in by_unit(batches):
            vectors = None if min_cosine is None else load_npy(root, vectors_file(units[unit]))
            yield known.matches(table, vectors, max_hamming, config.min_entropy, min_cosine)

    wanted = rows.select("unit", "row", "place", "sha256", "pixel_sha256", "phash", "entropy")
    by_place = wanted.repartition(len(units), "unit").sortWithinPartitions("unit", "row")
    return _of_classes(by_place.mapInArrow(match, MATCH_DDL), rows).persist(), counts


def _of_classes(matches: DataFrame, rows: DataFrame) -> DataFrame:
    """`matches` of rows as matches of the best rows of the same content, whatever their caption.

    Only one of several copies may have the bytes or the vector by which a picture is recognised.
    """
    strongest = F.min(F.struct((-F.col("similarity")).alias("distance"), "row", "key", "tier")).alias("match")
    found = matches.join(rows.select("row", "content"), "row").groupBy("content").agg(strongest)
    best = rows.where("row = best").select("row", "content").join(found, "content")
    return best.selectExpr("row", "match.key", "match.tier", "-match.distance as similarity")


_in_this_process: dict[str, Known] = {}


def _known(root: Root, files: list[str]) -> Known:
    """The evaluation pictures, read once a process; only those of the latest run are held."""
    name = fingerprint([root.base, files])
    if name not in _in_this_process:
        _in_this_process.clear()
        _in_this_process[name] = Known([root.read_parquet(file) for file in files])
    return _in_this_process[name]


def _read_sets(
    spark: SparkSession, recipe: Recipe, root: Root, plan: Plan
) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Hash and embed the evaluation pictures, a task a tar or a thousand files; the files with the results, COUNTS."""
    folder, embedded = f"{plan.work}/against", plan.min_cosine is not None

    def read(task: Task) -> Read:
        path = f"{folder}/{fingerprint([task.name, task.kind, task.paths])}.parquet"
        try:
            table, unreadable = _table(task, recipe, embedded)
            counts, dim = _counted(table)
            root.publish_parquet(path, table)
        except (UserError, OSError, ValueError, EOFError) as error:  # Spark would bury the sentence
            return Read(path=path, error=" ".join(f"dedupe.against: {task.name}: {error}".split()))
        counts["unreadable"] = len(table) - counts["with_vector"] if task.kind == "embeddings" else unreadable
        return Read(path=path, counts=counts, dim=dim)

    tasks = [task for item in plan.against for task in _tasks(item)]
    done = map_units(spark, "against", tasks, read)
    counts = {item.name: dict.fromkeys(COUNTS, 0) for item in plan.against}
    for task, result in zip(tasks, done, strict=True):
        if result.error is not None:
            raise UserError(result.error)
        if result.dim and plan.dim is not None and result.dim != plan.dim:
            raise UserError(
                f"dedupe.against: {model_of(recipe)} gives {task.base} vectors of {result.dim} dimensions, the root "
                f"has those of {plan.dim}: name the model that the root was embedded with."
            )
        for name in COUNTS:
            counts[task.name][name] += result.counts[name]
    for item in plan.against:
        found = counts[item.name]
        if found["pictures"] == found["unreadable"]:
            raise UserError(
                f"dedupe.against: of the {found['pictures']} pictures in the {len(item.files)} files of {item.base} "
                f"none can be read: check what they hold."
            )
    return [result.path for result in done], counts


def _tasks(item: EvaluationSet) -> list[Task]:
    sizes: list[tuple[Kind, int]] = [("pictures", PICTURES_PER_TASK), ("webdataset", 1), ("embeddings", 1)]
    found = []
    for kind, size in sizes:
        paths = item.paths(kind)
        parts = [paths[at : at + size] for at in range(0, len(paths), size)]
        found += [Task(name=item.name, base=item.base, kind=kind, paths=part) for part in parts]
    return found


def _table(task: Task, recipe: Recipe, embedded: bool) -> tuple[pa.Table, int]:
    """What is known of the pictures of `task`, as SCHEMA has it, and how many of them could not be decoded."""
    if task.kind == "embeddings":
        return _vector_table(task, task.paths[0]), 0
    model = model_of(recipe)
    embedder = embedders.loaded(model) if embedded and embedders.kind(model).reads_pictures else None
    rows = list(_picture_rows(task, recipe, embedder))
    return pa.Table.from_pylist(rows, SCHEMA), sum("phash" not in row for row in rows)


def _counted(table: pa.Table) -> tuple[dict[str, int], int]:
    """COUNTS of `table` but for those unreadable, and the dimension of its vectors."""
    hashes = table["phash"].drop_null().to_numpy()
    vectors = table["vector"].drop_null()
    dim = pc.max(pc.list_value_length(vectors)).as_py() or 0
    matrix = vectors.combine_chunks().flatten().to_numpy().reshape(len(vectors), dim)
    counts = {
        "pictures": len(table),
        "with_hash": int((np.bitwise_count(hashes) == NUM_SET_BITS).sum()),
        "with_vector": int(usable(matrix).sum()),
    }
    return counts, dim


def _picture_rows(task: Task, recipe: Recipe, embedder: embedders.Embedder | None) -> Iterator[dict[str, Any]]:
    """A row of SCHEMA a picture, without a phash where it does not decode."""
    held: list[tuple[dict[str, Any], bytes]] = []
    for key, data in _pictures(task):
        row: dict[str, Any] = {
            "name": task.name,
            "key": f"{task.name}/{key}",
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        try:
            stored = process(data, recipe.download)
        except PictureError:
            yield row  # its bytes can still be recognised
            continue
        row |= {"pixel_sha256": stored.pixel_sha256, "phash": None if stored.phash is None else int(stored.phash, 16)}
        held.append((row, stored.data))
        if len(held) == recipe.embed.batch_size:
            yield from _embedded(held, embedder)
            held = []
    yield from _embedded(held, embedder)


def _embedded(held: list[tuple[dict[str, Any], bytes]], embedder: embedders.Embedder | None) -> list[dict[str, Any]]:
    if embedder is None or not held:
        return [row for row, _ in held]
    vectors = embedder.embed([row["key"] for row, _ in held], [data for _, data in held])
    return [row | {"vector": vector} for (row, _), vector in zip(held, vectors, strict=True)]


def _pictures(task: Task) -> Iterator[tuple[str, bytes]]:
    folder = Root(task.base)
    for path in task.paths:
        if task.kind == "pictures":
            yield path, folder.read_bytes(path)
            continue
        for member in index(folder, path):
            if member.extension.rpartition(".")[2].lower() in PICTURES:
                yield f"{path}/{member.name}", read_member(folder, path, member.offset, member.size)


def _vector_table(task: Task, path: str) -> pa.Table:
    vectors = np.load(io.BytesIO(Root(task.base).read_bytes(path)), allow_pickle=False)
    firsts = np.arange(0, vectors.size + 1, max(1, vectors.shape[1]), dtype=np.int64)
    with np.errstate(over="ignore"):  # what float32 cannot hold has no direction
        single = vectors.astype(np.float32).ravel()
    columns = {
        "name": [task.name] * len(vectors),
        "key": [f"{task.name}/{path}/{number}" for number in range(len(vectors))],
        "vector": pa.LargeListArray.from_arrays(firsts, single),
    }
    empty = {name: pa.nulls(len(vectors)) for name in SCHEMA.names if name not in columns}
    return pa.table({name: (columns | empty)[name] for name in SCHEMA.names}).cast(SCHEMA)
