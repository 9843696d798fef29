"""Whole runs on CPU ranks: killed, told to stop, resumed, resized, poisoned; the losses say whether it is one run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.trainer.ranks import launch
from tests.support.trainer.toy import losses, records
from trainer import export, models


def run(num_ranks: int, folder: Path, overrides: list[str], status: int = 0, **arguments: Any) -> str:
    """The toy on `num_ranks` processes; rank 0's output."""
    what = json.dumps({"folder": str(folder), "overrides": overrides, **arguments})
    command = [sys.executable, "-m", "tests.support.trainer.ranks", "tests.support.trainer.toy:train", what]
    return launch(num_ranks, command, status=status)


STAGE_1 = ["zero.stage=1", "checkpoint.every_steps=2"]


STAGE_3 = [
    "zero.stage=3", "checkpoint.every_steps=2", "optim.name=lamb", "train.precision=bf16", "train.micro_batch_size=4",
    "zero.extra.zero_optimization.stage3_param_persistence_threshold=0",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "gap"), [(STAGE_1, 1e-4), (STAGE_3, 0.05)], ids=["stage-1", "stage-3-lamb-bf16"])
def test_a_killed_run_goes_on_with_the_same_losses(settings: list[str], gap: float, tmp_path: Path) -> None:
    run(2, tmp_path / "whole", settings)
    wanted = losses(tmp_path / "whole")
    assert sorted(wanted) == [1, 2, 3, 4, 5, 6] and wanted[6] < wanted[1]
    killed = tmp_path / "killed"
    run(2, killed, settings, status=-9, die_at=3)
    assert sorted(losses(killed)) == [1, 2, 3]
    shutil.copytree(killed, tmp_path / "alone")
    run(2, killed, settings)
    assert losses(killed) == wanted
    assert_exported(killed, "step-00000006")
    # Half the ranks: the same batches in other shares, from partitions that were cut for two.
    run(1, tmp_path / "alone", [*settings, f"folder={tmp_path / 'alone'}"])
    found = losses(tmp_path / "alone")
    assert sorted(found) == sorted(wanted)
    gaps = {step: abs(found[step] - wanted[step]) for step in wanted}
    assert max(gaps.values()) < gap, gaps


def assert_exported(folder: Path, step: str) -> None:
    """The last checkpoint's partitions, joined by the command, are the weights that the run itself wrote."""
    target = folder / "exported.safetensors"
    assert export.main([str(folder / "checkpoints" / step), str(target)]) == 0
    found, wanted = load_file(target), load_file(folder / "model.safetensors")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0, msg=name)


@pytest.mark.slow
def test_unsharded_checkpoints_export_too(tmp_path: Path) -> None:
    run(1, tmp_path, ["zero.stage=0", "phases.0.samples=16", "train.temperature=0.01", "train.loss=siglip"])
    assert_exported(tmp_path, "step-00000001")
    found = load_file(tmp_path / "exported.safetensors")
    assert found["logit_scale"].exp().item() == pytest.approx(100) and found["logit_bias"].item() != -10


@pytest.mark.slow
def test_sigterm_saves_and_phases_change_resolution_and_patch_drop(tmp_path: Path) -> None:
    settings = ["phases=[{samples = 64}, {samples = 48, patch_drop = 0.5, image_size = 32}]", "checkpoint.keep_last=9"]
    output = run(1, tmp_path, settings, stop_at=6)
    assert sorted(losses(tmp_path)) == [1, 2, 3, 4, 5, 6] and "wrote" not in output
    assert (tmp_path / "checkpoints" / "latest").read_text() == "step-00000006"
    output = run(1, tmp_path, settings)
    found = records(tmp_path)
    run(1, tmp_path / "whole", settings)
    assert losses(tmp_path) == losses(tmp_path / "whole")
    assert [found[step]["phase"] for step in range(1, 8)] == [0, 0, 0, 0, 1, 1, 1]
    assert found[5]["samples"] == 80 and all(record["applied"] for record in found.values())
    rates = [found[step]["lr"] for step in range(1, 8)]
    assert rates[0] == pytest.approx(5e-4) and rates[1] == pytest.approx(1e-3) and rates[1:] == sorted(rates[1:])[::-1]
    trained = models.load(tmp_path / "model.safetensors")
    assert trained.visual.config.image_size == 32
    assert "resumed" in output and "deepspeed configuration" in output
    needed = {"loss", "lr", "temperature", "grad_norm", "samples_per_s", "samples_per_s_per_gpu", "tflops_per_gpu"}
    assert needed | {"mfu", "memory_gb", "data_wait_share", "step_time_s", "num_skipped"} <= found[7].keys()


