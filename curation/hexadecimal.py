"""Sums and uids, which tables hold as hexadecimal text, as numbers of 64 bits."""

from __future__ import annotations

import binascii
import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

DIGITS = 32
"""Of a uid, and those of a sum that are compared: 128 bits, which no two pictures share by accident."""
_HALF = 1 << 64


def read_numbers(texts: pa.Array, num_digits: int, num_read: int) -> np.ndarray | None:
    """The first `num_read` digits (a multiple of 16) of `texts` as uint64 `[n, num_read / 16]`.

    None unless each text is `num_digits` digits, letters small. `texts` hold no null.
    """
    count, lengths = len(texts), pc.min_max(pc.binary_length(texts)).as_py()
    if not count:
        return np.zeros((0, num_read // 16), np.uint64)
    if lengths != {"min": num_digits, "max": num_digits}:
        return None
    first = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset]
    data = np.frombuffer(texts.buffers()[2], np.uint8, count * num_digits, int(first))
    digits = np.ascontiguousarray(data.reshape(count, num_digits)[:, :num_read])
    if ((digits >= ord("A")) & (digits <= ord("F"))).any():
        return None
    try:
        numbers = binascii.unhexlify(digits.data)
    except binascii.Error:
        return None
    return np.frombuffer(numbers, ">u8").reshape(count, -1).astype(np.uint64)


def read_sums(texts: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Two halves of a number for each sum, uint64 `[n, 2]`, 0 for null; and which are not null, bool `[n]`.

    Equal texts have equal numbers, and of sha256 sums the larger text the larger number. Adopted tables may hold
    anything in the place of a sum; that is numbered by a sum of its own.
    """
    known = np.asarray(texts.is_valid())
    named = pa.concat_arrays(texts.drop_null().chunks) if known.any() else pa.array([], pa.string())
    numbers = read_numbers(named, 64, DIGITS)
    if numbers is None:
        numbers = np.array([_number_sum(text) for text in named.to_pylist()], np.uint64)
    found = np.zeros((len(known), 2), np.uint64)
    found[known] = numbers
    return found, known


def _number_sum(text: str) -> tuple[int, int]:
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        text = hashlib.sha256(text.encode()).hexdigest()
    return divmod(int(text[:DIGITS], 16), _HALF)


def write_texts(numbers: np.ndarray) -> pa.Array:
    """The uids whose halves are `numbers`, uint64 `[n, 2]`, as 32 digits each."""
    text = numbers.astype(">u8").tobytes().hex().encode()
    starts = np.arange(0, len(text) + 1, DIGITS, dtype=np.int32)
    return pa.StringArray.from_buffers(len(numbers), pa.py_buffer(starts), pa.py_buffer(text))
