import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.duplicates import blocks
from curation.duplicates.blocks import Pairs, Search
from curation.duplicates.clustering import normalised, widened
from curation.duplicates.inside import clusters, inside
from curation.duplicates.vectors import near_pairs


def planted(count: int, dim: int = 32, seed: int = 0, lowest: float = 0.9) -> np.ndarray:
    """Random directions of which each in the last third is near one in the first third."""
    rng = np.random.default_rng(seed)
    vectors = normalised(rng.standard_normal((count, dim)))
    third = count // 3
    cosine = rng.uniform(lowest, 1, (third, 1))
    noise = rng.standard_normal((third, dim))
    noise -= (noise * vectors[:third]).sum(1, keepdims=True) * vectors[:third]
    vectors[count - third :] = cosine * vectors[:third] + np.sqrt(1 - cosine**2) * normalised(noise)
    return vectors


def brute_force(vectors: np.ndarray, min_cosine: float) -> set[tuple[int, int]]:
    cosines = np.triu(normalised(vectors) @ normalised(vectors).T, 1)
    return set(zip(*(axis.tolist() for axis in np.nonzero(cosines >= min_cosine)), strict=True))


def pairs(found: Pairs) -> set[tuple[int, int]]:
    rows = list(zip(found[0].tolist(), found[1].tolist(), strict=True))
    assert len(rows) == len(set(rows)), "a pair was reported twice"
    return set(rows)


def apart(left: np.ndarray, right: np.ndarray) -> set[tuple[int, int]]:
    """The pairs, without those that say who was cut short."""
    return {(a, b) for a, b in zip(left.tolist(), right.tolist(), strict=True) if a != b}


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 200), block=st.integers(3, 64))
def test_one_cluster_finds_what_brute_force_finds(seed: int, count: int, block: int) -> None:
    vectors = planted(count, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        found = near_pairs(vectors, Search(min_cosine=0.8))
    assert pairs(found) == brute_force(vectors, 0.8)
    exact = np.einsum("ij,ij->i", vectors[found[0]], vectors[found[1]])
    assert np.allclose(found[2], exact, atol=1e-5)


def test_many_clusters_find_nearly_all_and_nothing_else() -> None:
    vectors = planted(6_000)
    expected = brute_force(vectors, 0.9)
    one = pairs(near_pairs(vectors, Search(min_cosine=0.9, num_centroids=40, num_probes=1)))
    several = pairs(near_pairs(vectors, Search(min_cosine=0.9, num_centroids=40, num_probes=4)))
    twice = pairs(near_pairs(vectors, Search(min_cosine=0.9, num_centroids=40, num_probes=4, num_passes=2)))
    assert one < several <= twice <= expected
    assert len(several) >= 0.99 * len(expected)
    assert len(one) < 0.97 * len(expected), "one cluster a row is expected to miss pairs across boundaries"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), num_probes=st.integers(1, 9), block=st.integers(3, 64))
def test_pairs_are_compared_where_the_product_of_their_ranks_allows(seed: int, num_probes: int, block: int) -> None:
    vectors = planted(150, seed=seed, lowest=0.8)
    rng = np.random.default_rng(seed)
    nearest = np.argsort(rng.random((150, 9)), axis=1)[:, :num_probes].astype(np.int32)
    search = Search(min_cosine=0.8, num_probes=num_probes)
    found: set[tuple[int, int]] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        for members, ranks in clusters(nearest):
            for left, right, _ in inside(vectors, members, search, None, ranks):
                found |= apart(left, right)
    product = np.full((150, 150), 100)
    for i, j in np.ndindex(num_probes, num_probes):
        together = nearest[:, None, i] == nearest[None, :, j]
        product[together] = np.minimum(product[together], (i + 1) * (j + 1))
    assert found == {pair for pair in brute_force(vectors, 0.8) if product[pair] <= num_probes}


