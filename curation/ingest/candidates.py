"""Rows whose uid may be that of another row: few of all, and each that is one is among them.

A uid is a sum, so some of its bits name one of a few slots for each row. Only rows that share their slot are compared.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from curation.errors import UserError
from curation.hexadecimal import DIGITS, read_numbers
from curation.ingest.placing import Numbers
from curation.sorting import count_bits

SLOTS_PER_ROW = 8
MAX_BITS = 29
"""Slots are a byte of memory each: 512 MiB at most. Where rows are many more, most of them share a slot."""
_TAKEN, _SHARED = 1, 2


class Candidates:
    """The slots of the uids of new rows, of which there are `num_rows`. Tables have a column `uid` without null.

    Methods raise UserError for uids that are none.
    """

    def __init__(self, num_rows: int) -> None:
        bits = min(MAX_BITS, count_bits(SLOTS_PER_ROW * num_rows))
        self._mask = np.uint64((1 << bits) - 1)
        self._state = np.zeros(1 << bits, np.uint8)

    def add(self, table: pa.Table) -> None:
        """Take the slots of new rows."""
        slots = self._find_slots(table)
        taken = slots[self._state[slots] > 0]
        self._state[slots] = _TAKEN
        self._state[taken] = _SHARED
        slots.sort()
        self._state[slots[1:][slots[1:] == slots[:-1]]] = _SHARED

    def meet(self, earlier: pa.Table) -> pa.Table:
        """Those of the `earlier` rows whose slot a new one has taken, which is a candidate then; call `add` before."""
        slots = self._find_slots(earlier)
        is_taken = self._state[slots] > 0
        self._state[slots[is_taken]] = _SHARED
        return earlier.filter(pa.array(is_taken))

    def select(self, table: pa.Table) -> pa.Table:
        """The candidates among new rows, once all rows were added and met."""
        return table.filter(pa.array(self._state[self._find_slots(table)] == _SHARED))

    def _find_slots(self, table: pa.Table) -> Numbers:
        numbers = read_numbers(table["uid"].combine_chunks(), DIGITS, DIGITS)
        if numbers is None:
            raise UserError("A uid is not 32 digits of small hexadecimal: see `curate verify`.")
        return (numbers[:, 1] & self._mask).astype(np.int64)
