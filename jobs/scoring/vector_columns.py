"""Vectors as columns that filters read: which table, whether it is there, and prompts embedded by its model."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curation.errors import UserError
from curation.npy import read_vectors_shape
from curation.recipe.config import Recipe
from curation.records import STAGE_CONFIG
from curation.remedies import remedy
from curation.storage import CONFIG, Root
from curation.tables import (
    embedded_units,
    embeddings_table,
    metadata_file,
    metadata_folder,
    texts_file,
    texts_folder,
    vectors_file,
)
from filters._embeddings import EmbeddingFilter
from filters.base import IMAGE_EMBEDDING, TEXT_EMBEDDING, Filter
from jobs.embedders import TextSide, find_embedder, find_text_side, load_text_embedder, resolve_models

MADE_BY = "embedded_by"
"""Names, in the record of a table of scores, the model whose vectors were scored."""
_FILES = {IMAGE_EMBEDDING.name: vectors_file, TEXT_EMBEDDING.name: texts_file}


def table_read_by(item: Filter) -> str:
    """The table of vectors that `item` reads, where it reads any."""
    return embeddings_table(item.embeddings if isinstance(item, EmbeddingFilter) else "")


def list_columns(item: Filter) -> list[str]:
    """`item.reads`, a column of vectors with its table: COLUMN@TABLE."""
    return [f"{name}@{table_read_by(item)}" if name in _FILES else name for name in item.reads]


def reads_vectors(item: Filter) -> bool:
    """Whether `item` reads vectors."""
    return any(name in _FILES for name in item.reads)


def check_models(recipe: Recipe, root: Root, wanted: Mapping[str, Filter]) -> None:
    """Raise UserError for a filter whose model is not in the recipe, lacks texts, or has vectors of another length."""
    models = resolve_models(recipe)
    for name, item in wanted.items():
        if isinstance(item, EmbeddingFilter):
            _check_model(root, name, item, models)


def _check_model(root: Root, name: str, item: EmbeddingFilter, models: Mapping[str, str]) -> None:
    if item.embeddings not in models:
        known = ", ".join(filter(None, models)) or "none"
        raise UserError(
            f"[filters.{name}] reads embeddings {item.embeddings!r}, and the recipe has no [embed.models."
            f"{item.embeddings}]: name one of its models ({known})."
        )
    table, model = table_read_by(item), models[item.embeddings]
    units = embedded_units(root, table)
    rel = vectors_file(units[0], table) if units else ""
    item.check_dim(read_vectors_shape(root, rel, remedy(rel))[1] if units else find_embedder(model).check(model))
    has_texts = bool(units and root.list(texts_folder(table), ".npy"))
    side: TextSide = "captions" if has_texts and not item.list_prompts() else find_text_side(model)
    if TEXT_EMBEDDING.name in item.reads and side == "none":
        raise UserError(
            f"[filters.{name}] reads vectors of captions, and {model} has no text tower: name a CLIP in [embed.models]."
        )
    if item.list_prompts() and side != "any":
        raise UserError(
            f"[filters.{name}] has prompts to embed, and {model} has no text tower: name a CLIP in [embed.models]."
        )


def check_vectors_there(root: Root, wanted: Mapping[str, Filter], units: Sequence[str]) -> None:
    """Raise UserError when `units` lack vectors that a filter of `wanted` reads."""
    for name, item in wanted.items():
        if not reads_vectors(item):
            continue
        table = table_read_by(item)
        missing = len(set(units) - set(embedded_units(root, table)))
        if missing:
            raise UserError(
                f"Filter {name} reads embeddings, and {missing} of {len(units)} units have none in {table}: "
                f"run `curate embed` first."
            )


def check_texts_there(root: Root, wanted: Mapping[str, Filter], units: Sequence[str]) -> None:
    """Raise UserError when `units` lack vectors of captions that a filter of `wanted` reads."""
    for name, item in wanted.items():
        if TEXT_EMBEDDING.name in item.reads:
            table = table_read_by(item)
            there = set(root.list(texts_folder(table), ".npy"))
            missing = sum(texts_file(unit, table).rpartition("/")[2] not in there for unit in units)
            if missing:
                raise UserError(
                    f"Filter {name} reads vectors of captions, and {missing} of {len(units)} units have none in "
                    f"{table}: run `curate embed` again."
                )


def describe_scores(root: Root, item: Filter, record: str) -> dict[str, Any]:
    """What the scores of `item` depend on; `record` is the file of what earlier units were scored with.

    Earlier versions did not record the model, and their tables are gone on with.
    """
    config = item.config()
    rel = f"{metadata_folder(table_read_by(item))}/{CONFIG}"
    if not reads_vectors(item) or not root.exists(rel):
        return config
    if root.exists(record) and MADE_BY not in root.read_record(record, STAGE_CONFIG)["config"]:
        return config
    return config | {MADE_BY: root.read_record(rel, STAGE_CONFIG)["config"].get("model")}


def bind_prompts(models: Mapping[str, str], wanted: Mapping[str, Filter]) -> dict[str, Filter]:
    """`wanted`, with the vectors of their prompts by `models`, which are as `jobs.embedders.resolve_models` says."""
    return {name: _bind(models, item) for name, item in wanted.items()}


def _bind(models: Mapping[str, str], item: Filter) -> Filter:
    if not isinstance(item, EmbeddingFilter) or not item.list_prompts():
        return item
    embedder = load_text_embedder(models[item.embeddings])
    return item.bind(lambda texts: embedder.embed_texts([""] * len(texts), texts))


def read_vectors(root: Root, unit: str, column: str, uids: Sequence[str]) -> pa.Array:
    """Vector of each of `uids` as a list of floats, null where there is none; `column` as `list_columns` names it."""
    name, _, table = column.partition("@")
    known = root.read_parquet(metadata_file(unit, table), ["uid"])["uid"].to_pylist()
    matrix = np.load(io.BytesIO(root.read_whole(_FILES[name](unit, table))), allow_pickle=False)
    row_of = {uid: row for row, uid in enumerate(known)}
    rows = np.array([row_of.get(uid, -1) for uid in uids], np.int64)
    dim = matrix.shape[1]
    if not len(matrix):
        return pa.nulls(len(uids), IMAGE_EMBEDDING.type)
    ends = pa.array(np.arange(len(rows) + 1, dtype=np.int32) * dim)
    values = pa.array(matrix[rows].astype(np.float32).ravel())
    return pa.ListArray.from_arrays(ends, values, mask=pa.array(rows < 0))