def test_a_row_keeps_its_best_ranked_neighbours_of_other_ranks() -> None:
    vectors = np.repeat(planted(3)[:1], 40, axis=0)
    ranks = np.where(np.arange(40) % 2, 1, 3)
    search = Search(min_cosine=0.999, num_probes=4, max_neighbours=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", 7)
        found = [part for part in inside(vectors, np.arange(40), search, None, ranks) if len(part[0])]
    pairs_found = set().union(*(apart(left, right) for left, right, _ in found))
    at_home = {(a, b) for b in range(1, 40, 2) for a in range(1, b, 2)[:2]}
    between = {(a, b) for b in range(40) for a in range((b + 1) % 2, b, 2)[:2]}
    assert pairs_found == at_home | between


def test_every_half_precision_number_is_widened_exactly() -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    numbers = numbers[np.isfinite(numbers)]
    assert np.array_equal(widened(numbers).view(np.uint32), numbers.astype(np.float32).view(np.uint32))


def test_unusable_vectors_spoil_nothing() -> None:
    vectors = planted(300)
    expected = {(a, b) for a, b in brute_force(vectors, 0.8) if not {a, b} & {0, 1, 2}}
    vectors[0], vectors[1], vectors[2, 3] = 0, np.nan, -np.inf
    assert pairs(near_pairs(vectors, Search(min_cosine=0.8))) == expected


def test_only_equal_labels_pair() -> None:
    vectors = planted(300)
    labels = np.random.default_rng(1).integers(0, 2, 300)
    expected = {(a, b) for a, b in brute_force(vectors, 0.8) if labels[a] == labels[b]}
    assert 0 < len(expected) < len(brute_force(vectors, 0.8))
    assert pairs(near_pairs(vectors, Search(min_cosine=0.8), labels)) == expected


def test_half_precision_and_memory_maps_are_read(tmp_path: Path) -> None:
    vectors = planted(300, lowest=0.95).astype(np.float16)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert pairs(near_pairs(mapped, Search(min_cosine=0.9))) == brute_force(vectors, 0.9)


def test_a_row_keeps_its_best_ranked_neighbours() -> None:
    vectors = np.repeat(planted(30), 10, axis=0)
    left, right, _ = near_pairs(vectors, Search(min_cosine=0.999, max_neighbours=3))
    assert np.bincount(right).max() == 3
    for row in range(300):
        first = row // 10 * 10
        assert sorted(left[right == row].tolist()) == list(range(first, min(row, first + 3)))


def test_an_oversized_cluster_compares_with_the_first_of_each_kind() -> None:
    vectors = np.concatenate([np.repeat(planted(9, lowest=0.99)[:3], 200, axis=0), planted(60, seed=5)])
    order = np.random.default_rng(0).permutation(len(vectors))
    vectors = vectors[order]
    search = Search(min_cosine=0.95, max_cluster_rows=50)
    found = [p for p in inside(vectors, np.arange(len(vectors)), search, None) if len(p[0])]
    left, right = (np.concatenate([p[i] for p in found]) for i in (0, 1))
    cut = left[left == right]
    left, right = left[left < right], right[left < right]
    assert set(cut.tolist()) == set(right.tolist())
    everything = brute_force(vectors, 0.95)
    assert set(zip(left.tolist(), right.tolist(), strict=True)) <= everything
    # Who has a better-ranked look-alike is the same as with all pairs, and every edge leads to one that has none.
    assert set(right.tolist()) == {b for _, b in everything}
    assert not set(left.tolist()) & set(right.tolist())


def test_a_huge_cluster_keeps_the_rows_that_lie_near() -> None:
    vectors = planted(240, lowest=0.95)
    ranks = np.random.default_rng(0).integers(1, 10, 240)
    search = Search(min_cosine=0.9, num_probes=9, max_cluster_rows=239)
    found: set[tuple[int, int]] = set()
    for left, right, _ in inside(vectors, np.arange(240), search, None, ranks):
        found |= apart(left, right)
    assert found == {(a, b) for a, b in brute_force(vectors, 0.9) if max(ranks[a], ranks[b]) <= 3}


HALF_IS_ONE_PICTURE = """
import resource, sys
import numpy as np
from curation.duplicates.blocks import Search
from curation.duplicates.vectors import near_pairs

vectors = np.load(sys.argv[1], mmap_mode="r")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
search = Search(min_cosine=0.98, num_probes=2, num_centroids=40, max_cluster_rows=int(sys.argv[2]), max_neighbours=8)
_, right, _ = near_pairs(vectors, search)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
sys.stdout.write(f"{peak // 1024} {len(np.unique(right[right % 2 == 0]))}")
"""


@pytest.mark.parametrize("max_cluster_rows", [1_000, 1_000_000])
def test_memory_is_bounded_when_half_of_all_rows_are_one_picture(tmp_path: Path, max_cluster_rows: int) -> None:
    vectors = planted(40_000, dim=16).astype(np.float16)
    vectors[::2] = vectors[0]
    np.save(tmp_path / "v.npy", vectors)
    command = [sys.executable, "-c", HALF_IS_ONE_PICTURE, str(tmp_path / "v.npy"), str(max_cluster_rows)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=800).stdout.split()
    peak_mb, num_removed = map(int, found)
    # All similarities of that cluster would be 20,000² × 4 bytes = 1.6 GB, all its pairs 4 GB.
    assert peak_mb < 300
    assert num_removed == 20_000 - 1


def test_the_result_does_not_depend_on_numbers_of_threads() -> None:
    import faiss

    vectors, search = planted(3_000), Search(min_cosine=0.9, num_centroids=20)
    before = faiss.omp_get_max_threads()
    results = []
    for threads in (1, 2):
        faiss.omp_set_num_threads(threads)
        results.append(near_pairs(vectors, search))
    faiss.omp_set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
