"""Streams of rows that are sorted by their unit, or by any other number of theirs, taken apart one unit at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa


def by_unit(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    """Group a stream sorted by `unit` into one table a unit, holding one unit at a time."""
    unit, parts = -1, list[pa.RecordBatch]()
    for batch in batches:
        values = batch.column("unit").to_numpy()
        start = 0
        while start < len(values):
            stop = int(values.searchsorted(values[start], side="right"))
            if values[start] != unit and parts:
                yield unit, pa.Table.from_batches(parts)
                parts = []
            unit = int(values[start])
            parts.append(batch.slice(start, stop - start))
            start = stop
    if parts:
        yield unit, pa.Table.from_batches(parts)
