"""Lines of text files, plain or compressed: ended by LF and by nothing else, of bounded length."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import pyarrow as pa

from curation.errors import UserError
from curation.paths import open_file

MAX_LINE_BYTES = 16_777_216
"""A longer line is one bad row; it is not held in memory."""
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
BOM = b"\xef\xbb\xbf"


@contextlib.contextmanager
def open_text(path: str) -> Iterator[BinaryIO]:
    """The bytes of `path`, decompressed when it is gzip or zstd. Raises UserError when it cannot be read to its end."""
    with raise_sentence(path), open_file(path) as f:
        magic = f.read(4)
        f.seek(0)
        if magic.startswith(GZIP):
            with gzip.open(f) as unpacked:
                yield cast(BinaryIO, unpacked)
        elif magic == ZSTD:
            yield cast(BinaryIO, io.BufferedReader(pa.CompressedInputStream(f, "zstd"), 1 << 20))
        else:
            yield f


@contextlib.contextmanager
def raise_sentence(path: str) -> Iterator[None]:
    """Raise UserError in place of what reading and decompressing raise."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}: name one that is there.") from error
    except (IsADirectoryError, PermissionError) as error:
        raise UserError(
            f"{path} cannot be opened ({error.strerror or error}): name a file that you may read."
        ) from error
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path} cannot be read to its end ({lines[0].rstrip('.')}): download it again or leave it out."
        ) from error


def read_lines(stream: BinaryIO) -> Iterator[str | None]:
    """The lines of `stream` without LF, of which a CR may be left; None for one of more than MAX_LINE_BYTES.

    Bytes that are no UTF-8 become lone surrogates, which `curation.metadata.records` finds in the values.
    """
    line = stream.readline(MAX_LINE_BYTES).removeprefix(BOM)
    while line:
        if len(line) >= MAX_LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield None
        else:
            yield line.removesuffix(b"\n").decode(errors="surrogateescape")
        line = stream.readline(MAX_LINE_BYTES)
