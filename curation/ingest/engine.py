"""What an ingest asks of an engine: DuckDB and processes on this machine, or Spark on a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from curation.download.tombstones import Tombstones
from curation.metadata.inputs import Input
from curation.plan import Spread
from curation.storage import Root

SORTED_BY = ("unit", "uid", "file", "row", "position")
"""The order of rows in units, null first; `position` tells apart files of one name."""
UnitCounts = dict[str, Any]
"""What `curation.ingest.unit.write_unit` says of a unit."""


@dataclass(frozen=True, kw_only=True)
class DomainCounts:
    """Rows that are not refused, by registered domain, repeats included."""

    num_rows: int
    placed: Mapping[str, int]
    """The domains that have so many that they are placed by themselves."""
    largest: Sequence[str]
    """The `curation.plan.NUM_LARGEST` with the most rows, of equal ones the first by name."""


@dataclass(frozen=True, kw_only=True)
class UnitTarget:
    """Where units are written, and what is known while one is: small, as every task and process gets it."""

    root: Root
    batch: str
    named: frozenset[str]
    """Domains whose samples are counted by name: all that lie in more than one unit are among them."""
    tombstones: Tombstones


@dataclass(frozen=True, kw_only=True)
class UnitWork:
    """Which units are written, and what decides which rows lie in each."""

    target: UnitTarget
    spread: Spread
    earlier: Sequence[str]
    """Files of samples of earlier plans: a row whose uid stands there is repeated."""
    only: frozenset[int] | None = None
    """Numbers of the units that are written; None means all."""


class Rows(Protocol):
    """The rows of some inputs in the columns of `curation.metadata.rows.rows_schema`."""

    def count_by_file(self) -> Mapping[int, int]:
        """Rows of each input, by its position. Every file is read to its end; raises UserError when one cannot be."""

    def count_domains(self, least: int) -> DomainCounts:
        """Rows by domain; those domains that have `least` rows or more are `placed`."""

    def write_units(self, work: UnitWork) -> list[UnitCounts]:
        """Mark all but the first row of each uid (in the order of recipe, file, row) as repeated, place every row,
        and publish the units; what each one holds, in their order.
        """


class Engine(Protocol):
    """What opens rows."""

    def open_rows(self, items: Sequence[Input]) -> AbstractContextManager[Rows]:
        """The rows of `items`, of which nothing is left when the context ends."""
