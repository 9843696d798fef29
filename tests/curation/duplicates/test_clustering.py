import numpy as np
import pytest

from curation.duplicates import clustering
from curation.duplicates.clustering import normalise, principal_axes, project, train, usable, widen


def blobs(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, dim))
    return normalise(centres[rng.integers(0, 20, count)] + 0.4 * rng.standard_normal((count, dim)))


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


def test_axes_are_the_strongest_and_partly_whitened() -> None:
    rng = np.random.default_rng(0)
    deviations = np.array([8.0, 4, 2, 1, 0.5, 0, 0, 0])
    turn = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    vectors = (rng.standard_normal((20_000, 8)) * deviations) @ turn.T
    axes = principal_axes(vectors.astype(np.float32))
    assert axes.shape == (8, 5), "three axes hold nothing"
    lengths = np.linalg.norm(axes, axis=0)
    assert np.allclose(lengths, (deviations[0] / deviations[:5]) ** (2 * clustering.WHITENING), rtol=0.05)
    assert np.allclose(np.abs((axes / lengths).T @ turn[:, :5]), np.eye(5), atol=0.05)


def test_vectors_are_assigned_along_the_axes_they_were_clustered_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "AXES", 6)
    vectors = blobs(600)
    axes = principal_axes(vectors)
    found = train(project(vectors, axes), 12, seed=3, axes=axes)
    assert found.centroids.shape == (12, 6)
    expected = np.argsort(-(project(vectors, axes) @ found.centroids.T), axis=1)[:, :3]
    assert (found.assign(vectors, 3) == expected).mean() > 0.999


def test_a_vector_without_a_part_along_the_axes_is_in_a_cluster_nevertheless() -> None:
    vectors = blobs(600)
    vectors[:, -1] = 0
    axes = principal_axes(normalise(vectors))
    found = train(project(normalise(vectors), axes), 12, axes=axes)
    apart = np.zeros((2, 16), np.float32)
    apart[:, -1] = 1
    nearest = found.assign(apart, 3)
    assert (nearest >= 0).all()
    assert (nearest[0] == nearest[1]).all()


def test_every_half_precision_number_is_widened_exactly() -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    numbers = numbers[np.isfinite(numbers)]
    assert np.array_equal(widen(numbers).view(np.uint32), numbers.astype(np.float32).view(np.uint32))
