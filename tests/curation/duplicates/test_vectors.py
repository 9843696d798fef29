import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.duplicates import blocks
from curation.duplicates.blocks import SearchSettings
from curation.duplicates.vectors import find_near_pairs
from tests.support.vectors import brute_force, planted, unique_pairs


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 200), block=st.integers(3, 64))
def test_one_cluster_finds_what_brute_force_finds(seed: int, count: int, block: int) -> None:
    vectors = planted(count, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        found = find_near_pairs(vectors, SearchSettings(min_cosine=0.8))
    assert unique_pairs(found) == brute_force(vectors, 0.8)
    exact = np.einsum("ij,ij->i", vectors[found[0]], vectors[found[1]])
    assert np.allclose(found[2], exact, atol=1e-5)


def test_many_clusters_find_nearly_all_and_nothing_else() -> None:
    vectors = planted(6_000)
    expected = brute_force(vectors, 0.9)
    one = unique_pairs(find_near_pairs(vectors, SearchSettings(min_cosine=0.9, num_centroids=40, num_probes=1)))
    several = unique_pairs(find_near_pairs(vectors, SearchSettings(min_cosine=0.9, num_centroids=40, num_probes=4)))
    twice = unique_pairs(
        find_near_pairs(vectors, SearchSettings(min_cosine=0.9, num_centroids=40, num_probes=4, num_passes=2))
    )
    assert one < several <= twice <= expected
    assert len(several) >= 0.99 * len(expected)
    assert len(one) < 0.97 * len(expected), "one cluster a row is expected to miss pairs across boundaries"


def test_vectors_without_a_direction_are_in_no_pair() -> None:
    vectors = planted(300)
    expected = {(a, b) for a, b in brute_force(vectors, 0.8) if not {a, b} & {0, 1, 2}}
    vectors[0], vectors[1], vectors[2, 3] = 0, np.nan, -np.inf
    assert unique_pairs(find_near_pairs(vectors, SearchSettings(min_cosine=0.8))) == expected


def test_only_equal_labels_pair() -> None:
    vectors = planted(300)
    labels = np.random.default_rng(1).integers(0, 2, 300)
    expected = {(a, b) for a, b in brute_force(vectors, 0.8) if labels[a] == labels[b]}
    assert 0 < len(expected) < len(brute_force(vectors, 0.8))
    assert unique_pairs(find_near_pairs(vectors, SearchSettings(min_cosine=0.8), labels)) == expected


def test_half_precision_and_memory_maps_are_read(tmp_path: Path) -> None:
    vectors = planted(300, lowest=0.95).astype(np.float16)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    assert unique_pairs(find_near_pairs(mapped, SearchSettings(min_cosine=0.9))) == brute_force(vectors, 0.9)


def test_a_row_remembers_its_best_ranked_neighbours() -> None:
    vectors = np.repeat(planted(30), 10, axis=0)
    left, right, _ = find_near_pairs(vectors, SearchSettings(min_cosine=0.999, max_neighbours=3))
    assert np.bincount(right).max() == 3
    for row in range(300):
        first = row // 10 * 10
        assert sorted(left[right == row].tolist()) == list(range(first, min(row, first + 3)))


HALF_IS_ONE_PICTURE = """
import sys
import numpy as np
from curation.duplicates.blocks import SearchSettings
from curation.duplicates.vectors import find_near_pairs
from tests.support.memory import memory_bytes

vectors = np.load(sys.argv[1], mmap_mode="r")
before = memory_bytes("VmHWM")
limits = {"max_cluster_rows": int(sys.argv[2]), "max_neighbours": 8}
search = SearchSettings(min_cosine=0.98, num_probes=2, num_centroids=40, **limits)
_, right, _ = find_near_pairs(vectors, search)
peak = memory_bytes("VmHWM") - before
sys.stdout.write(f"{peak >> 20} {len(np.unique(right[right % 2 == 0]))}")
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

    vectors, search = planted(3_000), SearchSettings(min_cosine=0.9, num_centroids=20)
    before = faiss.omp_get_max_threads()
    results = []
    for threads in (1, 2):
        faiss.omp_set_num_threads(threads)
        results.append(find_near_pairs(vectors, search))
    faiss.omp_set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
