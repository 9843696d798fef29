"""Columns of many units: a packed file of small units is read once, and each unit has its own rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from curation.compaction import reading
from curation.compaction.compact import compact, take_apart
from curation.compaction.reading import group_by_file, read_units
from curation.errors import UserError
from curation.storage import Root
from tests.support import packed_root
from tests.support.small_root import BATCH

PACKED = f"downloads/packed/{BATCH}-000000-000007.parquet"


def read_all(root: Root, groups: list[list[str]]) -> dict[str, list[dict[str, Any]]]:
    found = (pair for group in groups for pair in read_units(root, "downloads", group, ["uid", "status"]))
    return {unit: rows.to_pylist() for unit, rows in found}


@pytest.mark.parametrize("max_bytes", [reading.MAX_BYTES, 0], ids=["at once", "unit by unit"])
def test_every_unit_has_the_rows_that_it_has_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_bytes: int
) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", max_bytes)
    root = packed_root.build(tmp_path / "root")
    units = root.units("downloads")
    before = read_all(root, group_by_file(root, "downloads", units, 3))
    assert [*before] == units and all(before.values())
    compact(root)
    after = Root(root.path)
    assert group_by_file(after, "downloads", units, 3) == [units]
    assert read_all(after, [units]) == before
    some = [units[1], units[6]]
    assert read_all(after, [some]) == {unit: before[unit] for unit in some}


def test_units_with_files_of_their_own_are_in_groups_of_some(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    units = root.units("downloads")
    assert group_by_file(root, "downloads", units, 3) == [units[:3], units[3:6], units[6:]]
    compact(root)
    take_apart(root, [f"downloads/{units[0]}.parquet"])
    assert group_by_file(Root(root.path), "downloads", units, 100) == [units]
    assert group_by_file(root, "downloads", [], 3) == []


def test_a_packed_file_that_does_not_hold_what_was_published_is_one_sentence(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    units = root.units("downloads")
    compact(root)
    file = Path(root.full(PACKED))
    data = bytearray(file.read_bytes())
    data[-20] ^= 1  # in the footer, which has no checksum of its own
    file.write_bytes(data)
    with pytest.raises(UserError, match=rf"{BATCH}-000000-000007\.parquet does not hold what was published"):
        read_all(Root(root.path), [units])
