"""Parts of an ingest: how rows are cut into files, sorted into buckets, and read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest import parts
from curation.ingest.parts import PLACE_BITS, Buckets, Part, order_rows, read_part_files, read_uids, sort_part
from curation.ingest.placing import place_rows
from curation.metadata.inputs import find_inputs
from curation.metadata.rows import divide, read_shares
from curation.plan import Spread
from curation.recipe.config import load_recipe
from tests.support.ingest_sets import write_sets

Read = tuple[pa.Table, list[tuple[Part, pa.Table]]]
SPREAD = Spread(num_shared=5, placed={"big.example": (5, 4)})


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """All rows, and the same in parts with the domains of each."""
    monkeypatch.setattr("curation.metadata.parquet.BATCH_ROWS", 10)
    items = find_inputs(load_recipe(write_sets(tmp_path / "meta")))
    (share,) = divide(items, 1_000_000)
    return pa.Table.from_batches(read_shares(share)), read_part_files(tmp_path, 40, (3, share))


def read_file(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def test_parts_hold_every_row_in_order_and_count_them(read: Read) -> None:
    rows, found = read
    tables = [read_file(part.path) for part, _ in found]
    assert pa.concat_tables(tables).to_pylist() == rows.drop_columns(["source", "file"]).to_pylist()
    sizes = [len(table) for table in tables]
    assert len(sizes) > 10 and all(size >= 40 for size in sizes[:-1]) and min(sizes) < 60
    assert [part.by_position.total() for part, _ in found] == sizes
    accepted = rows.filter(rows["reason"].is_null())
    assert sum(sum(domains["n"].to_pylist()) for _, domains in found) == len(accepted)


def test_long_captions_make_shorter_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.metadata.records.BATCH_ROWS", 10)
    monkeypatch.setattr(parts, "MAX_PART_BYTES", 30_000)
    (tmp_path / "m.csv").write_text("url,text\n" + "".join(f"http://a/{k},{'x' * 1_000}\n" for k in range(100)))
    (tmp_path / "r.toml").write_text('[[sources]]\nname = "m"\npaths = ["m.csv"]\n')
    (share,) = divide(find_inputs(load_recipe(tmp_path / "r.toml")), 1_000_000)
    found = read_part_files(tmp_path, 1_000, (0, share))
    assert [part.by_position.total() for part, _ in found] == [30, 30, 30, 10]


def test_uids_are_those_of_rows_that_are_not_refused_at_their_places(read: Read) -> None:
    part, _ = read[1][2]
    table, uids = read_file(part.path), read_uids((2, part))
    expected = [
        (row["uid"], (2 << PLACE_BITS) + number)
        for number, row in enumerate(table.to_pylist())
        if row["reason"] is None
    ]
    assert list(zip(*uids.to_pydict().values(), strict=True)) == expected and len(expected) < len(table)


@pytest.mark.parametrize("only", [None, frozenset([0, 6]), frozenset([1_000])])
def test_a_sorted_part_has_one_batch_of_each_bucket(read: Read, only: frozenset[int] | None) -> None:
    for part, _ in read[1]:
        table, repeated = read_file(part.path), np.array([0, 4], np.int64)
        units = place_rows(table["domain"].combine_chunks(), table["uid"].combine_chunks(), SPREAD)
        expected: dict[int, list[int]] = {}
        for number, unit in enumerate(units.tolist()):
            if only is None or unit in only:
                expected.setdefault(unit // 2, []).append(number)
        made = sort_part(Buckets(spread=SPREAD, num_units=2, only=only), (part, repeated))
        assert not part.path.exists() and list(made.buckets) == sorted(expected)
        with pa.memory_map(str(made.path)) as source:
            file = pa.ipc.open_file(source)
            assert file.num_record_batches == len(expected)
            for number, bucket in enumerate(made.buckets):
                batch = file.get_batch(number)
                assert batch["unit"].to_pylist() == units[expected[bucket]].tolist()
                assert batch["uid"].to_pylist() == table["uid"].take(pa.array(expected[bucket])).to_pylist()
                reasons = ["repeated" if k in repeated else table["reason"][k].as_py() for k in expected[bucket]]
                assert batch["reason"].to_pylist() == reasons


UIDS = st.sampled_from([None, "0" * 32, "0" * 31 + "1", "0" * 15 + "a" + "f" * 16, "0" * 15 + "a" * 17, "f" * 32])


@given(st.lists(st.tuples(st.integers(7, 9), UIDS, st.sampled_from("ab"), st.integers(0, 2), st.integers(0, 2))))
def test_rows_of_a_bucket_are_in_the_order_of_unit_uid_file_row_and_position(
    rows: list[tuple[int, str | None, str, int, int]],
) -> None:
    columns = zip(("unit", "uid", "file", "row", "position"), zip(*rows, strict=True), strict=True) if rows else ()
    schema = pa.schema([("unit", pa.int64()), ("uid", pa.string()), ("file", pa.string())])
    schema = pa.schema([*schema, ("row", pa.int64()), ("position", pa.int64())])
    table = pa.table({name: list(values) for name, values in columns} or {n: [] for n in schema.names}, schema)
    found = [rows[number] for number in order_rows(table).tolist()]
    assert found == sorted(rows, key=lambda row: (row[0], row[1] or "", *row[2:]))
