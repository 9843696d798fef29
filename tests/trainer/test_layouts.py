"""Layouts, written by hand as their makers write them, come in and go out without loss."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.trainer.layout_states import State, assert_same, baai_state, hugging_face_state, random_model
from tests.support.trainer.tower_styles import SHRUNK, shrunk
from trainer import models, weights
from trainer.models.clip import Clip
from trainer.weight_files import WeightFile


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        *((baai_state, name) for name in SHRUNK),
        (hugging_face_state, "eva-clip-8b"),
        (hugging_face_state, "eva-clip-18b"),
    ],
)
def test_hand_written_layouts_load_whole(name: str, layout: Callable[[Clip], State], tmp_path: Path) -> None:
    expected = random_model(shrunk(name))
    save_file(layout(expected), tmp_path / "model.safetensors")
    model = Clip(shrunk(name))
    report = weights.fill_model(model, WeightFile(tmp_path / "model.safetensors"))
    assert_same(model, expected)
    assert len(report.matched) == len(expected.state_dict()) and not report.fresh and not report.resized


@pytest.mark.parametrize("name", [*SHRUNK, "debug"])
@pytest.mark.parametrize("layout", ["native", "baai", "open_clip", "huggingface"])
def test_each_layout_goes_out_and_comes_back(name: str, layout: str, tmp_path: Path) -> None:
    expected = random_model(models.config("debug") if name == "debug" else shrunk(name))
    weights.save_model(expected, tmp_path / "out.safetensors", layout)
    assert_same(weights.load_model(tmp_path / "out.safetensors"), expected)


def test_what_is_written_is_what_others_write() -> None:
    eva02, eva8b = random_model(shrunk("eva02-b-16")), random_model(shrunk("eva-clip-8b"))
    assert set(weights.export_state(eva02.state_dict(), eva02.config, "baai")) == set(baai_state(eva02))
    written = weights.export_state(eva8b.state_dict(), eva8b.config, "huggingface")
    by_hand = hugging_face_state(eva8b)
    by_hand.pop("vision_model.embeddings.position_ids")
    assert {name: tensor.shape for name, tensor in written.items()} == {n: t.shape for n, t in by_hand.items()}
    assert all(torch.equal(written[name], by_hand[name]) for name in written)
