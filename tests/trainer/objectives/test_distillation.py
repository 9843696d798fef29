"""Masked image modelling: loss by hand, equal over ranks and micro-batches, one run when resumed, what it starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from curation.errors import UserError
from tests.support.trainer import distill_worker
from tests.support.trainer.ranks import launch, run_ranks
from tests.support.trainer.tower_styles import randomise
from tests.support.trainer.toy import losses
from trainer import config, distill, export, models, train, weights
from trainer.models.mim import MaskedImageModel
from trainer.objectives.distillation import Distillation, cosine_loss, load_teacher, teacher_config
from trainer.weight_files import WeightFile

MIM = ["distill.teacher=debug", "checkpoint.every_steps=2"]


def test_loss_is_minus_the_mean_cosine() -> None:
    predicted, wanted = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [0.0, -5.0]])
    assert cosine_loss(predicted, wanted).item() == pytest.approx(-(24 / 25 + 0) / 2)
    assert cosine_loss(predicted, 7 * predicted).item() == pytest.approx(-1)
    assert cosine_loss(predicted.bfloat16(), wanted.bfloat16()).dtype == torch.float32


def step_by_hand(before: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Loss and gradients of the whole batch, image by image, from modules alone."""
    student = MaskedImageModel(models.config("debug"), teacher_dim=32)
    student.load_state_dict(before)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        teacher = models.build("debug").eval()
    cosines = []
    for image, mask in zip(distill_worker.pixels(), distill_worker.masks(), strict=True):
        with torch.no_grad():
            features = teacher.encode_patches(image[None])[0]
        predicted = student(image[None], mask[None])
        for row, patch in zip(predicted, mask.nonzero().flatten(), strict=True):
            cosines.append(row @ features[patch] / (row.norm() * features[patch].norm()))
    loss = -torch.stack(cosines).mean()
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in student.named_parameters()}
    return {"loss": loss.detach(), **{name: g for name, g in gradients.items() if g is not None}}


