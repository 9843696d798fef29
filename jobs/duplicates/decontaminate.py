"""Rows whose picture is in an evaluation set: compared by bytes, pixels, perceptual hash and embedding.

`dedupe.against` names the sets (jobs/duplicates/evaluation_sets.py). A match is recorded as tier
`decontamination:NAME`, NAME being the set's, with the evaluation picture in the place of the kept uid.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from curation.adopt.tar_samples import PICTURES
from curation.duplicates.clustering import usable
from curation.duplicates.known import SCHEMA, KnownPictures
from curation.duplicates.phash import NUM_SET_BITS
from curation.errors import UserError
from curation.images.probe import PictureError
from curation.images.process import process
from curation.recipe.config import DownloadConfig
from curation.shards import index, read_member
from curation.storage import Root, fingerprint
from curation.tables import vectors_file
from curation.unit_streams import by_unit
from jobs.duplicates.arrays import load_npy
from jobs.duplicates.evaluation_sets import EvaluationSet, Kind
from jobs.duplicates.plan import DedupePlan
from jobs.embedders import Embedder, find_embedder, load_embedder
from jobs.spark.tasks import map_units

PICTURES_PER_TASK = 1_000
MATCH_DDL = "row bigint, key string, tier string, similarity double"
COUNTS = ("pictures", "unreadable", "with_hash", "with_vector")
"""What is counted of an evaluation set; of embeddings every row is a picture, unreadable without a direction."""


@dataclass(frozen=True, kw_only=True)
class Files:
    """Files of one kind of one evaluation set, which one task reads."""

    name: str
    base: str
    kind: Kind
    paths: list[str]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one task read: the path of a table with SCHEMA and the numbers of COUNTS."""

    path: str
    counts: dict[str, int]


