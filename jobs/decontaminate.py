"""Rows whose picture is in an evaluation set: compared by bytes, pixels, perceptual hash and embedding.

`dedupe.against` names folders of pictures, webdatasets (a .tar, a pattern, or a folder of them) and folders of
embeddings in clip-retrieval's layout. A match is recorded as tier `decontamination:NAME`, NAME being the folder's,
with the evaluation picture in the place of the kept uid.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from curation.config import Recipe
from curation.duplicates.known import SCHEMA, Known
from curation.errors import UserError
from curation.images.probe import PictureError
from curation.images.process import process
from curation.shards import index, read_member
from curation.storage import Root, fingerprint
from jobs import embedders
from jobs.embed import VECTORS, model_of
from jobs.ingest import by_unit
from jobs.work import load_npy

EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif")
PICTURES_PER_TASK = 1_000
MATCH_DDL = "row bigint, key string, tier string, similarity double"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One entry of `dedupe.against`, looked up: `files` are (path inside `base`, size)."""

    name: str
    base: str
    kind: str
    files: tuple[tuple[str, int], ...]


def references(recipe: Recipe) -> list[Reference]:
    """The evaluation sets that the recipe names. Raises UserError for one that is not there or of two same names."""
    found = [_reference(recipe.resolve(spec)) for spec in recipe.dedupe.against]
    names = [reference.name for reference in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"dedupe.against names two sets {name!r}: give their folders different names.")
    return found


def reference_inputs(recipe: Recipe) -> list[Any]:
    """What the fingerprint of the table covers of the evaluation sets: names, and files with their sizes."""
    return [[reference.name, reference.kind, fingerprint(reference.files)] for reference in references(recipe)]


def _reference(url: str) -> Reference:
    fs, path = fsspec.core.url_to_fs(url)
    path = path.rstrip("/")
    pattern = any(character in path for character in "*?[")
    folder = str(PurePosixPath(path).parent) if pattern or path.endswith(".tar") else path
    paths = fs.glob(path) if pattern else fs.find(path)  # find gives a file itself, and nothing where nothing is
    sized = tuple(sorted((str(PurePosixPath(p).relative_to(folder)), int(fs.size(p))) for p in paths))
    base = fs.unstrip_protocol(folder) if "://" in url else folder
    kinds = {
        "embeddings": tuple(f for f in sized if f[0].startswith("img_emb/") and f[0].endswith(".npy")),
        "webdataset": tuple(f for f in sized if f[0].endswith(".tar")),
        "pictures": tuple(f for f in sized if f[0].rpartition(".")[2].lower() in EXTENSIONS),
    }
    for kind, files in kinds.items():
        if files:
            return Reference(name=PurePosixPath(folder).name, base=base, kind=kind, files=files)
    raise UserError(f"dedupe.against: {url} holds no pictures, no .tar and no img_emb/*.npy; check the path.")


