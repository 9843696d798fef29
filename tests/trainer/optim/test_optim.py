"""Optimizers: Lion, AdamW, groups, schedule, bounds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from trainer.config import OptimConfig, TowerConfig
from trainer.models.clip import LayerGroup
from trainer.optim import Lion, build_optimizer, parameter_groups, set_learning_rate, warmup_cosine


def test_lion_follows_algorithm_2_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = Lion([weight], lr=0.1, betas=(0.9, 0.99), weight_decay=0.5)
    momentum, value = torch.zeros(2), weight.data.clone()
    for gradient in (torch.tensor([1.0, 1.0]), torch.tensor([-0.05, 2.0]), torch.tensor([-3.0, 0.0])):
        weight.grad = gradient.clone()
        optimizer.step()
        value = value * (1 - 0.1 * 0.5) - 0.1 * (0.9 * momentum + 0.1 * gradient).sign()
        momentum = 0.99 * momentum + 0.01 * gradient
        torch.testing.assert_close(weight.data, value)


OPTIM = OptimConfig(
    image=TowerConfig(lr=4e-4, weight_decay=0.05, layer_decay=0.9),
    text=TowerConfig(lr=4e-5, weight_decay=0.1, layer_decay=0.75),
    scale_lr=5e-4,
)


def test_groups_decay_by_tower_and_depth() -> None:
    parameters = {name: nn.Parameter(torch.ones(2)) for name in ("first", "last", "bias", "word", "scale", "frozen")}
    parameters["frozen"].requires_grad_(False)
    layers = {
        "first": LayerGroup("visual", 0, 13, True),
        "last": LayerGroup("visual", 13, 13, True),
        "bias": LayerGroup("visual", 13, 13, False),
        "word": LayerGroup("text", 12, 13, True),
    }
    groups = parameter_groups(parameters, layers, OPTIM, {"scale": 1.0})
    found = {id(p): group for group in groups for p in group["params"]}
    rates = {name: found[id(p)]["lr"] for name, p in parameters.items() if id(p) in found}
    assert rates == pytest.approx({"first": 4e-4 * 0.9**13, "last": 4e-4, "bias": 4e-4, "word": 3e-5, "scale": 5e-4})
    decays = {name: found[id(p)]["weight_decay"] for name, p in parameters.items() if id(p) in found}
    assert decays == {"first": 0.05, "last": 0.05, "bias": 0.0, "word": 0.1, "scale": 0.0}
    assert len(found[id(parameters["scale"])]["params"]) == 1


def test_a_bounded_parameter_stops_at_its_bound_and_can_come_back() -> None:
    scale = nn.Parameter(torch.tensor([0.95]))
    groups = parameter_groups({"scale": scale}, {}, OPTIM, {"scale": 1.0})
    optimizer = build_optimizer(groups, OPTIM)
    set_learning_rate(optimizer, 200.0)
    for gradient in (-1.0, -1.0, -1.0):
        scale.grad = torch.tensor([gradient])
        optimizer.step()
    assert scale.item() == 1.0
    for _ in range(20):
        scale.grad = torch.tensor([1.0])
        optimizer.step()
    assert scale.item() < 0.9


def test_the_rate_warms_up_and_falls_as_a_cosine() -> None:
    rates = [warmup_cosine(step, warmup_steps=4, total_steps=104, final_ratio=0.1) for step in range(105)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0] and rates[4] == 1.0
    assert rates[54] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert rates[104] == pytest.approx(0.1) and rates[4:] == sorted(rates[4:], reverse=True)


def test_adamw_is_torchs_with_our_groups() -> None:
    ours, theirs = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    groups = parameter_groups({"w": ours}, {"w": LayerGroup("visual", 0, 0, True)}, OPTIM)
    optimizer = build_optimizer(groups, OPTIM)
    reference = torch.optim.AdamW([theirs], lr=4e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.05)
    for _ in range(5):
        for parameter, chosen in ((ours, optimizer), (theirs, reference)):
            parameter.grad = torch.tensor([1.0, -2.0, 0.5])
            chosen.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)
