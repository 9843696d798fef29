"""Point clouds as pictures: views rendered by numpy, for zero-shot classification by an image tower.

    FOLDER/CLASS/test/NAME.off      ModelNet40 as it comes: meshes, whose surface is sampled
    FOLDER/CLASS/NAME.npy           or .xyz, .txt, .off: points, a row "x y z …" each

Cameras stand around the upright axis, a little above the object, as PointCLIP's do (arXiv 2112.02413, section 3.1). A
pixel shows the nearest point that falls into it, drawn as a disc, the nearer the brighter: a depth map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curation.errors import UserError
from curation.npy import read_array
from trainer.data.readers import SampleError
from trainer.evaluation.encoder import FrameSource
from trainer.evaluation.frames import FrameSet
from trainer.evaluation.sources import read_class_names, read_templates

SUFFIXES = frozenset({".off", ".npy", ".xyz", ".txt"})
NUM_CLASSES = {"ModelNet40": 40, "ModelNet10": 10}
NUM_POINTS = 10_000
"""Sampled of a mesh, the same ones always."""
_SIDE = 256
_ELEVATION = math.radians(20)
_MARGIN = 0.9
"""Of half the picture's side that the farthest point takes."""


@dataclass(frozen=True)
class PointCloud:
    """A file of points or of a mesh, rendered from `num_views` sides."""

    name: str
    path: Path
    num_views: int

    def read_frames(self) -> list[np.ndarray]:
        """The views, uint8 `[256, 256, 3]` each. Raises SampleError and OSError."""
        points = read_points(self.path)
        return [render_depth(points, 2 * math.pi * view / self.num_views) for view in range(self.num_views)]


