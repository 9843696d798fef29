"""The image tower: equal to timm's in every style, patches, and what is dropped in training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.support.trainer.small_models import debug_model, pixels, unit_features
from tests.support.trainer.tower_styles import SHRUNK, randomise, shrunk, timm_tower
from trainer import models, weights
from trainer.models.clip import Clip


def difference_from_timm(name: str, path: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> float:
    """Largest difference of a unit feature between timm's tower and ours with `changes`, on the same weights."""
    theirs = timm_tower(name)
    save_file(theirs.state_dict(), path)
    ours = Clip(shrunk(name, **changes)).eval()
    weights.fill_towers(ours, image=path)
    images = pixels(ours).to(dtype)
    reference = unit_features(theirs.to(dtype), images)
    return (unit_features(ours.to(dtype).encode_image, images) - reference).abs().max().item()


@pytest.mark.parametrize("name", SHRUNK)
def test_tower_equals_timm(name: str, tmp_path: Path) -> None:
    assert difference_from_timm(name, tmp_path / "timm.safetensors") < 1e-6
    assert difference_from_timm(name, tmp_path / "timm.safetensors", torch.float64) < 1e-12


@pytest.mark.parametrize("name", SHRUNK)
@pytest.mark.parametrize("change", ["eps", "rope", "norm order"])
def test_comparison_with_timm_notices_a_wrong_model(name: str, change: str, tmp_path: Path) -> None:
    vision = shrunk(name).vision
    changes: dict[str, dict[str, Any]] = {
        "eps": {"norm_eps": 1e-5},
        "rope": {"rope_grid": 8 if vision.rope_grid else 16},
        "norm order": {"post_norm": not vision.post_norm},
    }
    assert difference_from_timm(name, tmp_path / "timm.safetensors", **changes[change]) > 1e-5


def test_image_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="64"):
        models.build("debug").encode_image(torch.zeros(1, 3, 80, 80))


def test_patches_are_projected_as_cls_is() -> None:
    model = debug_model().eval()
    images = pixels(model)
    tokens = model.visual(images, output="tokens")
    assert tokens.shape == (2, 17, 96)
    torch.testing.assert_close(model.visual.head(tokens[:, 0]), model.encode_image(images))
    torch.testing.assert_close(model.visual.head(tokens[:, 1:]), model.encode_patches(images))


def test_patch_dropout_turns_each_patch_by_its_own_angle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention does not see order, so all patches in random orders give what none dropped gives."""
    model = debug_model().double()
    images = pixels(model, 4).double()
    expected = model.encode_image(images)
    shuffled = torch.rand(4, 16).argsort(dim=1)
    monkeypatch.setattr(model.visual, "_draw_kept", lambda _: shuffled)
    torch.testing.assert_close(model.encode_image(images), expected)


def test_patch_dropout_keeps_a_share_and_only_in_training() -> None:
    model = debug_model(vision={"patch_drop": 0.5})
    images = pixels(model)
    assert model.visual(images, output="tokens").shape[1] == 1 + 8
    assert not torch.equal(model.encode_image(images), model.encode_image(images))
    model.set_patch_drop(0.75)
    assert model.visual(images, output="tokens").shape[1] == 1 + 4
    assert model.eval().visual(images, output="tokens").shape[1] == 1 + 16
    assert torch.equal(model.encode_image(images), model.encode_image(images))


def test_drop_path_grows_with_depth() -> None:
    with torch.device("meta"):
        rates = [block.drop_path for block in models.build("eva01-g-14").visual.blocks]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.4, 40))


def test_training_after_evaluation_in_inference_mode() -> None:
    model = debug_model()
    with torch.inference_mode():
        model.encode_image(pixels(model))
    model.encode_image(pixels(model)).sum().backward()
    assert model.visual.patch_embed.weight.grad is not None


@pytest.mark.parametrize("name", ["eva02-b-16", "eva-clip-18b"])
def test_bfloat16_stays_close(name: str) -> None:
    model = Clip(shrunk(name)).eval()
    randomise(model)
    images = pixels(model)
    exact = unit_features(model.encode_image, images)
    rounded = unit_features(model.bfloat16().encode_image, images.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert (exact - rounded.float()).abs().max() < 0.02
