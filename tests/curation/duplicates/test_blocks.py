"""Pairs inside one cluster, block by block, beside brute force."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from curation.duplicates import blocks
from curation.duplicates.blocks import Pairs, SearchSettings, find_pairs, find_pairs_with_leaders
from curation.duplicates.clustering import normalise
from curation.duplicates.inside import split_by_cluster
from tests.support.vectors import brute_force, planted, split_cut_short


def collect(batches: Iterable[Pairs]) -> tuple[set[tuple[int, int]], set[int]]:
    """All pairs of different rows, and the rows that were cut short."""
    pairs, cut = set[tuple[int, int]](), set[int]()
    for left, right, _ in batches:
        more = split_cut_short(left, right)
        pairs, cut = pairs | more[0], cut | more[1]
    return pairs, cut


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 120), block=st.integers(3, 64))
def test_without_ranks_all_members_are_compared_and_nobody_else(seed: int, count: int, block: int) -> None:
    vectors = planted(150, seed=seed, lowest=0.8)
    members = np.sort(np.random.default_rng(seed).choice(150, count, replace=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        found, cut = collect(find_pairs(vectors, members, SearchSettings(min_cosine=0.8)))
    assert found == {pair for pair in brute_force(vectors, 0.8) if set(pair) <= set(members.tolist())}
    assert not cut


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), num_probes=st.integers(1, 9), block=st.integers(3, 64))
def test_pairs_are_compared_where_the_product_of_their_ranks_allows(seed: int, num_probes: int, block: int) -> None:
    vectors = planted(150, seed=seed, lowest=0.8)
    rng = np.random.default_rng(seed)
    nearest = np.argsort(rng.random((150, 9)), axis=1)[:, :num_probes].astype(np.int32)
    search = SearchSettings(min_cosine=0.8, num_probes=num_probes)
    found: set[tuple[int, int]] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        for members, ranks in split_by_cluster(nearest):
            for left, right, _ in find_pairs(vectors, members, search, None, ranks):
                found |= split_cut_short(left, right)[0]
    product = np.full((150, 150), 100)
    for i, j in np.ndindex(num_probes, num_probes):
        together = nearest[:, None, i] == nearest[None, :, j]
        product[together] = np.minimum(product[together], (i + 1) * (j + 1))
    assert found == {pair for pair in brute_force(vectors, 0.8) if product[pair] <= num_probes}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), limit=st.integers(1, 6), block=st.integers(3, 64))
def test_a_row_remembers_its_best_neighbours_and_is_cut_short_when_there_are_more(
    seed: int, limit: int, block: int
) -> None:
    """Copies of few pictures, and labels that part them."""
    rng = np.random.default_rng(seed)
    vectors, labels = planted(9, seed=seed)[:3][rng.integers(0, 3, 100)], rng.integers(0, 2, 100)
    search = SearchSettings(min_cosine=0.999, max_neighbours=limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        found, cut = collect(find_pairs(vectors, np.arange(100), search, labels))
    alike = {(a, b) for a, b in brute_force(vectors, 0.999) if labels[a] == labels[b]}
    better = {row: sorted(a for a, b in alike if b == row) for row in range(100)}
    assert found == {(a, row) for row in range(100) for a in better[row][:limit]}
    assert cut == {row for row in range(100) if len(better[row]) > limit}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 6), block=st.integers(3, 200), by_rank=st.booleans())
def test_pairs_in_doubt_are_the_nearest_better_ones_of_each_row(
    seed: int, count: int, block: int, by_rank: bool
) -> None:
    """With one block for all rows these are the nearest ones; with more blocks, these and others in doubt."""
    rng = np.random.default_rng(seed)
    vectors, labels = planted(120, dim=6, seed=seed), rng.integers(0, 2, 120)
    search = SearchSettings(min_cosine=0.9, doubtful_from=0.6, max_doubtful=count, num_probes=4)
    ranks = rng.integers(1, 3, 120) if by_rank else None
    found = set[tuple[int, int]]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        for left, right, cosine in find_pairs(vectors, np.arange(120), search, labels, ranks):
            doubtful = search.in_doubt(cosine)
            assert (cosine[doubtful] >= 0.6 - blocks.ROUNDING).all()
            found |= set(zip(left[doubtful].tolist(), right[doubtful].tolist(), strict=True))
    cosines = normalise(vectors) @ normalise(vectors).T
    # On an edge of the range the order of a sum in float32 decides.
    assume(min(np.abs(cosines - edge).min() for edge in (0.6, 0.9)) > 2 * blocks.ROUNDING)
    doubtful = np.triu((cosines >= 0.6) & (cosines < 0.9) & (labels[:, None] == labels), 1)
    if ranks is not None:
        doubtful &= ranks[:, None] * ranks <= 4
    assert found <= {(a, b) for a, b in zip(*(axis.tolist() for axis in np.nonzero(doubtful)), strict=True)}
    for row in range(120):
        better = sorted(np.flatnonzero(doubtful[:, row]), key=lambda other: -cosines[other, row])[:count]
        assert {(int(other), row) for other in better} <= found
    if block >= 120 and ranks is None:
        assert len(found) == np.minimum(doubtful.sum(axis=0), count).sum()


def test_rows_of_other_ranks_are_remembered_apart() -> None:
    """Forty copies of one picture, of rank 1 and of rank 3 in turn: ranks 3 and 3 are not compared."""
    vectors = np.repeat(planted(3)[:1], 40, axis=0)
    ranks = np.where(np.arange(40) % 2, 1, 3)
    search = SearchSettings(min_cosine=0.999, num_probes=4, max_neighbours=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", 7)
        found, cut = collect(find_pairs(vectors, np.arange(40), search, None, ranks))
    of_rank_1 = {row: range(1, row, 2) for row in range(1, 40, 2)}
    of_other_ranks = {row: range((row + 1) % 2, row, 2) for row in range(40)}
    compared = [*of_rank_1.items(), *of_other_ranks.items()]
    assert found == {(better, row) for row, others in compared for better in others[:2]}
    assert cut == {row for row, others in compared if len(others) > 2}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 120), block=st.integers(3, 64))
def test_every_member_is_paired_with_the_leaders_that_are_like_it(seed: int, count: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = planted(30, dim=4, seed=seed, lowest=0.8)[rng.integers(0, 30, 120)]
    members = np.sort(rng.choice(120, count, replace=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        found, cut = collect(find_pairs_with_leaders(vectors, members, SearchSettings(min_cosine=0.8)))
    alike = {(a, b) for a, b in brute_force(vectors, 0.8) if {a, b} <= set(members.tolist())}
    leaders: list[int] = []
    for row in members.tolist():
        if not any((leader, row) in alike for leader in leaders):
            leaders.append(row)
    assert cut == set(members.tolist()) - set(leaders)
    # A leader may come after a member that is like it and like an earlier leader.
    assert found <= alike and {a for a, _ in found} <= set(leaders)
    assert all((leader, row) in found for row in cut for leader in leaders[:1] if (leader, row) in alike)
    assert {row for _, row in found} == cut
