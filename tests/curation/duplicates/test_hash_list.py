"""Hashes near one of a list, against all pairs."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.duplicates import hash_list
from curation.duplicates.hash_list import HashList

hashes = st.lists(st.integers(0, 2**64 - 1), max_size=30).map(lambda values: np.array(values, np.uint64))


@settings(max_examples=60)
@given(hashes, hashes, st.integers(0, 12), st.lists(st.sets(st.integers(0, 63), max_size=14), max_size=20))
def test_what_is_near_is_found_and_nothing_else(
    known: np.ndarray, others: np.ndarray, max_distance: int, flips: list[set[int]]
) -> None:
    changed = [int(known[i % len(known)]) ^ sum(1 << bit for bit in bits) for i, bits in enumerate(flips) if len(known)]
    asked = np.concatenate([others, np.array(changed, np.uint64), known])
    by_hand = (np.bitwise_count(asked[:, None] ^ known[None]) <= max_distance).any(axis=1)
    assert HashList(known, max_distance).has_near(asked).tolist() == by_hand.tolist()


def test_a_crowd_of_hashes_that_agree_in_all_blocks_but_one_is_cut_into_parts() -> None:
    known = np.arange(4_000, dtype=np.uint64)
    asked = np.arange(1_000, dtype=np.uint64) << np.uint64(52)
    by_hand = (np.bitwise_count(asked[:, None] ^ known[None]) <= 2).any(axis=1)
    assert len(known) * len(asked) > 4 * hash_list.CHUNK
    assert HashList(known, 2).has_near(asked).tolist() == by_hand.tolist()


def test_a_list_that_would_take_too_much_memory_is_copied_fewer_times() -> None:
    few, many = hash_list._choose_blocks(1_000_000, 6), hash_list._choose_blocks(30_000_000, 6)
    assert many < few and many == 7
