"""Rows sorted by columns of any width."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import sorting
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


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_rows=st.integers(0, 200),
    widths=st.lists(st.sampled_from(WIDTHS), min_size=1, max_size=4),
    num_values=st.integers(1, 60),
    limits=st.sampled_from([(1, 256), (7, 256), (16, 3), (1, 1)]),
)
def test_ranges_give_the_order_that_all_rows_at_once_give(
    seed: int, num_rows: int, widths: list[int], num_values: int, limits: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    columns = [
        Column(rng.choice(rng.integers(0, max(1, 2**bits - 1), num_values, np.uint64), num_rows), bits)
        for bits in widths
    ]
    columns.append(Column(rng.integers(0, 2, num_rows, np.uint64), 1))
    whole = sort_rows(columns, num_rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "RANGE_ROWS", limits[0])
        patch.setattr(sorting, "MAX_RANGES", limits[1])
        patch.setattr(sorting, "PIECE_ROWS", 5)
        ranged = sort_rows(columns, num_rows)
    keys = np.stack([column.values for column in columns], axis=1)
    assert sorted(ranged.order.tolist()) == list(range(num_rows))
    assert np.array_equal(keys[ranged.order], keys[whole.order])
    assert np.array_equal(ranged.places, whole.places) and np.array_equal(ranged.groups, whole.groups)


@pytest.mark.parametrize("bits", [1, 16, 64])
def test_many_rows_with_few_values_are_split_and_sorted(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "RANGE_ROWS", 100)
    monkeypatch.setattr(sorting, "PIECE_ROWS", 70)
    values = np.random.default_rng(bits).integers(0, 2, 1_000, np.uint64) * np.uint64(2**bits - 1)
    found = sort_rows([Column(values, bits)], len(values))
    assert np.array_equal(values[found.order], np.sort(values))
    assert len(found.places) == 1_000 and found.groups.max() == 1
    assert sort_rows([Column(np.zeros_like(values), bits)], len(values)).groups.max() == 0


def test_a_column_is_read_by_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sorting, "RANGE_ROWS", 100)
    monkeypatch.setattr(sorting, "PIECE_ROWS", 70)
    values, asked = np.arange(1_000, dtype=np.uint32)[::-1] // 2, list[int]()

    class Stored:
        def __getitem__(self, key: Any, /) -> np.ndarray:
            asked.append(len(values[key]))
            return values[key]

    found = sort_rows([Column(Stored(), 10), Column(np.arange(1_000, dtype=np.uint64))], len(values))
    assert max(asked) == 70 and sum(asked) == 1_000
    assert found.order.tolist() == [row for pair in range(998, -1, -2) for row in (pair, pair + 1)]
    assert found.order.dtype == np.uint32
