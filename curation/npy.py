"""What the header of a .npy file says, and whether the file is as long as that: asked before anything reads it."""

from __future__ import annotations

import io
import math

import numpy as np

from curation.errors import UserError
from curation.storage import Root


def read_vectors_shape(root: Root, rel: str, remedy: str) -> tuple[int, int]:
    """Rows and dimension of the floating-point vectors in the .npy file `rel`, read from its header alone.

    Raises UserError, which ends in `remedy`, when it is missing, no .npy file, cut short, or holds something else.
    """
    url = root.url(rel)
    try:
        with root.open(rel) as f:
            version = np.lib.format.read_magic(f)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, kind = read(f)
            whole = f.tell() + math.prod(shape) * kind.itemsize
            size = f.seek(0, io.SEEK_END)
    except FileNotFoundError as error:
        raise UserError(f"{url} is missing: {remedy}.") from error
    except (ValueError, EOFError) as error:
        raise UserError(f"{url} is no .npy file ({error}): {remedy}.") from error
    if len(shape) != 2 or kind.kind != "f" or (shape[0] and not shape[1]):
        raise UserError(f"{url} has {kind} of shape {shape}, not one floating-point vector a row: {remedy}.")
    if size < whole:
        raise UserError(f"{url} is truncated, {size} of {whole} bytes: {remedy}.")
    return shape[0], shape[1]