def contaminated(
    spark: SparkSession,
    recipe: Recipe,
    root: Root,
    work: str,
    rows: DataFrame,
    units: list[str],
    min_cosine: float | None,
) -> DataFrame:
    """`row`, `key`, `tier`, `similarity` of the best rows of `rows` that match an evaluation picture."""
    found = references(recipe)
    if not found:
        return spark.createDataFrame([], MATCH_DDL)
    files = _read_references(spark, recipe, root, f"{work}/against", found, min_cosine is not None)
    config = recipe.dedupe
    max_hamming = config.max_hamming if "perceptual" in config.tiers else None

    def match(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        known = _known(root, files)
        for unit, table in by_unit(batches):
            vectors = None if min_cosine is None else load_npy(root, VECTORS.format(unit=units[unit]))
            yield known.matches(table, vectors, max_hamming, config.min_entropy, min_cosine)

    wanted = rows.where("row = best").select("unit", "row", "place", "sha256", "pixel_sha256", "phash", "entropy")
    by_place = wanted.repartition(len(units), "unit").sortWithinPartitions("unit", "row")
    return by_place.mapInArrow(match, MATCH_DDL).persist()


_in_this_process: dict[str, Known] = {}


def _known(root: Root, files: list[str]) -> Known:
    """The evaluation pictures, read once a process; only those of the latest run are held."""
    name = fingerprint([root.base, files])
    if name not in _in_this_process:
        _in_this_process.clear()
        _in_this_process[name] = Known([root.read_parquet(file) for file in files])
    return _in_this_process[name]


def _read_references(
    spark: SparkSession, recipe: Recipe, root: Root, folder: str, found: list[Reference], embedded: bool
) -> list[str]:
    """Hash and embed the evaluation pictures, a task a tar or a thousand files; the files with the results."""
    tasks = [task for reference in found for task in _tasks(reference)]
    model, batch_size, download = model_of(recipe), recipe.embed.batch_size, recipe.download

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in (n for batch in batches for n in batch["id"].to_pylist()):
            reference, paths = tasks[number]
            if reference.kind == "embeddings":
                table = _vector_table(reference, paths[0]) if embedded else SCHEMA.empty_table()
            else:
                embedder = embedders.loaded(model) if embedded and embedders.kind(model).reads_pictures else None
                rows = list(_picture_rows(reference, paths, download, embedder, batch_size))
                table = pa.Table.from_pylist(rows, SCHEMA)
            path = f"{folder}/{number:06d}-{fingerprint([paths, reference.name])}.parquet"
            root.publish_parquet(path, table)
            yield pa.RecordBatch.from_pydict({"path": [path]})

    written = spark.range(0, len(tasks), 1, len(tasks)).mapInArrow(read, "path string").collect()
    return sorted(row["path"] for row in written)


def _tasks(reference: Reference) -> list[tuple[Reference, list[str]]]:
    size = PICTURES_PER_TASK if reference.kind == "pictures" else 1
    paths = [path for path, _ in reference.files]
    return [(reference, paths[start : start + size]) for start in range(0, len(paths), size)]


def _picture_rows(
    reference: Reference, paths: Sequence[str], download: Any, embedder: embedders.Embedder | None, batch_size: int
) -> Iterator[dict[str, Any]]:
    held: list[tuple[dict[str, Any], bytes]] = []
    for key, data in _pictures(reference, paths):
        row: dict[str, Any] = {
            "name": reference.name,
            "key": f"{reference.name}/{key}",
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        try:
            stored = process(data, download)
        except PictureError:
            yield row  # its bytes can still be recognised
            continue
        row |= {"pixel_sha256": stored.pixel_sha256, "phash": None if stored.phash is None else int(stored.phash, 16)}
        held.append((row, stored.data))
        if len(held) == batch_size:
            yield from _embedded(held, embedder)
            held = []
    yield from _embedded(held, embedder)


def _embedded(held: list[tuple[dict[str, Any], bytes]], embedder: embedders.Embedder | None) -> list[dict[str, Any]]:
    if embedder is None or not held:
        return [row for row, _ in held]
    vectors = embedder.embed([row["key"] for row, _ in held], [data for _, data in held])
    return [row | {"vector": vector} for (row, _), vector in zip(held, vectors, strict=True)]


def _pictures(reference: Reference, paths: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    folder = Root(reference.base)
    for path in paths:
        if reference.kind == "pictures":
            yield path, folder.read_bytes(path)
            continue
        for member in index(folder, path):
            if member.extension.rpartition(".")[2].lower() in EXTENSIONS:
                yield f"{path}/{member.name}", read_member(folder, path, member.offset, member.size)


def _vector_table(reference: Reference, path: str) -> pa.Table:
    """Raises UserError when `path` is no .npy of vectors."""
    try:
        vectors = np.load(io.BytesIO(Root(reference.base).read_bytes(path)), allow_pickle=False)
    except ValueError as error:
        raise UserError(f"dedupe.against: {reference.base}/{path} is no whole .npy file ({error}).") from error
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise UserError(f"dedupe.against: {reference.base}/{path} has {vectors.dtype} of shape {vectors.shape}, not "
                        "one vector a row.")  # fmt: skip
    firsts = np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int64)
    columns = {
        "name": [reference.name] * len(vectors),
        "key": [f"{reference.name}/{path}/{number}" for number in range(len(vectors))],
        "vector": pa.LargeListArray.from_arrays(firsts, vectors.astype(np.float32).ravel()),
    }
    empty = {name: pa.nulls(len(vectors)) for name in SCHEMA.names if name not in columns}
    return pa.table({name: (columns | empty)[name] for name in SCHEMA.names}).cast(SCHEMA)
