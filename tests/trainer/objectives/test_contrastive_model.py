"""The module of contrastive training: features, temperature, bias, locked towers."""

from __future__ import annotations

import math

import pytest
import torch

from tests.support.trainer.tower_styles import randomise, shrunk
from trainer.config import TrainConfig
from trainer.models.clip import Clip
from trainer.objectives.contrastive_model import ContrastiveModel, set_temperature


def _model(**options: object) -> ContrastiveModel:
    clip = Clip(shrunk("eva02-b-16"))
    randomise(clip)
    return ContrastiveModel(clip, TrainConfig(batch_size=8, **options))  # type: ignore[arg-type]


def test_features_have_length_one_and_an_absent_side_has_no_rows() -> None:
    model = _model()
    pixels = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    outputs = model(pixels, None)
    assert outputs.image.shape == (3, model.clip.config.embed_dim)
    torch.testing.assert_close(outputs.image.norm(dim=-1), torch.ones(3))
    assert outputs.text.shape == (0, model.clip.config.embed_dim)


def test_a_clip_is_the_mean_of_its_frames_and_of_their_cls() -> None:
    model = _model().eval()
    clips = torch.randn(2, 3, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    found = model(clips, None).image
    frames = model.clip.encode_image(clips.flatten(0, 1)).unflatten(0, (2, 3))
    torch.testing.assert_close(found, torch.nn.functional.normalize(frames.mean(1), dim=-1))
    cls = model.clip.visual(clips.flatten(0, 1), output="tokens")[:, 0].unflatten(0, (2, 3)).mean(1)
    torch.testing.assert_close(found, torch.nn.functional.normalize(model.clip.visual.head(cls), dim=-1))


@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_a_fixed_temperature_is_exact_in_any_precision_and_not_trained(temperature: float) -> None:
    model = _model(temperature=temperature).to(torch.bfloat16)
    scale = model(None, None).scale
    torch.testing.assert_close(scale, torch.full((1,), 1 / temperature))
    assert not scale.requires_grad and model.upper_bounds() == {} and model.scalars() == {}


def test_a_temperature_at_its_bound_is_clamped_and_its_gradient_is_not() -> None:
    model = _model(min_temperature=0.01)
    with torch.no_grad():
        model.clip.logit_scale.fill_(math.log(1000.0))
    scale = model(None, None).scale
    torch.testing.assert_close(scale.detach(), torch.full((1,), 100.0))
    scale.backward()
    assert model.clip.logit_scale.grad is not None and float(model.clip.logit_scale.grad) > 0


def test_a_master_gives_the_value_and_the_parameter_the_gradient() -> None:
    model = _model().to(torch.bfloat16)
    model.masters["clip.logit_scale"] = torch.full((1,), 2.0101)
    scale = model(None, None).scale
    torch.testing.assert_close(scale.detach(), torch.full((1,), math.exp(2.0101)))
    scale.backward()
    assert model.clip.logit_scale.grad is not None


def test_a_locked_tower_is_neither_trained_nor_dropped_from() -> None:
    clip = Clip(shrunk("eva02-b-16"))
    ContrastiveModel(clip, TrainConfig(batch_size=8), locked=[clip.visual]).train()
    assert not clip.visual.training and clip.text.training
    assert not any(parameter.requires_grad for parameter in clip.visual.parameters())
    assert all(parameter.requires_grad for parameter in clip.text.parameters())


@pytest.mark.parametrize(("options", "pretrained", "temperature"), [
    ({}, False, 0.07), ({"initial_temperature": 0.2}, True, 0.2), ({"loss": "siglip"}, False, 0.1),
])  # fmt: skip
def test_the_temperature_starts_where_the_configuration_says(
    options: dict[str, object], pretrained: bool, temperature: float
) -> None:
    model = _model(**options)
    set_temperature(model.clip, TrainConfig(batch_size=8, **options), pretrained=pretrained)  # type: ignore[arg-type]
    torch.testing.assert_close(model.clip.logit_scale.detach().exp(), torch.full((1,), 1 / temperature))


def test_a_pretrained_temperature_is_kept_unless_the_configuration_says_another() -> None:
    model = _model()
    before = model.clip.logit_scale.detach().clone()
    set_temperature(model.clip, TrainConfig(batch_size=8), pretrained=True)
    assert torch.equal(model.clip.logit_scale.detach(), before)
