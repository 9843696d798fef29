"""What the contrastive objective starts from and exports: SigLIP's bias goes with the weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.trainer.toy import configuration
from trainer import export, models
from trainer.objectives.contrastive import Contrastive

BIAS = -9.75


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """The weights of a model that SigLIP trained."""
    objective = Contrastive(configuration(tmp_path, ["train.loss=siglip"]))
    module = objective.build(None, None)
    with torch.no_grad():
        module.logit_bias.fill_(BIAS)
    objective.export(dict(module.state_dict()), None, tmp_path / "trained.safetensors")
    return tmp_path / "trained.safetensors"


def test_a_restart_from_weights_goes_on_with_siglips_bias(trained: Path, tmp_path: Path) -> None:
    settings = ["train.loss=siglip", f"model.weights={trained}"]
    objective = Contrastive(configuration(tmp_path, settings))
    objective.check_files()
    assert objective.build(None, None).logit_bias.item() == BIAS
    assert objective.build(32, trained).logit_bias.item() == BIAS
    fresh = Contrastive(configuration(tmp_path, ["train.loss=siglip"]))
    assert fresh.build(None, None).logit_bias.item() == -10


def test_another_loss_reads_the_same_weights_without_it(trained: Path, tmp_path: Path) -> None:
    objective = Contrastive(configuration(tmp_path, [f"model.weights={trained}"]))
    assert not hasattr(objective.build(None, None), "logit_bias")
    assert models.load(trained).logit_scale.shape == (1,)


@pytest.mark.parametrize(("layout", "is_kept"), [("native", True), ("open_clip", True), ("baai", False)])
def test_the_bias_is_exported_where_the_layout_has_a_place_for_it(layout: str, is_kept: bool, trained: Path) -> None:
    target = trained.with_name(f"{layout}.safetensors")
    assert export.main([str(trained), str(target), "--layout", layout]) == 0
    found = load_file(target)
    assert ("logit_bias" in found) == is_kept
    if is_kept:
        assert found["logit_bias"].item() == BIAS


def test_the_model_computes_with_the_masters_of_temperature_and_bias_and_gives_them_its_gradient(
    tmp_path: Path,
) -> None:
    settings = configuration(tmp_path, ["train.loss=siglip", "train.precision=bf16"])
    module = Contrastive(settings).build(None, None).bfloat16()
    module.masters = {"clip.logit_scale": torch.tensor([2.7012]), "logit_bias": torch.tensor([-9.9876])}
    outputs = module(None, None)
    assert outputs.scale.log().item() == pytest.approx(2.7012, abs=1e-6)
    assert outputs.bias is not None and outputs.bias.item() == pytest.approx(-9.9876, abs=1e-6)
    (outputs.scale.log() + 3 * outputs.bias).sum().backward()
    gradients = {name: parameter.grad for name, parameter in module.scalars().items()}
    assert gradients["clip.logit_scale"].item() == pytest.approx(1.0, abs=0.01)
    assert gradients["logit_bias"].item() == 3.0


def test_a_locked_tower_has_no_gradients_no_rates_and_drops_nothing(trained: Path, tmp_path: Path) -> None:
    settings = [f"model.weights={trained}", "model.lock_image=true", "model.drop_path=0.5"]
    objective = Contrastive(configuration(tmp_path, settings))
    module = objective.build(None, None).train()
    assert module.training and module.clip.text.training and not module.clip.visual.training
    trained_ids = {id(parameter) for group in objective.parameter_groups(module) for parameter in group["params"]}
    assert trained_ids == {id(p) for p in [*module.clip.text.parameters(), module.clip.logit_scale]}
