"""The files of metadata that a recipe names, as they were found: their format, columns, rows and fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa

from curation.errors import UserError
from curation.metadata import parquet
from curation.metadata.content import recognise
from curation.metadata.records import Layout
from curation.metadata.refusals import describe_odd_name
from curation.paths import find_files, open_file
from curation.recipe.config import Recipe, SourceConfig
from curation.schema import count_captions
from curation.sources import AUTO, choose_columns, detect_format, is_list, load_format, split_element

FOOTER_BYTES = 65_536
BLOCK_BYTES = 1_048_576
BYTES_PER_ROW = 150
"""Of text, about."""
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
    where: str = ""
    """The condition of its source."""
    num_rows: int | None
    """None of text, whose rows nobody has counted before they are read."""
    parts: tuple[int, ...]
    """Rows of each part that can be read by itself, a row group of parquet; text is one part of about so many."""
    layout: Layout = Layout(kind="parquet")
    planned_path: str = ""
    """Where the file lay when it was planned, if it was moved since: its rows are named by that."""
    elements: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Those of `columns` that are one place, from 1, of a list: the list's column and the place."""

    @property
    def num_captions(self) -> int:
        """Columns of captions that its rows have; all but the first are further columns of samples."""
        return count_captions(self.columns)

    @property
    def file(self) -> str:
        """The name without its folder."""
        return (self.planned_path or self.path).rpartition("/")[2]


def find_inputs(recipe: Recipe) -> list[Input]:
    """Every metadata file that the recipe names, in its order. Raises UserError for what cannot be read."""
    if not recipe.sources:
        raise UserError("The recipe names no [[sources]]: add one with a name and paths.")
    for source in recipe.sources:
        if source.format != "auto":
            load_format(source.format)
    named = [
        (source, path)
        for source in recipe.sources
        for pattern in source.paths
        for path in find_files(recipe.resolve(pattern), f"Source {source.name!r}")
    ]
    with ThreadPoolExecutor(NUM_READERS) as pool:
        return list(pool.map(lambda item: _look_into(*item), named))


def _look_into(source: SourceConfig, path: str) -> Input:
    layout = recognise(path, source.format)
    if layout.kind == "parquet":
        schema, parts = parquet.look_into(path)
    else:
        schema, parts = pa.schema([(name, pa.string()) for name in layout.names]), (_estimate_rows(path),)
    try:
        name = source.format
        if name == AUTO and not {"url", "caption"} <= source.columns.keys():
            name = detect_format(schema.names, path)
        columns = choose_columns(name, schema, path, source.mapping)
        elements = _find_elements(columns, schema, layout, path)
    except UserError as error:
        raise UserError(describe_odd_name(path, layout.kind) + str(error)) from error
    return Input(
        source=source.name,
        path=path,
        format=name,
        columns=columns,
        mapped=bool(source.columns),
        fingerprint=_fingerprint(path, FOOTER_BYTES if layout.kind == "parquet" else None),
        where=source.where,
        num_rows=sum(parts) if layout.kind == "parquet" else None,
        parts=parts,
        layout=layout,
        elements=elements,
    )


def _find_elements(
    columns: Mapping[str, tuple[str, ...]], schema: pa.Schema, layout: Layout, path: str
) -> dict[str, tuple[str, int]]:
    """Those of `columns` that are elements of lists. Raises UserError for a column that has none."""
    chosen = (name for names in columns.values() for name in names if name not in schema.names)
    found = {name: split_element(name) for name in chosen}
    for name, (column, _) in found.items():
        dtype = schema.field(column).type
        dtype = dtype.storage_type if isinstance(dtype, pa.BaseExtensionType) else dtype
        if not is_list(dtype) and layout.kind not in ("json", "json_lines"):
            raise UserError(f"{path}: column {column} is {dtype} and no list, so there is no {name}: name the column.")
    return found


def _estimate_rows(path: str) -> int:
    with open_file(path) as f:
        return f.seek(0, os.SEEK_END) // BYTES_PER_ROW + 1


def _fingerprint(path: str, end_bytes: int | None) -> str:
    """16 hex digits over the size of the file and its last `end_bytes`, or its whole content.

    The end of parquet has its statistics; one line of a text can be another one and leave size and end as they were.
    """
    with open_file(path) as f:
        size = f.seek(0, os.SEEK_END)
        f.seek(0 if end_bytes is None else max(0, size - end_bytes))
        digest = hashlib.sha256(f"{size}\n".encode())
        while block := f.read(BLOCK_BYTES):
            digest.update(block)
        return digest.hexdigest()[:16]
