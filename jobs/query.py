"""`curate query ROOT "SQL"`: rows of the manifest as a table, csv, json lines or parquet."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from curation.errors import UserError
from curation.manifest import Manifest
from curation.storage import Root

MAX_CELL = 60
MAX_ROWS = 200
"""Rows that the table format shows; the other formats stream every row."""


def write_query(root: Root, sql: str, form: str, output: str | None) -> None:
    """Run `sql` and write its rows to `output`, or to standard output. Raises UserError for bad SQL."""
    if form == "parquet" and output is None and sys.stdout.isatty():
        raise UserError("Parquet is not for a terminal: name a file with --output.")
    reader = Manifest(root).query(sql).to_arrow_reader(10_000)
    with _sink(output) as sink:
        _WRITERS[form](reader, sink)


@contextlib.contextmanager
def _sink(output: str | None) -> Iterator[IO[bytes]]:
    """Standard output, or a file that appears under its name when it is whole."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    target = Path(output)
    if not target.parent.is_dir():
        raise UserError(f"There is no folder {target.parent} to write {target.name} in.")
    temporary = target.with_name(f".tmp-{target.name}")
    try:
        with open(temporary, "wb") as f:
            yield f
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _csv(reader: pa.RecordBatchReader, sink: IO[bytes]) -> None:
    with pyarrow.csv.CSVWriter(sink, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)


def _json(reader: pa.RecordBatchReader, sink: IO[bytes]) -> None:
    for batch in reader:
        for row in batch.to_pylist():
            sink.write(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n")


def _parquet(reader: pa.RecordBatchReader, sink: IO[bytes]) -> None:
    with pq.ParquetWriter(sink, reader.schema, compression="zstd") as writer:
        for batch in reader:
            writer.write_batch(batch)


def _cell(value: object) -> str:
    if value is None:
        return "·"
    text = f"{value:.6g}" if isinstance(value, float) else str(value).replace("\n", "⏎")
    return text if len(text) <= MAX_CELL else text[: MAX_CELL - 1] + "…"


def _table(reader: pa.RecordBatchReader, sink: IO[bytes]) -> None:
    rows: list[list[str]] = []
    total = 0
    numeric = [pa.types.is_integer(f.type) or pa.types.is_floating(f.type) for f in reader.schema]
    for batch in reader:
        wanted = batch.slice(0, max(0, MAX_ROWS - len(rows)))
        rows += [[_cell(v) for v in row.values()] for row in wanted.to_pylist()]
        total += batch.num_rows
    sink.write(render(reader.schema.names, rows, numeric).encode())
    if total > len(rows):
        sink.write(f"… {total - len(rows):,} more rows; --format csv, json or parquet gives them all\n".encode())


def render(names: list[str], rows: list[list[str]], right: list[bool]) -> str:
    """A table in plain text; columns with `right` are aligned to the right."""
    widths = [max([len(name), *(len(row[i]) for row in rows)]) for i, name in enumerate(names)]

    def line(cells: list[str]) -> str:
        padded = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True)]
        return "  ".join(padded).rstrip() + "\n"

    return line(names) + line(["─" * w for w in widths]) + "".join(map(line, rows))


_WRITERS = {"csv": _csv, "json": _json, "parquet": _parquet, "table": _table}
