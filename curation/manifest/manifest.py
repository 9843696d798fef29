"""The manifest: DuckDB views over the tables of a root, read in place and read-only.

    with Manifest("s3://bucket/run") as manifest:
        manifest.query("select source, count(*) from manifest where kept group by source").show()

A view lists the files that stood when the manifest was opened. Jobs only add files under new names, so a query is safe
while a job writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from curation import schema
from curation.errors import UserError
from curation.manifest.limits import count_threads, limit_memory
from curation.manifest.quoting import (
    check_names,
    forbid_extensions,
    lock,
    quote_identifier,
)
from curation.manifest.rewrite import Use, is_uid, list_tables, rewrite_query
from curation.manifest.scans import Scans, find_packed
from curation.manifest.uid_index import MIN_FILES, UidIndex
from curation.manifest.wide import OF_ALL_UNITS, Wide
from curation.object_store import GLOB, take_names_literally
from curation.plan import group_by_rows, measure_units
from curation.storage import Root
from curation.sums.reading import check_sums
from curation.sums.seal import check_tables, is_sealed
from curation.tables import SAMPLES, batch_of, count_captions_by_batch, score_tables

UNIT_TABLES = {"samples": schema.SAMPLES, "rejects": schema.REJECTS, "downloads": schema.DOWNLOADS}
VERSIONED_TABLES = {
    "duplicates": schema.DUPLICATES,
    "selection": schema.SELECTION,
    "train_index": schema.TRAIN_INDEX,
}
UNIT_ROWS = "unit_rows"
"""In the SQL of `Manifest.query_units`: the rows of the view manifest that are in the wanted units."""
GROUPS = "groups"
"""The schema of views that scan some units of a table each."""
MAX_GROUPS = 16
"""Of units that are joined one after the other: each costs a look at a file of each table."""
ROWS_PER_THREAD = 2_500_000
"""Of a group, at least: with fewer DuckDB fills the tables of the next joins before a join has given its own back."""
Check = Literal["sums", "sizes", "nothing"]
"""What is compared with the ledgers of a sealed root before rows are read: whole files, their sizes, or nothing."""


class Manifest:
    """Views samples, rejects, downloads, duplicates, scores, selection, train_index and the wide `manifest`.

    Use it as a context manager, or call `close()` when no relation of it is needed any more.

    A root may come from somebody else: queries read this root and nothing else, besides the local files in
    `allow_files`, or any file when that is True. They can neither write nor change the connection's settings.

    DuckDB compares no checksum, so the files that a query reads are summed before it, once (curation/sums/reading.py).
    `check` is "sums" on this machine; of an object store, where that would fetch whole files, it is "sizes".

    DuckDB holds up to `memory_gb`, by default four fifths of the machine's, and puts the rest on disk, into the private
    folder below TMPDIR (curation/manifest/limits.py).
    """

    def __init__(
        self,
        root: Root | str | Path,
        *,
        allow_files: bool | Sequence[str] = False,
        check: Check | None = None,
        memory_gb: float | None = None,
    ) -> None:
        self.root = root if isinstance(root, Root) else Root(root)
        self.root.check_format()
        wanted: Check = check or ("sums" if self.root.is_local else "sizes")
        self.check: Check = wanted if is_sealed(self.root) else "nothing"
        self.connection = duckdb.connect()
        forbid_extensions(self.connection)
        limit_memory(self.connection, memory_gb)
        if not self.root.is_local:
            has_glob = GLOB.search(self.root.url()) is not None
            self.connection.register_filesystem(take_names_literally(self.root.fs) if has_glob else self.root.fs)
        # The parser has its own connection, since the other may have a result that is not read to its end.
        self._parser = duckdb.connect()
        self._indexes: dict[str, UidIndex] = {}
        self._pruned: list[str] = []
        """Files that take the place of whole tables in the query that is being rewritten."""
        self._sound: set[str] = set()
        """Files that were compared with their sums since this manifest was opened."""
        self._group_views: set[str] = set()
        self._create_views()
        if allow_files is not True:
            lock(self.connection, self.root.url(), list(allow_files or ()))

    def query(self, sql: str, parameters: Iterable[Any] | None = None) -> duckdb.DuckDBPyRelation:
        """The relation that `sql` (one SELECT) describes. Raises UserError with DuckDB's reason for bad SQL.

        Also raises it for a file that does not hold what was published (`check`).

        Tables whose columns the query does not name are not joined. `uid = …` and `uid in (…)` read only the files that
        can hold those uids (curation/manifest/rewrite.py, curation/manifest/uid_index.py).
        """
        values = None if parameters is None else list(parameters)
        try:
            statements = self.connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UserError("The manifest is read-only: ask it with one SELECT.")
            self._pruned.clear()
            narrow = rewrite_query(self._parser, statements[0].query, values, self._views, self._narrow_view)
            if narrow is not None:
                # An error of the rewritten query would speak of SQL that the user did not write.
                with contextlib.suppress(duckdb.Error):
                    relation = self.connection.sql(narrow, params=values)
                    self._check_files(narrow, self._pruned)
                    return relation
            relation = self.connection.sql(sql, params=values)
        except duckdb.Error as error:
            raise UserError(f"DuckDB refuses the query: {explain_error(error)}") from error
        self._check_files(sql)
        return relation

    def query_units(self, sql: str, units: Sequence[str]) -> duckdb.DuckDBPyRelation:
        """The relation of `sql`, in which the table `unit_rows` is the rows of the view manifest in `units`.

        The other tables of a unit have the same rows, so nothing but the unit's own files is read, however many units
        the root has. Raises UserError as `query` does.
        """
        files = {f"{unit}.parquet" for unit in units}
        self._pruned.clear()

        def narrow(use: Use) -> str | None:
            return self._narrow_view(use) if use.view != UNIT_ROWS else self._narrow_units(use, files)

        text = rewrite_query(self._parser, sql, None, self._views | {UNIT_ROWS}, narrow)
        if text is None:
            raise UserError("DuckDB refuses the query: it counts columns by their place; name them instead.")
        try:
            relation = self.connection.sql(text)
        except duckdb.Error as error:
            raise UserError(f"DuckDB refuses the query: {explain_error(error)}") from error
        self._check_files(text, self._pruned)
        return relation

    def _narrow_units(self, use: Use, names: Container[str]) -> str:
        """The part of the view manifest that is in the unit files called `names`."""
        scans = {}
        for table in self._wide.needed_tables(use.names):
            if table not in ("duplicates", "train_index"):  # those are of all units at once
                found = [file for file in self._files[table] if file.rpartition("/")[2] in names]
                scans[table] = self._scan_some(table, found)
        return self._wide.sql(use.names, scans)

    def _check_files(self, sql: str, pruned: Sequence[str] = ()) -> None:
        """Compare the files of the views that `sql` names, and the files `pruned`, with their sums."""
        if self.check == "sums":
            named = list_tables(self._parser, sql)
            views = self._files if named is None or "manifest" in named else self._expand_scores(named)
            named_files = [*pruned, *(file for view in views for file in self._files[view])]
            files = {*self._scans.stored(named_files)} - self._sound
            check_sums(self.root, sorted(files))
            self._sound |= files

    def _expand_scores(self, names: frozenset[str]) -> list[str]:
        """The tables of the views `names`: "scores" is all tables of scores side by side."""
        return [t for t in self._files if t.lower() in names or ("scores" in names and t in self._wide.scores)]

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close DuckDB's connections and end their threads, before this process forks, for example."""
        self.connection.close()
        self._parser.close()

    def views(self) -> frozenset[str]:
        """Names of all views, in lower case."""
        return frozenset(name.lower() for name in (*self._views, "scores"))

    def columns_by_table(self) -> dict[str, list[str]]:
        """Table → the columns of the view manifest that are its."""
        return {table: list(columns) for table, columns in self._wide.columns.items()}

    def columns(self, view: str) -> list[str]:
        """Names of the columns of `view`, in order."""
        return list(self.connection.table(view).columns)

    def files(self, table: str) -> list[str]:
        """Paths, relative to ROOT, of the parquet files of which `table` consists now; some may lie in packed ones."""
        if table in VERSIONED_TABLES:
            current = self.root.current(table)
            return [f for f in current["files"] if f.endswith(".parquet")] if current else []
        return [f"{table}/{unit}.parquet" for unit in self.root.units(table)]

    def units_with(self, uids: Sequence[str]) -> list[str]:
        """The units whose samples can hold one of `uids` (32 hex digits each): few of many, all of few."""
        files = self._files[SAMPLES]
        if len(files) >= MIN_FILES and all(map(is_uid, uids)):
            files = self._index_of(SAMPLES).files_with(uids)
        return [Path(file).stem for file in files]

    def score_tables(self) -> list[str]:
        """Names of the tables that filters have written."""
        return [name for name in score_tables(self.root) if self.files(name)]

    def _create_views(self) -> None:
        scores = self.score_tables()
        known: dict[str, pa.Schema | None] = {**UNIT_TABLES, **VERSIONED_TABLES, **dict.fromkeys(scores)}
        check_names(list(known), self.root.url())
        if self.check != "nothing":
            check_tables(self.root, known)
        self._files = {name: self.files(name) for name in known}
        self._scans = Scans(self.root, find_packed(self.root, self._files))
        self._num_captions = count_captions_by_batch(self.root, [Path(file).stem for file in self._files[SAMPLES]])
        for name, columns in known.items():
            self._create_view(name, columns)
        for table in scores:
            check_names(self._stored_columns(table), self.root.url(table))
        self._wide = Wide(samples=self.columns(SAMPLES), scores={table: self.columns(table) for table in scores})
        self.connection.execute(f"create view scores as {self._wide.scores_sql()}")
        self.connection.execute(f"create view manifest as {self._wide.sql(None, {})}")
        self._views = frozenset({*known, "manifest"})

    def _create_view(self, name: str, columns: pa.Schema | None) -> None:
        files = self._files[name]
        sql = self._scan(name, files) if files else f"select {_empty_columns(columns or pa.schema([]))} where false"
        try:
            self.connection.execute(f"create view {quote_identifier(name)} as {sql}")
        except duckdb.Error as error:
            check_sums(self.root, self._scans.stored(files))  # says what mends a damaged file
            raise UserError(
                f"{self.root.url(name)} cannot be read ({explain_error(error)}): run `curate verify {self.root.base}`, "
                f"which names what is damaged and what mends it."
            ) from error
        lacking = sorted({*(columns.names if columns else ())} - set(self.columns(name)))
        if lacking:
            raise UserError(
                f"{self.root.url(name)} lacks {', '.join(lacking)}, as another version wrote it: use that version, "
                f"or start a new root."
            )

    def _stored_columns(self, table: str) -> list[str]:
        """Names of the columns of `table` as its first file has them; DuckDB renames those that are equal."""
        return list(self.root.read_schema(self._files[table][0]).names)

    def _scan(self, table: str, files: Sequence[str]) -> str:
        if table != SAMPLES:
            return self._scans.sql(files)
        by_number: dict[int, list[str]] = {}
        for file in files:
            by_number.setdefault(self._num_captions[batch_of(Path(file).stem)], []).append(file)
        every = schema.name_captions(max(self._num_captions.values()))
        parts = []
        for number, same in by_number.items():
            lacking = "".join(f", null::varchar as {name}" for name in every[number:])
            parts.append(f"select *{lacking} {self._scans.sql(same)}")
        return " union all ".join(parts)

    def _narrow_view(self, use: Use) -> str | None:
        """The query that replaces one use of a view; None where the view itself is to be used."""
        if use.view != "manifest":
            return None if use.uids is None else self._prune_scan(use.view, use.uids)
        tables = self._wide.needed_tables(use.names)
        if use.uids is None:
            if len(set(tables) - {*OF_ALL_UNITS}) > 1 and len(self._groups) > 1:
                return self._wide.grouped_sql(use.names, self._scan_groups(tables))
            return None if use.names is None else self._wide.sql(use.names, {})
        scans = {table: self._prune_scan(table, use.uids) for table in tables}
        return self._wide.sql(use.names, {table: scan for table, scan in scans.items() if scan is not None})

    @cached_property
    def _groups(self) -> list[frozenset[str]]:
        """The names of the unit files of each group, in the order of the units; one group of a root of few rows."""
        names = [file.rpartition("/")[2] for file in self._files[SAMPLES]]
        if len(names) < MIN_FILES:
            return [frozenset(names)]
        try:
            rows = measure_units(self.root, [Path(name).stem for name in names])
        except UserError:  # a plan is damaged, which `curate verify` says; a query needs none
            return [frozenset(names)]
        least = ROWS_PER_THREAD * count_threads(self.connection)
        num_groups = max(1, min(MAX_GROUPS, sum(rows) // least))
        # Units that lie in one packed file stay together, so that no file is read twice.
        runs: dict[str, list[tuple[str, int]]] = {}
        for file, name, count in zip(self._files[SAMPLES], names, rows, strict=True):
            runs.setdefault(self._scans.stored([file])[0], []).append((name, count))
        sized = [([name for name, _ in run], sum(count for _, count in run)) for run in runs.values()]
        largest = max(count for _, count in sized)
        grouped = group_by_rows(sized, -(-sum(rows) // num_groups) + largest // 2)
        return [frozenset(name for run in group for name in run) for group in grouped]

    def _scan_groups(self, tables: Sequence[str]) -> list[dict[str, str]]:
        """For each group of units what scans it, of each of `tables` that has files of units."""
        self._pruned += [file for table in tables for file in self._files[table]]
        of_units = [table for table in tables if table not in OF_ALL_UNITS]
        return [{table: self._group_view(table, number) for table in of_units} for number in range(len(self._groups))]

    def _group_view(self, table: str, number: int) -> str:
        """The rows of `table` in one group: a view, since a query that lists thousands of files is slow to rewrite."""
        view = f"{GROUPS}.{quote_identifier(f'{table} {number}')}"
        if view not in self._group_views:
            files = [file for file in self._files[table] if file.rpartition("/")[2] in self._groups[number]]
            self.connection.execute(f"create schema if not exists {GROUPS}")
            # DuckDB takes a table with a condition for the smaller side of a join, which is the one that it keeps.
            known = "" if table == SAMPLES else " where uid is not null"
            self.connection.execute(f"create view {view} as select * from ({self._scan_some(table, files)}){known}")
            self._group_views.add(view)
        return f"from {view}"

    def _prune_scan(self, table: str, uids: Sequence[str]) -> str | None:
        """A scan of the files of `table` that can hold `uids`; None where all of them are scanned."""
        files = self._files[table]
        if len(files) < MIN_FILES:
            return None
        if table in VERSIONED_TABLES and table != "selection":
            pruned = self._index_of(table).files_with(uids)
        else:
            # A uid is in the same unit in every unit table.
            units = {f.rpartition("/")[2] for f in self._index_of("samples").files_with(uids)}
            pruned = [f for f in files if f.rpartition("/")[2] in units]
        return self._scan_some(table, pruned)

    def _scan_some(self, table: str, files: Sequence[str]) -> str:
        """A scan of `files`, which are some of `table`; without any, its columns and no row."""
        self._pruned += files
        if files or not self._files[table]:
            return self._scan(table, files) if files else f"from {quote_identifier(table)}"
        return f"select * from ({self._scan(table, self._files[table][:1])}) where false"

    def _index_of(self, table: str) -> UidIndex:
        if table not in self._indexes:
            self._indexes[table] = UidIndex(self.root, self._files[table])
        return self._indexes[table]


def explain_error(error: Exception) -> str:
    """DuckDB's message in one line: the error and its hint, without the lines that mark the place."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("LINE ", "^"))]
    return " ".join(kept) or "it gives no reason."


def _empty_columns(columns: pa.Schema) -> str:
    types = {pa.string(): "varchar", pa.bool_(): "boolean", pa.int32(): "integer", pa.int64(): "bigint"}
    types[pa.float32()] = "float"
    return ", ".join(f'null::{types[f.type]} as "{f.name}"' for f in columns) or "null as uid"
