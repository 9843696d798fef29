"""What cannot be read is named and replaced, and nothing else is lost."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curation.storage import Root
from tests.support.trainer import roots
from tests.support.trainer.damaged import NUM_ROWS, index_rows, open_loader, overwrite, read_epoch
from trainer.data import readers
from trainer.data.readers import Reader, Sample
from trainer.data.selection import Query, open_index


def test_a_truncated_shard_loses_its_tail_and_nothing_else(root: Root) -> None:
    rows = index_rows(root)
    cut = rows[27]
    assert cut["shard"] == rows[16]["shard"]
    with open(root.full(cut["shard"]), "r+b") as f:
        f.truncate(cut["offset"] + 100)
    loader = open_loader(root)
    seen = read_epoch(loader)
    lost = {row["uid"] for row in rows[27:32]}
    assert set(loader.replaced) == lost and loader.num_replaced >= len(lost)
    assert all("truncated" in reason and cut["shard"] in reason for reason in loader.replaced.values())
    assert len(seen) == NUM_ROWS and not lost & set(seen)
    assert {row["uid"] for row in rows} - lost <= set(seen), "what is whole comes as ever"


def test_a_shard_deleted_before_or_during_training(root: Root) -> None:
    rows = index_rows(root)
    gone = rows[0]["shard"]
    lost = {row["uid"] for row in rows[:16]}
    loader = open_loader(root, max_failures=64)
    batches = iter(loader)
    first = next(batches)["uid"]
    Path(root.full(gone)).unlink()
    rest = [uid for batch in batches for uid in batch["uid"]]
    # The open file stays readable, so this epoch is whole; the next run names what is missing.
    assert sorted(first + rest) == sorted(row["uid"] for row in rows) and not loader.replaced
    again = open_loader(root, max_failures=64)
    assert not lost & set(read_epoch(again))
    assert set(again.replaced) == lost
    assert all("No such file or directory" in reason and gone in reason for reason in again.replaced.values())


def test_checksums_are_compared_when_asked(root: Root) -> None:
    row = index_rows(root)[5]
    other = roots.jpeg(999, 40, 32)
    overwrite(root, row, other[: row["size"]] if len(other) >= row["size"] else other)
    blind = open_loader(root, transform=None)
    _uids = [uid for batch in blind for uid in batch["uid"]]
    assert not blind.replaced and len(_uids) == NUM_ROWS
    loader = open_loader(root, transform=None, verify=True)
    seen = [uid for batch in loader for uid in batch["uid"]]
    assert row["uid"] not in seen
    assert loader.replaced == {row["uid"]: f"{row['shard']}: its sha256 is not the recorded one"}


def _open_reader(root: Root, folder: Path, **options: Any) -> Reader:
    index = open_index(Query(roots={"root": root}, verify=options.get("verify", False)), folder)
    return Reader(index, [root], **options)


def test_samples_come_in_the_order_asked_with_their_captions(root: Root, tmp_path: Path) -> None:
    rows, reader = index_rows(root), _open_reader(root, tmp_path)
    asked = [40, 3, 3, 63, 0]
    for k, sample in zip(asked, reader.read(np.array(asked), [()] * len(asked)), strict=True):
        assert isinstance(sample, Sample)
        assert hashlib.sha256(sample.picture).hexdigest() == rows[k]["sha256"]
        assert sample.caption == (rows[k]["caption"] or "")
    reader.close()


def test_neighbours_are_read_together_and_the_ratio_bounds_what_is_read_between(root: Root, tmp_path: Path) -> None:
    for max_ratio in (1.0, 1.5, 100.0):
        reader = _open_reader(root, tmp_path, max_ratio=max_ratio)
        reader.read(np.arange(0, 64, 3), [()] * 22)
        num_read, num_needed = reader.take_counts()
        assert num_needed <= num_read <= max_ratio * num_needed
        assert (num_read > num_needed) == (max_ratio > 1)
        assert reader.take_counts() == (0, 0)
        reader.close()


def test_few_files_are_open_at_once(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_OPEN_FILES", 2)
    reader = _open_reader(root, tmp_path)
    found = reader.read(np.arange(64), [()] * 64)
    assert all(isinstance(sample, Sample) for sample in found)
    assert len(_open_shards(root)) == 2
    reader.close()
    assert not _open_shards(root)


def _open_shards(root: Root) -> list[str]:
    """Shards of `root` among the open files of this process."""
    targets = [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
    return [target for target in targets if target.startswith(str(root.base)) and target.endswith(".tar")]
