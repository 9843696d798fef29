"""Rows of text files as columns of text: CSV, TSV, a URL a line, JSON Lines and JSON documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Literal

import pyarrow as pa

from curation.metadata.delimited import split_rows
from curation.metadata.json_rows import Record, read_document, read_objects, value_text
from curation.metadata.lines import open_text, raise_sentence, read_lines

BATCH_ROWS = 16_384
Kind = Literal["parquet", "delimited", "urls", "json_lines", "json"]
Values = Sequence[str | None] | None
"""The values of one row in the columns that are wanted; None for a row that is malformed."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a file is written. `names` are those of its columns, in their order where rows are fields of lines."""

    kind: Kind
    names: tuple[str, ...] = ()
    delimiter: str = ""
    has_header: bool = False


def read_records(
    path: str, layout: Layout, columns: Sequence[str], elements: Mapping[str, tuple[str, int]] | None = None
) -> Iterator[tuple[pa.RecordBatch, list[bool]]]:
    """`columns` of the rows of `path`, and which rows are malformed (all their values are then null).

    `elements` are those of `columns` that are one place, from 1, of a list in JSON: the list's name and the place.
    Text that is no UTF-8 stands in a column of bytes. Raises UserError when the file cannot be read to its end.
    """
    with open_text(path) as stream, raise_sentence(path):
        rows = _read_values(stream, path, layout, columns, elements or {})
        while batch := list(islice(rows, BATCH_ROWS)):
            empty = [None] * len(columns)
            filled = [empty if row is None else row for row in batch]
            arrays = [_make_column(values) for values in zip(*filled, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, list(columns)), [row is None for row in batch]


def _make_column(values: Sequence[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([None if v is None else v.encode(errors="surrogatepass") for v in values], pa.binary())


def _read_values(
    stream: BinaryIO, path: str, layout: Layout, columns: Sequence[str], elements: Mapping[str, tuple[str, int]]
) -> Iterator[Values]:
    if layout.kind == "delimited":
        return _read_fields(stream, layout, columns)
    if layout.kind == "urls":
        return ([text] for line in read_lines(stream) if (text := (line or "").strip()) or line is None)
    objects = read_objects(read_lines(stream)) if layout.kind == "json_lines" else iter(read_document(stream, path))
    return map(_pick(columns, elements), objects)


def _pick(columns: Sequence[str], elements: Mapping[str, tuple[str, int]]) -> Callable[[Record], Values]:
    places = [elements.get(name, (name, 0)) for name in columns]
    return lambda record: None if record is None else [value_text(_look_up(record, *place)) for place in places]


def _look_up(record: Mapping[str, Any], name: str, place: int) -> Any:
    value = record.get(name)
    if not place:
        return value
    return value[place - 1] if isinstance(value, list) and len(value) >= place else None


def _read_fields(stream: BinaryIO, layout: Layout, columns: Sequence[str]) -> Iterator[Values]:
    """An empty field is unknown: nothing in CSV tells it from an empty text."""
    rows = split_rows(read_lines(stream), layout.delimiter)
    indices, number = [layout.names.index(name) for name in columns], len(layout.names)
    for row in islice(rows, int(layout.has_header), None):
        is_whole = row is not None and len(row) == number
        yield [row[index] or None for index in indices] if row is not None and is_whole else None
