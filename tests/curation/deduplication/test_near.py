"""Edges between rows with near hashes: all there are, or the rows that lack some are reported as cut short."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.deduplication import near
from curation.deduplication.near import Edges, PerceptualSearch, sort_hashes, unite_edges
from curation.deduplication.rounds import find_removing_edges
from curation.duplicates import hamming

HASH = 0x0F0F0F0F0F0F0F0F


def draw(seed: int, count: int, num_texts: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of which most lie around one, some of them often, and texts."""
    rng = np.random.default_rng(seed)
    hashes = np.full(count, HASH, np.uint64)
    for _ in range(3):
        hashes ^= (np.uint64(1) << rng.integers(0, 12, count, dtype=np.uint64)) * (rng.random(count) < 0.5)
    far = rng.random(count) < 0.2
    hashes[far] = rng.integers(0, 2**64 - 1, int(far.sum()), np.uint64)
    return hashes, rng.choice(rng.integers(-(2**63), 2**63 - 1, num_texts), count)


def all_pairs(hashes: np.ndarray, texts: np.ndarray, max_hamming: int) -> dict[tuple[int, int], int]:
    bits = np.bitwise_count(hashes[:, None] ^ hashes)
    alike = np.triu((bits <= max_hamming) & (texts[:, None] == texts), 1)
    return {(int(a), int(b)): int(bits[a, b]) for a, b in zip(*np.nonzero(alike), strict=True)}


def as_dict(edges: Edges) -> dict[tuple[int, int], int]:
    columns = (edges.left.tolist(), edges.right.tolist(), edges.distance.tolist())
    found = {(a, b): d for a, b, d in zip(*columns, strict=True)}
    assert len(found) == len(edges)
    return found


def prepare(hashes: np.ndarray, texts: np.ndarray | None, max_hamming: int) -> PerceptualSearch:
    order = np.random.default_rng(0).permutation(len(hashes))
    own = None if texts is None else texts[order]
    return PerceptualSearch(sort_hashes(hashes[order], own, order), max_hamming, 2)


def test_a_root_without_hashes_has_no_edges() -> None:
    edges, cut = prepare(np.zeros(0, np.uint64), None, 6).search()
    assert not len(edges) and not len(cut)


def test_the_nearest_edge_of_a_pair_counts() -> None:
    parts = [Edges(np.array([3, 1]), np.array([4, 2]), np.array([5, 6], np.uint8)) for _ in range(2)]
    parts.append(Edges(np.array([1]), np.array([2]), np.array([4], np.uint8)))
    assert as_dict(unite_edges(parts)) == {(1, 2): 4, (3, 4): 5}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 120), num_texts=st.integers(1, 2))
def test_where_little_crowds_hubs_stand_for_their_class(seed: int, count: int, num_texts: int) -> None:
    hashes, texts = draw(seed, count, num_texts)
    edges, cut = prepare(hashes, texts, 3).search()
    found, everything = as_dict(edges), all_pairs(hashes, texts, 3)
    assert list(found) == sorted(found)
    assert found.items() <= everything.items()
    assert all(pair in found or pair[1] in cut for pair in everything)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 250), num_texts=st.integers(1, 2), hubs=st.integers(1, 3))
def test_what_stays_is_what_all_pairs_would_leave(seed: int, count: int, num_texts: int, hubs: int) -> None:
    hashes, texts = draw(seed, count, num_texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near, "NUM_HUBS", hubs)
        patch.setattr(near, "MAX_NEIGHBOURS", 4)
        patch.setattr(near, "CHUNK", 7)
        patch.setattr(hamming, "MAX_RUN", 9)
        patch.setattr(hamming, "MAX_NEIGHBOURS", 3)
        decided = find_removing_edges(prepare(hashes, texts, 3).search, count)
    everything = all_pairs(hashes, texts, 3)
    kept: set[int] = set()
    for row in range(count):
        if not any((other, row) in everything for other in kept):
            kept.add(row)
    removing = as_dict(decided.removing)
    assert removing.items() <= everything.items()
    assert {right for _, right in removing} == set(range(count)) - kept
    assert all(left in kept for left, _ in removing)
