"""DuckDB on this machine over the rows of a root, for rules.

Rows reach it as a stream of Arrow tables, unit by unit, because the tables of a unit fit together without a join over
all rows. What does not fit into memory (sorts, windows, duplicates) goes to a folder that is deleted in the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from curation.progress import track
from curation.recipe import rules as rule_language
from curation.recipe.balance import MACROS_IN_DUCKDB, bound_sql, count_entries_sql
from curation.recipe.expressions import Quantile, QuantileValues
from curation.recipe.rules import DUPLICATE_COLUMNS
from curation.recipe.select_config import SelectConfig
from curation.selection.quantiles import rank_values
from curation.selection.rows import (
    PLACE,
    LostRows,
    duplicates_files,
    join_pictures,
    join_unit,
    read_ahead,
    read_duplicates,
)
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
        self._num_readers = root.count_readers(self._streams.num_threads)
        self._has_duplicates = False
        self._bounds: list[str] = []

    def compute_quantiles(self, tables: Tables) -> Values:
        """The quantiles of the rules. Raises UserError when one goes over too many partitions."""

        def read(wanted: Quantile, step: str) -> str:
            return self.rows_sql(_choose(tables, {"status", wanted.column, *wanted.by}), step=step)

        return {wanted: self._compute_quantile(wanted, read) for wanted in self._rules.quantiles}

    def compute_quantiles_of(self, table: str) -> Values:
        """As `compute_quantiles`, of the rows of a table that DuckDB holds."""
        return {wanted: self._compute_quantile(wanted, lambda *_: table) for wanted in self._rules.quantiles}

    def _compute_quantile(self, wanted: Quantile, rows_of: Callable[[Quantile, str], str]) -> QuantileValues:
        step, types = f"quantile of {wanted.column}", self._rules.columns
        found = rank_values(self.query(rule_language.values_sql(rows_of(wanted, step), wanted, types)), wanted)
        if found is None:
            sql = rule_language.quantile_sql(rows_of(wanted, f"{step}, again"), wanted, types)
            batches = self.query(f"{sql} limit {MAX_PARTITIONS + 1}")
            found = [tuple(row.values()) for batch in batches for row in batch.to_pylist()]
        return name_quantile(wanted, found)

    def balance(self, tables: Tables) -> None:
        """Compute the bounds that the rules compare with: rows have them as columns from then on."""
        bounds = []
        for balance in self._rules.balances:
            fewer = _choose(tables, {*balance.columns})
            counted = self.rows_sql(fewer, with_uid="uid" in balance.columns, step="entries counted")
            self.keep_rows(balance.counts, count_entries_sql(counted, balance))
            sampled = self.rows_sql(fewer, with_uid=True, step="entries sampled")
            self.keep_rows(balance.bound, bound_sql(sampled, balance, PLACE))
            self._streams.execute(f"drop table {balance.counts}")
            bounds.append(balance.bound)
        self._bounds = bounds

    def keep_rows(self, table: str, sql: str) -> None:
        """Let `table` hold the rows of `sql`, in memory as long as they fit into it."""
        self._streams.execute(f"create temp table {table} as {sql}")

    def rows_sql(
        self,
        tables: Tables,
        *,
        with_uid: bool = False,
        step: str = "rules",
        lost: LostRows | None = None,
        units: range | None = None,
    ) -> str:
        """A table expression, to be used once, of all rows: `place`, the columns of `tables`, `uid` if wanted, and the
        bounds once `balance` has computed them.

        Rows without a picture are left out where they are counted in `lost`. `units` are the numbers of those that are
        read, None means all; they are shown as the progress of `step`.
        """
        has_duplicates = bool(tables.get("duplicates"))
        numbers = range(len(self._units)) if units is None else units
        self._register_units(tables, with_uid or has_duplicates, step, lost, numbers)
        names = [*tables.get("duplicates", ()), *self._bounds]
        if not names:
            return "unit_rows"
        if has_duplicates:
            self._load_duplicates()
        joined = " left join removed using (uid)" if has_duplicates else ""
        joined += "".join(f" left join {bound} using ({PLACE})" for bound in self._bounds)
        return f"(select unit_rows.*, {', '.join(names)} from unit_rows{joined})"

    def query(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The rows of `sql`. Raises what reading a table raised, and UserError when memory or disk do not do."""
        return self._streams.query(sql)

    def _register_units(self, tables: Tables, with_uid: bool, step: str, lost: LostRows | None, numbers: range) -> None:
        names = [name for table, columns in tables.items() if table != "duplicates" for name in columns]
        fields = [pa.field("place", pa.int64()), *([pa.field("uid", pa.string())] if with_uid else [])]
        schema = pa.schema([*fields, *(pa.field(name, self._rules.columns[name]) for name in names)])

        def read(number: int) -> tuple[pa.Table, LostRows]:
            unit, start, without = self._units[number], number << PLACE_BITS, LostRows()
            if lost is None:
                rows = join_unit(self._root, unit, tables, self._rules.refused)
                places = np.arange(start, start + len(rows))
            else:
                rows, without = join_pictures(self._root, unit, tables, self._rules.refused)
                places = start + rows[PLACE].to_numpy()
                rows = rows.drop_columns(PLACE)
            return rows.add_column(0, PLACE, pa.array(places)).select(schema.names).cast(schema), without

        def take(found: Iterable[tuple[pa.Table, LostRows]]) -> Iterator[pa.Table]:
            for rows, without in found:
                if lost is not None:
                    lost.update(without)
                yield rows

        found = read_ahead(read, numbers, self._num_readers)
        shown = track(found, len(numbers), f"{self._name}, {step}", "unit")
        self._streams.register("unit_rows", schema, take(shown))

    def _load_duplicates(self) -> None:
        """Make the table `removed`, once: its number of rows is then known, and it is what a join keeps in memory."""
        if self._has_duplicates:
            return
        schema = pa.schema([("uid", pa.string()), *DUPLICATE_COLUMNS.items()])
        files = duplicates_files(self._root)
        found = read_ahead(lambda file: read_duplicates(self._root, file), files, self._num_readers)
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
        for macro in MACROS_IN_DUCKDB:
            connection.execute(macro)
        yield Engine(root, rules, units, connection, name)


def _choose(tables: Tables, needed: Collection[str]) -> Tables:
    """`tables` with the columns that are `needed`, without those of which none is, samples apart."""
    fewer = {table: [name for name in names if name in needed] for table, names in tables.items()}
    return {table: names for table, names in fewer.items() if names or table == "samples"}
