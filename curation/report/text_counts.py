"""Rows by the values of text columns, however many values there are: DuckDB holds them, and spills what it must."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb

from curation.manifest.quoting import forbid_extensions, quote_text

MEMORY = "1500MB"
MAX_PARTS = 2_000_000
"""Rows of the table of counts at which those of equal values are added up, at first."""
_SUMS = ", ".join(f"sum({name})::bigint as {name}" for name in ("num_rows", "pictures", "kept", "reached", "passed"))


@dataclass(frozen=True)
class TextCount:
    """One value of a column: rows that have it, those whose picture came, and those that are kept.

    `reached` and `passed` are the pictures that reach the rule that balances concepts, and those that it lets pass;
    without such a rule they are the pictures and the kept ones.
    """

    value: str
    num_rows: int
    pictures: int
    kept: int
    reached: int
    passed: int


class TextCounts:
    """Counts by column and value. Use `open_counts`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        names = "num_rows bigint, pictures bigint, kept bigint, reached bigint, passed bigint"
        connection.execute(f"create temp table texts (name varchar, value varchar, {names})")
        self._most = MAX_PARTS

    def add(self, name: str, value: str, reached: str, passed: str) -> None:
        """Count the rows of the table `batch` by `value`, under the column's `name`; all but `name` are SQL.

        A row of which `value` gives several values (by unnest) counts towards each.
        """
        counts = ", ".join(f"count(*) filter (where {each})" for each in ("status = 'ok'", "kept", reached, passed))
        self._connection.execute(
            f"insert into texts select {quote_text(name)}, v, count(*), {counts} "
            f"from (select *, {value} as v from batch) as m where v is not null group by v"
        )
        if self._count("select count(*) from texts") > self._most:
            self._add_up()

    def _add_up(self) -> None:
        self._connection.execute(
            f"create or replace temp table texts as select name, value, {_SUMS} from texts group by name, value"
        )
        # There may be more values than that; adding up must not happen at every batch then.
        self._most = max(MAX_PARTS, 2 * self._count("select count(*) from texts"))

    def find_largest(self, name: str, limit: int, by: str = "pictures") -> list[TextCount]:
        """The values of the column with the most rows `by` (pictures or num_rows), the most first."""
        rows = self._connection.execute(
            f"select value, {_SUMS} from texts where name = ? group by value order by {by} desc, num_rows desc, value "
            f"limit {limit}",
            [name],
        ).fetchall()
        return [TextCount(*row) for row in rows]

    def sum_pictures(self, name: str) -> int:
        """Pictures of which the column is known."""
        return self._count(f"select coalesce(sum(pictures), 0) from texts where name = {quote_text(name)}")

    def count_values(self, name: str, of: str = "num_rows") -> int:
        """Values of the column that have a row `of` (num_rows, pictures, reached, passed)."""
        return self._count(f"select count(distinct value) from texts where {of} > 0 and name = {quote_text(name)}")

    def rank(self, name: str, of: str, ranks: Sequence[int]) -> list[tuple[int, int]]:
        """(rank, rows `of`) at each of `ranks`, the value with the most rows having rank 1."""
        wanted = ", ".join(map(str, ranks))
        sums = f"select sum({of})::bigint as n from texts where name = {quote_text(name)} group by value"
        ranked = f"select n, row_number() over (order by n desc) as place from ({sums}) where n > 0"
        return self._connection.execute(
            f"select place, n from ({ranked}) where place in ({wanted}) order by place"
        ).fetchall()

    def _count(self, sql: str) -> int:
        return int(self._connection.execute(sql).fetchall()[0][0])


@contextlib.contextmanager
def open_connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB that reads no file and holds at most MEMORY; what it spills lies in a folder that is deleted then."""
    with tempfile.TemporaryDirectory(prefix="report-") as folder, duckdb.connect() as connection:
        forbid_extensions(connection)
        connection.execute(f"set temp_directory = {quote_text(folder)}")
        connection.execute(f"set memory_limit = '{MEMORY}'")
        connection.execute("set enable_external_access = false")
        yield connection
