"""What a file is, by its first bytes and not by its name: parquet, or text of one of five kinds."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from curation.errors import UserError
from curation.metadata.delimited import split_rows
from curation.metadata.json_rows import Record, parse_object, read_document, read_objects
from curation.metadata.lines import GZIP, ZSTD, open_text, raise_sentence, read_lines
from curation.metadata.records import Layout
from curation.metadata.refusals import describe_refusal
from curation.paths import open_file
from curation.sources import header_of

HEAD_BYTES = 1_048_576
NUM_LOOKED_AT = 1_000
"""Rows of JSON whose keys are taken for columns."""
_URL = re.compile(r"\s*https?://", re.IGNORECASE)


def recognise(path: str, format_name: str) -> Layout:
    """How `path` is written; the columns of parquet are left out. Raises UserError for what is not read here.

    `format_name` is the format of its source, or `auto`; it says what columns without names are.
    """
    layout = _recognise(path, format_name)
    return replace(layout, names=tuple(map(_as_utf8, layout.names)))


def _as_utf8(name: str) -> str:
    """`name` as a name that tables can have; what is no UTF-8 in it cannot be asked for."""
    return name.encode(errors="surrogatepass").decode(errors="replace")


def _recognise(path: str, format_name: str) -> Layout:
    with raise_sentence(path), open_file(path) as f:
        magic = f.read(4)
        if magic == b"PAR1":
            return Layout(kind="parquet")
    with open_text(path) as stream:
        head = stream.read(HEAD_BYTES)
    refusal = describe_refusal(path, head, compressed=magic.startswith(GZIP) or magic == ZSTD)
    if refusal is not None:
        raise UserError(refusal)
    text = head.decode("utf-8-sig", "surrogateescape")
    if not text.strip():
        raise UserError(f"{path} is empty: leave it out.")
    if text.lstrip()[0] in "{[":
        return _recognise_json(path, text)
    return _recognise_lines(path, text, format_name)


def _recognise_json(path: str, text: str) -> Layout:
    lines = [line for line in text.lstrip().split("\n") if line.strip()]
    objects = [parse_object(line) for line in lines[:2]]
    is_table = len(lines) == 1 and all(isinstance(value, list | dict) for value in (objects[0] or {"": 0}).values())
    with open_text(path) as stream:
        if any(one is not None for one in objects) and not is_table:
            return Layout(kind="json_lines", names=_keys(read_objects(read_lines(stream))))
        return Layout(kind="json", names=_keys(read_document(stream, path)))


def _keys(rows: Iterable[Record]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for row in islice(rows, NUM_LOOKED_AT) if row is not None for name in row))


def _recognise_lines(path: str, text: str, format_name: str) -> Layout:
    first = next(line for line in text.split("\n") if line.strip())
    delimiter = "\t" if "\t" in first else next((one for one in ",;|" if one in first), ",")
    starts_with_url = _URL.match(first) is not None
    if starts_with_url and (delimiter != "\t" and not path.lower().removesuffix(".gz").endswith((".csv", ".csv.zst"))):
        return Layout(kind="urls", names=("url",))
    rows = split_rows(read_lines(io.BytesIO(text.encode(errors="surrogateescape"))), delimiter)
    fields = next((row for row in rows if row is not None), [])
    if any(_URL.match(one) for one in fields):
        return Layout(kind="delimited", names=_names(fields, format_name), delimiter=delimiter)
    return Layout(kind="delimited", names=tuple(one.strip() for one in fields), delimiter=delimiter, has_header=True)


def _names(fields: Sequence[str], format_name: str) -> tuple[str, ...]:
    """Names for the columns of a file without: those of a format that has its URL there, or numbers."""
    place = next(number for number, one in enumerate(fields) if _URL.match(one))
    return header_of(format_name, len(fields), place) or tuple(f"column_{number}" for number in range(len(fields)))
