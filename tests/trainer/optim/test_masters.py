"""Flat float32 masters: the updates of the plain optimizers, in as many operators for any number of tensors."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.config import OptimConfig, TowerConfig
from trainer.models.tracing import OperatorCounter
from trainer.optim import build_optimizer
from trainer.optim.masters import ALIGNMENT, LossScale, MasterWeights

NUM_STEPS = 20
CLIP = 0.5
NAMES = ("adamw", "lamb", "lion")


def _model(num_layers: int = 2) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(num_layers):
        layers += [nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 5)]
    return nn.Sequential(*layers)


def _optimizer(name: Any, model: nn.Module) -> torch.optim.Optimizer:
    tower = TowerConfig(lr=0.01)
    groups = [
        {"params": [p for p in model.parameters() if (p.dim() > 1) == matrices], "lr": rate, "base_lr": rate}
        | {"weight_decay": decay}
        for matrices, rate, decay in ((True, 0.02, 0.1), (False, 0.01, 0.0))
    ]
    return build_optimizer(groups, OptimConfig(name=name, image=tower, text=tower))


def _with_masters(
    name: str, model: nn.Module, dtype: torch.dtype = torch.float32, loss_scale: LossScale | None = None
) -> MasterWeights:
    masters = MasterWeights(_optimizer(name, model), dtype, CLIP, loss_scale or LossScale())
    masters.attach(model)
    return masters


def _loss(model: nn.Module, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    x, y = torch.randn(2, 8, 5, generator=generator)
    dtype = next(model.parameters()).dtype
    loss: Tensor = 30 * (model(x.to(dtype)).float() - y).square().mean()
    return loss


def _train(model: nn.Module, step: Callable[[], None], steps: range = range(NUM_STEPS)) -> dict[str, Tensor]:
    for number in steps:
        _loss(model, number).backward()
        step()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", NAMES)
def test_masters_in_float32_are_the_plain_optimizer(name: str) -> None:
    plain, flat = _model(), _model()
    optimizer, masters = _optimizer(name, plain), _with_masters(name, flat)

    def step() -> None:
        nn.utils.clip_grad_norm_(plain.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

    wanted, found = _train(plain, step), _train(flat, masters.step)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(found[key], value) for key, value in masters.masters().items())


@pytest.mark.parametrize("name", NAMES)
def test_bf16_weights_are_the_rounded_masters_of_a_plain_optimizer(name: str) -> None:
    low, masters_model, flat = _model().to(torch.bfloat16), _model(), _model()
    optimizer, masters = _optimizer(name, masters_model), _with_masters(name, flat, torch.bfloat16)
    norms: list[float] = []
    with torch.no_grad():
        for mine, master in zip(low.parameters(), masters_model.parameters(), strict=True):
            mine.copy_(master)

    def step() -> None:
        for mine, master in zip(low.parameters(), masters_model.parameters(), strict=True):
            assert mine.grad is not None
            master.grad, mine.grad = mine.grad.float(), None
        norm = nn.utils.clip_grad_norm_(masters_model.parameters(), CLIP)
        optimizer.step()
        with torch.no_grad():
            for mine, master in zip(low.parameters(), masters_model.parameters(), strict=True):
                mine.copy_(master)
        norms.append(float(norm))

    wanted = _train(low, step)
    found = _train(flat, masters.step)
    assert all(value.dtype == torch.bfloat16 for value in found.values())
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.01)
    assert masters._global_grad_norm == pytest.approx(norms[-1], rel=0.02)
    for key, master in masters.masters().items():
        assert master.dtype == torch.float32 and torch.equal(found[key], master.to(torch.bfloat16))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_reads_one_number_and_takes_as_many_operators_for_any_number_of_tensors(name: str) -> None:
    """Two groups here; DeepSpeed's wrapper takes 19 operators and one read for every tensor."""
    counts = []
    for num_layers in (2, 40):
        model = _model(num_layers)
        masters = _with_masters(name, model, torch.bfloat16)
        _loss(model, 0).backward()
        masters.step()
        _loss(model, 1).backward()
        with OperatorCounter() as counter:
            masters.step()
        assert counter.host_reads == 1
        counts.append(counter.total)
    assert counts[0] == counts[1] < 90


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    model = _model()
    masters = _with_masters("adamw", model, torch.bfloat16)
    before = _train(model, masters.step, range(2))
    _loss(model, 2).backward()
    next(model.parameters()).grad.view(-1)[0] = float("inf")  # type: ignore[union-attr]  # a backward has filled it
    masters.step()
    assert masters.overflow and all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
    _train(model, masters.step, range(3, 4))
    assert not masters.overflow and not torch.equal(before["0.weight"], next(model.parameters()))


