"""Nearest centroid against brute force in float64, and files that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import filters
from curation.errors import UserError
from filters import nearest_centroid
from filters.base import IMAGE_EMBEDDING


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """20 centroids of 8 numbers, and 6 target pictures by their embeddings."""
    rng = np.random.default_rng(3)
    np.save(tmp_path / "centroids.npy", rng.normal(size=(20, 8)) * rng.uniform(0.1, 9, (20, 1)))
    np.save(tmp_path / "targets.npy", rng.normal(size=(6, 8)))
    return {name: str(tmp_path / f"{name}.npy") for name in ("centroids", "targets")}


def _batch(rows: list[list[float] | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(rows, IMAGE_EMBEDDING.type)], schema=pa.schema([IMAGE_EMBEDDING]))


def _brute(rows: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    cosine = rows @ centroids.T / np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(centroids, axis=1))
    return cosine


def test_nearest_is_brute_force_in_blocks_of_any_size(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(5).normal(size=(50, 8))
    cosine = _brute(rows, np.load(files["centroids"]))
    targets = set(_brute(np.load(files["targets"]), np.load(files["centroids"])).argmax(axis=1).tolist())
    for cells in (1, 60, 1 << 24):
        monkeypatch.setattr(nearest_centroid, "CELLS", cells)
        found = filters.build("nearest_centroid", files).apply(_batch(rows.tolist()))
        assert found["nearest_centroid"].to_pylist() == cosine.argmax(axis=1).tolist()
        np.testing.assert_allclose(found["centroid_similarity"].to_numpy(), cosine.max(axis=1), atol=1e-6)
        assert found["in_target"].to_pylist() == [number in targets for number in cosine.argmax(axis=1).tolist()]


def test_targets_may_be_centroid_numbers_or_absent(files: dict[str, str], tmp_path: Path) -> None:
    row = (2 * np.load(files["centroids"])[7]).tolist()
    np.save(tmp_path / "numbers.npy", np.array([3, 7]))
    named = filters.build("nearest_centroid", files | {"targets": str(tmp_path / "numbers.npy")}).apply(_batch([row]))
    assert named.to_pylist()[0] | {"centroid_similarity": None} == {
        "nearest_centroid": 7,
        "centroid_similarity": None,
        "in_target": True,
    }
    alone = filters.build("nearest_centroid", {"centroids": files["centroids"]}).apply(_batch([row]))
    assert alone["nearest_centroid"].to_pylist() == [7] and alone["in_target"].to_pylist() == [None]


@pytest.mark.parametrize("row", [None, [0.0] * 8, [float("nan")] * 8, [float("inf")] * 8])
def test_what_has_no_direction_is_unknown(files: dict[str, str], row: list[float] | None) -> None:
    found = filters.build("nearest_centroid", files).apply(_batch([row, [1.0] * 8])).to_pylist()
    assert set(found[0].values()) == {None} and None not in found[1].values()


def test_files_that_do_not_fit_are_one_sentence(files: dict[str, str], tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.ones(8))
    np.save(tmp_path / "far.npy", np.array([20]))
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY")
    np.savez(tmp_path / "many.npy.npz", a=np.ones((2, 8)))
    np.save(tmp_path / "text.npy", np.array([["a", "b"]]))
    for options, sentence in (
        ({"centroids": str(tmp_path / "flat.npy")}, r"finite non-zero rows \[k, d\]"),
        ({"centroids": str(tmp_path / "none.npy")}, "cannot be read"),
        ({"centroids": str(tmp_path / "torn.npy")}, "cannot be read"),
        ({"centroids": str(tmp_path / "many.npy.npz")}, "cannot be read"),
        ({"centroids": str(tmp_path / "text.npy")}, "finite non-zero rows"),
        (files | {"targets": str(tmp_path / "flat.npy")}, "centroid numbers"),
        (files | {"targets": str(tmp_path / "far.npy")}, "names centroid 20, and there are 20"),
    ):
        with pytest.raises(UserError, match=sentence):
            filters.build("nearest_centroid", options).check_ready()
    with pytest.raises(UserError, match="embeddings of 8 numbers, but the run's have 3"):
        filters.build("nearest_centroid", files).apply(_batch([[1.0, 2.0, 3.0]]))
