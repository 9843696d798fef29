"""A root whose files a test damages, and a loader over it that gives whole batches all the same."""

from __future__ import annotations

from typing import Any

from curation.storage import Root
from trainer.data import EvalTransform, Loader

NUM_ROWS = 64
"""Pictures in four shards."""


def open_loader(root: Root, **options: Any) -> Loader:
    """A loader of batches of 8, other `options` over it."""
    chosen: dict[str, Any] = {"batch_size": 8, "transform": EvalTransform(16), "tokenizer": None}
    return Loader(root, **(chosen | options))


def read_epoch(loader: Loader) -> list[str]:
    """The uids of one epoch; every batch is whole."""
    uids = []
    for batch in loader:
        assert batch["pixels"].shape == (8, 3, 16, 16) and len(batch["uid"]) == len(batch["tokens"]) == 8
        uids += batch["uid"]
    return uids


def index_rows(root: Root) -> list[dict[str, Any]]:
    """The rows of the train index in the order of the shards."""
    current = root.current("train_index")
    assert current is not None
    (rel,) = current["files"]
    return sorted(root.read_parquet(rel).to_pylist(), key=lambda row: (row["shard"], row["offset"]))


def overwrite(root: Root, row: dict[str, Any], data: bytes) -> None:
    """Write `data` over the beginning of the row's picture."""
    with open(root.full(row["shard"]), "r+b") as f:
        f.seek(row["offset"])
        f.write(data)
