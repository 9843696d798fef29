"""The captions of adopted rows: one or several, in columns beside each other or in a list.

Of several the first that is not empty is `caption`; the others that differ are `caption_2`, `caption_3` …
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.metadata.text_columns import is_text, simplify
from curation.sources import is_list

NAMES = ("caption", "text", "captions", "texts", "txt")
"""What captions are called, those that count first in front."""
MAX_CAPTIONS = 32
"""Captions of one row that are kept: each is a column of all rows that are adopted with it."""
_FURTHER = re.compile(r"caption_(\d{1,9})")


def is_caption(name: str) -> bool:
    """Whether what is called `name` (in lower case) is a caption, or a list of captions."""
    return name in NAMES or _FURTHER.fullmatch(name) is not None


def rank(name: str) -> tuple[int, int]:
    """What captions called `name` (in lower case) are sorted by: NAMES, then `caption_2`, `caption_3` …"""
    further = _FURTHER.fullmatch(name)
    return (len(NAMES), int(further[1])) if further else (NAMES.index(name), 0)


def find_columns(schema: pa.Schema) -> tuple[str, ...]:
    """The columns of text, or of lists of text, that hold captions, those that count first in front."""
    found = [field.name for field in schema if is_caption(field.name.lower()) and _holds_text(field.type)]
    return tuple(sorted(found, key=lambda name: (rank(name.lower()), name)))


def _holds_text(dtype: pa.DataType) -> bool:
    if isinstance(dtype, pa.BaseExtensionType):
        return _holds_text(dtype.storage_type)
    if pa.types.is_dictionary(dtype) or is_list(dtype):
        return _holds_text(dtype.value_type)
    return is_text(dtype)


def keep_different(texts: Iterable[str | None]) -> list[str]:
    """The texts that are not empty, each once, in their order; MAX_CAPTIONS at most."""
    return list(dict.fromkeys(text for text in texts if text))[:MAX_CAPTIONS]


def spread(columns: Sequence[pa.Array]) -> tuple[list[pa.Array], np.ndarray | None]:
    """The captions of each row as columns of text, and which rows have only captions that are no UTF-8 (bool `[n]`).

    `columns` are those that hold captions, of equal length. A single column of text stays as it is.
    """
    if len(columns) == 1 and not is_list(columns[0].type):
        texts, wrong = simplify(columns[0])
        return [texts], wrong
    found: list[list[str | None]] = [[] for _ in range(len(columns[0]) if columns else 0)]
    broken = np.zeros(len(found), bool)
    for column in columns:
        for row, text, is_broken in _list_texts(column):
            found[row].append(text)
            broken[row] |= is_broken
    rows = [keep_different(texts) for texts in found]
    number = max(map(len, rows), default=0)
    places = [[row[k] if k < len(row) else None for row in rows] for k in range(max(number, min(1, len(columns))))]
    return [pa.array(texts, pa.string()) for texts in places], broken & np.array([not row for row in rows], bool)


def _list_texts(column: pa.Array) -> Iterator[tuple[int, str | None, bool]]:
    """Each text of `column`, a list's one by one, with the number of its row and whether it is no UTF-8."""
    parents, values = range(len(column)), column
    if is_list(column.type):
        parents, values = pc.list_parent_indices(column).to_pylist(), column.flatten()
    texts, wrong = simplify(values)
    broken = np.zeros(len(texts), bool) if wrong is None else wrong
    return zip(parents, texts.cast(pa.string()).to_pylist(), broken.tolist(), strict=True)