def render_depth(points: np.ndarray, azimuth: float, elevation: float = _ELEVATION, side: int = _SIDE) -> np.ndarray:
    """A view of points, float `[n, 3]` inside the unit ball, z upwards: uint8 `[side, side, 3]`, white on black.

    The projection is parallel to the camera's axis. `azimuth` turns the camera around z, `elevation` lifts it.
    """
    sin_a, cos_a, sin_e, cos_e = math.sin(azimuth), math.cos(azimuth), math.sin(elevation), math.cos(elevation)
    right = np.array([-sin_a, cos_a, 0.0])
    towards = np.array([cos_a * cos_e, sin_a * cos_e, sin_e])
    up = np.cross(towards, right)
    scale = _MARGIN * side / 2
    columns = np.rint(side / 2 + scale * (points @ right)).astype(np.int64)
    rows = np.rint(side / 2 - scale * (points @ up)).astype(np.int64)
    brightness = np.rint(255 * (0.35 + 0.65 * (np.clip(points @ towards, -1, 1) + 1) / 2)).astype(np.uint8)
    picture = np.zeros((side, side), np.uint8)
    for row, column in _disc(max(1, side // 128)):
        y, x = np.clip(rows + row, 0, side - 1), np.clip(columns + column, 0, side - 1)
        np.maximum.at(picture, (y, x), brightness)
    return np.repeat(picture[:, :, None], 3, axis=2)


def _disc(radius: int) -> list[tuple[int, int]]:
    span = range(-radius, radius + 1)
    return [(y, x) for y in span for x in span if y * y + x * x <= radius * radius]


def read_points(path: Path) -> np.ndarray:
    """The points of a file, float64 `[n, 3]`, centred and inside the unit ball.

    Raises:
        SampleError: when it holds no points.
        OSError: when it cannot be read.
    """
    if path.suffix.lower() == ".off":
        points = _sample_surface(*_read_mesh(path))
    elif path.suffix.lower() == ".npy":
        points = _read_array(path)
    else:
        points = _read_rows(path)
    if not len(points) or not np.isfinite(points).all():
        raise SampleError("it holds no points" if not len(points) else "a coordinate is no finite number")
    points = points - (points.max(0) + points.min(0)) / 2
    return np.asarray(points / max(np.linalg.norm(points, axis=1).max(), 1e-12))


def _read_array(path: Path) -> np.ndarray:
    try:
        values = read_array(path)
    except ValueError as error:
        raise SampleError(f"it is no .npy file ({error})") from error
    if values.ndim != 2 or values.shape[1] < 3 or values.dtype.kind not in "fiu":
        raise SampleError(f"its shape is {list(values.shape)}, not three coordinates a row")
    return values[:, :3].astype(np.float64)


def _read_rows(path: Path) -> np.ndarray:
    rows = [line.replace(",", " ").split()[:3] for line in path.read_text(errors="replace").split("\n") if line.strip()]
    try:
        return np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    except ValueError as error:
        raise SampleError("a line of it is not three coordinates") from error


def _read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The corners `[n, 3]` and triangles `[m, 3]` of an OFF file; a face of more corners becomes a fan of triangles."""
    words = path.read_text(errors="replace").split()
    if not words or not words[0].startswith("OFF"):
        raise SampleError("it does not begin with OFF")
    # ModelNet has files whose first line is "OFF490 518 0".
    words = ([words[0][3:]] if len(words[0]) > 3 else []) + words[1:]
    try:
        num_corners, num_faces = int(words[0]), int(words[1])
        corners = np.array(words[3 : 3 + 3 * num_corners], dtype=np.float64).reshape(num_corners, 3)
        triangles = _read_faces([int(word) for word in words[3 + 3 * num_corners :]], num_faces)
    except (ValueError, IndexError, OverflowError, MemoryError) as error:
        raise SampleError("its corners and faces are not as many as it says") from error
    if num_faces < 1 or triangles.min() < 0 or triangles.max() >= num_corners:
        raise SampleError("its faces name corners that it does not have")
    return corners, triangles


def _read_faces(numbers: Sequence[int], num_faces: int) -> np.ndarray:
    triangles, at = [], 0
    for _ in range(num_faces):
        size = numbers[at]
        face = numbers[at + 1 : at + 1 + size]
        if size < 3 or len(face) < size:
            raise ValueError(size)
        triangles += [(face[0], face[i], face[i + 1]) for i in range(1, size - 1)]
        at += 1 + size
    return np.array(triangles, dtype=np.int64).reshape(-1, 3)


def _sample_surface(corners: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """NUM_POINTS points, uniformly on the surface."""
    a, b, c = (corners[triangles[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    if not np.isfinite(area).all() or area.sum() <= 0:
        raise SampleError("its faces have no area")
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(area), NUM_POINTS, p=area / area.sum())
    u, v = np.sqrt(rng.random(NUM_POINTS)), rng.random(NUM_POINTS)
    weights = np.stack((1 - u, u * (1 - v), u * v))[:, :, None]
    return np.asarray(weights[0] * a[chosen] + weights[1] * b[chosen] + weights[2] * c[chosen])


def read_clouds(name: str, folder: Path, templates: Sequence[str], num_views: int) -> FrameSet:
    """The set `name` at `folder`, each object with its views.

    Raises:
        UserError: when there is no such folder, a class has no objects, or the classes are not as many as published.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder} of point clouds: name one with a sub-folder a class.")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    published = NUM_CLASSES.get(name, len(classes))
    if len(classes) < 2 or len(classes) != published:
        wanted = f"{name} has {published}" if name in NUM_CLASSES else "classification needs two or more"
        raise UserError(f"{folder} has {len(classes)} sub-folders, and {wanted}: correct them.")
    items: list[FrameSource] = []
    labels = []
    for label, one in enumerate(classes):
        place = folder / one / "test" if (folder / one / "test").is_dir() else folder / one
        found = sorted(path for path in place.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        if not found:
            raise UserError(
                f"{place} has no point clouds ({', '.join(sorted(SUFFIXES))}): add some or remove the class."
            )
        items += [PointCloud(str(path), path, num_views) for path in found]
        labels += [label] * len(found)
    own = read_templates(folder)
    words = read_class_names(folder, classes)
    return FrameSet(words, own or tuple(templates), tuple(items), tuple(labels), bool(own))
