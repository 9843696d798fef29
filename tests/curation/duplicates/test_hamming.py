import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.duplicates.hamming import Classes, Pairs, Table, block_value, near_values, search, tables

Found = dict[tuple[int, int], int]


def brute_force(values: list[int], max_distance: int) -> Found:
    pairs = itertools.combinations(sorted(set(values)), 2)
    return {(a, b): (a ^ b).bit_count() for a, b in pairs if (a ^ b).bit_count() <= max_distance}


def as_dict(found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Found:
    rows = list(zip(*(column.tolist() for column in found), strict=True))
    assert len({(a, b) for a, b, _ in rows}) == len(rows), "a pair was reported twice"
    return {(a, b): distance for a, b, distance in rows}


def through(
    hashes: np.ndarray, table: Table, max_distance: int, classes: Classes | None = None, about: np.ndarray | None = None
) -> Pairs:
    """All that a search of one table finds."""
    batches = list(search(hashes, table, max_distance, None if classes is None else lambda: classes, about))
    batches.append((hashes[:0], hashes[:0], np.zeros(0, np.uint8)))
    smaller, larger, distance = (np.concatenate(column) for column in zip(*batches, strict=True))
    return smaller, larger, distance


def crowded(seed: int, count: int) -> np.ndarray:
    """Hashes of which many differ in a few bits only."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(0, 2**64, max(1, count // 10), dtype=np.uint64)
    hashes = rng.choice(centres, count)
    for _ in range(8):
        hashes ^= (np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64)) * (rng.random(count) < 0.4)
    return hashes


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 300), max_distance=st.integers(0, 12))
def test_finds_what_brute_force_finds(seed: int, count: int, max_distance: int) -> None:
    hashes = crowded(seed, count)
    assert as_dict(near_values(hashes, max_distance)) == brute_force(hashes.tolist(), max_distance)


@pytest.mark.parametrize("num_hashes", [100, 10_000_000])
def test_every_choice_of_tables_misses_nothing(num_hashes: int) -> None:
    """Tables made for many hashes have more blocks; they must find the same."""
    hashes = np.unique(crowded(5, 400))
    found: Found = {}
    for table in tables(num_hashes, 6):
        part = as_dict(through(hashes, table, 6))
        assert not found.keys() & part.keys()
        found |= part
    assert found == brute_force(hashes.tolist(), 6)


def test_hashes_apart_by_the_first_block_of_a_table_find_what_it_finds() -> None:
    hashes = np.unique(crowded(7, 400))
    for table in tables(len(hashes), 4):
        whole = as_dict(through(hashes, table, 4))
        values = block_value(hashes, table.num_blocks, table.equal[0])
        pieces = [as_dict(through(hashes[values == value], table, 4)) for value in np.unique(values)]
        assert {pair: d for piece in pieces for pair, d in piece.items()} == whole


def test_order_and_threads_do_not_matter() -> None:
    hashes = crowded(9, 500)
    expected = near_values(hashes, 6)
    for other in (near_values(hashes[::-1], 6), near_values(hashes, 6, num_threads=3)):
        assert all(np.array_equal(a, b) for a, b in zip(expected, other, strict=True))
