"""The rows of one input, a shard or a part of a folder, as adoption reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import pyarrow as pa

SUCCESS = "success"
PLACE = pa.schema([("shard", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])
"""The file that holds the picture, and the place of the picture in it; null where there is none."""
ORIGIN = pa.schema([("file", pa.string()), ("row", pa.int64())])
"""The file that describes the row, by its path in the adopted folder, and the row's number in it."""


class AdoptedRow(TypedDict):
    """What `adopt` reads of one row of `InputRows.table`; img2dataset's own columns keep their names."""

    uid: str
    key: str
    status: str
    error_message: str | None
    sha256: str | None
    original_width: int | None
    original_height: int | None
    shard: str | None
    offset: int | None
    size: int | None


@dataclass(frozen=True, kw_only=True)
class InputRows:
    """The rows of one input: `table` has the columns of samples, img2dataset's own, `refused`, PLACE and ORIGIN.

    `lost` are the numbers of rows that img2dataset counts and no file describes. `notes` are sentences on what could
    not be read.
    """

    table: pa.Table
    num_members: int
    lost: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return len(self.table) + len(self.lost)


def add_places(table: pa.Table, places: Sequence[tuple[str | None, int | None, int | None]]) -> pa.Table:
    """`table` with the columns PLACE."""
    for number, field in enumerate(PLACE):
        table = table.append_column(field, pa.array([place[number] for place in places], field.type))
    return table


def add_origins(table: pa.Table, files: Sequence[str], rows: Sequence[int]) -> pa.Table:
    """`table` with the columns ORIGIN."""
    table = table.append_column(ORIGIN.field("file"), pa.array(files, pa.string()))
    return table.append_column(ORIGIN.field("row"), pa.array(rows, pa.int64()))
