"""Columns of any type as plain ones that DuckDB reads, with a mark on each value that is no text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.sources import is_list


def simplify(column: pa.Array) -> tuple[pa.Array, np.ndarray | None]:
    """`column` as text, numbers or booleans, and which values are no UTF-8 (bool `[n]`); None when all are.

    What is no UTF-8 becomes null. Lists become the first of their values that is not empty.
    """
    dtype = column.type
    if isinstance(column, pa.ExtensionArray):
        return simplify(column.storage)
    if pa.types.is_dictionary(dtype):
        return simplify(column.dictionary_decode())
    if is_text(dtype):
        return _decode(column)
    if pa.types.is_fixed_size_binary(dtype):
        return _decode(column.cast(pa.binary()))
    if is_list(dtype):
        return _first_texts(column)
    if pa.types.is_null(dtype):
        return column.cast(pa.string()), None
    if pa.types.is_float16(dtype):
        return column.cast(pa.float32()), None
    return (column.cast(pa.float64()) if pa.types.is_decimal(dtype) else column), None


def take_elements(column: pa.Array, place: int) -> pa.Array:
    """The element at `place`, from 1, of each list of `column`; null where the list is shorter, or null."""
    lists = column.storage if isinstance(column, pa.ExtensionArray) else column
    return pc.list_slice(lists, place - 1, place, return_fixed_size_list=True).values


def is_text(dtype: pa.DataType) -> bool:
    """Whether values of `dtype` are bytes of any length: text, or what some writers call binary."""
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(test(dtype) for test in (*tests, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view))


def _decode(column: pa.Array) -> tuple[pa.Array, np.ndarray | None]:
    raw = column.cast(pa.large_binary())
    text = pa.Array.from_buffers(pa.large_string(), len(raw), raw.buffers(), -1, raw.offset)
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        decoded = [_decode_one(value) for value in raw.to_pylist()]
        known = raw.is_valid().to_pylist()
        wrong = np.array([text is None and there for text, there in zip(decoded, known, strict=True)], bool)
        return pa.array(decoded, pa.string()), wrong
    return text.cast(pa.string()), None


def _decode_one(value: bytes | None) -> str | None:
    """The text of `value`; None of None and of what is no UTF-8."""
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _first_texts(column: pa.Array) -> tuple[pa.Array, np.ndarray | None]:
    values, wrong = simplify(column.flatten())
    parents = pc.list_parent_indices(column).to_pylist()
    texts: list[str | None] = [None] * len(column)
    for parent, value in zip(parents, values.cast(pa.string()).to_pylist(), strict=True):
        texts[parent] = texts[parent] or value
    if wrong is None:
        return pa.array(texts, pa.string()), None
    lists = np.zeros(len(column), bool)
    lists[np.array(parents)[wrong]] = True
    return pa.array(texts, pa.string()), lists & np.array([not text for text in texts])
