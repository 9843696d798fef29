"""The view `manifest`: the columns of every table beside each other, a row for each sample.

A join keeps a table in memory, about 100 bytes a row. The rows of a unit are in files of one name in every table of
units, so of a large root these tables are joined a group of units after the other, and a join keeps a group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from curation import schema
from curation.manifest.quoting import quote_identifier

OF_ALL_UNITS = ("duplicates", "train_index")
"""Tables whose files are of no unit."""
_ALIASES = {"samples": "s", "downloads": "d", "duplicates": "u", "selection": "l", "train_index": "t"}
Scans = Mapping[str, str]
"""Table → the SQL that takes the place of all its rows."""


@dataclass(frozen=True, kw_only=True)
class Wide:
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

    def sql(self, names: frozenset[str] | None, scans: Scans) -> str:
        """The SQL of the view, or of the part that `names` need; `scans` replace the scans of whole tables."""
        return self._join(self.needed_tables(names), scans)

    def grouped_sql(self, names: frozenset[str] | None, groups: Sequence[Scans]) -> str:
        """As `sql`, the same rows in the same order: each of `groups` scans some of the units, all of them together."""
        tables = self.needed_tables(names)
        of_units = [table for table in tables if table not in OF_ALL_UNITS]
        rows = " union all ".join(self._join(of_units, scans) for scans in groups)
        joined = "".join(f" left join {self._source(table, {})}" for table in tables if table in OF_ALL_UNITS)
        if not joined:
            return rows
        listed = [
            f"{sql if table in OF_ALL_UNITS else f'g.{quote_identifier(name)}'} as {quote_identifier(name)}"
            for table in tables
            for name, sql in self.columns[table].items()
        ]
        return f"select {', '.join(listed)} from ({rows}) as g{joined}"

    def _join(self, tables: Sequence[str], scans: Scans) -> str:
        listed = [f"{sql} as {quote_identifier(name)}" for table in tables for name, sql in self.columns[table].items()]
        return f"select {', '.join(listed)} from {' left join '.join(self._source(table, scans) for table in tables)}"

    def _source(self, table: str, scans: Scans) -> str:
        rows = f"({scans[table]})" if table in scans else quote_identifier(table)
        source = f"{rows} as {quote_identifier(_ALIASES.get(table, table))}"
        return source if table == "samples" else f"{source} using (uid)"

    def scores_sql(self) -> str:
        """The SQL of the view `scores`, with one row for each uid in any table of scores."""
        listed = "".join(f", {sql}" for table in self.scores for sql in self.columns[table].values())
        uids = (
            " union ".join(f"select uid from {quote_identifier(t)}" for t in self.scores)
            or "select uid from samples where false"
        )
        joins = " ".join(f"left join {quote_identifier(table)} using (uid)" for table in self.scores)
        return f"select uid{listed} from ({uids}) u {joins}"
