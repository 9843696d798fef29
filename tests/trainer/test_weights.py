"""Checkpoints in every layout, written by hand as their makers write them, and the ones that have to be refused."""

import argparse
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from curation.errors import UserError
from tests.support.trainer.ranks import run_ranks
from tests.support.trainer.tower_styles import SHRUNK, randomise, shrunk
from tests.support.trainer.zero_init_worker import worker_config
from trainer import models, weights
from trainer.models.clip import Clip
from trainer.models.config import ClipConfig
from trainer.models.mim import MaskedImageModel
from trainer.weight_files import WeightFile

State = dict[str, Tensor]


def random_model(config: ClipConfig) -> Clip:
    """A model without a one or a zero anywhere."""
    model = Clip(config)
    randomise(model)
    return model


def moved(state: State, renames: list[tuple[str, str]]) -> State:
    """Apply regular expressions to names, in order."""
    out = {}
    for name, tensor in state.items():
        for old, new in renames:
            name = re.sub(old, new, name)
        out[name] = tensor
    return out


def split(state: State, pattern: str, parts: list[str]) -> State:
    """Unstack every tensor whose name matches into parts named by replacing the match."""
    out = {}
    for name, tensor in state.items():
        if re.search(pattern, name):
            for part, piece in zip(parts, tensor.chunk(len(parts)), strict=True):
                out[re.sub(pattern, part, name)] = piece.clone()
        else:
            out[name] = tensor
    return out


