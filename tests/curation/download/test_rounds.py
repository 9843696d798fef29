"""Which rows a later round tries again: asked of a table as of each row, packed or not."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from curation import schema
from curation.compaction.compact import compact
from curation.compaction.reading import group_by_file
from curation.download import rounds
from curation.download.rounds import TWICE, count_due_rows, is_due
from curation.schema import DownloadRow, Status
from curation.storage import Root
from curation.sums.recorder import sealing
from tests.support import packed_root
from tests.support.small_root import BATCH

DETAILS = (None, "", "cut; sha256 0123456789abcdef", f"cut; sha256 0123456789abcdef{TWICE}", f"{TWICE} no")
ROWS = [
    {**dict.fromkeys(schema.DOWNLOADS.names), "uid": f"{n:032x}", "status": s, "detail": d, "fetch_round": r}
    for n, (s, d, r) in enumerate((s, d, r) for s in Status for d in DETAILS for r in (None, 0, 1, 2))
]
UNITS = [f"{BATCH}-{number:06d}" for number in range(4)]


@pytest.fixture
def due_root(tmp_path: Path) -> Root:
    """Four units, the third of which has a row of each kind."""
    root = packed_root.build(tmp_path / "root", range(4))
    rows = [DownloadRow(**row) for row in ROWS]  # type: ignore[typeddict-item]
    with sealing(root, ["downloads"]) as recording:
        recording.publish_parquet(f"downloads/{UNITS[2]}.parquet", pa.Table.from_pylist(rows, schema.DOWNLOADS))
    return root


@pytest.mark.parametrize("fetch_round", [1, 2, 3])
def test_a_table_is_asked_as_each_of_its_rows_is(due_root: Root, fetch_round: int) -> None:
    wanted = sum(is_due(row, fetch_round) for row in ROWS)  # type: ignore[arg-type]
    assert wanted
    for unit in UNITS:
        assert count_due_rows(due_root, [unit], fetch_round) == ({unit: wanted} if unit == UNITS[2] else {})


def test_packed_units_are_asked_by_one_read(due_root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    before = count_due_rows(due_root, UNITS, 1)
    compact(due_root)
    root, read = Root(due_root.path), list[str]()
    whole = Root.read_whole
    monkeypatch.setattr(Root, "read_whole", lambda root, rel: read.append(rel) or whole(root, rel))
    groups = group_by_file(root, rounds.DOWNLOADS, root.units("downloads"), 1)
    assert groups == [UNITS]
    assert count_due_rows(root, groups[0], 1) == before
    assert read == [f"downloads/packed/{BATCH}-000000-000003.parquet"]
