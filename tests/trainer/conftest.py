"""A set to evaluate on and a model to evaluate, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.trainer import evaluation_set
from tests.support.trainer.tower_styles import randomise
from trainer import models, weights


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of pictures, its captions beside it."""
    folder = evaluation_set.write_classes(tmp_path_factory.mktemp("set") / "colours")
    evaluation_set.write_captions(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A debug model on random weights."""
    model = models.build("debug")
    randomise(model)
    path = tmp_path_factory.mktemp("weights") / "debug.safetensors"
    weights.save_model(model, path)
    return path
