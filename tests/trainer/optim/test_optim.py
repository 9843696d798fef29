"""Optimizers: Lion, AdamW, groups, schedule, bounds."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.config import OptimConfig, TowerConfig
from trainer.models.clip import LayerGroup
from trainer.models.tracing import OperatorCounter
from trainer.optim import (
    AVERAGE,
    Lion,
    build_optimizer,
    keep_average,
    parameter_groups,
    set_learning_rate,
    warmup_cosine,
)


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


@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_groups_of_other_rates_and_decays_take_the_plain_steps(name: Any) -> None:
    """Written out tensor by tensor, 20 steps, with one tensor that has no gradient now and then."""
    config = dataclasses.replace(OPTIM, name=name, betas=(0.9, 0.95))
    torch.manual_seed(0)
    start = [torch.randn(3, 4), torch.randn(5), torch.randn(2, 2)]
    settings = [(0.1, 0.2), (0.03, 0.0), (0.2, 0.5)]
    ours = [nn.Parameter(value.clone()) for value in start]
    optimizer = build_optimizer(
        [{"params": [p], "lr": lr, "weight_decay": decay} for p, (lr, decay) in zip(ours, settings, strict=True)],
        config,
    )
    plain = [_Plain(value.clone(), *rates) for value, rates in zip(start, settings, strict=True)]
    for step in range(20):
        for index, (parameter, tensor) in enumerate(zip(ours, plain, strict=True)):
            parameter.grad = None if index == 1 and step % 3 == 0 else torch.randn(parameter.shape)
            if parameter.grad is not None:
                tensor.update(name, parameter.grad, config)
        optimizer.step()
    for parameter, tensor in zip(ours, plain, strict=True):
        torch.testing.assert_close(parameter.data, tensor.value, rtol=1e-5, atol=1e-6)


class _Plain:
    """One tensor under the formula of its paper."""

    def __init__(self, value: Tensor, rate: float, decay: float) -> None:
        self.value, self.rate, self.decay = value, rate, decay
        self.first, self.second, self.steps = torch.zeros_like(value), torch.zeros_like(value), 0

    def update(self, name: str, gradient: Tensor, config: OptimConfig) -> None:
        beta1, beta2 = config.betas
        self.steps += 1
        direction = (beta1 * self.first + (1 - beta1) * gradient).sign()
        if name == "adamw":
            self.first = beta1 * self.first + (1 - beta1) * gradient
            self.second = beta2 * self.second + (1 - beta2) * gradient**2
            mean, square = self.first / (1 - beta1**self.steps), self.second / (1 - beta2**self.steps)
            direction = mean / (square.sqrt() + config.eps)
        else:
            self.first = beta2 * self.first + (1 - beta2) * gradient
        self.value = self.value * (1 - self.rate * self.decay) - self.rate * direction


@pytest.mark.parametrize(("name", "most"), [("adamw", 43), ("lion", 9), ("lamb", 50)])
def test_a_step_of_forty_groups_takes_few_operators(name: Any, most: int) -> None:
    """AdamW's is a fused kernel a group and one more; the others' and the average's are as many for any number."""
    parameters = [nn.Parameter(torch.ones(8)) for _ in range(40)]
    groups = [{"params": [p], "lr": 0.01 * i, "weight_decay": 0.1} for i, p in enumerate(parameters)]
    optimizer = build_optimizer(groups, dataclasses.replace(OPTIM, name=name))
    keep_average(optimizer, 0.9)
    for counter in (OperatorCounter(), OperatorCounter()):
        for parameter in parameters:
            parameter.grad = torch.ones(8)
        with counter:
            optimizer.step()
    kernels = {key: n for key, n in counter.operators.items() if not key.startswith("_record_function")}
    assert sum(kernels.values()) <= most and counter.host_reads == 0


def test_the_average_follows_its_formula() -> None:
    weight = nn.Parameter(torch.tensor([4.0]))
    optimizer = build_optimizer([{"params": [weight], "lr": 0.5, "weight_decay": 0.0}], OPTIM)
    keep_average(optimizer, 0.3)
    average = None
    for step in range(5):
        weight.grad = torch.tensor([1.0])
        optimizer.step()
        decay = min(0.3, (1 + step) / (10 + step))
        average = weight.item() if average is None else decay * average + (1 - decay) * weight.item()
        assert optimizer.state[weight][AVERAGE].item() == pytest.approx(average)


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
