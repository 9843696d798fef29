"""Parquet files of metadata, by pyarrow: only the columns that are wanted are ever decoded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from curation.errors import UserError
from curation.paths import open_file

BATCH_ROWS = 16_384


def look_into(path: str) -> tuple[pa.Schema, tuple[int, ...]]:
    """The schema of the file and the rows of each of its row groups. Raises UserError."""
    with _said_as_sentence(path), open_file(path) as f:
        file = pq.ParquetFile(f)
        groups = (file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
        return file.schema_arrow, tuple(groups)


def read_columns(path: str, columns: Sequence[str], groups: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """The rows of row groups `groups`, in their order, with `columns` alone. Raises UserError."""
    with _said_as_sentence(path), open_file(path) as f:
        file = pq.ParquetFile(f, page_checksum_verification=True)
        yield from file.iter_batches(BATCH_ROWS, row_groups=list(groups), columns=list(columns))


@contextlib.contextmanager
def _said_as_sentence(path: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path} is not a readable parquet file ({lines[0].rstrip('.')}): download it again or leave it out."
        ) from error
