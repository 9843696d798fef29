"""The manifest: DuckDB views over the tables of a root, read in place and read-only.

    with Manifest("s3://bucket/run") as manifest:
        manifest.query("select source, count(*) from manifest where kept group by source").show()

A view lists the files that stood when the manifest was opened. Jobs only add files under new names, so a query is safe
while a job writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from curation import schema
from curation.errors import UserError
from curation.manifest.quoting import (
    check_names,
    forbid_extensions,
    lock,
    quote_identifier,
)
from curation.manifest.rewrite import Use, is_uid, list_tables, rewrite_query
from curation.manifest.scans import Scans, find_packed
from curation.manifest.uid_index import MIN_FILES, UidIndex
from curation.object_store import GLOB, take_names_literally
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
Check = Literal["sums", "sizes", "nothing"]
"""What is compared with the ledgers of a sealed root before rows are read: whole files, their sizes, or nothing."""


class Manifest:
    """Views samples, rejects, downloads, duplicates, scores, selection, train_index and the wide `manifest`.

    Use it as a context manager, or call `close()` when no relation of it is needed any more.

    A root may come from somebody else: queries read this root and nothing else, besides the local files in
    `allow_files`, or any file when that is True. They can neither write nor change the connection's settings.

    DuckDB compares no checksum, so the files that a query reads are summed before it, once (curation/sums/reading.py).
    `check` is "sums" on this machine; of an object store, where that would fetch whole files, it is "sizes".
    """

    def __init__(
        self, root: Root | str | Path, *, allow_files: bool | Sequence[str] = False, check: Check | None = None
    ) -> None:
        self.root = root if isinstance(root, Root) else Root(root)
        self.root.check_format()
        wanted: Check = check or ("sums" if self.root.is_local else "sizes")
        self.check: Check = wanted if is_sealed(self.root) else "nothing"
        self.connection = duckdb.connect()
        forbid_extensions(self.connection)
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
        self._wide = _Wide(samples=self.columns(SAMPLES), scores={table: self.columns(table) for table in scores})
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
            return None if use.names is None else self._wide.sql(use.names, {})
        scans = {table: self._prune_scan(table, use.uids) for table in tables}
        return self._wide.sql(use.names, {table: scan for table, scan in scans.items() if scan is not None})

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


@dataclass(frozen=True, kw_only=True)
class _Wide:
    """The columns of the view `manifest` and the tables they come from.

    `samples`: columns of samples, `scores`: those of each table of scores.
    """

    samples: Sequence[str]
    scores: dict[str, list[str]]

    @cached_property
    def columns(self) -> dict[str, dict[str, str]]:
        """Table → name in the view → expression; a name belongs to the first table that has it."""
        found: dict[str, dict[str, str]] = {
            "samples": {name: f"s.{quote_identifier(name)}" for name in self.samples},
            "downloads": {name: f"d.{quote_identifier(name)}" for name in schema.DOWNLOADS.names if name != "uid"},
        }
        versioned = {
            "duplicates": {
                "duplicate_of": "u.kept_uid",
                "duplicate_tier": "u.tier",
                "duplicate_similarity": "u.similarity",
            },
            "selection": {"kept": "l.kept", "reason": "l.reason"},
            "train_index": {"train_shard": "t.shard", "train_offset": 't."offset"', "train_size": "t.size"},
        }
        # No score may stand under a name of the manifest's own, in whatever case: DuckDB's names are equal in both.
        taken = {name.lower() for columns in (*found.values(), *versioned.values()) for name in columns}
        for table, names in self.scores.items():
            prefix = quote_identifier(table)
            free = [name for name in names if name.lower() not in taken]
            found[table] = {name: f"{prefix}.{quote_identifier(name)}" for name in free}
            taken |= {name.lower() for name in free}
        return found | versioned

    def needed_tables(self, names: frozenset[str] | None) -> list[str]:
        """The tables that a query with the words `names` can need; samples is always needed, as it lists the rows."""
        return [
            table
            for table, columns in self.columns.items()
            if table == "samples" or names is None or any(name.lower() in names for name in columns)
        ]

    def sql(self, names: frozenset[str] | None, scans: Mapping[str, str]) -> str:
        """The SQL of the view, or of the part that `names` need; `scans` replace the scans of whole tables."""
        tables = self.needed_tables(names)
        aliases = {"samples": "s", "downloads": "d", "duplicates": "u", "selection": "l", "train_index": "t"}
        listed = [f"{sql} as {quote_identifier(name)}" for table in tables for name, sql in self.columns[table].items()]
        sources = [
            f"{f'({scans[table]})' if table in scans else quote_identifier(table)} "
            f"as {quote_identifier(aliases.get(table, table))}"
            for table in tables
        ]
        joined = " left join ".join([sources[0], *(f"{source} using (uid)" for source in sources[1:])])
        return f"select {', '.join(listed)} from {joined}"

    def scores_sql(self) -> str:
        """The SQL of the view `scores`, with one row for each uid in any table of scores."""
        listed = "".join(f", {sql}" for table in self.scores for sql in self.columns[table].values())
        uids = (
            " union ".join(f"select uid from {quote_identifier(t)}" for t in self.scores)
            or "select uid from samples where false"
        )
        joins = " ".join(f"left join {quote_identifier(table)} using (uid)" for table in self.scores)
        return f"select uid{listed} from ({uids}) u {joins}"


def explain_error(error: Exception) -> str:
    """DuckDB's message in one line: the error and its hint, without the lines that mark the place."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kept = [line for line in lines if not line.startswith(("LINE ", "^"))]
    return " ".join(kept) or "it gives no reason."


def _empty_columns(columns: pa.Schema) -> str:
    types = {pa.string(): "varchar", pa.bool_(): "boolean", pa.int32(): "integer", pa.int64(): "bigint"}
    types[pa.float32()] = "float"
    return ", ".join(f'null::{types[f.type]} as "{f.name}"' for f in columns) or "null as uid"
