"""Blocks of a store's file: the bytes are those of the file, and few requests are made by whoever reads in order."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from curation import blocks as module
from curation.blocks import Blocks

DATA = random.Random(1).randbytes(100_000)


class Store:
    """A file of a store that counts its requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def fetch(self, file: str, offset: int, size: int) -> bytes:
        self.asked.append((offset, size))
        return DATA[offset : offset + size]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 4_096)
    monkeypatch.setattr(module, "MAX_PIECE", 1_024)


def test_pieces_in_order_take_a_request_a_block() -> None:
    store, blocks = Store(), Blocks()
    for offset in range(0, len(DATA), 100):
        assert blocks.read(store.fetch, "f", offset, 100) == DATA[offset : offset + 100]
    assert len(store.asked) == 1 + -(-len(DATA) // 4_096)


def test_a_piece_alone_and_a_large_one_are_fetched_alone() -> None:
    store, blocks = Store(), Blocks()
    for offset, size in ((50_000, 10), (0, 10), (90_000, 10), (90_010, 2_000), (99_990, 100)):
        assert blocks.read(store.fetch, "f", offset, size) == DATA[offset : offset + size]
    assert store.asked[:4] == [(50_000, 10), (0, 10), (90_000, 10), (90_010, 2_000)]


def test_threads_share_the_blocks_and_get_their_own_bytes() -> None:
    store, blocks = Store(), Blocks()
    offsets = list(range(0, len(DATA), 37))
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda offset: blocks.read(store.fetch, "f", offset, 37), offsets)
        assert list(found) == [DATA[offset : offset + 37] for offset in offsets]
    assert len(store.asked) < 100


def test_a_failed_request_is_made_again_and_nothing_old_is_read_after_clear() -> None:
    answers: list[bytes | Exception] = [b"a" * 10, OSError("reset"), b"a" * 20, b"b" * 10, b"b" * 30]

    def fetch(file: str, offset: int, size: int) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    blocks = Blocks()
    assert blocks.read(fetch, "f", 0, 10) == b"a" * 10
    with pytest.raises(OSError, match="reset"):
        blocks.read(fetch, "f", 10, 5)
    assert blocks.read(fetch, "f", 10, 5) == b"a" * 5
    blocks.clear()
    assert blocks.read(fetch, "f", 0, 10) == b"b" * 10
    assert blocks.read(fetch, "f", 20, 5) == b"b" * 5


def test_only_a_few_blocks_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUM_BLOCKS", 2)
    store, blocks = Store(), Blocks()
    for offset in range(0, 40_000, 100):
        blocks.read(store.fetch, "f", offset, 100)
    assert len(blocks._kept) == 2
