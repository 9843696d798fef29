"""What cannot be read is named and replaced, and nothing else is lost."""

from __future__ import annotations

from pathlib import Path

from curation.storage import Root
from tests.support.trainer import roots
from tests.support.trainer.damaged import NUM_ROWS, index_rows, open_loader, overwrite, read_epoch


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
