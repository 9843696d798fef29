"""DeepSpeed's files: read without running code, joined to whole tensors, and refused where they are not whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from curation.errors import UserError
from tests.support.trainer.ranks import run_ranks
from trainer import checkpoint, export, zero_files
from trainer.zero_files import MASTER

OPTIMIZER, MODEL = "zero_pp_rank_{}_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt"


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, (os.environ["BOMB_PATH"],))


@pytest.fixture
def bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Bomb:
    """An object that makes a folder `ran` when it is unpickled."""
    monkeypatch.setenv("BOMB_PATH", str(tmp_path / "ran"))
    return _Bomb()


def write_step(folder: Path, stage: int, **changes: object) -> Path:
    """A folder with a checkpoint's trainer.json, of one rank."""
    folder.mkdir()
    values: dict[str, object] = {
        "model": "debug", "image_size": 0, "optimizer": "adamw", "precision": "fp32", "zero_stage": stage,
        "world_size": 1, "batch_size": 4, "seed": 0, "step": 1, "phase": 0, "num_skipped": 0, "mean_loss": None,
    }  # fmt: skip
    (folder / checkpoint.META).write_text(json.dumps(values | changes))
    return folder


@pytest.mark.parametrize(
    ("stage", "file"), [(0, MODEL), (1, OPTIMIZER.format(0)), (1, MODEL), (3, OPTIMIZER.format(0))]
)
def test_an_export_runs_nothing_of_a_checkpoint(
    stage: int, file: str, bomb: _Bomb, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = write_step(tmp_path / "step-00000001", stage)
    group = {"param_slice_mappings": [], "single_partition_of_fp32_groups": [], "base_optimizer_state": {"state": {}}}
    torch.save({"optimizer_state_dict": group}, step / OPTIMIZER.format(0))
    torch.save({"module": {}, "param_shapes": []}, step / MODEL)
    torch.save({"module": bomb, "optimizer_state_dict": bomb}, step / file)
    assert export.main([str(step), str(tmp_path / "out.safetensors")]) == 2
    said = capsys.readouterr().err
    assert f"{file} holds the object posix.mkdir" in said and said.count("\n") == 1
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out.safetensors").exists()


def test_going_on_runs_nothing_of_a_checkpoint(bomb: _Bomb, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    torch.save({"module": bomb}, tmp_path / MODEL)
    with pytest.raises(UserError, match="posix.mkdir"):
        zero_files.read_live_file(tmp_path / MODEL)
    assert not (tmp_path / "ran").exists()


def test_a_loss_scale_is_read_as_numbers_and_for_an_engine_as_it_was(tmp_path: Path) -> None:
    loss_scaler = pytest.importorskip("deepspeed.runtime.fp16.loss_scaler")
    scaler = loss_scaler.DynamicLossScaler(2.0**12, 500, 1, 2, False)
    torch.save({"loss_scaler": scaler}, tmp_path / MODEL)
    record = zero_files.read_file(tmp_path / MODEL)["loss_scaler"]
    assert (record.numbers["cur_scale"], record.numbers["scale_window"]) == (4096, 500)
    live = zero_files.read_live_file(tmp_path / MODEL)["loss_scaler"]
    assert type(live) is type(scaler) and vars(live) == vars(scaler)


@pytest.mark.parametrize("stage", [0, 1, 3])
@pytest.mark.parametrize("content", [{}, {"optimizer_state_dict": 3}, [1], {"module": {"w": 1}, "param_shapes": 7}])
def test_files_of_another_structure_are_one_sentence(content: object, stage: int, tmp_path: Path) -> None:
    step = write_step(tmp_path / "step-00000001", stage)
    for file in (OPTIMIZER.format(0), MODEL):
        torch.save(content, step / file)
    with pytest.raises(UserError, match="step-00000001 is damaged, or no checkpoint") as caught:
        zero_files.join_weights(step, stage, 1)
    assert "\n" not in str(caught.value)


def test_a_step_without_its_files_is_one_sentence(tmp_path: Path) -> None:
    step = write_step(tmp_path / "step-00000001", 0)
    with pytest.raises(UserError, match="the model's file is missing"):
        zero_files.join_weights(step, 0, 1)
    with pytest.raises(UserError, match="the optimizer's file of rank 0 is missing"):
        zero_files.join_weights(step, 1, 1_000_000_000)


@pytest.mark.parametrize(
    "changes", [{"world_size": "two"}, {"step": None}, {"more": 1}, {"image_size": []}, {"zero_stage": True}]
)
def test_a_description_of_other_types_is_one_sentence(changes: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trainer.json cannot be read"):
        checkpoint.read_progress(write_step(tmp_path / "step-00000001", 1, **changes))


@pytest.mark.parametrize("text", ["../elsewhere", "/etc", "", "step-1", "\xff"])
def test_the_newest_checkpoint_is_looked_for_in_its_folder_alone(text: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    write_step(tmp_path / "elsewhere", 1)
    ours = write_step(folder / "step-00000004", 1)
    (folder / checkpoint.LATEST).write_bytes(text.encode("latin-1"))
    assert checkpoint.find_newest(folder) == ours


def test_a_deep_description_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / checkpoint.META).write_text("[" * 100_000)
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.read_progress(tmp_path)


@pytest.mark.parametrize("stage", [1, 3])
def test_weights_are_joined_as_deepspeed_joins_them(stage: int, tmp_path: Path) -> None:
    """Two ranks, a learned temperature of one element, and a fixed one, which DeepSpeed leaves out at stage 1."""
    arguments = {
        "folder": str(tmp_path), "precision": "bf16", "stages": [stage], "optimizers": ["adamw"],
        "temperatures": ["learned", "fixed"],
    }  # fmt: skip
    run_ranks(2, "tests.support.trainer.partitions_worker:save", **arguments)
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    for place in sorted(tmp_path.glob("adamw-*")):
        step = checkpoint.find_newest(place)
        assert step is not None
        wanted = dict(get_fp32_state_dict_from_zero_checkpoint(str(place), tag=step.name))
        found = zero_files.join_weights(step, stage, 2)
        assert found.keys() == {*wanted, "clip.logit_scale"}
        assert all(torch.equal(found[name].float(), wanted[name].float()) for name in wanted)
        assert found["clip.logit_scale"].shape == (1,) and not found["clip.visual.cls_token"].requires_grad


def test_a_stretch_that_is_missing_is_told(tmp_path: Path) -> None:
    step = write_step(tmp_path / "step-00000001", 3)
    state = {"optimizer_state_dict": {"state": {}}, "fp32_flat_groups": [torch.ones(2)]}
    torch.save({"optimizer_state_dict": state}, step / OPTIMIZER.format(0))
    torch.save(
        {"param_shapes": [{"w": torch.Size([3])}], "frozen_param_shapes": None}, step / f"zero_pp_rank_0_{MODEL}"
    )
    with pytest.raises(UserError, match="is damaged"):
        zero_files.join_weights(step, 3, 1)
    state["fp32_flat_groups"] = [torch.ones(3)]
    torch.save({"optimizer_state_dict": state}, step / OPTIMIZER.format(0))
    assert zero_files.read_pieces(step, 3, 1)["w"][0].values[MASTER].numel() == 3
    assert torch.equal(zero_files.join_weights(step, 3, 1)["w"], torch.ones(3))
