"""Where rows of one table of a unit stand in another one."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc


class PlaceFinder:
    """Where each of `uids` stands among those of another table. Tables of one unit have the same ones, mostly."""

    def __init__(self, uids: pa.ChunkedArray, places: Mapping[bytes, pa.Array | None] | None = None) -> None:
        self._uids = uids
        self.places = dict(places or {})
        """The places in the tables that were seen, by the bytes in which they store their uids; None for the same."""

    def find(self, stored: bytes, others: pa.Table) -> pa.Array | None:
        """Places of the uids in `others`, null where one lacks; None when both have the same in the same order."""
        if stored not in self.places:
            found = others["uid"]
            is_same = self._uids.equals(found)
            self.places[stored] = None if is_same else pc.index_in(self._uids, found.combine_chunks())
        return self.places[stored]


def take_rows(table: pa.Table, places: pa.ChunkedArray | pa.Array) -> pa.Table:
    """The rows of `table` at `places`, null for null. Columns without any value cost nothing."""
    arrays = [
        pa.nulls(len(places), column.type) if column.null_count == len(column) else column.take(places)
        for column in table.columns
    ]
    return pa.Table.from_arrays(arrays, schema=table.schema)