@pytest.mark.slow
def test_a_poisoned_batch_is_skipped_and_only_poison_ends_the_run(tmp_path: Path) -> None:
    run(1, tmp_path / "one", ["zero.stage=2", "train.precision=bf16", "log.tensorboard=true"], poisoned=[2])
    found = records(tmp_path / "one")
    assert [found[step]["applied"] for step in range(1, 7)] == [True, True, False, True, True, True]
    assert found[3]["loss"] is None and found[3]["grad_norm"] is None and found[6]["num_skipped"] == 1
    assert all(found[step]["loss"] > 0 for step in (4, 5, 6))
    assert _scalars(tmp_path / "one" / "tensorboard")["loss"][-1] == pytest.approx(found[6]["loss"])
    settings = ["train.max_skipped_steps=2"]
    output = run(2, tmp_path / "all", settings, status=2, poisoned=[1, 2, 3, 4, 5])
    assert "Training stopped: 2 steps in a row were skipped" in output and "Traceback" not in output
    assert sorted(records(tmp_path / "all")) == [1, 2, 3]


def _scalars(folder: Path) -> dict[str, list[float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.slow
def test_checkpoints_by_time_are_of_the_same_step_on_every_rank(tmp_path: Path) -> None:
    run(2, tmp_path, ["checkpoint.every_minutes=1e-6", "checkpoint.keep_last=9", "phases.0.samples=48"])
    names = sorted(path.parent.name for path in (tmp_path / "checkpoints").glob("step-*/trainer.json"))
    assert names == ["step-00000001", "step-00000002", "step-00000003"]


@pytest.mark.slow
def test_a_phase_with_smaller_micro_batches_trains_on_the_same_batches(tmp_path: Path) -> None:
    phases = "phases=[{{samples = 48}}, {{samples = 48, {}}}]"
    for name, micro in (("whole", "patch_drop = 0.0"), ("parts", "micro_batch_size = 4")):
        run(1, tmp_path / name, [phases.format(micro), "zero.stage=0"])
    wanted, found = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert sorted(found) == [1, 2, 3, 4, 5, 6]
    assert max(abs(found[step] - wanted[step]) for step in wanted) < 1e-4


@pytest.mark.slow
def test_offload_and_siglip_and_staged_saves(tmp_path: Path) -> None:
    settings = [
        "zero.stage=2", "zero.offload_optimizer=true", "train.loss=siglip", "optim.name=lion",
        "model.grad_checkpointing=true",
        f"checkpoint.staging={tmp_path / 'fast'}", "checkpoint.every_steps=2", "checkpoint.keep_last=2",
    ]  # fmt: skip
    run(2, tmp_path / "run", settings)
    found = losses(tmp_path / "run")
    assert found[6] < found[1]
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert names == ["step-00000004", "step-00000006"]
    assert not list((tmp_path / "fast").glob("step-*"))


@pytest.mark.slow
def test_sharded_from_birth_with_offload_weights_and_a_new_resolution(tmp_path: Path) -> None:
    run(1, tmp_path / "first", ["phases.0.samples=32"])
    settings = [
        "zero.stage=3", "zero.offload_optimizer=true", "zero.offload_parameters=true", "optim.name=lamb",
        f"model.weights={tmp_path / 'first' / 'model.safetensors'}", "train.temperature=0.01",
        "phases=[{samples = 32}, {samples = 32, image_size = 32}]",
        "zero.extra.zero_optimization.stage3_param_persistence_threshold=0",
    ]  # fmt: skip
    run(2, tmp_path / "second", settings)
    found = records(tmp_path / "second")
    assert [found[step]["temperature"] for step in range(1, 5)] == pytest.approx([0.01] * 4)
    assert all(record["applied"] for record in found.values())
    first, second = (models.load(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert second.visual.config.image_size == 32
    moved = (first.text.head.weight - second.text.head.weight).abs().max().item()
    assert 0 < moved < 0.1, "it started from the weights that it was given"


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "gap"), [("fp32", 1e-5), ("bf16", 0.08)])
def test_an_unsharded_run_goes_on_exactly_and_is_a_sharded_one(precision: str, gap: float, tmp_path: Path) -> None:
    settings = ["zero.stage=0", "checkpoint.every_steps=2", f"train.precision={precision}", "checkpoint.keep_last=9"]
    run(2, tmp_path / "whole", settings)
    wanted = losses(tmp_path / "whole")
    killed = tmp_path / "killed"
    run(2, killed, settings, status=-9, die_at=3)
    run(2, killed, settings)
    assert losses(killed) == wanted
    assert_exported(killed, "step-00000006")
    run(2, tmp_path / "sharded", [*settings, "zero.stage=1"])
    assert losses(tmp_path / "sharded") == pytest.approx(wanted, abs=gap)
