"""No byte of a sealed root changes, goes or comes without verify naming its file."""

from __future__ import annotations

import io
import random
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.errors import UserError
from curation.storage import Root
from curation.sums.cover import summed_tables
from curation.sums.recorder import sealing
from curation.sums.seal import seal_root
from curation.verify import find_differences
from tests.support import rot, small_root


@pytest.fixture
def sealed(tmp_path: Path) -> tuple[Path, Path]:
    """A sealed root, and what it was before its second selection, duplicates and scores were made."""
    folder, earlier = tmp_path / "root", tmp_path / "earlier"
    root = Root(folder)
    root.create(sealed=True)
    made = small_root.finish(root)
    tables = summed_tables(root)
    seal_root(root, tables)
    shutil.copytree(folder, earlier)
    selection = root.current("selection")
    assert selection is not None and made.samples
    with sealing(root, tables) as recording:
        for table in ("samples", "downloads", "scores_caption_length"):
            for unit in small_root.UNITS:
                _compress_otherwise(recording, f"{table}/{unit}.parquet")
        recording.publish_current("selection", small_root.VERSION, selection["files"], {"anew": 1}, {})
    return folder, earlier


def _compress_otherwise(root: Root, rel: str) -> None:
    """The same rows in other bytes, which hold from then on."""
    sink = io.BytesIO()
    pq.write_table(root.read_parquet(rel), sink, compression="snappy", write_page_checksum=True)
    root.publish(rel, sink.getvalue())


def _names(found: list[str], path: Path, folder: Path) -> bool:
    """Whether a difference names the file, or the shard's or unit's file for one that has no name of its own."""
    return any(str(path.relative_to(folder)) in sentence for sentence in found)


def _damage(folder: Path, earlier: Path, number: int) -> tuple[str, Path, list[str]]:
    draw = random.Random(number)
    change = draw.choice(rot.CHANGES)
    path = change(draw, folder, earlier)
    try:
        found = list(find_differences(Root(folder)))
    except UserError as error:
        found = [str(error)]
    return change.__name__, path, found


def _try_damage(sealed: tuple[Path, Path], numbers: range) -> None:
    folder, earlier = sealed
    whole = folder.with_name("whole")
    shutil.copytree(folder, whole)
    assert list(find_differences(Root(folder))) == []
    for number in numbers:
        kind, path, found = _damage(folder, earlier, number)
        assert _names(found, path, folder), (number, kind, path, found)
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)


def test_sixty_changes_are_named(sealed: tuple[Path, Path]) -> None:
    _try_damage(sealed, range(60))


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_thousand_changes_are_named(sealed: tuple[Path, Path]) -> None:
    _try_damage(sealed, range(1000))
