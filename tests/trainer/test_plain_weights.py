"""What is no plain CLIP that can be read, or does not say enough, is refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from curation.errors import UserError
from tests.support.trainer.plain_clips import build_theirs, write_hugging_face, write_open_clip
from trainer.encoders import find_embed_dim


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_open_clip(build_theirs(quick_gelu=True), tmp_path / "clip", quick_gelu=True)
    return tmp_path / "clip"


def test_a_file_alone_does_not_say_its_activation(folder: Path) -> None:
    with pytest.raises(UserError, match=r"which activation .* folder with the open_clip_config\.json"):
        find_embed_dim(folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(UserError, match="open_clip_config.json does not describe a CLIP"):
        find_embed_dim(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pool_type": "avg"}, "sets pool_type, which this loader does not know"),
        ({"attentional_pool": True}, "sets attentional_pool"),
    ],
)
def test_models_of_another_kind_are_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    write_open_clip(build_theirs(quick_gelu=True), tmp_path / "clip", quick_gelu=True, **change)
    with pytest.raises(UserError, match=said):
        find_embed_dim(tmp_path / "clip")


def test_pixels_of_other_statistics_are_refused(folder: Path) -> None:
    told = json.loads((folder / "open_clip_config.json").read_bytes())
    told["preprocess_cfg"] = {"mean": [0.5, 0.5, 0.5]}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="its pixels have another mean"):
        find_embed_dim(folder)


def test_a_tensor_too_few_or_too_many_is_named(folder: Path) -> None:
    file = folder / "open_clip_model.safetensors"
    whole = load_file(file)
    save_file({name: tensor for name, tensor in whole.items() if name != "visual.ln_pre.bias"}, file)
    with pytest.raises(UserError, match=r"visual\.ln_pre\.bias is missing, and has to be \[64\]"):
        find_embed_dim(folder)
    save_file(whole | {"visual.extra": torch.zeros(3)}, file)
    with pytest.raises(UserError, match=r"visual\.extra is \[3\], and has to be missing"):
        find_embed_dim(folder)
    save_file({name: tensor for name, tensor in whole.items() if name.startswith("visual.")}, file)
    with pytest.raises(UserError, match="no whole CLIP with two ViT towers"):
        find_embed_dim(folder)


def test_an_activation_that_is_unknown_is_refused(tmp_path: Path) -> None:
    write_hugging_face(build_theirs(quick_gelu=False), tmp_path / "clip", "silu")
    with pytest.raises(UserError, match="its activation is silu"):
        find_embed_dim(tmp_path / "clip")
