"""Files of weights: wrappers, shards and prefixes are read, code and broken files are refused."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
