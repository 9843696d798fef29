"""`curate query ROOT "SQL"`: rows of the manifest as a table, csv, json lines or parquet."""

from __future__ import annotations

import contextlib
import decimal
import itertools
import json
import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from curation.errors import UserError
from curation.files import whole_file
from curation.manifest.limits import OUT_OF_MEMORY
from curation.manifest.manifest import Check, Manifest, explain_error
from curation.storage import Root
from curation.terminal import EscapedSink, escape_controls

MAX_CELL = 60
MAX_ROWS = 200
"""Rows that the table format shows; the other formats stream every row."""
MAX_ROWS_DOWNWARDS = 5
"""Rows up to which a table wider than the terminal has a line for each column; of more rows it has fewer columns."""


def write_query(
    root: Root,
    sql: str,
    form: str,
    output: str | None,
    *,
    allow_files: bool = False,
    check: Check | None = None,
    memory_gb: float | None = None,
) -> None:
    """Run `sql` and write its rows to `output`, or to standard output. Raises UserError for bad SQL.

    Files outside of the root are read only with `allow_files`; `check` and `memory_gb` are as in `Manifest`. On a
    terminal control characters are escaped, and tables are as wide as it.
    """
    is_on_terminal = output is None and sys.stdout.isatty()
    if form == "parquet" and is_on_terminal:
        raise UserError("Parquet is not for a terminal: name a file with --output.")
    with Manifest(root, allow_files=allow_files, check=check, memory_gb=memory_gb) as manifest:
        relation = manifest.query(sql)
        with _open_sink(output) as sink, _errors_as_user_errors():
            reader = _rename_repeated(relation.to_arrow_reader(10_000))
            if form == "table":
                _write_table(reader, sink, shutil.get_terminal_size().columns if is_on_terminal else None)
            else:
                _WRITERS[form](reader, sink)


@contextlib.contextmanager
def _errors_as_user_errors() -> Iterator[None]:
    """Turn errors that DuckDB finds while it reads rows (a value that does not convert, for example) into UserError.

    Arrow raises such an error as an OSError without a number.
    """
    try:
        yield
    except (OverflowError, pa.ArrowNotImplementedError) as error:
        # An infinite date, or one before the year 1 or after 9999; a union in parquet.
        raise UserError(
            f"The query gives a value that this format cannot hold ({error}): cast its column to varchar."
        ) from error
    except (duckdb.Error, pa.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if OUT_OF_MEMORY in str(error):
            raise UserError(
                "The query needs more memory, or more disk below TMPDIR, than it may take: give it more by "
                f"--memory-gb ({explain_error(error)})."
            ) from error
        raise UserError(f"DuckDB refuses the query: {explain_error(error)}") from error


def _rename_repeated(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """`reader` with a number after the names of repeated columns."""
    names = reader.schema.names
    fresh = list[str]()
    for name in names:
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        fresh.append(name if name not in fresh else next(n for n in numbered if n not in {*fresh, *names}))
    schema = pa.schema([field.with_name(name) for field, name in zip(reader.schema, fresh, strict=True)])
    batches = (pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batch in reader)
    return pa.RecordBatchReader.from_batches(schema, batches)


@contextlib.contextmanager
def _open_sink(output: str | None) -> Iterator[IO[bytes]]:
    """Standard output, or a file that appears under its name once it is whole."""
    if output is None:
        yield cast(IO[bytes], EscapedSink(sys.stdout.buffer)) if sys.stdout.isatty() else sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with whole_file(Path(output)) as sink:
            yield sink


def _write_csv(reader: pa.RecordBatchReader, sink: IO[bytes]) -> None:
    """Write CSV; lists, structs, intervals and bytes are written as JSON text."""
    written = [pa.field(f.name, pa.string() if _has_no_csv_form(f.type) else f.type) for f in reader.schema]
    with pyarrow.csv.CSVWriter(sink, pa.schema(written)) as writer:
        for batch in reader:
            columns = [_as_text(column) if _has_no_csv_form(column.type) else column for column in batch.columns]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=pa.schema(written)))


