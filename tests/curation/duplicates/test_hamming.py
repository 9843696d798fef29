import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.duplicates import hamming
from curation.duplicates.hamming import Classes, Pairs, Table, block_value, find_near_values, make_tables, search

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
    assert as_dict(find_near_values(hashes, max_distance)) == brute_force(hashes.tolist(), max_distance)


@pytest.mark.parametrize("num_hashes", [100, 10_000_000])
def test_every_choice_of_tables_misses_nothing(num_hashes: int) -> None:
    """Tables made for many hashes have more blocks; they must find the same."""
    hashes = np.unique(crowded(5, 400))
    found: Found = {}
    for table in make_tables(num_hashes, 6):
        part = as_dict(through(hashes, table, 6))
        assert not found.keys() & part.keys()
        found |= part
    assert found == brute_force(hashes.tolist(), 6)


def test_hashes_apart_by_the_first_block_of_a_table_find_what_it_finds() -> None:
    hashes = np.unique(crowded(7, 400))
    for table in make_tables(len(hashes), 4):
        whole = as_dict(through(hashes, table, 4))
        values = block_value(hashes, table.num_blocks, table.equal[0])
        pieces = [as_dict(through(hashes[values == value], table, 4)) for value in np.unique(values)]
        assert {pair: d for piece in pieces for pair, d in piece.items()} == whole


@given(hashes=st.lists(st.sampled_from([0, 1, 2**63, 2**64 - 1, 7]), max_size=12))
def test_different_hashes_are_those_of_a_set(hashes: list[int]) -> None:
    given_hashes = np.array(hashes, np.uint64)
    assert hamming.sort_different(given_hashes).tolist() == sorted(set(hashes))
    assert given_hashes.tolist() == hashes


def test_order_and_threads_do_not_matter() -> None:
    hashes = crowded(9, 500)
    expected = find_near_values(hashes, 6)
    for other in (find_near_values(hashes[::-1], 6), find_near_values(hashes, 6, num_threads=3)):
        assert all(np.array_equal(a, b) for a, b in zip(expected, other, strict=True))


def in_a_crowd(seed: int, count: int, num_texts: int) -> Classes:
    """Classes of which most hashes are alike, ranked at random."""
    rng = np.random.default_rng(seed)
    hashes = np.full(count, 0x00FF00FF00FF00FF, np.uint64)
    for _ in range(5):
        hashes ^= (np.uint64(1) << rng.integers(0, 64, count, dtype=np.uint64)) * (rng.random(count) < 0.4)
    texts = rng.integers(0, num_texts, count)
    _, first = np.unique(np.stack([hashes, texts.astype(np.uint64)]), axis=1, return_index=True)
    ranks = rng.permutation(count)[first]
    return Classes(hashes[first], texts[first], ranks)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 300), block=st.integers(3, 64), num_texts=st.integers(1, 2))
def test_in_a_crowd_only_pairs_of_hashes_that_were_cut_short_are_missing(
    seed: int, count: int, block: int, num_texts: int
) -> None:
    classes = in_a_crowd(seed, count, num_texts)
    pairs, cut = set[tuple[int, int]](), set[int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hamming, "MAX_RUN", 5)
        patch.setattr(hamming, "MAX_NEIGHBOURS", 3)
        patch.setattr(hamming, "CROWD_BLOCK", block)
        for table in make_tables(count, 3):
            smaller, larger, distance = through(classes.hashes, table, 3, classes)
            assert np.array_equal(np.bitwise_count(smaller ^ larger), distance)
            cut |= set(smaller[smaller == larger].tolist())
            found = set(zip(smaller[smaller < larger].tolist(), larger[smaller < larger].tolist(), strict=True))
            assert not found & pairs
            pairs |= found
    everything = brute_force(classes.hashes.tolist(), 3)
    assert pairs <= everything.keys()
    rows = list(zip(classes.hashes.tolist(), classes.texts.tolist(), classes.ranks.tolist(), strict=True))
    for hash_, text, rank in rows:
        near = [(r, h) for h, t, r in rows if t == text and r < rank and (min(h, hash_), max(h, hash_)) in everything]
        missing = [h for _, h in near if (min(h, hash_), max(h, hash_)) not in pairs]
        assert not missing or hash_ in cut
        assert not near or (min(min(near)[1], hash_), max(min(near)[1], hash_)) in pairs, "the best one is remembered"


def test_a_search_about_some_hashes_finds_all_their_pairs() -> None:
    hashes = np.unique(crowded(11, 600))
    about = hashes[::40]
    found: Found = {}
    for table in make_tables(len(hashes), 4):
        found |= as_dict(through(hashes, table, 4, None, about))
    everything = brute_force(hashes.tolist(), 4)
    assert found.items() <= everything.items()
    assert found.keys() >= {pair for pair in everything if not set(pair).isdisjoint(about.tolist())}


def test_a_crowd_costs_memory_by_its_hashes_not_by_their_pairs() -> None:
    rng = np.random.default_rng(0)
    flips = np.uint64(1) << np.argsort(rng.random((6_000, 64)), axis=1)[:, :2].astype(np.uint64)
    hashes = np.unique(np.uint64(0xFFFFFFFF) ^ flips[:, 0] ^ flips[:, 1])
    classes = Classes(hashes, np.zeros(len(hashes), np.int64), np.arange(len(hashes)))
    num_pairs = sum(len(through(hashes, table, 6, classes)[0]) for table in make_tables(len(hashes), 6))
    assert num_pairs < 7 * (hamming.MAX_NEIGHBOURS + 1) * len(hashes)
    assert num_pairs < len(hashes) ** 2 / 4
