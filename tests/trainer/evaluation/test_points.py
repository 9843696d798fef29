"""Point clouds: what a view shows, what is read of files, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from curation.errors import UserError
from tests.support.trainer import point_sets
from trainer.data.readers import SampleError
from trainer.evaluation import points


def find_bright(picture: np.ndarray) -> tuple[float, float]:
    """Mean row and column of what is not black."""
    rows, columns = np.nonzero(picture[:, :, 0])
    return float(rows.mean()), float(columns.mean())


def test_a_view_has_up_above_and_the_right_at_the_right() -> None:
    for point, where in (((0, 0, 1), "above"), ((0, 1, 0), "right"), ((0, 0, -1), "below"), ((0, -1, 0), "left")):
        row, column = find_bright(points.render_depth(np.array([point], float), 0.0, 0.0))
        expected = {"above": (13, 128), "below": (243, 128), "right": (128, 243), "left": (128, 13)}[where]
        assert row == pytest.approx(expected[0], abs=1) and column == pytest.approx(expected[1], abs=1)


def test_the_camera_turns_around_the_object() -> None:
    cloud = np.array([[1.0, 0, 0], [0, 0.5, 0.25]])
    turned = np.array([[0, 1.0, 0], [-0.5, 0, 0.25]])
    assert np.array_equal(points.render_depth(cloud, 0.3), points.render_depth(turned, 0.3 + math.pi / 2))
    assert not np.array_equal(points.render_depth(cloud, 0.3), points.render_depth(cloud, 0.8))


def test_the_nearest_point_of_a_pixel_is_seen_and_is_the_brightest() -> None:
    near, far = np.array([[0.9, 0, 0]]), np.array([[-0.9, 0, 0]])
    both = points.render_depth(np.concatenate((far, near)), 0.0, 0.0)
    assert np.array_equal(both, points.render_depth(near, 0.0, 0.0))
    assert both.max() > points.render_depth(far, 0.0, 0.0).max() > 60
    seen = points.render_depth(np.concatenate((far, near)), math.pi, 0.0)
    assert np.array_equal(seen, points.render_depth(far, math.pi, 0.0))


def test_a_mesh_is_sampled_on_its_surface(tmp_path: Path) -> None:
    cloud = points.read_points(point_sets.write_box(tmp_path / "box.off", 3.0))
    assert cloud.shape == (points.NUM_POINTS, 3)
    assert np.linalg.norm(cloud, axis=1).max() == pytest.approx(1)
    extent = cloud.max(0) - cloud.min(0)
    assert extent[0] / extent[1] == pytest.approx(3, rel=0.01) and np.allclose(cloud.max(0), -cloud.min(0))
    on_a_side = np.isclose(np.abs(cloud) / (extent / 2), 1, atol=1e-6).any(1)
    assert on_a_side.all()
    ends = np.isclose(np.abs(cloud[:, 0]), extent[0] / 2, atol=1e-9).mean()
    assert ends == pytest.approx(2 / 14, abs=0.02), "two of the six sides, by their area"


def test_points_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    values = np.array([[0, 0, 0, 9], [2, 0, 0, 9], [0, 4, 0, 9.0]])
    np.save(tmp_path / "a.npy", values)
    (tmp_path / "a.xyz").write_text("0 0 0 9\n\n2 0 0 9\n0 4 0 9\n")
    (tmp_path / "a.txt").write_text("0,0,0,9\n2,0,0,9\n0,4,0,9\n")
    found = [points.read_points(tmp_path / f"a.{suffix}") for suffix in ("npy", "xyz", "txt")]
    assert np.allclose(found[0] * math.sqrt(5), [[-1, -2, 0], [1, -2, 0], [-1, 2, 0]])
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.off", "", "does not begin with OFF"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n", "not as many as it says"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "not as many as it says"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "name corners that it does not have"),
        ("a.off", "OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "name corners that it does not have"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n", "no area"),
        ("a.off", "OFF\n999999999999 1 0\n0 0 0\n", "not as many as it says"),
        ("a.xyz", "0 0\n", "a line of it is not three coordinates"),
        ("a.xyz", "", "holds no points"),
        ("a.xyz", "0 0 nan\n", "no finite number"),
        ("a.npy", "none", "no .npy file"),
    ],
)
def test_a_file_without_points_says_so(name: str, text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SampleError, match=says) as caught:
        points.read_points(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_the_test_part_of_each_class_is_read(tmp_path: Path) -> None:
    found = points.read_clouds("mine", point_sets.write_classes(tmp_path), ["a {}"], 4)
    assert found.names == point_sets.CLASSES and found.labels == (0, 0, 0, 1, 1, 1)
    views = found.items[0].read_frames()
    assert len(views) == 4 and views[0].shape == (256, 256, 3) and views[0].dtype == np.uint8


def test_sets_that_are_not_whole_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        points.read_clouds("mine", tmp_path / "absent", ["a {}"], 4)
    folder = point_sets.write_classes(tmp_path / "set")
    with pytest.raises(UserError, match="has 2 sub-folders, and ModelNet40 has 40"):
        points.read_clouds("ModelNet40", folder, ["a {}"], 4)
    (folder / "sphere").mkdir()
    with pytest.raises(UserError, match="sphere has no point clouds"):
        points.read_clouds("mine", folder, ["a {}"], 4)
