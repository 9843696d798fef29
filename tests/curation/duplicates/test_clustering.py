import numpy as np
import pytest

from curation.duplicates import clustering
from curation.duplicates.clustering import normalised, train, usable


def blobs(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, dim))
    return normalised(centres[rng.integers(0, 20, count)] + 0.4 * rng.standard_normal((count, dim)))


def test_rows_without_a_direction_are_in_no_cluster() -> None:
    vectors = blobs(200)
    vectors[3], vectors[5, 2], vectors[7, 0] = 0, np.nan, np.inf
    assert np.flatnonzero(~usable(vectors)).tolist() == [3, 5, 7]
    nearest = train(vectors[usable(vectors)], 5).assign(vectors, 2)
    assert (nearest[[3, 5, 7]] == -1).all()
    assert (np.delete(nearest, [3, 5, 7], axis=0) >= 0).all()


def test_assignment_is_to_the_nearest_centroids_and_the_same_in_pieces() -> None:
    vectors = blobs(600)
    found = train(vectors, 12, seed=3)
    nearest = found.assign(vectors, 3)
    expected = np.argsort(-(vectors @ found.centroids.T), axis=1)[:, :3]
    assert (nearest == expected).mean() > 0.999
    pieces = np.concatenate([found.assign(vectors[i : i + 101], 3) for i in range(0, 600, 101)])
    assert (pieces == nearest).all()


def test_training_is_seeded() -> None:
    vectors = blobs(600)
    assert np.array_equal(train(vectors, 9, seed=1).centroids, train(vectors, 9, seed=1).centroids)
    assert not np.array_equal(train(vectors, 9, seed=1).centroids, train(vectors, 9, seed=2).centroids)


def test_two_levels_give_as_many_clusters_of_like_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "FLAT_CENTROIDS", 8)
    vectors = blobs(3_000)
    found = train(vectors, 60)
    assert len(found.coarse) == 7
    assert 50 <= len(found.centroids) <= 70
    nearest = found.assign(vectors, 1)[:, 0]
    exact = np.argmax(vectors @ found.centroids.T, axis=1)
    assert (nearest == exact).mean() > 0.98
    assert np.bincount(nearest, minlength=len(found.centroids)).max() < 300


def test_fewer_rows_than_asked_centroids() -> None:
    assert len(train(blobs(3), 10).centroids) == 1
