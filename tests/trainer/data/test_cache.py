"""The cache of blocks: what it answers, what it deletes and what it does not keep."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from curation.errors import UserError
from trainer.data import Cache
from trainer.data.cache import BlockCache


class Store:
    """Rows of a remote store: row k holds its number, k + 1 times; it says which rows were fetched."""

    def __init__(self, lost: set[int] | None = None) -> None:
        self.lost = lost or set()
        self.fetched: list[int] = []

    def fetch(self, rows: np.ndarray) -> list[bytes | OSError]:
        """The rows, with an error in the place of each lost one."""
        self.fetched += rows.tolist()
        return [OSError(str(row)) if row in self.lost else self.content(row) for row in rows.tolist()]

    @staticmethod
    def content(row: int) -> bytes:
        """What the row holds."""
        return bytes([row]) * (row + 1)


def _cache(folder: Path, digest: str = "selection", max_bytes: int = 1 << 20) -> BlockCache:
    return BlockCache(Cache(folder=folder, block_rows=4, max_bytes=max_bytes), digest)


def test_whole_blocks_are_fetched_once_and_rows_come_in_the_order_asked(tmp_path: Path) -> None:
    store = Store()
    rows = np.array([9, 2, 9, 8])
    for _ in range(2):
        found = _cache(tmp_path).read(rows, 10, store.fetch)
        assert [bytes(item) for item in found if isinstance(item, memoryview)] == [store.content(row) for row in rows]
    assert sorted(store.fetched) == [0, 1, 2, 3, 8, 9], "the last block ends with the last row"


def test_another_selection_has_blocks_of_its_own(tmp_path: Path) -> None:
    first, second = Store(), Store()
    _cache(tmp_path, "first").read(np.array([1]), 4, first.fetch)
    _cache(tmp_path, "second").read(np.array([1]), 4, second.fetch)
    assert second.fetched == [0, 1, 2, 3]


def test_a_block_with_an_error_is_given_and_not_kept(tmp_path: Path) -> None:
    store = Store(lost={2})
    found = _cache(tmp_path).read(np.array([1, 2]), 4, store.fetch)
    assert bytes(found[0]) == store.content(1) and isinstance(found[1], OSError)  # type: ignore[arg-type]
    store.lost.clear()
    again = _cache(tmp_path).read(np.array([2]), 4, store.fetch)
    assert bytes(again[0]) == store.content(2)  # type: ignore[arg-type]


def test_the_block_unused_for_longest_is_deleted_first(tmp_path: Path) -> None:
    store = Store()
    cache = _cache(tmp_path, max_bytes=260)
    for first in (0, 4, 8, 12):  # blocks of 30, 46, 62 and 78 bytes
        cache.read(np.array([first]), 40, store.fetch)
    blocks = sorted((tmp_path / "blocks" / "selection").glob("*.block"))
    assert [path.name for path in blocks] == ["0.block", "1.block", "2.block", "3.block"]
    for age, path in enumerate(blocks[1:]):
        os.utime(path, ns=(age, age))
    cache.read(np.array([16]), 40, store.fetch)  # 94 bytes more
    kept = sorted((tmp_path / "blocks" / "selection").glob("*.block"))
    assert [path.name for path in kept] == ["0.block", "3.block", "4.block"]
    assert sum(path.stat().st_size for path in kept) <= 260


def test_a_block_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    store = Store()
    for _ in range(2):
        _cache(tmp_path, max_bytes=20).read(np.array([3]), 4, store.fetch)
    assert store.fetched == [0, 1, 2, 3] * 2 and not list(tmp_path.rglob("*.block"))


@pytest.mark.parametrize("options", [{"max_bytes": 0}, {"block_rows": 0}])
def test_a_cache_of_nothing(options: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="A cache needs positive"):
        Cache(folder=tmp_path, **options)


@pytest.mark.parametrize("torn", [b"", b"\x04", b"\x04\0\0\0", b"\xff" * 400, b"\x02\0\0\0" + bytes(8)])
def test_a_torn_block_is_fetched_again(tmp_path: Path, torn: bytes) -> None:
    store, rows = Store(), np.arange(4)
    _cache(tmp_path).read(rows, 4, store.fetch)
    (block,) = tmp_path.rglob("*.block")
    whole = block.read_bytes()
    for content in (torn, whole[:-1], whole + b"x"):
        block.write_bytes(content)
        store.fetched.clear()
        assert [bytes(item) for item in _cache(tmp_path).read(rows, 4, store.fetch)] == [*map(Store.content, range(4))]  # type: ignore[arg-type]
        assert store.fetched == [0, 1, 2, 3] and block.read_bytes() == whole


@pytest.mark.parametrize("torn", [b"\xff", b"-7", b"1e9", b"12 34"])
def test_a_torn_account_is_counted_anew(tmp_path: Path, torn: bytes) -> None:
    store = Store()
    _cache(tmp_path).read(np.arange(4), 8, store.fetch)
    (tmp_path / "usage").write_bytes(torn)
    _cache(tmp_path).read(np.arange(4, 8), 8, store.fetch)
    assert int((tmp_path / "usage").read_bytes()) == sum(path.stat().st_size for path in tmp_path.rglob("*.block"))
