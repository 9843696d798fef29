"""Weights into models, whole or tower by tower, and what has to be refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from curation.errors import UserError
from tests.support.trainer.layout_states import State, assert_same, baai_state, random_model
from tests.support.trainer.ranks import run_ranks
from tests.support.trainer.tower_styles import randomise, shrunk
from tests.support.trainer.zero_init_worker import worker_config
from trainer import models, weights
from trainer.models.clip import Clip
from trainer.models.mim import MaskedImageModel
from trainer.weight_files import WeightFile


def test_load_finds_the_model_by_its_shapes(tmp_path: Path) -> None:
    expected = random_model(models.config("debug"))
    torch.save(baai_state(expected), tmp_path / "debug.bin")
    model = models.load(tmp_path / "debug.bin")
    assert_same(model, expected)
    assert not model.training and all(parameter.dtype == torch.float32 for parameter in model.parameters())
    half = models.load(tmp_path / "debug.bin", "debug", dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


def test_load_keeps_a_resolution_that_no_name_has(tmp_path: Path) -> None:
    expected = random_model(models.config("debug", image_size=96))
    torch.save(baai_state(expected), tmp_path / "debug96.pt")
    assert models.load(tmp_path / "debug96.pt").config.vision.image_size == 96
    resized = models.load(tmp_path / "debug96.pt", "debug")
    assert resized.visual.pos_embed.shape == (1, 17, 96)
    assert torch.equal(resized.visual.pos_embed[:, 0], expected.visual.pos_embed[:, 0])


def test_reading_a_model_back_does_not_tie_it_to_its_file(tmp_path: Path) -> None:
    torch.save(baai_state(random_model(models.config("debug"))), tmp_path / "debug.pt")
    before = (tmp_path / "debug.pt").read_bytes()
    model = models.load(tmp_path / "debug.pt")
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.is_contiguous()
            parameter.zero_()
    assert (tmp_path / "debug.pt").read_bytes() == before


def test_saving_replaces_the_file_only_when_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    model = random_model(models.config("debug"))
    weights.save_model(model, path)
    before = path.read_bytes()

    def full_disk(tensors: State, target: str, metadata: dict[str, str]) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(weights, "save_file", full_disk)
    with pytest.raises(OSError, match="space"):
        weights.save_model(model, path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


def mim_state(name: str) -> State:
    """A released EVA: the tower alone in BAAI's names, its mask token and head, and a classifier nobody wants."""
    tower = baai_state(random_model(shrunk(name)))
    state = {key.removeprefix("visual."): tensor for key, tensor in tower.items() if key.startswith("visual.")}
    width = state["cls_token"].shape[-1]
    state |= {"head.weight": torch.ones(64, width), "head.bias": torch.ones(64)}
    state |= {"mask_token": torch.ones(1, 1, width), "lm_head.weight": torch.ones(24, width)}
    return state | {"lm_head.bias": torch.ones(24), "rope.freqs_cos": torch.ones(4)}


@pytest.mark.parametrize("name", ["eva01-g-14", "eva02-b-16"])
def test_image_tower_starts_from_masked_image_modelling(name: str, tmp_path: Path) -> None:
    torch.save({"model": mim_state(name)}, tmp_path / "eva.pt")
    before, model = random_model(shrunk(name)), random_model(shrunk(name))
    with torch.no_grad():
        for parameter in model.visual.blocks.parameters():
            parameter.zero_()
    (report,) = weights.fill_towers(model, image=tmp_path / "eva.pt")
    assert_same(model, before)  # the same random tower, and head and text untouched
    assert report.fresh == ("visual.head.weight", "visual.head.bias")
    assert not any(name.startswith("text") for name in report.matched)
    assert {"mask_token", "lm_head.weight", "head.bias", "rope.freqs_cos"} <= set(report.ignored)


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    """Safetensors writes a header's metadata in the order of a hash map, which is another one at each call."""
    model = random_model(models.config("debug"))
    for number in range(12):
        weights.save_model(model, tmp_path / f"{number}.safetensors")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    assert_same(models.load(tmp_path / "0.safetensors"), model)


def test_student_saves_starts_a_clip_and_resumes(tmp_path: Path) -> None:
    config = models.config("debug")
    student = MaskedImageModel(config, teacher_dim=24)
    randomise(student)
    weights.write_tensors(
        weights.export_state(student.state_dict(), config, "mim"), config, tmp_path / "mim.safetensors"
    )
    assert {"mask_token", "lm_head.bias", "blocks.0.mlp.w1.weight"} <= set(load_file(tmp_path / "mim.safetensors"))
    weights.save_model(student, tmp_path / "native.safetensors")
    for file in ("mim.safetensors", "native.safetensors"):
        clip, resumed = Clip(config), MaskedImageModel(config, teacher_dim=24)
        weights.fill_towers(clip, image=tmp_path / file)
        weights.fill_model(resumed, WeightFile(tmp_path / file))
        for name, tensor in student.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], tensor)
            assert not name.startswith("visual.") or torch.equal(clip.state_dict()[name], tensor)


def test_text_tower_starts_from_a_clip_of_another_width(tmp_path: Path) -> None:
    """As 18B does, whose text tower is E+'s but whose space is wider."""
    teacher = random_model(shrunk("eva02-e-14").override(embed_dim=48))
    torch.save(baai_state(teacher), tmp_path / "e.pt")
    model = Clip(shrunk("eva-clip-18b"))
    fresh = model.text.head.weight.clone()
    (report,) = weights.fill_towers(model, text=tmp_path / "e.pt")
    assert report.fresh == ("text.head.weight",) and torch.equal(model.text.head.weight, fresh)
    assert len(report.matched) == len(model.text.state_dict()) - 1
    for name in report.matched:
        assert torch.equal(model.state_dict()[name], teacher.state_dict()[name])


