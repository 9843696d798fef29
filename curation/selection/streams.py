"""Queries of DuckDB over streams of Arrow tables: what it may take of memory, threads and disk is fixed beforehand."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from curation.errors import UserError
from curation.manifest.manifest import explain_error
from curation.manifest.quoting import forbid_extensions, quote_text
from curation.recipe.select_config import SelectConfig

BATCH_ROWS = 65_536


class Streams:
    """Streams of tables by name, and queries over them. Of `open_connection`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._failures: list[BaseException] = []

    @property
    def num_threads(self) -> int:
        """The threads that DuckDB has."""
        (threads,) = self.connection.execute("select current_setting('threads')").fetchall()[0]
        return int(threads)

    def register(self, name: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        """Let `name` stand for the rows of `tables`, in one query, which takes them as they come."""
        self.connection.register(name, pa.RecordBatchReader.from_batches(schema, self._keep_failure(tables)))

    def execute(self, sql: str) -> None:
        """Run a statement. Raises as `query` does."""
        with self._explained():
            self.connection.execute(sql)

    def query(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of `sql`. Raises what reading a table raised, and UserError when memory or disk do not do."""
        with self._explained():
            yield from self.connection.sql(sql).to_arrow_reader(BATCH_ROWS)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        self._failures.clear()
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if self._failures:
                raise self._failures[0] from None
            raise _explain(error) from error

    def _keep_failure(self, tables: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
        """The batches of `tables`. DuckDB gives only the text of what reading them raises."""
        try:
            for table in tables:
                yield from table.to_batches()
        except BaseException as error:
            self._failures.append(error)
            raise


@contextlib.contextmanager
def open_connection(
    limits: SelectConfig, scratch: Path, prefix: str = "spilled-"
) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB that reads no file and takes what `limits` allow; what it spills lies in a folder below `scratch`.

    `prefix` begins the name of that folder.
    """
    with tempfile.TemporaryDirectory(prefix=prefix, dir=scratch) as folder, duckdb.connect() as connection:
        forbid_extensions(connection)
        connection.execute(f"set temp_directory = {quote_text(folder)}")
        connection.execute(f"set memory_limit = '{round(limits.memory_gb * 1e9)}B'")
        connection.execute(f"set threads = {count_threads(limits)}")
        connection.execute("set enable_external_access = false")
        yield connection


def count_threads(limits: SelectConfig) -> int:
    """The threads, or processes, that `limits` allow."""
    return limits.threads or len(os.sched_getaffinity(0))


def _explain(error: Exception) -> Exception:
    if isinstance(error, duckdb.OutOfMemoryException):
        return UserError(
            f"DuckDB ran out of memory or of disk to spill to: give it more by --set select.memory_gb=…, "
            f"or free some disk ({explain_error(error)})."
        )
    return UserError(f"DuckDB gave up: {explain_error(error)}")
