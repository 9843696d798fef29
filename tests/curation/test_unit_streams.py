"""A stream that is sorted by unit comes apart into its units, wherever batches end."""

from __future__ import annotations

from itertools import groupby

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curation.unit_streams import by_unit


@given(st.lists(st.integers(0, 4), max_size=30).map(sorted), st.lists(st.integers(0, 30), max_size=6).map(sorted))
def test_each_unit_comes_once_with_its_rows_in_their_order(units: list[int], cuts: list[int]) -> None:
    places = [0, *(min(cut, len(units)) for cut in cuts), len(units)]
    rows = pa.record_batch({"unit": pa.array(units, pa.int64()), "row": pa.array(range(len(units)), pa.int64())})
    batches = [rows.slice(start, stop - start) for start, stop in zip(places, places[1:], strict=False)]
    found = [(unit, table["row"].to_pylist()) for unit, table in by_unit(batches)]
    numbered = groupby(enumerate(units), key=lambda item: item[1])
    assert found == [(unit, [row for row, _ in group]) for unit, group in numbered]
