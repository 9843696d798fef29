"""Small functions are the formulas that they stand for, compiled or not: results, gradients, training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from tests.support.trainer.ranks import run_ranks
from tests.support.trainer.sharded_steps import save_steps
from tests.support.trainer.small_models import pixels
from tests.support.trainer.tower_styles import randomise, shrunk
from trainer.data import tokenizer
from trainer.models import fusing
from trainer.models.clip import Clip
from trainer.models.fusing import add_and_normalise, normalise_and_add

TOKENS = tokenizer.tokenize(["a dog", "two cats on a mat", "x", "y"])
WIDTH = 24


@pytest.fixture(autouse=True)
def _auto() -> Iterator[None]:
    yield
    fusing.set_mode("auto")


def _norm(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    centred = x if bias is None else x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight
    return normed if bias is None else normed + bias


def _sum_and_norm(x: Tensor, branch: Tensor, keep: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    total = x + branch * keep
    return [total, _norm(total, weight, bias)]


def _sum_with_norm(x: Tensor, branch: Tensor, keep: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    return [x + _norm(branch, weight, bias) * keep]


PLAIN: dict[Callable[..., Any], Callable[..., list[Tensor]]] = {
    add_and_normalise: _sum_and_norm,
    normalise_and_add: _sum_with_norm,
}


def _draw(kind: str, dtype: torch.dtype, samples: int = 6) -> list[Tensor | None]:
    """x, branch, weight and bias, of float64 values that bf16 holds too."""
    generator = torch.Generator().manual_seed(3)
    drawn = [
        torch.randn(*shape, generator=generator).bfloat16().to(dtype).requires_grad_()
        for shape in ((samples, 5, WIDTH), (samples, 5, WIDTH), (WIDTH,), (WIDTH,))
    ]
    return [*drawn[:3], drawn[3] if kind == "layer" else None]


def _run(call: Callable[..., Any], inputs: list[Tensor | None], *more: Any) -> list[Tensor]:
    """Outputs, and the gradients of their weighted sum."""
    x, branch, *gains = inputs
    outputs = call(x, branch, *more, *gains)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    leaves = [leaf for leaf in inputs if leaf is not None]
    weights = [torch.linspace(-1, 2, out.numel()).view(out.shape).to(out.dtype) for out in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, weights)]


def _run_ours(function: Callable[..., Any], inputs: list[Tensor | None], drop_path: float) -> list[Tensor]:
    torch.manual_seed(11)
    return _run(lambda *tensors: function(*tensors, 1e-6), inputs, drop_path)


def _run_plainly(function: Callable[..., Any], inputs: list[Tensor | None], drop_path: float) -> list[Tensor]:
    torch.manual_seed(11)
    samples = inputs[0].shape[0] if inputs[0] is not None else 0
    keep = torch.empty(samples, 1, 1).bernoulli_(1 - drop_path).double() / (1 - drop_path)
    return _run(PLAIN[function], inputs, keep)


@pytest.mark.parametrize("drop_path", [0.0, 0.4])
@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("function", PLAIN)
def test_sums_and_norms_are_their_formulas(function: Callable[..., Any], kind: str, drop_path: float) -> None:
    inputs = _draw(kind, torch.float64)
    torch.testing.assert_close(
        _run_ours(function, inputs, drop_path), _run_plainly(function, inputs, drop_path), rtol=1e-9, atol=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("function", PLAIN)
def test_compiled_they_are_as_near_to_their_formulas(
    function: Callable[..., Any], kind: str, dtype: torch.dtype
) -> None:
    """In bf16 the compiler may round less often; it may not be further from the truth than the separate operators."""
    for drop_path in (0.0, 0.4):
        exact = _run_plainly(function, _draw(kind, torch.float64), drop_path)
        fusing.set_mode("off")
        plain = _run_ours(function, _draw(kind, dtype), drop_path)
        fusing.set_mode("on")
        fused = _run_ours(function, _draw(kind, dtype), drop_path)
        step = torch.finfo(dtype).eps
        for truth, separate, together in zip(exact, plain, fused, strict=True):
            assert together.dtype == dtype
            error, allowed = (float((found - truth).abs().max()) for found in (together, separate))
            assert error <= 1.5 * allowed + 2 * step * float(truth.abs().max())


def test_large_tensors_on_a_gpu_alone_are_worth_a_compiled_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "_compiles_on", lambda _: True)
    large, small = 128 * 257 * 1024, 128 * 1 * 1024
    assert fusing._is_compiled("cuda", large)
    assert not fusing._is_compiled("cuda", small) and not fusing._is_compiled("cpu", large)
    fusing.set_mode("on")
    assert fusing._is_compiled("cpu", small)
    fusing.set_mode("off")
    assert not fusing._is_compiled("cuda", large)


def test_dropped_branches_are_scaled_exactly_in_bf16() -> None:
    """1 / 0.9 is no bf16 number: what makes up for the zeros is float32."""
    torch.manual_seed(0)
    ones = torch.ones(1000, 1, 8, dtype=torch.bfloat16)
    kept = fusing.add_branch(torch.zeros_like(ones), 9 * ones, 0.1)
    assert set(kept.unique().tolist()) == {0.0, 10.0}


@pytest.mark.parametrize("post_norm", [False, True])
def test_few_graphs_serve_all_batches_and_lengths(post_norm: bool) -> None:
    """Captions are trimmed to other lengths at every step: widths alone may cost a graph, and whether one trains."""
    counter = CompileCounter()
    name = "eva02-e-14" if post_norm else "eva02-b-16"
    model = Clip(shrunk(name, drop_path=0.2).override(image_size=28 if post_norm else 32))
    with fusing.compiled_by(lambda function: torch.compile(function, backend=counter)):
        counts = []
        for samples, length in ((2, 77), (3, 9), (4, 31), (5, 14), (2, 20), (3, 6), (4, 12)):
            for training in (True, False):
                model.train(training)
                with torch.set_grad_enabled(training):
                    model(pixels(model, samples), TOKENS[:1, :length].expand(samples, -1))
            counts.append(counter.frame_count)
    assert counts[0] > 0
    assert counts[-1] == counts[2], counts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("eva02-l-14-336", torch.bfloat16), ("eva02-e-14", torch.float32), ("eva-clip-18b", torch.bfloat16)],
)
def test_twenty_steps_of_compiled_functions_are_those_of_the_operators(name: str, dtype: torch.dtype) -> None:
    """With stochastic depth, whose draws stay the same; float32 masters, as training has them."""
    config = shrunk(name, layers=2, drop_path=0.3)
    start = Clip(config.override(image_size=2 * config.vision.patch_size))
    randomise(start)
    losses = {mode: _train(copy.deepcopy(start), mode, dtype) for mode in ("off", "on")}
    assert losses["off"][-1] < 0.9 * losses["off"][0]
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(losses["on"], losses["off"], rtol=tolerance, atol=tolerance)


def _train(masters: Clip, mode: fusing.Mode, dtype: torch.dtype) -> list[float]:
    fusing.set_mode(mode)
    model = copy.deepcopy(masters).to(dtype)
    optimizer = torch.optim.AdamW(masters.parameters(), lr=1e-3)
    torch.manual_seed(5)
    images = pixels(model, 4).to(dtype)
    losses = []
    for _ in range(20):
        image, text, scale = model(images, TOKENS)
        logits = scale.float() * F.normalize(image.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T
        loss = F.cross_entropy(logits, torch.arange(4))
        loss.backward()
        with torch.no_grad():
            for master, parameter in zip(masters.parameters(), model.parameters(), strict=True):
                master.grad = None if parameter.grad is None else parameter.grad.float()
        optimizer.step()
        model.load_state_dict(masters.state_dict())
        model.zero_grad()
        losses.append(float(loss))
    return losses


def save_updated(out: str, compiled: bool) -> None:
    """The weights after steps under ZeRO-3 on this rank, with compiled functions or without."""
    # Without a C++ compiler's minutes: what is saved for the backward pass is the same.
    backend = partial(torch.compile, backend="aot_eager")
    with fusing.compiled_by(backend if compiled else lambda function: function):
        config = shrunk("eva02-l-14-336", layers=2, drop_path=0.3).override(image_size=56)
        save_steps(out, config, TOKENS, learning_rate=0.1, steps=2)


@pytest.mark.slow
def test_zero_3_steps_of_compiled_functions_are_those_of_the_operators(tmp_path: Path) -> None:
    """Their parameters are gathered, freed and gathered again between forward and backward."""
    target = "tests.trainer.models.test_fusing:save_updated"
    for compiled in (True, False):
        run_ranks(2, target, out=str(tmp_path / f"{compiled}.pt"), compiled=compiled)
    torch.testing.assert_close(
        torch.load(tmp_path / "True.pt"), torch.load(tmp_path / "False.pt"), rtol=1e-4, atol=1e-5
    )
