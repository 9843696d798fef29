"""What the header of a .npy file says, and whether the file is as long as that: asked before anything reads it.

NumPy evaluates the header as Python text and reserves the memory that it asks for. So a file that anybody may have
written is read by these functions, which say in a few words what is wrong.
"""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from curation.errors import UserError
from curation.storage import Root

MAX_REASON = 200
"""Characters of NumPy's message, which may repeat a header of any length."""


class _Header(NamedTuple):
    """What is stored: the shape, the type of an element, and the bytes of the whole file."""

    shape: tuple[int, ...]
    kind: np.dtype[Any]
    num_bytes: int


def _read_header(f: IO[bytes]) -> _Header:
    """Raises ValueError when the header is none, or is of objects."""
    try:
        version = np.lib.format.read_magic(f)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(f)
    except OSError:
        raise
    except Exception as error:  # what Python text that anybody may have written raises has no list
        raise ValueError(_shorten(error)) from error
    if kind.hasobject or any(length < 0 for length in shape):
        raise ValueError(f"it has {kind} of shape {str(shape)[:MAX_REASON]}")
    return _Header(shape, kind, f.tell() + math.prod(shape) * kind.itemsize)


def _shorten(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:MAX_REASON]


def read_array(path: str | Path) -> np.ndarray:
    """The array in a .npy file. Raises ValueError when it is none, cut short, or of objects, and OSError."""
    with open(path, "rb") as f:
        return _read_whole(f)


def parse_array(data: bytes) -> np.ndarray:
    """The array in the bytes of a .npy file. Raises ValueError when it is none, cut short, or of objects."""
    return _read_whole(io.BytesIO(data))


def _read_whole(f: IO[bytes]) -> np.ndarray:
    header = _read_header(f)
    size = f.seek(0, io.SEEK_END)
    if size < header.num_bytes:
        raise ValueError(f"it is cut short, {size} of {str(header.num_bytes)[:MAX_REASON]} bytes")
    f.seek(0)
    try:
        values: np.ndarray = np.load(f, allow_pickle=False)
    except (TypeError, OverflowError, MemoryError) as error:
        raise ValueError(_shorten(error)) from error
    return values


def read_arrays(path: str | Path, max_bytes: int) -> dict[str, np.ndarray]:
    """The arrays in a .npz file by name. Raises ValueError as `read_array` and beyond `max_bytes`, and OSError."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > max_bytes:
                raise ValueError(f"its arrays take more than {max_bytes:,} bytes")
            return {member.filename.removesuffix(".npy"): _read_whole(archive.open(member)) for member in members}
    except (OSError, ValueError):
        raise
    except Exception as error:  # zipfile, zlib and lzma have no common class of errors
        raise ValueError(_shorten(error)) from error


def read_vectors_shape(root: Root, rel: str, remedy: str) -> tuple[int, int]:
    """Rows and dimension of the floating-point vectors in the .npy file `rel`, read from its header alone.

    Raises UserError, which ends in `remedy`, when it is missing, no .npy file, cut short, or holds something else.
    """
    url = root.url(rel)
    try:
        with root.open(rel) as f:
            shape, kind, whole = _read_header(f)
            size = f.seek(0, io.SEEK_END)
    except FileNotFoundError as error:
        raise UserError(f"{url} is missing: {remedy}.") from error
    except ValueError as error:
        raise UserError(f"{url} is no .npy file ({error}): {remedy}.") from error
    if len(shape) != 2 or kind.kind != "f" or (shape[0] and not shape[1]):
        raise UserError(f"{url} has {kind} of shape {shape}, not one floating-point vector a row: {remedy}.")
    if size < whole:
        raise UserError(f"{url} is truncated, {size} of {whole} bytes: {remedy}.")
    return shape[0], shape[1]
