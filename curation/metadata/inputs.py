"""The files of metadata that a recipe names, as they were found: their format, columns, rows and fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from curation.errors import UserError
from curation.metadata import parquet
from curation.metadata.paths import find_files, open_file
from curation.recipe.config import Recipe, SourceConfig
from curation.sources import AUTO, choose_columns, detect_format, load_format

FOOTER_BYTES = 65_536
NUM_READERS = 16
"""Files that are looked into at once: most of the time they are waited for."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One metadata file, as it was found. It is small: tasks get it with their share of the rows."""

    source: str
    path: str
    format: str
    columns: Mapping[str, tuple[str, ...]]
    """Column of samples → the file's own columns that it is taken from, the first that is not empty."""
    mapped: bool
    """Whether the recipe says which columns are which."""
    fingerprint: str
    num_rows: int
    parts: tuple[int, ...]
    """Rows of each part that can be read by itself: a row group of parquet."""

    @property
    def file(self) -> str:
        """The name without its folder."""
        return self.path.rpartition("/")[2]


def find_inputs(recipe: Recipe) -> list[Input]:
    """Every metadata file that the recipe names, in its order. Raises UserError for what cannot be read."""
    if not recipe.sources:
        raise UserError("The recipe names no [[sources]]: add one with a name and paths.")
    for source in recipe.sources:
        if source.format != "auto":
            load_format(source.format)
    found = [
        (source, path)
        for source in recipe.sources
        for pattern in source.paths
        for path in find_files(recipe.resolve(pattern), f"Source {source.name!r}")
    ]
    with ThreadPoolExecutor(NUM_READERS) as pool:
        return list(pool.map(lambda item: _look_into(*item), found))


def _look_into(source: SourceConfig, path: str) -> Input:
    schema, parts = parquet.look_into(path)
    name = source.format
    if name == AUTO and not {"url", "caption"} <= source.columns.keys():
        name = detect_format(schema.names, path)
    columns = choose_columns(name, schema, path, source.mapping)
    return Input(
        source=source.name,
        path=path,
        format=name,
        columns=columns,
        mapped=bool(source.columns),
        fingerprint=_fingerprint(path),
        num_rows=sum(parts),
        parts=parts,
    )


def _fingerprint(path: str) -> str:
    """16 hex digits over the size of the file and its end, where parquet has its statistics."""
    with open_file(path) as f:
        size = f.seek(0, os.SEEK_END)
        f.seek(max(0, size - FOOTER_BYTES))
        return hashlib.sha256(f"{size}\n".encode() + f.read()).hexdigest()[:16]