def match_evaluation_sets(
    spark: SparkSession, root: Root, plan: DedupePlan, rows: DataFrame
) -> tuple[DataFrame, dict[str, dict[str, int]]]:
    """The best rows whose content is in an evaluation set, and COUNTS of each set.

    The frame has `row`, `key`, `tier` and `similarity` of the strongest match of any row with the same content.
    `rows` is what `jobs.dedupe.fold_exact_copies` gives. Raises UserError for a set that cannot be read.
    """
    if not plan.sets:
        return spark.createDataFrame([], MATCH_DDL), {}
    units, min_cosine, min_entropy = plan.units, plan.min_cosine, plan.config.min_entropy
    max_hamming = plan.config.max_hamming if "perceptual" in plan.config.tiers else None
    files, counts = _read_sets(spark, root, plan)

    def match(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        known = _load_known(root, files)
        for unit, table in by_unit(batches):
            vectors = None if min_cosine is None else load_npy(root, vectors_file(units[unit]))
            yield known.match(table, vectors, max_hamming, min_entropy, min_cosine)

    compared = rows.select("unit", "row", "place", "sha256", "pixel_sha256", "phash", "entropy")
    by_place = compared.repartition(len(units), "unit").sortWithinPartitions("unit", "row")
    return _match_contents(by_place.mapInArrow(match, MATCH_DDL), rows).persist(), counts


def _match_contents(matches: DataFrame, rows: DataFrame) -> DataFrame:
    """`matches` of rows as matches of the best rows of the same content, whatever their caption.

    Only one of several copies may have the bytes or the vector by which a picture is recognised.
    """
    strongest = F.min(F.struct((-F.col("similarity")).alias("distance"), "row", "key", "tier")).alias("match")
    contents = matches.join(rows.select("row", "content"), "row").groupBy("content").agg(strongest)
    best = rows.where("row = best").select("row", "content").join(contents, "content")
    return best.selectExpr("row", "match.key", "match.tier", "-match.distance as similarity")


_in_this_process: dict[str, KnownPictures] = {}


def _load_known(root: Root, files: list[str]) -> KnownPictures:
    """The evaluation pictures, read once a process; only those of the latest run are kept in memory."""
    name = fingerprint([root.base, files])
    if name not in _in_this_process:
        _in_this_process.clear()
        _in_this_process[name] = KnownPictures([root.read_parquet(file) for file in files])
    return _in_this_process[name]


def _read_sets(spark: SparkSession, root: Root, plan: DedupePlan) -> tuple[list[str], dict[str, dict[str, int]]]:
    """Hash and embed the evaluation pictures, a task a tar or a thousand files; the files with the results, COUNTS."""
    folder = f"{plan.work}/against"
    reader = Reader(
        model=None if plan.min_cosine is None else plan.model, batch_size=plan.batch_size, download=plan.download
    )

    def read(files: Files) -> Result:
        path = f"{folder}/{fingerprint([files.name, files.kind, files.paths])}.parquet"
        try:
            table, unreadable = reader.read(files)
            counts = _count(table)
            root.publish_parquet(path, table)
        except (UserError, OSError, ValueError, EOFError) as error:
            raise UserError(" ".join(f"dedupe.against: {files.name}: {error}".split())) from error
        counts["unreadable"] = len(table) - counts["with_vector"] if files.kind == "embeddings" else unreadable
        return Result(path=path, counts=counts)

    tasks = [files for item in plan.sets for files in _split_files(item)]
    results = map_units(spark, "against", tasks, read)
    counts = {item.name: dict.fromkeys(COUNTS, 0) for item in plan.sets}
    for task, result in zip(tasks, results, strict=True):
        for name in COUNTS:
            counts[task.name][name] += result.counts[name]
    for item in plan.sets:
        num_pictures = counts[item.name]["pictures"]
        if num_pictures == counts[item.name]["unreadable"]:
            raise UserError(
                f"dedupe.against: of the {num_pictures} pictures in the {len(item.files)} files of {item.base} none "
                f"can be read: check what they hold."
            )
    return [result.path for result in results], counts


def _split_files(item: EvaluationSet) -> list[Files]:
    """The files of a set in parts that one task each reads."""
    sizes: list[tuple[Kind, int]] = [("pictures", PICTURES_PER_TASK), ("webdataset", 1), ("embeddings", 1)]
    tasks = []
    for kind, size in sizes:
        paths = item.paths(kind)
        parts = [paths[at : at + size] for at in range(0, len(paths), size)]
        tasks += [Files(name=item.name, base=item.base, kind=kind, paths=part) for part in parts]
    return tasks


def _count(table: pa.Table) -> dict[str, int]:
    """COUNTS of `table`, without the unreadable ones."""
    hashes = table["phash"].drop_null().to_numpy()
    vectors = table["vector"].drop_null()
    dim = pc.max(pc.list_value_length(vectors)).as_py() or 0
    matrix = vectors.combine_chunks().flatten().to_numpy().reshape(len(vectors), dim)
    return {
        "pictures": len(table),
        "with_hash": int((np.bitwise_count(hashes) == NUM_SET_BITS).sum()),
        "with_vector": int(usable(matrix).sum()),
    }


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads evaluation pictures as the root's own were stored, `download` saying how, and embedded.

    `model` is None when embeddings are not compared; `batch_size` pictures are embedded at once.
    """

    model: str | None
    batch_size: int
    download: DownloadConfig

    def read(self, files: Files) -> tuple[pa.Table, int]:
        """What is known of the pictures in `files`, as SCHEMA has it, and how many of them could not be decoded."""
        if files.kind == "embeddings":
            return _read_vectors(files, files.paths[0]), 0
        reads = self.model is not None and find_embedder(self.model).reads_pictures
        embedder = load_embedder(self.model) if self.model is not None and reads else None
        rows = list(self._describe(files, embedder))
        return pa.Table.from_pylist(rows, SCHEMA), sum("phash" not in row for row in rows)

    def _describe(self, files: Files, embedder: Embedder | None) -> Iterator[dict[str, Any]]:
        """A row of SCHEMA a picture, without a phash where it does not decode."""
        waiting: list[tuple[dict[str, Any], bytes]] = []
        for key, data in _read_pictures(files):
            row: dict[str, Any] = {
                "name": files.name,
                "key": f"{files.name}/{key}",
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            try:
                stored = process(data, self.download)
            except PictureError:
                yield row  # its bytes can still be recognised
                continue
            phash = None if stored.phash is None else int(stored.phash, 16)
            waiting.append((row | {"pixel_sha256": stored.pixel_sha256, "phash": phash}, stored.data))
            if len(waiting) == self.batch_size:
                yield from _add_vectors(waiting, embedder)
                waiting = []
        yield from _add_vectors(waiting, embedder)


def _add_vectors(pictures: list[tuple[dict[str, Any], bytes]], embedder: Embedder | None) -> list[dict[str, Any]]:
    if embedder is None or not pictures:
        return [row for row, _ in pictures]
    vectors = embedder.embed([row["key"] for row, _ in pictures], [data for _, data in pictures])
    return [row | {"vector": vector} for (row, _), vector in zip(pictures, vectors, strict=True)]


def _read_pictures(files: Files) -> Iterator[tuple[str, bytes]]:
    folder = Root(files.base)
    for path in files.paths:
        if files.kind == "pictures":
            yield path, folder.read_bytes(path)
            continue
        for member in index(folder, path):
            if member.extension.rpartition(".")[2].lower() in PICTURES:
                yield f"{path}/{member.name}", read_member(folder, path, member.offset, member.size)


def _read_vectors(files: Files, path: str) -> pa.Table:
    vectors = np.load(io.BytesIO(Root(files.base).read_bytes(path)), allow_pickle=False)
    firsts = np.arange(0, vectors.size + 1, max(1, vectors.shape[1]), dtype=np.int64)
    with np.errstate(over="ignore"):  # what float32 cannot hold has no direction
        single = vectors.astype(np.float32).ravel()
    columns = {
        "name": [files.name] * len(vectors),
        "key": [f"{files.name}/{path}/{number}" for number in range(len(vectors))],
        "vector": pa.LargeListArray.from_arrays(firsts, single),
    }
    empty = {name: pa.nulls(len(vectors)) for name in SCHEMA.names if name not in columns}
    return pa.table({name: (columns | empty)[name] for name in SCHEMA.names}).cast(SCHEMA)
