"""Rows sorted by columns of any width."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.sorting import Column, sort_rows

WIDTHS = (0, 1, 3, 32, 40, 64)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_rows=st.integers(0, 60),
    widths=st.lists(st.sampled_from(WIDTHS), max_size=5),
    num_values=st.integers(1, 8),
)
def test_rows_are_sorted_as_tuples_are(seed: int, num_rows: int, widths: list[int], num_values: int) -> None:
    rng = np.random.default_rng(seed)
    choices = [rng.integers(0, 2**bits, num_values, np.uint64, endpoint=False) if bits < 64 else
               rng.integers(0, 2**64 - 1, num_values, np.uint64) for bits in widths]  # fmt: skip
    columns = [Column(rng.choice(values, num_rows), bits) for values, bits in zip(choices, widths, strict=True)]
    rows = list(zip(*(column.values.tolist() for column in columns), strict=True)) if widths else [()] * num_rows
    found = sort_rows(columns, num_rows)
    assert sorted(found.order.tolist()) == list(range(num_rows))
    assert [rows[number] for number in found.order] == sorted(rows)
    several = [row for row in sorted(rows) if rows.count(row) > 1]
    assert [rows[number] for number in found.equal] == several
    groups = {row: number for number, row in enumerate(dict.fromkeys(several))}
    assert found.groups.tolist() == [groups[row] for row in several]


def test_later_columns_are_not_read_where_nothing_is_equal() -> None:
    def columns():  # type: ignore[no-untyped-def]
        yield Column(np.arange(5, dtype=np.uint64)[::-1])
        raise AssertionError

    assert sort_rows(columns(), 5).order.tolist() == [4, 3, 2, 1, 0]