def test_the_loss_scale_leaves_the_update_as_it_is() -> None:
    results = []
    for value in (1.0, 1024.0):
        model = _model()
        masters = _with_masters("adamw", model, loss_scale=LossScale(value))
        backward = masters.scale(lambda loss: loss.backward())
        for number in range(5):
            backward(_loss(model, number))
            masters.step()
        results.append(masters.masters())
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_added_to_one_buffer_are_those_that_are_joined(name: str, dtype: torch.dtype) -> None:
    """Over steps of two backward passes, in some of which one layer has no gradient, or has lost its part by then."""
    results = []
    for lends in (False, True):
        model = _model()
        masters = _with_masters(name, model, dtype)
        assert masters.lends_gradients, "the tests run on a CPU"
        masters.lends_gradients = lends
        backward = masters.scale(lambda loss: loss.backward())
        for number in range(6):
            last = next(reversed(list(model.parameters())))
            last.requires_grad_(number % 3 != 1)
            backward(_loss(model, 2 * number))
            if number == 2:
                taken = [p.grad.clone() for p in model.parameters() if p.grad is not None]
                for parameter, gradient in zip(model.parameters(), taken, strict=True):
                    parameter.grad = gradient
            backward(_loss(model, 2 * number + 1))
            masters.step()
            assert all(p.grad is None for p in model.parameters())
        results.append({name: p.detach().clone() for name, p in model.named_parameters()})
    joined, lent = results
    assert all(torch.equal(lent[key], value) for key, value in joined.items())


def test_a_forgotten_gradient_does_not_come_back_with_the_buffer() -> None:
    model = _model()
    masters = _with_masters("adamw", model)
    backward = masters.scale(lambda loss: loss.backward())
    backward(_loss(model, 0))
    masters.zero_grad()
    before = {key: value.clone() for key, value in masters.masters().items()}
    for group in masters.param_groups:
        group["weight_decay"] = 0.0
    masters.step()
    assert masters._global_grad_norm == 0
    assert all(torch.equal(before[key], value) for key, value in masters.masters().items())


def test_the_loss_scale_is_halved_on_overflow_and_doubled_after_a_window() -> None:
    scale = LossScale(8.0, window=3)
    for overflow in (True, False, False, True, False, False, False):
        scale.update(overflow)
    assert scale.value == 4.0
    for _ in range(10):
        scale.update(True)
    assert scale.value == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_on_exactly_from_a_saved_state(name: str) -> None:
    whole = _model()
    wanted = _train(whole, _with_masters(name, whole, torch.bfloat16).step)
    first, second = _model(), _model(2)
    masters = _with_masters(name, first, torch.bfloat16)
    _train(first, masters.step, range(7))
    file = io.BytesIO()
    torch.save(masters.state_dict(), file)
    file.seek(0)
    again = _with_masters(name, second, torch.bfloat16)
    again.load_state_dict(torch.load(file, weights_only=False))
    found = _train(second, again.step, range(7, NUM_STEPS))
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_states_of_earlier_versions_are_taken_over() -> None:
    plain = _model()
    optimizer = _optimizer("adamw", plain)

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad()

    _train(plain, step, range(3))
    inside = optimizer.state_dict()
    fp32_groups = [[p.detach().clone() for p in group["params"]] for group in optimizer.param_groups]
    for saved in (inside, {"optimizer_state_dict": inside, "fp32_groups": fp32_groups}):
        model = _model()
        model.load_state_dict(plain.state_dict())
        masters = _with_masters("adamw", model)
        masters.load_state_dict(saved)
        states = masters.state_dict()["states"]
        moments = optimizer.state[plain.get_parameter("2.weight")]
        assert torch.equal(states["2.weight"]["exp_avg"], moments["exp_avg"])
        assert torch.equal(states["2.weight"]["step"], moments["step"])
        assert all(torch.equal(masters.masters()[key], value) for key, value in plain.state_dict().items())


def test_every_parameter_is_an_aligned_view_of_one_buffer() -> None:
    model = _model()
    masters = _with_masters("adamw", model, torch.bfloat16)
    _train(model, masters.step, range(2))
    assert len({p.untyped_storage().data_ptr() for p in model.parameters()}) == 1
    assert all(p.storage_offset() % ALIGNMENT == 0 for p in model.parameters())
