"""Features of views and classes in the files that Uni3D trains on (its data set `Ensembled_embedding`).

    FOLDER/uni3d.yaml          what goes into Uni3D's data/NAME.yaml, with the paths of the others
    FOLDER/points.json         object → its file below points/
    FOLDER/points/ID.npy       a pickled dict: xyz float32 [10000, 3], y upwards; rgb float32 of the same shape, grey;
                               text, a list with the feature of the class's name, float32 [d]; captions, empty
    FOLDER/images.json         object → ten names below images/, without .npy
    FOLDER/images/ID-VIEW.npy  float32 [d], the feature of a view
    FOLDER/filter.json         which texts are left out: none

An object's ID is its row in objects.tsv. Uni3D is started with --use-embed and --embed-dim, the width of the features.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from torch import Tensor

from curation.errors import UserError
from trainer.evaluation.frames import FrameSet
from trainer.evaluation.points import NUM_POINTS, PointCloud, read_points

NUM_VIEWS = 10
"""Uni3D draws one of so many views of each object."""
GREY = 0.4
"""Of a point without colour, as Uni3D has it."""


def check_views(num_views: int) -> None:
    """Raise UserError unless there are as many views as Uni3D draws from."""
    if num_views != NUM_VIEWS:
        raise UserError(f"Uni3D draws from {NUM_VIEWS} views, not {num_views}: leave out eval.views.")


def write_uni3d(folder: Path, clouds: FrameSet, image: Tensor, text: Tensor) -> None:
    """Write the files of one set.

    Args:
        clouds: items of `trainer.evaluation.points`.
        image: normalised features of the views, float32 `[objects, NUM_VIEWS, d]`.
        text: normalised features of the classes, float32 `[classes, d]`.
    """
    for part in ("points", "images"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    rows = {f"{number:06d}": row for number, row in enumerate(image.numpy())}
    for (name, row), item, label in zip(rows.items(), clouds.items, clouds.labels, strict=True):
        assert isinstance(item, PointCloud)
        sample = {"xyz": draw_points(item.path), "rgb": np.full((NUM_POINTS, 3), GREY, np.float32)}
        texts = {"text": [text[label].numpy()], "blip_caption": "", "msft_caption": "", "retrieval_text": []}
        np.save(folder / "points" / f"{name}.npy", np.array(sample | texts, dtype=object), allow_pickle=True)
        for view, feature in enumerate(row):
            np.save(folder / "images" / f"{name}-{view}.npy", feature)
    _write_json(folder / "points.json", {name: f"{name}.npy" for name in rows})
    _write_json(folder / "images.json", {name: [f"{name}-{view}" for view in range(NUM_VIEWS)] for name in rows})
    _write_json(folder / "filter.json", {})
    (folder / "uni3d.yaml").write_text(describe_paths(folder.resolve()))


def draw_points(path: Path) -> np.ndarray:
    """NUM_POINTS points of a file, float32 `[NUM_POINTS, 3]`, inside the unit ball and y upwards, always the same.

    Uni3D stacks objects, so that all have as many points, and turns them around y, where our files have z upwards.
    """
    points = read_points(path)
    chosen = np.random.default_rng(0).choice(len(points), NUM_POINTS, replace=len(points) < NUM_POINTS)
    x, y, z = points[chosen].T
    return np.stack([x, z, -y], axis=1).astype(np.float32)


def describe_paths(folder: Path) -> str:
    """The keys of Uni3D's configuration of a data set; its paths are put together as texts, so folders end in /."""
    keys = {
        "NAME": "Ensembled_embedding",
        "PC_PATH": folder / "points.json",
        "PC_PATH_LIVS": folder / "points.json",  # spelled so there
        "PC_PATH_ROOT": f"{folder / 'points'}/",
        "IMAGE_PATH": folder / "images.json",
        "IMAGE_PATH_ROOT": f"{folder / 'images'}/",
        "GPT_FILTER": folder / "filter.json",
    }
    return "".join(f"{key}: {json.dumps(str(value))}\n" for key, value in keys.items())


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content) + "\n")
