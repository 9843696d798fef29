"""The manifest: DuckDB views over the tables of a root, read in place and read-only.

    Manifest("s3://bucket/run").query("select source, count(*) from manifest where kept group by source")

A view lists the files that stood when the manifest was opened; jobs only ever add files under new names, so a query
is safe while a job writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from curation import schema
from curation.errors import UserError
from curation.storage import Root

if TYPE_CHECKING:
    from collections.abc import Iterable

UNIT_TABLES = {"samples": schema.SAMPLES, "rejects": schema.REJECTS, "downloads": schema.DOWNLOADS}
VERSIONED_TABLES = {
    "duplicates": schema.DUPLICATES,
    "selection": schema.SELECTION,
    "train_index": schema.TRAIN_INDEX,
}
SCORES = "scores_"


class Manifest:
    """Views samples, rejects, downloads, duplicates, scores, selection, train_index and the wide `manifest`."""

    def __init__(self, root: Root | str | Path) -> None:
        self.root = root if isinstance(root, Root) else Root(root)
        self.root.check()
        self.connection = duckdb.connect()
        if not self.root.is_local:
            self.connection.register_filesystem(self.root.fs)
        self._create_views()

    def query(self, sql: str, parameters: Iterable[Any] | None = None) -> duckdb.DuckDBPyRelation:
        """The relation that `sql` (one SELECT) describes. Raises UserError with DuckDB's reason for bad SQL."""
        try:
            statements = self.connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UserError("The manifest is read-only: ask it with one SELECT.")
            return self.connection.sql(sql, params=None if parameters is None else list(parameters))
        except duckdb.Error as error:
            raise UserError(f"DuckDB refuses the query: {_reason(error)}") from error

    def columns(self, view: str) -> list[str]:
        """Names of the columns of `view`, in order."""
        return list(self.connection.table(view).columns)

    def files(self, table: str) -> list[str]:
        """Paths relative to ROOT of the parquet files that `table` consists of now."""
        if table in VERSIONED_TABLES:
            current = self.root.current(table)
            return [f for f in current["files"] if f.endswith(".parquet")] if current else []
        return [f"{table}/{unit}.parquet" for unit in self.root.units(table)]

    def score_tables(self) -> list[str]:
        """Names of the tables that filters have written."""
        return [name for name in self.root.folders() if name.startswith(SCORES) and self.files(name)]

    def _create_views(self) -> None:
        for name, columns in {**UNIT_TABLES, **VERSIONED_TABLES}.items():
            self._create_view(name, columns)
        scores = self.score_tables()
        for name in scores:
            self._create_view(name, None)
        self._create_wide_views(scores)

    def _create_view(self, name: str, columns: pa.Schema | None) -> None:
        files = self.files(name)
        if files:
            listed = ", ".join(_quoted(self.root.url(f)) for f in files)
            sql = f"from read_parquet([{listed}], union_by_name = false)"
        else:
            sql = f"select {_empty_columns(columns or pa.schema([]))} where false"
        try:
            self.connection.execute(f'create view "{name}" as {sql}')
        except duckdb.Error as error:
            raise UserError(f"{self.root.url(name)} cannot be read: {_reason(error)}") from error

    def _create_wide_views(self, scores: list[str]) -> None:
        taken = set(schema.SAMPLES.names) | set(schema.DOWNLOADS.names)
        joins, selected = [], []
        for table in scores:
            fresh = [c for c in self.columns(table) if c not in taken]
            taken |= set(fresh)
            selected += [f'"{table}"."{c}"' for c in fresh]
            joins.append(f'left join "{table}" using (uid)')
        listed = "".join(f", {column}" for column in selected)
        uids = " union ".join(f'select uid from "{t}"' for t in scores) or "select uid from samples where false"
        self.connection.execute(f"create view scores as select uid{listed} from ({uids}) u {' '.join(joins)}")
        downloads = ", ".join(f"d.{c}" for c in schema.DOWNLOADS.names if c != "uid")
        wide = ", ".join(selected)
        self.connection.execute(f"""
            create view manifest as
            select s.*, {downloads}, {wide + "," if wide else ""}
                u.kept_uid as duplicate_of, u.tier as duplicate_tier, u.similarity as duplicate_similarity,
                l.kept, l.reason,
                t.shard as train_shard, t."offset" as train_offset, t.size as train_size
            from samples s
            left join downloads d using (uid)
            {" ".join(joins)}
            left join duplicates u using (uid)
            left join selection l using (uid)
            left join train_index t using (uid)""")


def _reason(error: Exception) -> str:
    """DuckDB's message in one line: what is wrong and its hint, without the marker lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("LINE ", "^"))]
    return " ".join(kept) or "it gives no reason."


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _empty_columns(columns: pa.Schema) -> str:
    types = {pa.string(): "varchar", pa.bool_(): "boolean", pa.int32(): "integer", pa.int64(): "bigint"}
    types[pa.float32()] = "float"
    return ", ".join(f'null::{types[f.type]} as "{f.name}"' for f in columns) or "null as uid"
