"""Sizes by formula are those of modules that were built, and of steps whose memory was measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.support.trainer.memory import FlashAttention, measure_kept, measure_peak
from trainer import config, dry_run, models, optim, sizes
from trainer.models.mim import MaskedImageModel
from trainer.models.padding import forced
from trainer.objectives.contrastive import Contrastive
from trainer.objectives.contrastive_model import ContrastiveModel
from trainer.optim.masters import LossScale, MasterWeights
from trainer.precision import DTYPES


@pytest.mark.parametrize("name", models.names())
def test_parameters_by_formula_are_those_of_the_module(name: str) -> None:
    with torch.device("meta"):
        built = models.build(name)
        student = MaskedImageModel(models.config(name), teacher_dim=768)
    count = sum(parameter.numel() for parameter in built.parameters())
    assert sizes.clip_parameters(models.config(name)) == count
    expected = sum(parameter.numel() for parameter in student.parameters())
    assert sizes.masked_image_parameters(models.config(name), 768) == expected


@pytest.mark.parametrize("name", ["eva02-b-16", "eva02-l-14", "eva02-e-14-plus"])
@pytest.mark.parametrize("frames", [0, 8])
def test_activations_are_what_autograd_keeps_of_pictures_and_clips(
    name: str, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the whole model with its padded widths, on the meta device."""
    phase = "{samples = 8, clips = 'x', frames = 8}" if frames else "{samples = 8}"
    recipe = config.load_config(
        name,
        [f"phases=[{phase}]", "train.batch_size=8", "train.micro_batch_size=8", "model.grad_checkpointing=false"],
    )
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, **_: FlashAttention.apply(q, k, v))
    with forced(True), torch.device("meta"):
        model = ContrastiveModel(models.build(name), recipe.train).to(torch.bfloat16)
        side = model.clip.config.vision.image_size
        shape = (8, frames, 3, side, side) if frames else (8, 3, side, side)
        found = measure_kept(model, lambda: model(torch.empty(shape), torch.empty(8, 77, dtype=torch.int64)))
    estimate = dry_run.estimate_activations(recipe, 1) - 3 * 4 * 8 * 8
    assert estimate == pytest.approx(found, rel=0.1)


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("name", ["adamw", "lamb", "lion"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_highest_point_of_an_update_is_what_is_measured(precision: Any, name: str, decay: float) -> None:
    """Masters and moments stand before; what the step needs comes on top of the gradients."""
    overrides = [f"train.precision={precision}", f"optim.name={name}", "zero.stage=0", "train.micro_batch_size=8"]
    recipe = config.load_config(
        "debug", [*overrides, *(f"optim.{tower}.weight_decay={decay}" for tower in ("image", "text"))]
    )
    module = ContrastiveModel(models.build("debug"), recipe.train)
    optimizer = optim.build_optimizer(Contrastive(recipe).parameter_groups(module), recipe.optim)
    masters = MasterWeights(optimizer, DTYPES[precision], recipe.optim.clip_norm, LossScale())
    masters.attach(module)

    def give_gradients() -> None:
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, 1e-3)

    give_gradients()
    masters.step()  # makes the moments
    gradients, highest = measure_peak(give_gradients, masters.step)
    estimate = dry_run.estimate_memory(recipe, 1, 0)
    assert gradients == pytest.approx(estimate.gradients, rel=0.02)
    assert highest - gradients == pytest.approx(estimate.update, rel=0.05)
