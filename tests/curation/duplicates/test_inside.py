"""Pairs inside a cluster that is too large to compare all of its rows, beside brute force."""

from __future__ import annotations

import numpy as np
import pytest

from curation.duplicates import inside
from curation.duplicates.blocks import SearchSettings
from curation.duplicates.inside import search_cluster, split_by_cluster, train_on_sample
from tests.support.vectors import brute_force, planted, split_cut_short

Found = tuple[set[tuple[int, int]], set[int]]


def find(
    vectors: np.ndarray, search: SearchSettings, labels: np.ndarray | None = None, ranks: np.ndarray | None = None
) -> Found:
    """Pairs among all `vectors`, and the rows that were cut short."""
    pairs, cut = set[tuple[int, int]](), set[int]()
    for left, right, _ in search_cluster(vectors, np.arange(len(vectors)), search, labels, ranks):
        more = split_cut_short(left, right)
        pairs, cut = pairs | more[0], cut | more[1]
    return pairs, cut


def with_crowds() -> np.ndarray:
    """Three pictures two hundred times each among sixty others, in a random order."""
    vectors = np.concatenate([np.repeat(planted(9, lowest=0.99)[:3], 200, axis=0), planted(60, seed=5)])
    return vectors[np.random.default_rng(0).permutation(len(vectors))]


def test_clusters_are_split_as_a_loop_over_all_rows_would() -> None:
    nearest = np.random.default_rng(0).integers(-1, 12, (50, 4)).astype(np.int32)
    nearest = np.array(
        [[c if c not in row[:i] else -1 for i, c in enumerate(row)] for row in nearest.tolist()], np.int32
    )
    expected = {}
    for cluster in range(12):
        places = [(row, rank + 1) for row in range(50) for rank in range(4) if nearest[row, rank] == cluster]
        if len(places) > 1:
            expected[cluster] = places
    found = {
        int(nearest[members[0], ranks[0] - 1]): list(zip(members.tolist(), ranks.tolist(), strict=True))
        for members, ranks in split_by_cluster(nearest)
    }
    assert found == expected


@pytest.mark.parametrize("with_labels", [False, True])
def test_in_a_crowd_rows_are_compared_with_leaders_only(with_labels: bool) -> None:
    vectors = with_crowds()
    labels = np.random.default_rng(1).integers(0, 2, len(vectors)) if with_labels else None
    pairs, cut = find(vectors, SearchSettings(min_cosine=0.95, max_cluster_rows=50), labels)
    alike = brute_force(vectors, 0.95)
    if labels is not None:
        alike = {(a, b) for a, b in alike if labels[a] == labels[b]}
    assert pairs <= alike
    # The same rows have a better row that is like them as among all pairs, and all pairs lead to rows that have none.
    later = {b for _, b in pairs}
    assert later == {b for _, b in alike}
    assert not {a for a, _ in pairs} & later
    assert cut <= later


def test_of_a_huge_cluster_the_rows_with_a_small_rank_are_compared() -> None:
    vectors = planted(240, lowest=0.95)
    ranks = np.random.default_rng(0).integers(1, 10, 240)
    pairs, cut = find(vectors, SearchSettings(min_cosine=0.9, num_probes=9, max_cluster_rows=239), None, ranks)
    assert pairs == {(a, b) for a, b in brute_force(vectors, 0.9) if max(ranks[a], ranks[b]) <= 3}
    assert not cut


def test_a_cluster_that_is_clustered_again_loses_few_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No crowds: two thousand rows, of which no more than three hundred are compared at once."""
    monkeypatch.setattr(inside, "num_centroids_for", lambda num_rows: max(2, num_rows // 50))
    vectors = planted(2_000)
    pairs, cut = find(vectors, SearchSettings(min_cosine=0.9, max_cluster_rows=300))
    alike = brute_force(vectors, 0.9)
    assert pairs <= alike and not cut
    assert len(pairs) >= 0.98 * len(alike)


def test_rows_without_a_direction_do_not_train_a_clustering() -> None:
    vectors = planted(600)
    vectors[7], vectors[8] = 0, np.nan
    found = train_on_sample(vectors, np.arange(600), 8, seed=0)
    assert np.isfinite(found.centroids).all()
    again = train_on_sample(vectors, np.arange(600), 8, seed=0)
    assert np.array_equal(found.centroids, again.centroids)