def _has_no_csv_form(dtype: pa.DataType) -> bool:
    kinds = (pa.types.is_nested, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_interval)
    return any(kind(dtype) for kind in kinds)


def _as_text(column: pa.Array) -> pa.Array:
    values = (to_json_types(value) for value in column.to_pylist())
    texts = [value if value is None or isinstance(value, str) else _to_json(value) for value in values]
    return pa.array(texts, pa.string())


def _write_json(reader: pa.RecordBatchReader, sink: IO[bytes]) -> None:
    for batch in reader:
        for row in batch.to_pylist():
            sink.write(_to_json(to_json_types(row)).encode() + b"\n")


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def to_json_types(value: Any) -> Any:
    """`value` in JSON's types: whole decimals (DuckDB's sums) as int, bytes in hex, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(key): to_json_types(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_types(item) for item in value]
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bytes):
        return value.hex()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_parquet(reader: pa.RecordBatchReader, sink: IO[bytes]) -> None:
    with pq.ParquetWriter(sink, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


def _is_numeric(dtype: pa.DataType) -> bool:
    return any(kind(dtype) for kind in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))


def _format_cell(value: object) -> str:
    if value is None:
        return "·"
    text = f"{value:.6g}" if isinstance(value, float) else escape_controls(str(value).replace("\n", "⏎"))
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def _write_table(reader: pa.RecordBatchReader, sink: IO[bytes], width: int | None = None) -> None:
    """Write a table of at most `width` characters a line, None for any; what is left out is said below it."""
    rows: list[list[str]] = []
    total = 0
    names, numeric = reader.schema.names, [_is_numeric(field.type) for field in reader.schema]
    for batch in reader:
        wanted = batch.slice(0, max(0, MAX_ROWS - len(rows)))
        rows += [[_format_cell(v) for v in row.values()] for row in wanted.to_pylist()]
        total += batch.num_rows
    num_columns = len(names) if width is None else _count_fitting(names, rows, width)
    if num_columns < len(names) and total <= MAX_ROWS_DOWNWARDS:
        sink.write(_render_downwards(names, rows).encode())
        return
    shown = [row[:num_columns] for row in rows]
    sink.write(render_table(names[:num_columns], shown, numeric[:num_columns]).encode())
    if num_columns < len(names):
        left = len(names) - num_columns
        sink.write(f"… {left:,} more columns; name those you want, or --format csv, json or parquet\n".encode())
    if total > len(rows):
        sink.write(f"… {total - len(rows):,} more rows; --format csv, json or parquet gives them all\n".encode())


def _count_fitting(names: list[str], rows: list[list[str]], width: int) -> int:
    """How many of the columns fit into a line of `width` characters, at least one."""
    ends = itertools.accumulate(_measure_column(names[i], rows, i) + 2 for i in range(len(names)))
    return max(1, sum(end - 2 <= width for end in ends)) if names else 0


def _measure_column(name: str, rows: list[list[str]], number: int) -> int:
    return max([len(escape_controls(name)), *(len(row[number]) for row in rows)])


def _render_downwards(names: list[str], rows: list[list[str]]) -> str:
    """Each row as lines of name and value, a line above it where there are several."""
    names = [escape_controls(name) for name in names]
    longest = max(map(len, names))
    blocks = (
        "".join(f"{name:<{longest}}  {cell}".rstrip() + "\n" for name, cell in zip(names, row, strict=True))
        for row in rows
    )
    if len(rows) == 1:
        return next(blocks)
    return "".join(f"── row {number} ──\n{block}" for number, block in enumerate(blocks, 1))


def render_table(names: list[str], rows: list[list[str]], right: list[bool]) -> str:
    """A table in plain text; columns with `right` are aligned to the right."""
    widths = [_measure_column(name, rows, i) for i, name in enumerate(names)]

    def line(cells: list[str]) -> str:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
        return "  ".join(padded).rstrip() + "\n"

    names = [escape_controls(name) for name in names]
    return line(names) + line(["─" * w for w in widths]) + "".join(map(line, rows))


_WRITERS = {"csv": _write_csv, "json": _write_json, "parquet": _write_parquet}
