"""DuckDB on this machine over the rows of a root, for rules.

Rows reach it as a stream of Arrow tables, unit by unit, because the tables of a unit fit together without a join over
all rows. What does not fit into memory (sorts, windows, duplicates) goes to a folder that is deleted in the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from curation.progress import track
from curation.recipe import rules as rule_language
from curation.recipe.expressions import Quantile, QuantileValues
from curation.recipe.rules import DUPLICATE_COLUMNS
from curation.recipe.select_config import SelectConfig
from curation.selection.quantiles import rank_values
from curation.selection.rows import duplicates_files, join_unit, read_ahead, read_duplicates
from curation.selection.rule_set import MAX_PARTITIONS, RuleSet, Values, name_quantile
from curation.selection.streams import Streams, open_connection
from curation.storage import Root

Tables = Mapping[str, Sequence[str]]
PLACE_BITS = 32
"""Bits of a row's number inside its unit in `place`; the bits above are the unit's number."""


class Engine:
    """One connection to DuckDB with the rows of `units`. `name` is what its progress is called. Use `open_engine`."""

    def __init__(
        self, root: Root, rules: RuleSet, units: Sequence[str], connection: duckdb.DuckDBPyConnection, name: str
    ) -> None:
        self._root, self._rules, self._units, self._name = root, rules, units, name
        self._streams = Streams(connection)
        self._num_threads = self._streams.num_threads
        self._has_duplicates = False

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
        self._register_units(tables, with_uid or has_duplicates, step)
        if not has_duplicates:
            return "unit_rows"
        self._load_duplicates()
        names = ", ".join(tables["duplicates"])
        return f"(select unit_rows.*, {names} from unit_rows left join removed using (uid))"

    def query(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of `sql`. Raises what reading a table raised, and UserError when memory or disk do not do."""
        return self._streams.query(sql)

    def _register_units(self, tables: Tables, with_uid: bool, step: str) -> None:
        names = [name for table, columns in tables.items() if table != "duplicates" for name in columns]
        fields = [pa.field("place", pa.int64()), *([pa.field("uid", pa.string())] if with_uid else [])]
        schema = pa.schema([*fields, *(pa.field(name, self._rules.columns[name]) for name in names)])

        def read(number: int) -> pa.Table:
            rows = join_unit(self._root, self._units[number], tables, self._rules.refused)
            start = number << PLACE_BITS
            places = pa.array(np.arange(start, start + len(rows)))
            return rows.add_column(0, "place", places).select(schema.names).cast(schema)

        found = read_ahead(read, range(len(self._units)), self._num_threads)
        shown = track(found, len(self._units), f"{self._name}, {step}", "unit")
        self._streams.register("unit_rows", schema, shown)

    def _load_duplicates(self) -> None:
        """Make the table `removed`, once: its number of rows is then known, and it is what a join keeps in memory."""
        if self._has_duplicates:
            return
        schema = pa.schema([("uid", pa.string()), *DUPLICATE_COLUMNS.items()])
        files = duplicates_files(self._root)
        found = read_ahead(lambda file: read_duplicates(self._root, file), files, self._num_threads)
        tables = track(found, len(files), f"{self._name}, duplicates", "file")
        self._streams.register("removed_rows", schema, tables)
        self._streams.execute("create temp table removed as from removed_rows")
        self._has_duplicates = True


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


def _drop_unused(tables: Tables) -> Tables:
    """`tables` without those of which no column is needed, samples apart."""
    return {table: names for table, names in tables.items() if names or table == "samples"}
