"""Features of views and classes as files: those of the model, in the order of the objects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.support.trainer import point_sets
from trainer import evaluate, models, point_features, uni3d_files
from trainer.data import EvalTransform, tokenizer
from trainer.data.transforms import lookup_tables, normalise
from trainer.evaluation import points, prompts
from trainer.launch import Rank


def test_the_files_hold_the_models_features(checkpoint: Path, tmp_path: Path) -> None:
    folder = point_sets.write_classes(tmp_path / "set")
    sets = [f"eval.points.solids={folder}", "eval.views=3", "eval.batch_size=4"]
    settings = evaluate.read_settings(None, str(checkpoint), sets)
    device = torch.device("cpu")
    engine = evaluate.load_frozen_model(settings, device)
    point_features.write_features(engine, settings, Rank(), device, tmp_path / "out")
    out = tmp_path / "out" / "solids"
    image, text = np.load(out / "image_features.npy"), np.load(out / "text_features.npy")
    objects = [line.split("\t") for line in (out / "objects.tsv").read_text().splitlines()]
    assert image.shape == (6, 3, 32) and text.shape == (2, 32)
    assert [label for _, label in objects] == ["box"] * 3 + ["pyramid"] * 3
    model, transform = models.load(checkpoint), EvalTransform(64, "squash")
    with torch.no_grad():
        for row, (path, _) in zip(image, objects, strict=True):
            views = points.PointCloud("x", Path(path), 3).read_frames()
            pixels = normalise([transform(view, np.empty(0)) for view in views], 3, 64, lookup_tables())
            expected = F.normalize(model.encode_image(pixels), dim=-1)
            assert row == pytest.approx(expected.numpy(), abs=1e-5)
        words = [template.replace("{}", "pyramid") for template in prompts.POINT_CLOUDS]
        mean = F.normalize(model.encode_text(tokenizer.tokenize(words)), dim=-1).mean(0)
    assert text[1] == pytest.approx(F.normalize(mean, dim=-1).numpy(), abs=1e-5)


def test_uni3ds_files_hold_what_its_data_set_asks_of_them(checkpoint: Path, tmp_path: Path) -> None:
    folder = point_sets.write_classes(tmp_path / "set")
    line = ["--weights", str(checkpoint), "--set", f"eval.points.solids={folder}", "--set", "eval.batch_size=20"]
    assert point_features.main([*line, "--out", str(tmp_path / "out"), "--layout", "uni3d"]) == 0
    out = tmp_path / "out" / "solids"
    keys = dict(line.split(": ", 1) for line in (out / "uni3d.yaml").read_text().splitlines())
    paths = {key: json.loads(value) for key, value in keys.items()}
    assert paths["NAME"] == "Ensembled_embedding" and json.loads(Path(paths["GPT_FILTER"]).read_text()) == {}
    image, text = np.load(out / "image_features.npy"), np.load(out / "text_features.npy")
    points, images = (json.loads(Path(paths[key]).read_text()) for key in ("PC_PATH", "IMAGE_PATH"))
    assert list(points) == list(images) and len(points) == 6 and paths["PC_PATH_LIVS"] == paths["PC_PATH"]
    for number, name in enumerate(points):
        sample = np.load(paths["PC_PATH_ROOT"] + points[name], allow_pickle=True).item()
        assert sample["xyz"].shape == sample["rgb"].shape == (10_000, 3) and sample["xyz"].dtype == np.float32
        assert np.linalg.norm(sample["xyz"], axis=1).max() <= 1.001
        assert np.array_equal(sample["text"][0], text[number // 3]) and sample["retrieval_text"] == []
        assert len(sample["blip_caption"]) == len(sample["msft_caption"]) == 0
        views = [np.load(f"{paths['IMAGE_PATH_ROOT']}{view}.npy") for view in images[name]]
        assert np.array_equal(np.stack(views), image[number]) and len(views) == 10


def test_uni3ds_points_have_y_upwards_and_a_small_cloud_gives_some_twice(tmp_path: Path) -> None:
    np.save(tmp_path / "pole.npy", np.array([[0, 0, height] for height in range(50)], dtype=np.float32))
    drawn = uni3d_files.draw_points(tmp_path / "pole.npy")
    assert drawn.shape == (10_000, 3) and not drawn[:, [0, 2]].any() and len(np.unique(drawn[:, 1])) == 50


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([], "There are no point clouds"),
        (["--set", "eval.points.x=absent"], "There is no folder absent"),
        (["--set", "eval.views=0"], "views must be positive"),
        (["--set", "eval.points.x=y", "--set", "eval.views=4", "--layout", "uni3d"], "draws from 10 views, not 4"),
    ],
)
def test_wrong_use_is_one_sentence(
    more: list[str], says: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert point_features.main(["--weights", str(checkpoint), *more, "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1
