"""The configuration beside an export: open_clip and timm build the model that it came from, without editing."""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.support.trainer.evaclip_forward import FolderModel
from tests.support.trainer.layout_states import assert_same
from tests.support.trainer.small_models import pixels
from tests.support.trainer.torchvision_stub import oracle
from tests.support.trainer.tower_styles import randomise, shrunk
from trainer import export, export_configs, models, weights
from trainer.data import tokenizer
from trainer.models.clip import Clip
from trainer.models.config import ClipConfig
from trainer.objectives.contrastive_model import INITIAL_BIAS


def saved(config: ClipConfig, path: Path) -> Clip:
    """A model on random weights, and its file."""
    model = Clip(config).eval()
    randomise(model)
    weights.save_model(model, path)
    return model


def test_open_clip_builds_the_model_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_clip = oracle("open_clip")
    text = {"layers": 1, "width": 64, "heads": 2}
    ours = saved(models.config("eva02-b-16", text=text, embed_dim=32), tmp_path / "b.safetensors")
    assert export.main([str(tmp_path / "b.safetensors"), str(tmp_path / "out"), "--layout", "open_clip"]) == 0
    assert "with open_clip_config.json" in capsys.readouterr().out
    directory = f"local-dir:{tmp_path / 'out'}"
    theirs = open_clip.create_model(directory).eval()
    images, tokens = pixels(ours), tokenizer.tokenize(["a dog on the beach", "ein rotes Fahrrad"])
    with torch.no_grad():
        for found, expected in (
            (theirs.encode_image(images), ours.encode_image(images)),
            (theirs.encode_text(tokens), ours.encode_text(tokens)),
        ):
            torch.testing.assert_close(F.normalize(found, dim=-1), F.normalize(expected, dim=-1), atol=1e-6, rtol=0)
    assert torch.equal(open_clip.get_tokenizer(directory)(["a dog"]), tokenizer.tokenize(["a dog"]))
    assert theirs.visual.preprocess_cfg["mean"] == list(export_configs.MEAN)


def test_the_bias_of_siglip_is_in_open_clips_configuration() -> None:
    described = export_configs.describe_for("open_clip", models.config("eva02-l-14-336"), INITIAL_BIAS)
    assert described is not None and described[1]["model_cfg"]["init_logit_bias"] == INITIAL_BIAS
    assert described[1]["model_cfg"]["vision_cfg"]["timm_model_name"] == "eva02_large_patch14_clip_336"


@pytest.mark.parametrize("name", ["eva01-g-14", "eva02-b-16", "eva02-l-14-336", "eva02-e-14"])
def test_timm_builds_the_image_tower_of_a_folder(name: str, tmp_path: Path) -> None:
    timm = oracle("timm")
    ours = saved(shrunk(name), tmp_path / "c.safetensors")
    assert export.main([str(tmp_path / "c.safetensors"), str(tmp_path / "out"), "--layout", "timm"]) == 0
    theirs = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    images = pixels(ours)
    with torch.no_grad():
        torch.testing.assert_close(theirs(images), ours.encode_image(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["eva-clip-8b", "eva-clip-18b"])
def test_baais_code_computes_our_features_from_a_folder(name: str, tmp_path: Path) -> None:
    ours = saved(shrunk(name), tmp_path / "c.safetensors")
    assert export.main([str(tmp_path / "c.safetensors"), str(tmp_path / "out"), "--layout", "huggingface"]) == 0
    theirs = FolderModel(tmp_path / "out")
    images, tokens = pixels(ours), tokenizer.tokenize(["a dog on the beach", "ein rotes Fahrrad"])
    with torch.no_grad():
        torch.testing.assert_close(theirs.encode_image(images), ours.encode_image(images), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(theirs.encode_text(tokens), ours.encode_text(tokens), atol=1e-5, rtol=1e-5)
    assert not theirs.unused
    assert theirs.config["projection_dim"] == ours.config.embed_dim
    assert theirs.config["logit_scale_init_value"] == pytest.approx(-math.log(ours.config.temperature))
    assert_same(models.load(tmp_path / "out"), ours)


def test_baais_code_is_told_the_sizes_and_only_of_models_that_it_is_for(tmp_path: Path) -> None:
    saved(shrunk("eva-clip-18b"), tmp_path / "c.safetensors")
    assert export.main([str(tmp_path / "c.safetensors"), str(tmp_path / "out"), "--layout", "huggingface"]) == 0
    described = json.loads((tmp_path / "out" / "config.json").read_text())
    vision = described["vision_config"]
    assert (vision["hidden_size"], vision["num_attention_heads"], vision["intermediate_size"]) == (256, 2, 1280)
    assert vision["post_layernorm"] and vision["use_rms_norm"] and not vision["q_bias"]
    assert described["text_config"]["q_bias"] and described["projection_dim"] == 64
    assert export_configs.describe_for("huggingface", models.config("eva02-b-16"), None) is None


@pytest.mark.parametrize(("name", "layout"), [("debug", "open_clip"), ("eva-clip-18b", "timm")])
def test_a_model_that_a_library_has_no_classes_for_gets_no_file(
    name: str, layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(models.config("debug") if name == "debug" else shrunk(name), tmp_path / "c.safetensors")
    assert export.main([str(tmp_path / "c.safetensors"), str(tmp_path / "out"), "--layout", layout]) == 0
    assert f"{layout} has no configuration for this model" in capsys.readouterr().out
    assert len(list((tmp_path / "out").iterdir())) == 1


def test_a_file_of_another_name_gets_no_configuration_that_a_second_one_would_replace(tmp_path: Path) -> None:
    saved(shrunk("eva02-b-16"), tmp_path / "c.safetensors")
    assert export.main([str(tmp_path / "c.safetensors"), str(tmp_path / "t.safetensors"), "--layout", "timm"]) == 0
    assert not (tmp_path / "config.json").exists()
    (tmp_path / "file").touch()
    assert export.main([str(tmp_path / "c.safetensors"), str(tmp_path / "file"), "--layout", "timm"]) == 2


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_files_have_the_mode_that_the_umask_leaves(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        weights.save_model(models.build("debug"), tmp_path / "c.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "c.safetensors").stat().st_mode) == 0o666 & ~mask
