"""The sections `[scores.NAME]` of a recipe, resolved: which files they join and which columns they add.

Nothing here joins them: that is for jobs/scoring/joined_scores.py and, on a cluster, spark_joined_scores.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import filters
from curation.errors import UserError
from curation.paths import find_files, open_file
from curation.recipe.config import Recipe, ScoresConfig
from curation.recipe.rules import manifest_columns
from curation.schema import is_further_caption
from curation.tables import scores_table

KEYS = ("uid", "url")
CHUNK_BYTES = 1 << 20
RowGroup = tuple[str, int]
"""A file and the number of a row group in it."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class JoinedScores:
    """One section `[scores.NAME]`, resolved: its files, their `key` (uid or url), and the columns that they add."""

    name: str
    config: ScoresConfig
    files: tuple[str, ...]
    key: str
    columns: pa.Schema

    @property
    def table(self) -> str:
        return scores_table(self.name)

    def describe(self) -> dict[str, Any]:
        """What decides the table, with the sha256 of each file. Reads all of them."""
        columns = {field.name: str(field.type) for field in self.columns}
        return {"files": sorted(map(_hash_file, self.files)), "key": self.key, "columns": columns}


def plan_joined_scores(recipe: Recipe) -> list[JoinedScores]:
    """The sections `[scores.NAME]` of `recipe`. Raises UserError for files and columns that cannot be joined."""
    found = [_plan_one(recipe, name, config) for name, config in recipe.scores.items()]
    taken = {column.lower(): "the manifest" for column in (*manifest_columns(), "kept", "reason")}
    for item in found:
        if item.name in recipe.filters or item.name in filters.names():
            raise UserError(f"[scores.{item.name}] has the name of a filter: call it otherwise.")
        for column in item.columns.names:
            known = "the manifest" if is_further_caption(column.lower()) else f"[scores.{item.name}]"
            owner = taken.setdefault(column.lower(), known)
            if owner != f"[scores.{item.name}]":
                raise UserError(f"[scores.{item.name}]: {owner} has a column {column!r} already: rename this one.")
    return found


def _plan_one(recipe: Recipe, name: str, config: ScoresConfig) -> JoinedScores:
    subject = f"[scores.{name}]"
    if not _NAME.fullmatch(name):
        raise UserError(f"{subject}: a name has letters, digits and _ only: rename it.")
    patterns = [recipe.resolve(path) for path in config.paths]
    files = tuple(dict.fromkeys(file for pattern in patterns for file in find_files(pattern, subject)))
    schemas = [_read_schema(file, subject) for file in files]
    for file, schema in zip(files, schemas, strict=True):
        if not schema.equals(schemas[0]):
            raise UserError(f"{subject}: {file} has other columns than {files[0]}: they must be the same.")
    key = next((key for key in KEYS if key in schemas[0].names), None)
    if key is None:
        raise UserError(f"{subject}: {files[0]} has neither a column uid nor url to join by.")
    wanted = config.columns or tuple(column for column in schemas[0].names if column not in KEYS)
    columns = pa.schema([_plan_column(schemas[0], column, subject) for column in wanted])
    if not wanted:
        raise UserError(f"{subject}: {files[0]} has no column beside {key}.")
    return JoinedScores(name=name, config=config, files=files, key=key, columns=columns)


def _read_schema(file: str, subject: str) -> pa.Schema:
    with said_as_sentence(subject, file), open_file(file) as stream:
        return pq.read_schema(stream).remove_metadata()


def measure_groups(item: JoinedScores, file: str) -> list[int]:
    """Rows of each row group of `file`. Raises UserError when it is not readable."""
    with said_as_sentence(f"[scores.{item.name}]", file), open_file(file) as stream:
        metadata = pq.read_metadata(stream)
    return [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]


def list_groups(item: JoinedScores) -> list[RowGroup]:
    """The row groups of all files. Raises UserError for a file that is not readable."""
    return [(file, group) for file in item.files for group in range(len(measure_groups(item, file)))]


@contextlib.contextmanager
def said_as_sentence(subject: str, file: str) -> Iterator[None]:
    """Let what reading `file` raises be a UserError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{subject}: {file} is not readable as parquet ({error}).") from error


def _plan_column(schema: pa.Schema, column: str, subject: str) -> pa.Field:
    """The column in one of the types that tables of scores have."""
    if column not in schema.names:
        raise UserError(f"{subject} has no column {column!r}; it has {', '.join(schema.names)}.")
    dtype = schema.field(column).type
    if not _NAME.fullmatch(column):
        raise UserError(f"{subject}: column {column!r} cannot be named in rules: rename it.")
    if pa.types.is_boolean(dtype):
        return pa.field(column, pa.bool_())
    if pa.types.is_integer(dtype):
        return pa.field(column, pa.int64())
    if pa.types.is_floating(dtype):
        return pa.field(column, pa.float32())
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
        return pa.field(column, pa.string())
    raise UserError(f"{subject}: column {column!r} is of type {dtype}; name in `columns` those that you want.")


def _hash_file(file: str) -> str:
    digest = hashlib.sha256()
    with open_file(file) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def build_joined_schemas(recipe: Recipe) -> dict[str, pa.Schema]:
    """Tables of the sections `[scores.NAME]` and the columns that they add. Raises UserError as the plan does."""
    return {item.table: item.columns for item in plan_joined_scores(recipe)}