def test_position_embedding_is_resized_on_the_way_in(tmp_path: Path) -> None:
    small = random_model(shrunk("eva02-l-14-336", image_size=224))
    torch.save(baai_state(small), tmp_path / "l.pt")
    model = Clip(shrunk("eva02-l-14-336"))
    (report,) = weights.fill_towers(model, image=tmp_path / "l.pt")
    assert report.resized == ("visual.pos_embed",) and "resized" in str(report)
    assert model.visual.pos_embed.shape == (1, 577, 128)


def _damage(kind: str, state: State) -> Any:
    width = state["visual.cls_token"].shape[-1]
    if kind == "missing":
        del state["visual.blocks.1.attn.k_proj.weight"]
    if kind == "left over":
        state["visual.blocks.3.norm1.weight"] = torch.ones(width)
    if kind == "other shape":
        state["visual.blocks.1.mlp.w2.weight"] = torch.ones(7, width)
    if kind == "learned key bias":
        state["visual.blocks.1.attn.k_bias"] = torch.ones(width)
    if kind == "no square grid":
        state["visual.pos_embed"] = torch.ones(1, 12, width)
    if kind == "another family":
        return {"conv1.weight": torch.ones(3)}
    return {"iteration": 7} if kind == "no tensors" else state


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "visual.blocks.1.attn.k_proj.weight"),
        ("left over", "visual.blocks.3.norm1.weight"),
        ("other shape", r"\[7, 128\]"),
        ("learned key bias", "visual.blocks.1.attn.k_bias"),
        ("no square grid", "visual.pos_embed"),
        ("another family", "conv1.weight"),
        ("no tensors", "no tensors"),
    ],
)
def test_a_checkpoint_of_another_model_is_one_sentence(kind: str, says: str, tmp_path: Path) -> None:
    state = baai_state(random_model(shrunk("eva02-b-16")))
    torch.save(_damage(kind, state), tmp_path / "wrong.pt")
    with pytest.raises(UserError, match=says) as caught:
        weights.fill_model(Clip(shrunk("eva02-b-16")), WeightFile(tmp_path / "wrong.pt"))
    assert "wrong.pt" in str(caught.value) and "\n" not in str(caught.value)


def test_a_key_bias_of_zero_is_no_difference(tmp_path: Path) -> None:
    expected = random_model(shrunk("eva01-g-14"))
    state = baai_state(expected) | {"visual.blocks.1.attn.k_bias": torch.zeros(176)}
    torch.save(state, tmp_path / "g.pt")
    model = Clip(shrunk("eva01-g-14"))
    weights.fill_model(model, WeightFile(tmp_path / "g.pt"))
    assert_same(model, expected)


def test_load_with_the_wrong_name_or_of_no_family_member(tmp_path: Path) -> None:
    torch.save(baai_state(random_model(models.config("debug"))), tmp_path / "debug.pt")
    with pytest.raises(UserError, match="another model"):
        models.load(tmp_path / "debug.pt", "eva02-b-16")
    torch.save(baai_state(random_model(shrunk("eva02-b-16"))), tmp_path / "odd.pt")
    with pytest.raises(UserError, match="family"):
        models.load(tmp_path / "odd.pt")
    with pytest.raises(UserError, match="no checkpoint at"):
        models.load(tmp_path / "absent.pt")
    with pytest.raises(UserError, match="model.safetensors"):
        models.load(tmp_path)


def test_unknown_layout_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="open_clip"):
        weights.save_model(models.build("debug"), tmp_path / "x.safetensors", "onnx")


def test_header_holds_the_configuration(tmp_path: Path) -> None:
    weights.save_model(models.build("debug", embed_dim=16), tmp_path / "x.safetensors", "open_clip")
    with safe_open(str(tmp_path / "x.safetensors"), framework="pt") as file:
        assert json.loads(file.metadata()["clip_config"])["embed_dim"] == 16


@pytest.mark.parametrize(
    ("tower", "field", "value"),
    [
        ("vision", "layers", 10**9), ("vision", "layers", 1e9), ("vision", "image_size", 10**9), ("vision", "width", 0),
        ("vision", "hidden_width", -1), ("vision", "rope_grid", 10**30), ("text", "vocab_size", 10**6),
        ("text", "context_length", 76), ("text", "layers", None), ("", "temperature", 0), ("", "temperature", "nan"),
        ("", "embed_dim", 64), ("", "vision", []), ("", "depth", 3),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_one_sentence_and_builds_nothing(
    tower: str, field: str, value: Any, tmp_path: Path
) -> None:
    model, path = models.build("debug"), tmp_path / "x.safetensors"
    weights.save_model(model, path)
    with safe_open(str(path), framework="pt") as file:
        config = json.loads(file.metadata()["clip_config"])
    (config[tower] if tower else config)[field] = value
    save_file(load_file(path), path, metadata={"clip_config": json.dumps(config)})
    with pytest.raises(UserError, match="The header of .*x.safetensors describes") as caught:
        models.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", "{}", "1" * 5_000])
def test_a_header_that_is_no_configuration_is_one_sentence(text: str, tmp_path: Path) -> None:
    save_file({"visual.cls_token": torch.ones(1)}, tmp_path / "x.safetensors", metadata={"clip_config": text})
    with pytest.raises(UserError, match="describes no model"):
        models.load(tmp_path / "x.safetensors")


@pytest.mark.slow
def test_sharded_parameters_are_filled_on_every_rank(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    save_file(baai_state(random_model(worker_config().override(image_size=112))), tmp_path / "e.safetensors")
    run_ranks(2, "tests.support.trainer.zero_init_worker:fill", path=str(tmp_path / "e.safetensors"))
