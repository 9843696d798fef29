"""LAMB is the same under every ZeRO stage and world size, and follows its papers' and EVA's rules by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.trainer import lamb_worker
from tests.support.trainer.ranks import run_ranks
from trainer.config import OptimConfig, TowerConfig
from trainer.models.clip import LayerGroup
from trainer.optim import Lamb, Segments, build_optimizer, parameter_groups

QUICK = {(3, 2)}


def _largest_gap(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    assert found.keys() == wanted.keys()
    return max(float((found[name] - wanted[name]).abs().max()) for name in wanted)


@pytest.mark.parametrize(
    ("stage", "num_ranks"),
    [
        pytest.param(stage, ranks, marks=() if (stage, ranks) in QUICK else pytest.mark.slow)
        for stage, ranks in itertools.product(range(4), (1, 2))
    ],
)
def test_lamb_is_unsharded_lamb_under_zero(stage: int, num_ranks: int, tmp_path: Path) -> None:
    out = tmp_path / "weights.pt"
    run_ranks(num_ranks, "tests.support.trainer.lamb_worker:train", stage=stage, out=str(out))
    assert _largest_gap(torch.load(out), lamb_worker.reference(Lamb)) < 1e-5


def test_lamb_follows_algorithm_2_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = Lamb([weight], lr=0.1, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.5)
    weight.grad = torch.tensor([2.0, -1.0])
    optimizer.step()
    # After one step the bias-corrected moments are g and g², so the direction is sign(g) + decay · w.
    update = torch.tensor([1.0 + 1.5, -1.0 + 2.0])
    wanted = torch.tensor([3.0, 4.0]) - 0.1 * (5.0 / float(update.norm())) * update
    torch.testing.assert_close(weight.data, wanted, rtol=1e-5, atol=1e-6)


def test_a_trust_ratio_is_one_at_zero_weights_and_bounded() -> None:
    fresh, small = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.full((4,), 100.0))
    optimizer = Lamb([fresh, small], lr=1.0, max_trust_ratio=10.0)
    fresh.grad, small.grad = torch.ones(4), torch.ones(4)
    optimizer.step()
    torch.testing.assert_close(fresh.data, torch.full((4,), -1.0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(small.data, torch.full((4,), 90.0), rtol=1e-4, atol=1e-4)


def _eva_lamb_by_hand(weight: torch.Tensor, gradients: list[torch.Tensor], decay: float) -> torch.Tensor:
    """The update rule of EVA-CLIP's training code for one tensor, at rate 0.1, β (.9, .95), eps 1e-6."""
    first, second, weight = torch.zeros_like(weight), torch.zeros_like(weight), weight.clone()
    for step, gradient in enumerate(gradients, 1):
        clipped = gradient / max(1.0, float(gradient.norm()))
        first = 0.9 * first + 0.1 * clipped
        second = 0.95 * second + 0.05 * clipped**2
        update = (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-6) + decay * weight
        weight = weight - 0.1 * (float(weight.norm() / update.norm()) if decay else 1.0) * update
    return weight


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_evas_lamb_adapts_only_decayed_tensors_without_bound_and_clips(decay: float) -> None:
    tower = TowerConfig(lr=0.1, weight_decay=decay)
    config = OptimConfig(image=tower, text=tower, name="lamb-eva", betas=(0.9, 0.95))
    start = torch.tensor([300.0, -400.0])
    gradients = [torch.tensor([2.0, -1.0]), torch.tensor([0.1, 0.2]), torch.tensor([-30.0, 1.0])]
    weight = nn.Parameter(start.clone())
    layers = {"w": LayerGroup("visual", 0, 0, True)}
    optimizer = build_optimizer(parameter_groups({"w": weight}, layers, config), config)
    for gradient in gradients:
        weight.grad = gradient.clone()
        nn.utils.clip_grad_norm_([weight], config.gradient_clip)
        optimizer.step()
    torch.testing.assert_close(weight.data, _eva_lamb_by_hand(start, gradients, decay), rtol=1e-4, atol=1e-4)


def test_evas_lamb_clips_at_one_or_less_and_the_others_as_told() -> None:
    def clip(name: Any, norm: float) -> float:
        return OptimConfig(image=TowerConfig(lr=1.0), text=TowerConfig(lr=1.0), name=name, clip_norm=norm).gradient_clip

    assert [clip("lamb-eva", norm) for norm in (0.0, 0.5, 3.0)] == [1.0, 0.5, 1.0]
    assert [clip("lamb", norm) for norm in (0.0, 0.5, 3.0)] == [0.0, 0.5, 3.0]


def test_flat_partitions_without_segments_would_be_another_optimizer() -> None:
    parts = [torch.arange(1.0, 4.0), torch.tensor([10.0, 20.0])]
    gradients = [torch.tensor([1.0, -1.0, 2.0]), torch.tensor([0.5, 0.25])]
    whole = [nn.Parameter(part.clone()) for part in parts]
    for parameter, gradient in zip(whole, gradients, strict=True):
        parameter.grad = gradient
    Lamb(whole, lr=0.1).step()
    results = []
    for segments in (Segments(((0, 3, 0), (3, 2, 1)), 2), None):
        flat = nn.Parameter(torch.cat(parts))
        flat.grad = torch.cat(gradients)
        optimizer = Lamb([flat], lr=0.1)
        if segments:
            optimizer.set_segments({flat: segments})
        optimizer.step()
        results.append(flat.data)
    wanted = torch.cat([parameter.data for parameter in whole])
    torch.testing.assert_close(results[0], wanted)
    assert (results[1] - wanted).abs().max() > 1e-2
