"""Rows whose picture is in an evaluation set: compared by bytes, pixels, perceptual hash and embedding.

`dedupe.against` names folders of pictures, webdatasets (a .tar, a pattern, or a folder of them) and folders of
embeddings in clip-retrieval's layout. A match is recorded as tier `decontamination:NAME`, NAME being the folder's,
with the evaluation picture in the place of the kept uid.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from curation.config import Recipe
from curation.duplicates.clustering import normalised, usable
from curation.duplicates.hamming import BITS
from curation.duplicates.phash import NUM_SET_BITS
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
BLOCK = 2_048
_REFERENCE = pa.schema(
    [
        ("name", pa.string()),
        ("key", pa.string()),
        ("sha256", pa.string()),
        ("pixel_sha256", pa.string()),
        ("phash", pa.uint64()),
        ("vector", pa.list_(pa.float32())),
    ]
)
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

    def match(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        known = Known([root.read_parquet(file) for file in files])
        for unit, table in by_unit(batches):
            vectors = None
            if min_cosine is not None:
                vectors = load_npy(root, VECTORS.format(unit=units[unit]))
            yield known.matches(table, vectors, config.tiers, config.max_hamming, config.min_entropy, min_cosine)

    wanted = rows.where("row = best").select("unit", "row", "place", "sha256", "pixel_sha256", "phash", "entropy")
    by_place = wanted.repartition(len(units), "unit").sortWithinPartitions("unit", "row")
    return by_place.mapInArrow(match, MATCH_DDL).persist()


def _read_references(
    spark: SparkSession, recipe: Recipe, root: Root, folder: str, found: list[Reference], embedded: bool
) -> list[str]:
    """Hash and embed the evaluation pictures, a task a tar or a thousand files; the files with the results."""
    tasks = [task for reference in found for task in _tasks(reference)]
    model, batch_size, download = model_of(recipe), recipe.embed.batch_size, recipe.download

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for number in (n for batch in batches for n in batch["id"].to_pylist()):
            reference, paths = tasks[number]
            rows = []
            if reference.kind == "embeddings":
                rows = [row for path in paths for row in _vector_rows(reference, path)] if embedded else []
            else:
                embedder = embedders.loaded(model) if embedded and embedders.kind(model).reads_pictures else None
                rows = list(_picture_rows(reference, paths, download, embedder, batch_size))
            path = f"{folder}/{number:06d}.parquet"
            root.publish_parquet(path, pa.Table.from_pylist(rows, _REFERENCE))
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
        row |= {"pixel_sha256": stored.pixel_sha256, "phash": int(stored.phash, 16)}
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


def _vector_rows(reference: Reference, path: str) -> list[dict[str, Any]]:
    vectors = np.load(io.BytesIO(Root(reference.base).read_bytes(path)), allow_pickle=False)
    return [
        {"name": reference.name, "key": f"{reference.name}/{path}/{number}", "vector": vector.astype(np.float32)}
        for number, vector in enumerate(vectors)
    ]


class Known:
    """The evaluation pictures as arrays; `tables` have the columns of `_REFERENCE`."""

    def __init__(self, tables: list[pa.Table]) -> None:
        table = pa.concat_tables(tables).sort_by([("name", "ascending"), ("key", "ascending")])
        self.names, self.keys = table["name"].to_pylist(), table["key"].to_pylist()
        self._by_sha256 = _first(table["sha256"].to_pylist())
        self._by_pixels = _first(table["pixel_sha256"].to_pylist())
        self._hashed = np.flatnonzero(table["phash"].is_valid().to_numpy())
        self._hashes = table["phash"].drop_null().to_numpy()
        vectors = [(i, v) for i, v in enumerate(table["vector"].to_pylist()) if v is not None]
        dims = sorted({len(v) for _, v in vectors})
        if len(dims) > 1:
            raise UserError(f"dedupe.against holds vectors of {dims} dimensions: embed it with the recipe's model.")
        matrix = np.array([v for _, v in vectors], np.float32).reshape(len(vectors), dims[0] if dims else 0)
        known = usable(matrix)
        self._embedded = np.array([i for i, _ in vectors], np.int64)[known]
        self._vectors = normalised(matrix[known])

    def matches(
        self,
        rows: pa.Table,
        vectors: np.ndarray | None,
        tiers: Sequence[str],
        max_hamming: int,
        min_entropy: float,
        min_cosine: float | None,
    ) -> pa.RecordBatch:
        """The strongest match of each row of one unit that has one. Raises UserError when dimensions differ."""
        found: dict[int, tuple[int, float]] = {}
        if min_cosine is not None and vectors is not None:
            found |= self._by_vector(rows, vectors, min_cosine)
        if "perceptual" in tiers:
            found |= self._by_hash(rows, max_hamming, min_entropy)
        for column, lookup in (("pixel_sha256", self._by_pixels), ("sha256", self._by_sha256)):
            for i, value in enumerate(rows[column].to_pylist()):
                if value in lookup:
                    found[i] = lookup[value], 1.0
        places = sorted(found)
        reference = [found[i][0] for i in places]
        return pa.RecordBatch.from_pydict(
            {
                "row": rows["row"].combine_chunks().take(pa.array(places, pa.int64())),
                "key": pa.array([self.keys[r] for r in reference], pa.string()),
                "tier": pa.array([f"decontamination:{self.names[r]}" for r in reference], pa.string()),
                "similarity": pa.array([found[i][1] for i in places], pa.float64()),
            }
        )

    def _by_hash(self, rows: pa.Table, max_hamming: int, min_entropy: float) -> dict[int, tuple[int, float]]:
        hashes = rows["phash"].fill_null(0).to_numpy().view(np.uint64)
        detailed = rows["entropy"].fill_null(8.0).to_numpy() >= min_entropy
        asked = np.flatnonzero(detailed & (np.bitwise_count(hashes) == NUM_SET_BITS))
        hashes = hashes[asked]

        def closeness(block: slice) -> np.ndarray:
            return 1 - np.bitwise_count(hashes[block, None] ^ self._hashes[None, :]) / BITS

        return _nearest(asked, self._hashed, closeness, 1 - max_hamming / BITS)

    def _by_vector(self, rows: pa.Table, vectors: np.ndarray, min_cosine: float) -> dict[int, tuple[int, float]]:
        places = rows["place"].fill_null(-1).to_numpy()
        asked = np.flatnonzero(places >= 0)
        asked = asked[usable(vectors[places[asked]])]
        if len(asked) and len(self._vectors) and vectors.shape[1] != self._vectors.shape[1]:
            raise UserError(
                f"dedupe.against has vectors of {self._vectors.shape[1]} dimensions, the root of {vectors.shape[1]}: "
                f"embed the evaluation set with the recipe's model."
            )

        def closeness(block: slice) -> np.ndarray:
            return normalised(vectors[places[asked[block]]]) @ self._vectors.T

        return _nearest(asked, self._embedded, closeness, min_cosine)


def _first(values: list[str | None]) -> dict[str, int]:
    return {value: i for i, value in reversed(list(enumerate(values))) if value is not None}


def _nearest(
    asked: np.ndarray, reference: np.ndarray, closeness: Callable[[slice], np.ndarray], least: float
) -> dict[int, tuple[int, float]]:
    """Nearest of `reference` for each of `asked` that is at least `least` close, a block of rows at a time."""
    found: dict[int, tuple[int, float]] = {}
    if not len(reference):
        return found
    for start in range(0, len(asked), BLOCK):
        close = closeness(slice(start, start + BLOCK))
        best = close.argmax(axis=1)
        values = close[np.arange(len(best)), best]
        for i in np.flatnonzero(values >= least).tolist():
            found[int(asked[start + i])] = int(reference[best[i]]), min(1.0, float(values[i]))
    return found
