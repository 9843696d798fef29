"""DuckDB on this machine over the rows of a root: what it may take of memory, threads and disk is fixed beforehand.

Rows reach it as a stream of Arrow tables, unit by unit, because the tables of a unit fit together without a join over
all rows. What does not fit into memory (sorts, windows, duplicates) goes to a folder that is deleted in the end.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from curation.errors import UserError
from curation.manifest.manifest import explain_error
from curation.manifest.quoting import forbid_extensions, quote_text
from curation.progress import track
from curation.recipe import rules as rule_language
from curation.recipe.expressions import Quantile, QuantileValues
from curation.recipe.rules import DUPLICATE_COLUMNS
from curation.recipe.select_config import SelectConfig
from curation.selection.quantiles import rank_values
from curation.selection.rows import duplicates_files, join_unit, read_ahead, read_duplicates
from curation.selection.rule_set import MAX_PARTITIONS, RuleSet, Values, name_quantile
from curation.storage import Root

Tables = Mapping[str, Sequence[str]]
BATCH_ROWS = 65_536
PLACE_BITS = 32
"""Bits of a row's number inside its unit in `place`; the bits above are the unit's number."""


class Engine:
    """One connection to DuckDB with the rows of `units`. `name` is what its progress is called. Use `open_engine`."""

    def __init__(
        self, root: Root, rules: RuleSet, units: Sequence[str], connection: duckdb.DuckDBPyConnection, name: str
    ) -> None:
        self._root, self._rules, self._units, self._connection = root, rules, units, connection
        self._name = name
        (threads,) = connection.execute("select current_setting('threads')").fetchall()[0]
        self._num_threads = int(threads)
        self._has_duplicates = False
        self._failures: list[BaseException] = []

    def compute_quantiles(self, tables: Tables) -> Values:
        """The quantiles of the rules. Raises UserError when one goes over too many partitions."""
        return {wanted: self._compute_quantile(wanted, tables) for wanted in self._rules.quantiles}

    def _compute_quantile(self, wanted: Quantile, tables: Tables) -> QuantileValues:
        needed = {"status", wanted.column, *wanted.by}
        fewer = {table: [name for name in names if name in needed] for table, names in tables.items()}
        rows = self.rows_sql(_drop_unused(fewer), step=f"quantile of {wanted.column}")
        found = rank_values(self.query(rule_language.values_sql(rows, wanted, self._rules.columns)), wanted)
        if found is None:
            rows = self.rows_sql(_drop_unused(fewer), step=f"quantile of {wanted.column}, again")
            sql = rule_language.quantile_sql(rows, wanted, self._rules.columns)
            batches = self.query(f"{sql} limit {MAX_PARTITIONS + 1}")
            found = [tuple(row.values()) for batch in batches for row in batch.to_pylist()]
        return name_quantile(wanted, found)

    def rows_sql(self, tables: Tables, *, with_uid: bool = False, step: str = "rules") -> str:
        """A table expression, to be used once, of all rows: `place`, the columns of `tables`, and `uid` if wanted.

        The units that are read are shown as the progress of `step`.
        """
        has_duplicates = bool(tables.get("duplicates"))
        self._connection.register("unit_rows", self._stream(tables, with_uid or has_duplicates, step))
        if not has_duplicates:
            return "unit_rows"
        self._load_duplicates()
        names = ", ".join(tables["duplicates"])
        return f"(select unit_rows.*, {names} from unit_rows left join removed using (uid))"

    def query(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of `sql`. Raises what reading a table raised, and UserError when memory or disk do not do."""
        with self._explained():
            yield from self._connection.sql(sql).to_arrow_reader(BATCH_ROWS)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        self._failures.clear()
        try:
            yield
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            if self._failures:
                raise self._failures[0] from None
            raise _explain(error) from error

    def _stream(self, tables: Tables, with_uid: bool, step: str) -> pa.RecordBatchReader:
        names = [name for table, columns in tables.items() if table != "duplicates" for name in columns]
        fields = [pa.field("place", pa.int64()), *([pa.field("uid", pa.string())] if with_uid else [])]
        schema = pa.schema([*fields, *(pa.field(name, self._rules.columns[name]) for name in names)])

        def read(number: int) -> pa.Table:
            rows = join_unit(self._root, self._units[number], tables, self._rules.refused)
            start = number << PLACE_BITS
            places = pa.array(range(start, start + len(rows)), pa.int64())
            return rows.add_column(0, "place", places).select(schema.names).cast(schema)

        found = read_ahead(read, range(len(self._units)), self._num_threads)
        return self._reader(schema, track(found, len(self._units), f"{self._name}, {step}", "unit"))

    def _load_duplicates(self) -> None:
        """Make the table `removed`, once: its number of rows is then known, and it is what a join keeps in memory."""
        if self._has_duplicates:
            return
        schema = pa.schema([("uid", pa.string()), *DUPLICATE_COLUMNS.items()])
        files = duplicates_files(self._root)
        found = read_ahead(lambda file: read_duplicates(self._root, file), files, self._num_threads)
        tables = track(found, len(files), f"{self._name}, duplicates", "file")
        self._connection.register("removed_rows", self._reader(schema, tables))
        with self._explained():
            self._connection.execute("create temp table removed as from removed_rows")
        self._has_duplicates = True

    def _reader(self, schema: pa.Schema, tables: Iterable[pa.Table]) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(schema, self._keep_failure(tables))

    def _keep_failure(self, tables: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
        """The batches of `tables`. DuckDB gives only the text of what reading them raises."""
        try:
            for table in tables:
                yield from table.to_batches()
        except BaseException as error:
            self._failures.append(error)
            raise


@contextlib.contextmanager
def open_engine(
    root: Root, rules: RuleSet, units: Sequence[str], limits: SelectConfig, scratch: Path, *, name: str = "select"
) -> Iterator[Engine]:
    """DuckDB over the rows of `units`; what it spills lies in a folder of its own below `scratch`.

    `name` is what its progress is called.
    """
    with open_connection(limits, scratch) as connection:
        # The stream has no known number of rows, and must not be what a join keeps in memory.
        connection.execute("set disabled_optimizers = 'join_order,build_side_probe_side'")
        connection.execute("set lock_configuration = true")
        yield Engine(root, rules, units, connection, name)


@contextlib.contextmanager
def open_connection(limits: SelectConfig, scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB that reads no file and takes what `limits` allow; what it spills lies in a folder below `scratch`."""
    with tempfile.TemporaryDirectory(prefix="select-", dir=scratch) as folder, duckdb.connect() as connection:
        forbid_extensions(connection)
        connection.execute(f"set temp_directory = {quote_text(folder)}")
        connection.execute(f"set memory_limit = '{round(limits.memory_gb * 1e9)}B'")
        connection.execute(f"set threads = {limits.threads or len(os.sched_getaffinity(0))}")
        connection.execute("set enable_external_access = false")
        yield connection


def _drop_unused(tables: Tables) -> Tables:
    """`tables` without those of which no column is needed, samples apart."""
    return {table: names for table, names in tables.items() if names or table == "samples"}


def _explain(error: Exception) -> Exception:
    if isinstance(error, duckdb.OutOfMemoryException):
        return UserError(
            f"DuckDB ran out of memory or of disk to spill to: give it more by --set select.memory_gb=…, "
            f"or free some disk ({explain_error(error)})."
        )
    return UserError(f"DuckDB gave up: {explain_error(error)}")
