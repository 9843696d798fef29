"""JSON Lines and JSON documents into rows: objects, of which each value becomes text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from curation.errors import UserError

MAX_DOCUMENT_BYTES = 2**29
"""A document is held in memory; JSON Lines are not, and may have any size."""
Record = Mapping[str, Any] | None


def read_objects(lines: Iterator[str | None]) -> Iterator[Record]:
    """The object of each line that is not blank; None for a line that is none."""
    for line in lines:
        if line is None or line.strip(" \t\r"):
            yield None if line is None else parse_object(line)


def parse_object(text: str) -> Record:
    """The JSON object that `text` is, None when it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_document(stream: BinaryIO, path: str) -> Sequence[Record]:
    """The rows of a document: a list of objects, or an object with a list (or pandas' object of rows) a column.

    Raises UserError when it is neither.
    """
    data = stream.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise UserError(f"{path} is one JSON document of more than {MAX_DOCUMENT_BYTES >> 20} MiB: write JSON Lines.")
    try:
        document = json.loads(data.decode("utf-8-sig", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON ({error}): write it again, or as JSON Lines.") from error
    if isinstance(document, list):
        return [row if isinstance(row, dict) else None for row in document]
    return _turn_columns(document, path)


def _turn_columns(document: Any, path: str) -> list[Record]:
    columns = document.values() if isinstance(document, dict) else []
    lists = [list(one.values()) if isinstance(one, dict) else one for one in columns]
    if not lists or not all(isinstance(one, list) for one in lists) or len({len(one) for one in lists}) > 1:
        raise UserError(
            f"{path} is JSON and neither a list of objects nor an object with equally long lists: write JSON Lines."
        )
    return [dict(zip(document, row, strict=True)) for row in zip(*lists, strict=True)]


def value_text(value: Any) -> str | None:
    """A value of JSON as text: of a list the first text that is not empty, of an object its JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return str(int(value))
    if isinstance(value, list) and all(one is None or isinstance(one, str) for one in value):
        return next((one for one in value if one), None)
    return json.dumps(value)