@pytest.mark.parametrize(
    ("num_ranks", "overrides"),
    [
        (1, ["zero.stage=1", "train.micro_batch_size=2"]),
        pytest.param(2, ["zero.stage=3", "train.micro_batch_size=2"], marks=pytest.mark.slow),
        pytest.param(2, ["zero.stage=1"], marks=pytest.mark.slow),
    ],
)
def test_ranks_and_micro_batches_equal_a_loop_by_hand(num_ranks: int, overrides: list[str], tmp_path: Path) -> None:
    out, folder = tmp_path / "step.pt", str(tmp_path / "run")
    worker = "tests.support.trainer.distill_worker:save_step"
    run_ranks(num_ranks, worker, folder=folder, out=str(out), overrides=overrides)
    found = torch.load(out)
    wanted = step_by_hand(found["before"])
    torch.testing.assert_close(found["loss"], wanted.pop("loss"), rtol=1e-5, atol=1e-6)
    assert found["gradients"].keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found["gradients"][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


class _Engine:
    """A DeepSpeed engine's face on one process."""

    def __init__(self, module: MaskedImageModel) -> None:
        self.module = module
        self.num_backwards = 0

    def __call__(self, *inputs: Any) -> Any:
        return self.module(*inputs)

    def set_gradient_accumulation_boundary(self, last: bool) -> None:
        """Nothing to reduce."""

    def backward(self, value: torch.Tensor) -> None:
        """Plain autograd."""
        self.num_backwards += 1
        value.backward()


@pytest.mark.parametrize("parts", [1, 2])
def test_an_unsound_loss_leaves_no_gradient(parts: int, tmp_path: Path) -> None:
    objective = Distillation(distill_worker.settings(tmp_path))
    engine = _Engine(objective.build(None, None))
    batches = [{"pixels": part} for part in distill_worker.pixels().chunk(parts)]
    objective.step(engine, batches, torch.manual_seed, lambda _: False)
    assert engine.num_backwards == 0 and all(p.grad is None for p in engine.module.parameters())
    objective.step(engine, batches, torch.manual_seed, lambda _: True)
    assert engine.num_backwards == parts and all(p.grad is not None for p in engine.module.parameters())


def test_the_teacher_is_frozen_and_outside_the_student(tmp_path: Path) -> None:
    settings = distill_worker.settings(tmp_path)
    objective = Distillation(settings)
    engine = _Engine(objective.build(None, None))
    objective.step(engine, [{"pixels": distill_worker.pixels()}], torch.manual_seed, lambda _: True)
    teacher = objective._teacher
    assert not teacher.training and not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    groups = objective.parameter_groups(engine.module)
    grouped = {id(p) for group in groups for p in group["params"]}
    assert grouped == {id(p) for p in engine.module.parameters()}
    assert all(group["lr"] <= settings.optim.image.lr for group in groups)
    head = next(group for group in groups if any(p is engine.module.lm_head.weight for p in group["params"]))
    token = next(group for group in groups if any(p is engine.module.mask_token for p in group["params"]))
    assert (head["lr"], head["weight_decay"], token["weight_decay"]) == (1e-3, 0.1, 0.0)


def test_masks_and_mirroring_follow_the_seed_and_nothing_else(tmp_path: Path) -> None:
    settings = distill_worker.settings(tmp_path, "distill.flip_share=0.5", "distill.mask_share=0.25")
    objective = Distillation(settings)
    engine: Any = _Engine(objective.build(None, None))
    batch = {"pixels": distill_worker.pixels()}
    first = objective._prepare_inputs(engine, batch, torch.manual_seed, 3)
    again = objective._prepare_inputs(engine, batch, torch.manual_seed, 3)
    other = objective._prepare_inputs(engine, batch, torch.manual_seed, 4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
    assert first[1].sum(1).tolist() == [4] * 8 and first[2].shape == (32, 32)
    mirrored = [torch.equal(row, image.flip(-1)) for row, image in zip(first[0], batch["pixels"], strict=True)]
    assert 0 < sum(mirrored) < 8
    # The teacher looks at what the student is shown, mirrored or not.
    expected = objective._teacher(first[0])[first[1]]
    torch.testing.assert_close(first[2], expected)


def test_a_teacher_of_another_patch_size_has_as_many_patches() -> None:
    settings = config.load_config("mim-debug", ["distill.teacher=eva02-b-16", "model.name=eva02-l-14"])
    assert settings.distill is not None
    student = models.config("eva02-l-14")
    assert teacher_config(settings.distill, student).vision.image_size == 16 * 16
    settings = config.load_config("mim-debug")
    assert settings.distill is not None
    small = models.config("debug", image_size=48)
    teacher = load_teacher(settings, settings.distill, small, torch.device("cpu"))
    assert teacher(torch.randn(2, 3, 64, 64)).shape == (2, 9, 32)


def run(num_ranks: int, folder: Path, overrides: list[str], status: int = 0, **arguments: Any) -> str:
    """Distil the toy on `num_ranks` processes; rank 0's output."""
    what = json.dumps({"folder": str(folder), "overrides": [*MIM, *overrides], "distil": True, **arguments})
    command = [sys.executable, "-m", "tests.support.trainer.ranks", "tests.support.trainer.toy:train", what]
    return launch(num_ranks, command, status=status)


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_losses_and_starts_a_clip(tmp_path: Path) -> None:
    teacher = models.build("debug")
    randomise(teacher)
    weights.save_model(teacher, tmp_path / "teacher.safetensors")
    settings = ["zero.stage=3", f"distill.teacher_weights={tmp_path / 'teacher.safetensors'}"]
    run(2, tmp_path / "whole", settings)
    wanted = losses(tmp_path / "whole")
    assert sorted(wanted) == [1, 2, 3, 4, 5, 6] and wanted[6] < wanted[1] <= 1
    run(2, tmp_path / "killed", settings, status=-9, die_at=3)
    output = run(2, tmp_path / "killed", settings, stop_at=5)
    assert "resumed" in output and max(losses(tmp_path / "killed")) == 5
    run(2, tmp_path / "killed", settings)
    assert losses(tmp_path / "killed") == wanted
    student = load_file(tmp_path / "killed" / "model.safetensors")
    assert {"mask_token", "lm_head.weight", "blocks.0.mlp.w1.weight"} <= set(student)
    exported = tmp_path / "exported.safetensors"
    assert export.main([str(tmp_path / "killed" / "checkpoints" / "step-00000006"), str(exported)]) == 0
    joined = load_file(exported)
    assert joined.keys() == student.keys() and all(torch.equal(joined[name], student[name]) for name in student)
    # What came out is the image tower that contrastive training starts from.
    clip = models.build("debug")
    weights.fill_towers(clip, image=tmp_path / "killed" / "model.safetensors")
    assert torch.equal(clip.visual.pos_embed, student["pos_embed"])
    again = MaskedImageModel(models.config("debug"), teacher_dim=32)
    weights.fill_model(again, WeightFile(tmp_path / "killed" / "model.safetensors"))
    assert torch.equal(again.lm_head.weight, student["lm_head.weight"])


@pytest.mark.slow
def test_bfloat16_at_another_resolution(tmp_path: Path) -> None:
    phases = "phases=[{samples = 32}, {samples = 32, image_size = 32}]"
    run(1, tmp_path, ["zero.stage=2", "train.precision=bf16", "train.micro_batch_size=8", phases])
    found = losses(tmp_path)
    assert sorted(found) == [1, 2, 3, 4] and all(-1 <= loss <= 1 for loss in found.values())
    assert load_file(tmp_path / "model.safetensors")["pos_embed"].shape == (1, 5, 96)


def said(command: Any, capsys: pytest.CaptureFixture[str], name: str, *overrides: str) -> str:
    """The one sentence that a command ends in."""
    sets = [part for override in overrides for part in ("--set", override)]
    assert command.main(["--config", name, *sets]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_each_command_refuses_the_others_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert "run it with trainer.distill" in said(train, capsys, "mim-debug", "data.root=x")
    assert "run it with trainer.train" in said(distill, capsys, "debug", "data.root=x")
    assert "crop_scale goes" in said(distill, capsys, "mim-debug", "distill.crop_scale=[0.5, 0.2]")


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["distill.teacher=eva"], "There is no model 'eva'"),
        (["phases.0.patch_drop=0.5"], "patch_drop leaves out patches"),
        (["model.text_weights=x.pt"], "has none"),
        (["distill.teacher_weights=/nowhere.pt"], "no checkpoint at /nowhere.pt"),
        (["distill.teacher_weights={other}"], "of another model"),
        (["distill.teacher_weights={student}"], "is no CLIP of the teacher's kind"),
        (["model.image_weights={other}"], "of another model"),
        (["model.weights={clip}"], "of another model"),
    ],
)
def test_wrong_use_is_one_sentence(overrides: list[str], says: str, tmp_path: Path) -> None:
    files = {name: tmp_path / f"{name}.safetensors" for name in ("other", "student", "clip")}
    weights.save_model(models.build("debug", vision={"width": 64, "head_width": 32}), files["other"])
    weights.save_model(MaskedImageModel(models.config("debug"), teacher_dim=32), files["student"])
    weights.save_model(models.build("debug"), files["clip"])
    settings = distill_worker.settings(tmp_path / "run", *(override.format(**files) for override in overrides))
    with pytest.raises(UserError) as caught:
        Distillation(settings).check_files()
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_output_of_one_run_starts_the_next(tmp_path: Path) -> None:
    student = MaskedImageModel(models.config("debug"), teacher_dim=32)
    randomise(student)
    weights.save_model(student, tmp_path / "mim.safetensors", "mim")
    for key in ("weights", "image_weights"):
        settings = distill_worker.settings(tmp_path / key, f"model.{key}={tmp_path / 'mim.safetensors'}")
        objective = Distillation(settings)
        objective.check_files()
        built = objective.build(None, None)
        same = {name for name, tensor in built.state_dict().items() if torch.equal(tensor, student.state_dict()[name])}
        expected = {name for name in built.state_dict() if key == "weights" or name.startswith("visual.")}
        assert same == expected