def baai_state(model: Clip) -> State:
    """The layout of BAAI's released files, by the list in EVA-CLIP's own model code."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if model.config.vision.sub_norm:
        state = split(state, r"(?<=visual\.blocks\.\d\.attn\.)qkv\.weight", [f"{p}_proj.weight" for p in "qkv"])
        state = split(state, r"mlp\.w12", ["mlp.w1", "mlp.w2"])
    state = moved(
        state,
        [
            (r"patch_embed\.", "patch_embed.proj."),
            (r"attn\.qkv\.([qv]_bias)", r"attn.\1"),
            (r"(visual.*)attn\.norm", r"\1attn.inner_attn_ln"),
            (r"(visual.*)mlp\.norm", r"\1mlp.ffn_ln"),
            (r"text\.blocks", "text.transformer.resblocks"),
            (r"(text.*)norm([12])", r"\1ln_\2"),
            (r"(text.*)attn\.qkv\.", r"\1attn.in_proj_"),
            (r"(text.*)attn\.proj", r"\1attn.out_proj"),
            (r"(text.*)mlp\.fc1", r"\1mlp.c_fc"),
            (r"(text.*)mlp\.fc2", r"\1mlp.c_proj"),
            (r"text\.norm", "text.ln_final"),
        ],
    )
    state["text.text_projection"] = state.pop("text.head.weight").T.contiguous()
    state["logit_scale"] = state["logit_scale"].squeeze()
    return state


def hugging_face_state(model: Clip) -> State:
    """The layout of BAAI/EVA-CLIP-8B and -18B, by the list in their modeling_evaclip.py."""
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = split(state, r"attn\.qkv\.(?=weight|bias)", [f"self_attn.{part}_proj." for part in "qkv"])
    state = moved(
        state,
        [
            (r"^visual\.head\.", "visual_projection."),
            (r"^text\.head\.", "text_projection."),
            (r"^visual\.", "vision_model."),
            (r"^text\.", "text_model."),
            (r"blocks\.", "encoder.layers."),
            (r"\.norm([12])\.", r".layer_norm\1."),
            (r"\.attn\.proj\.", ".self_attn.out_proj."),
            (r"vision_model\.norm", "vision_model.post_layernorm"),
            (r"text_model\.norm", "text_model.final_layer_norm"),
            (r"patch_embed\.", "embeddings.patch_embedding."),
            (r"vision_model\.cls_token", "vision_model.embeddings.class_embedding"),
            (r"vision_model\.pos_embed", "vision_model.embeddings.position_embedding.weight"),
            (r"text_model\.token_embedding", "text_model.embeddings.token_embedding"),
            (r"text_model\.positional_embedding", "text_model.embeddings.position_embedding.weight"),
        ],
    )
    for name in ("vision_model.embeddings.class_embedding", "vision_model.embeddings.position_embedding.weight"):
        state[name] = state[name].squeeze()
    state["logit_scale"] = state["logit_scale"].squeeze()
    state["vision_model.embeddings.position_ids"] = torch.arange(257).reshape(1, -1)
    return state


def assert_same(model: Clip, expected: Clip) -> None:
    """Every parameter bit for bit."""
    found = model.state_dict()
    assert set(found) == set(expected.state_dict())
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found[name], tensor), name


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


@pytest.mark.parametrize("root", ["model", "module", "state_dict"])
def test_training_checkpoints_with_wrappers_tables_and_arguments(root: str, tmp_path: Path) -> None:
    expected = random_model(shrunk("eva02-b-16"))
    state = {f"module.{name}": tensor.half() for name, tensor in baai_state(expected).items()}
    state["module.visual.rope.freqs_cos"] = torch.ones(196, 64)
    state["module.visual.blocks.0.attn.rope.freqs_sin"] = torch.ones(196, 64)
    torch.save({root: state, "epoch": 3, "args": argparse.Namespace(lr=1e-3)}, tmp_path / "epoch_3.pt")
    model = Clip(shrunk("eva02-b-16"))
    report = weights.fill_model(model, WeightFile(tmp_path / "epoch_3.pt"))
    assert_same(model, expected.half().float())
    assert len(report.ignored) == 2 and "2 ignored" in str(report)


def test_sharded_hugging_face_folder(tmp_path: Path) -> None:
    expected = random_model(shrunk("eva-clip-8b"))
    state = hugging_face_state(expected)
    names = sorted(state)
    shards = {"pytorch_model-00001.bin": names[::2], "pytorch_model-00002.bin": names[1::2]}
    for file, part in shards.items():
        torch.save({name: state[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    model = Clip(shrunk("eva-clip-8b"))
    weights.fill_model(model, WeightFile(tmp_path))
    assert_same(model, expected)
    (tmp_path / "pytorch_model-00002.bin").unlink()
    with pytest.raises(UserError, match="00002.bin"):
        WeightFile(tmp_path)


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


def test_text_tower_of_a_clip_that_keeps_it_at_the_root(tmp_path: Path) -> None:
    teacher = random_model(shrunk("eva02-b-16"))
    state = {name.removeprefix("text."): t for name, t in baai_state(teacher).items() if not name.startswith("visual")}
    torch.save(state | {"visual.conv1.weight": torch.ones(2, 3, 4, 4)}, tmp_path / "clip.pt")
    model = Clip(shrunk("eva02-b-16"))
    weights.fill_towers(model, text=tmp_path / "clip.pt")
    assert torch.equal(model.text.head.weight, teacher.text.head.weight)


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


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (os.environ["BOMB_PATH"],))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB_PATH", str(tmp_path / "ran"))
    torch.save({"model": {"visual.cls_token": torch.ones(1)}, "extra": _Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(UserError, match="bomb.pt"):
        models.load(tmp_path / "bomb.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", "half"])
def test_a_broken_file_is_one_sentence(suffix: str, content: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / f"broken{suffix}"
    if content == "half":
        state = {"visual.cls_token": torch.ones(1000)}
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    assert isinstance(content, bytes)
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"broken{suffix}") as caught:
        models.load(path)
    assert "\n" not in str(caught.value)


def test_unknown_layout_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="open_clip"):
        weights.save_model(models.build("debug"), tmp_path / "x.safetensors", "onnx")


def test_header_holds_the_configuration(tmp_path: Path) -> None:
    weights.save_model(models.build("debug", embed_dim=16), tmp_path / "x.safetensors", "open_clip")
    with safe_open(str(tmp_path / "x.safetensors"), framework="pt") as file:
        assert json.loads(file.metadata()["clip_config"])["embed_dim"] == 16


def test_sharded_parameters_are_filled_on_every_rank(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    save_file(baai_state(random_model(worker_config().override(image_size=112))), tmp_path / "e.safetensors")
    run_ranks(2, "tests.support.trainer.zero_init_worker:fill", path=str(tmp_path / "e.safetensors"))
