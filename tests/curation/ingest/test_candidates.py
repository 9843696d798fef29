"""Which rows are compared: all that have the uid of another row, and few others."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pytest

from curation.errors import UserError
from curation.ingest import candidates
from curation.ingest.candidates import Candidates


def make_table(*names: int) -> pa.Table:
    return pa.table({"uid": pa.array([hashlib.md5(str(name).encode()).hexdigest() for name in names], pa.string())})


def test_rows_with_the_uid_of_another_row_are_candidates_and_few_others_are() -> None:
    # 500 is twice in one table, 100 in two, and an earlier plan has 2; 10,000 and more are nowhere else.
    tables = [make_table(*range(1_000), 500), make_table(100, *range(10_000, 11_000)), make_table()]
    found = Candidates(2_002)
    for table in tables:
        found.add(table)
    met = found.meet(make_table(2, *range(20_000, 21_000)))["uid"].to_pylist()
    selected = [uid for table in tables for uid in found.select(table)["uid"].to_pylist()]
    two, hundred, five_hundred = make_table(2, 100, 500)["uid"].to_pylist()
    assert two in met and selected.count(two) == 1
    assert selected.count(hundred) == selected.count(five_hundred) == 2
    assert len(selected) < 600 and len(met) < 300


@pytest.mark.parametrize("bits", [0, 3])
def test_where_slots_are_few_all_rows_are_candidates(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    monkeypatch.setattr(candidates, "MAX_BITS", bits)
    found, table = Candidates(1_000), make_table(*range(1_000))
    found.add(table)
    assert found.select(table).equals(table) and found.meet(make_table(5_000)).num_rows == 1


def test_a_uid_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="is not 32 digits"):
        Candidates(1).meet(pa.table({"uid": ["A" * 32]}))
