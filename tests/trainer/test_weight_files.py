"""Files of weights: wrappers, shards and prefixes are read, code and broken files are refused."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from curation.errors import UserError
from tests.support.trainer.layout_states import assert_same, baai_state, hugging_face_state, random_model
from tests.support.trainer.tower_styles import shrunk
from trainer import models, weights
from trainer.models.clip import Clip
from trainer.weight_files import WeightFile


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


def test_text_tower_of_a_clip_that_keeps_it_at_the_root(tmp_path: Path) -> None:
    teacher = random_model(shrunk("eva02-b-16"))
    state = {name.removeprefix("text."): t for name, t in baai_state(teacher).items() if not name.startswith("visual")}
    torch.save(state | {"visual.conv1.weight": torch.ones(2, 3, 4, 4)}, tmp_path / "clip.pt")
    model = Clip(shrunk("eva02-b-16"))
    weights.fill_towers(model, text=tmp_path / "clip.pt")
    assert torch.equal(model.text.head.weight, teacher.text.head.weight)


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


@pytest.mark.parametrize("names", [["../other.bin"], ["/etc/hostname"], [3], "a.bin", None])
def test_an_index_names_files_beside_it_alone(names: object, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    torch.save({"visual.cls_token": torch.ones(1)}, tmp_path / "other.bin")
    weight_map = dict(enumerate(names)) if isinstance(names, list) else names
    (tmp_path / "folder" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match="index.json") as caught:
        WeightFile(tmp_path / "folder")
    assert "\n" not in str(caught.value)


def test_a_deep_index_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="no whole index"):
        WeightFile(tmp_path)


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(1).expand(1 << 40), torch.empty(1 << 40, device="meta"), torch.eye(4).to_sparse()],
    ids=["expanded", "meta", "sparse"],
)
def test_a_tensor_without_its_elements_is_refused(tensor: torch.Tensor, tmp_path: Path) -> None:
    torch.save({"visual.cls_token": tensor}, tmp_path / "c.pt")
    with pytest.raises(UserError, match="does not hold all elements of visual.cls_token"):
        WeightFile(tmp_path / "c.pt")


def test_a_wrapper_around_itself_ends(tmp_path: Path) -> None:
    state: dict[str, object] = {}
    state["model"] = state
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(UserError, match="no tensors"):
        WeightFile(tmp_path / "c.pt")


@pytest.mark.parametrize("layout", ["native", "open_clip", "baai", "huggingface"])
def test_the_bias_of_siglip_may_stand_beside_any_layout(layout: str, tmp_path: Path) -> None:
    expected = random_model(models.config("debug"))
    state = weights.export_state(expected.state_dict(), expected.config, layout)
    save_file({name: t.contiguous().clone() for name, t in state.items()} | {"logit_bias": torch.tensor(-10.0)},
              tmp_path / "c.safetensors")  # fmt: skip
    assert_same(models.load(tmp_path / "c.safetensors"), expected)
    report = weights.fill_model(Clip(models.config("debug")), WeightFile(tmp_path / "c.safetensors"))
    assert report.ignored == ("logit_bias",)
