"""Parquet files joined into one, byte for byte: the files one after the other, then one footer for all of them.

    [file of unit 0][file of unit 1] … [footer that names the row groups of all]

A parquet reader looks at the last footer alone, which says where each column of each row group lies, so the joined file
is a parquet file of all rows. Each file in it keeps its bytes, and with them its sum: whoever wants one unit reads that
range, and taking the files apart gives back what was there. Nothing is encoded anew, so nothing can change on the way.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from curation.compaction.thrift import BINARY, LIST, STRUCT, Reader, Struct, write_struct

MAGIC = b"PAR1"
PARTS = b"curation.parts"
"""Key in the joined footer: [bytes, rows] of each file, as JSON, in their order."""
# Fields of the footer, by the numbers of parquet.thrift.
_VERSION, _SCHEMA, _NUM_ROWS, _ROW_GROUPS, _KEY_VALUES, _CREATED_BY, _COLUMN_ORDERS = 1, 2, 3, 4, 5, 6, 7
_GROUP_COLUMNS, _GROUP_OFFSET, _GROUP_ORDINAL = 1, 5, 7
_COLUMN_OFFSET, _COLUMN_FACTS = 2, 3
_PAGE_INDEX = (4, 5, 6, 7)
_FACTS_OFFSETS = (9, 10, 11, 14)
"""Of data pages, index page, dictionary page and Bloom filter."""
_SAME = (_VERSION, _SCHEMA, _COLUMN_ORDERS)


@dataclass
class Joining:
    """The footer of files that are written one after the other. Call `add` with each of them, then `footer`."""

    size: int = 0
    parts: list[tuple[int, int]] = field(default_factory=list)
    """Bytes and rows of each file."""
    _first: Struct = field(default_factory=dict)
    _groups: list[Struct] = field(default_factory=list)

    def _fits(self, footer: Struct) -> bool:
        """Whether the file with that `footer` has the columns of the files before it."""
        return not self._first or all(self._first.get(number) == footer.get(number) for number in _SAME)

    def add(self, data: bytes) -> None:
        """Take in the parquet file `data`, which is written at `size`. Raises ValueError when it does not fit."""
        footer = read_footer(data)
        if not self._fits(footer):
            raise ValueError("its columns are not those of the files before it")
        self._first = self._first or footer
        for group in footer[_ROW_GROUPS][1][1]:
            self._groups.append(_shift_group(group, self.size, len(self._groups)))
        self.parts.append((len(data), footer[_NUM_ROWS][1]))
        self.size += len(data)

    def footer(self) -> bytes:
        """What follows the files: the footer, its size, and the end of a parquet file."""
        known = self._first[_KEY_VALUES][1][1] if _KEY_VALUES in self._first else []
        parts: Struct = {1: (BINARY, PARTS), 2: (BINARY, json.dumps(self.parts).encode())}
        fields = self._first | {
            _NUM_ROWS: (self._first[_NUM_ROWS][0], sum(rows for _, rows in self.parts)),
            _ROW_GROUPS: (LIST, (STRUCT, self._groups)),
            _KEY_VALUES: (LIST, (STRUCT, [*known, parts])),
        }
        data = write_struct(fields)
        return data + len(data).to_bytes(4, "little") + MAGIC


def read_footer(data: bytes) -> Struct:
    """The footer of the parquet file that ends where `data` ends. Raises ValueError when there is none."""
    size = int.from_bytes(data[-8:-4], "little")
    if data[-4:] != MAGIC or not 0 < size <= len(data) - 8:
        raise ValueError("it does not end like a parquet file")
    try:
        return Reader(data[-8 - size : -8]).struct()
    except IndexError as error:
        raise ValueError("its footer is cut") from error


def parse_parts(metadata: Mapping[bytes, bytes] | None) -> list[tuple[int, int]]:
    """Bytes and rows of each file in a joined file with that `metadata`. Raises ValueError for any other file."""
    stated = (metadata or {}).get(PARTS)
    if stated is None:
        raise ValueError("it was not joined from files")
    return [(int(size), int(rows)) for size, rows in json.loads(stated)]


def _shift_group(group: Struct, by: int, ordinal: int) -> Struct:
    """A row group that lies `by` bytes further. The page index has offsets of its own elsewhere and is left out."""
    kind, (item, columns) = group[_GROUP_COLUMNS]
    shifted = [_shift_column(column, by) for column in columns]
    moved = _shift(group, (_GROUP_OFFSET,), by) | {_GROUP_COLUMNS: (kind, (item, shifted))}
    return moved | ({_GROUP_ORDINAL: (group[_GROUP_ORDINAL][0], ordinal)} if _GROUP_ORDINAL in group else {})


def _shift_column(column: Struct, by: int) -> Struct:
    kind, facts = column[_COLUMN_FACTS]
    moved = _shift(column, (_COLUMN_OFFSET,), by) | {_COLUMN_FACTS: (kind, _shift(facts, _FACTS_OFFSETS, by))}
    return {number: value for number, value in moved.items() if number not in _PAGE_INDEX}


def _shift(fields: Struct, numbers: Sequence[int], by: int) -> Struct:
    """`fields` with `by` added to those with `numbers`; an offset of 0 says that nobody states it."""
    moved = {n: (kind, value + by) for n in numbers if n in fields for kind, value in [fields[n]] if value}
    return fields | moved
