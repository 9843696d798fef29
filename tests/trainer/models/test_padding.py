"""Padded widths change how products are computed and nothing else: results, gradients, updates, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.support.trainer.ranks import run_ranks
from tests.support.trainer.sharded_steps import save_steps
from tests.support.trainer.small_models import pixels
from tests.support.trainer.tower_styles import SHRUNK, randomise, shrunk
from trainer import models, weights
from trainer.data import tokenizer
from trainer.layouts import LAYOUTS
from trainer.models import fusing
from trainer.models.clip import Clip
from trainer.models.padding import append_zeros, forced, pad_width
from trainer.models.tracing import OperatorCounter
from trainer.optim import Lamb
from trainer.optim.masters import LossScale, MasterWeights

TOKENS = tokenizer.tokenize(["a dog", "two cats on a mat"])


def _model(name: str, **vision: Any) -> Clip:
    config = shrunk(name, **vision)
    model = Clip(config.override(image_size=4 * config.vision.patch_size))
    randomise(model)
    return model.double()


def _loss(model: Clip) -> Tensor:
    torch.manual_seed(5)  # for stochastic depth
    image, text, scale = model(pixels(model).double(), TOKENS)
    return (F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T * scale).logsumexp(1).sum() + image.square().mean()


def test_widths_are_full_tiles_where_that_costs_little_and_aligned_otherwise() -> None:
    with forced(True):
        found = {width: pad_width(width, torch.empty(0)) for width in (2730, 5460, 588, 768, 6144, 15360, 682)}
    assert found == {2730: 2752, 5460: 5504, 588: 592, 768: 768, 6144: 6144, 15360: 15360, 682: 688}
    assert pad_width(2730, torch.empty(0)) == 2730, "a CPU has nothing from it"


@pytest.mark.parametrize("name", [name for name in models.names() if name not in ("debug", "filter-small")])
def test_nearly_all_multiplications_are_of_full_tiles(name: str) -> None:
    """On the meta device, where shapes are all there is, with two blocks a tower and 64 pairs.

    The two models left out are small ones for a CPU.
    """
    with forced(True), torch.device("meta"):
        model = Clip(models.config(name, vision={"layers": 2}, text={"layers": 2}))
        side = model.config.vision.image_size
        with OperatorCounter() as counter:
            image, text, _ = model(torch.empty(64, 3, side, side), torch.empty(64, 77, dtype=torch.int64))
            (image.sum() + text.sum()).backward()
    assert counter.share_of_flops(8) == 1
    assert counter.share_of_flops(64) > 0.9


@pytest.mark.parametrize("name", SHRUNK)
@pytest.mark.parametrize("recompute", [False, True])
def test_results_and_gradients_are_those_of_the_plain_widths(name: str, recompute: bool) -> None:
    model = _model(name)
    model.set_grad_checkpointing(recompute)
    found = []
    for padded in (False, True):
        with forced(padded):
            loss = _loss(model)
            found.append([loss, *torch.autograd.grad(loss, [p for p in model.parameters()])])
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["lamb", "adamw"])
def test_twenty_steps_are_those_of_the_plain_widths(kind: str) -> None:
    """LAMB's norms and weight decay are of the parameters alone."""
    trained = []
    for padded in (False, True):
        model = _model("eva02-l-14-336", layers=2)
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
        if kind == "lamb":
            optimizer = Lamb(model.parameters(), lr=1e-3, weight_decay=0.1)
        with forced(padded):
            for _ in range(20):
                _loss(model).backward()
                optimizer.step()
                optimizer.zero_grad()
        trained.append(model.state_dict())
    assert {k: v.shape for k, v in trained[0].items()} == {k: v.shape for k, v in trained[1].items()}
    torch.testing.assert_close(trained[1], trained[0], rtol=1e-6, atol=1e-7)


def test_checkpoints_are_those_of_the_plain_widths_and_go_on_without_them() -> None:
    """Masters and moments have the parameters' own shapes: a run may move between a GPU, which pads, and a CPU."""
    saved: list[Any] = []
    for padded in (False, True):
        _, masters = _train_with_masters(padded, [])
        saved.append(masters.state_dict())
    for kind in ("masters", "states"):
        torch.testing.assert_close(saved[1][kind], saved[0][kind], rtol=1e-3, atol=1e-5)
    model, moved = _train_with_masters(False, saved[1:])
    for name, parameter in model.named_parameters():
        assert moved.masters()[name].shape == parameter.shape


def _train_with_masters(padded: bool, states: list[Any]) -> tuple[Clip, MasterWeights]:
    model = _model("eva02-l-14-336", layers=2).float()
    optimizer = Lamb([{"params": list(model.parameters()), "lr": 1e-3, "weight_decay": 0.1}])
    masters = MasterWeights(optimizer, torch.float32, 1.0, LossScale())
    masters.attach(model)
    for state in states:
        masters.load_state_dict(state)
    with forced(padded):
        for _ in range(3):
            _loss_in_float32(model).backward()
            masters.step()
    return model, masters


def test_files_hold_the_same_tensors() -> None:
    """In every layout, to the bit: a step that was padded leaves nothing behind in the model."""
    model = _model("eva02-l-14-336", layers=2)
    plain = {layout: weights.export_state(model.state_dict(), model.config, layout) for layout in LAYOUTS}
    with forced(True):
        _loss(model).backward()
        padded = {layout: weights.export_state(model.state_dict(), model.config, layout) for layout in LAYOUTS}
    for layout, tensors in plain.items():
        assert tensors.keys() == padded[layout].keys()
        assert all(torch.equal(tensor, padded[layout][name]) for name, tensor in tensors.items()), layout


@pytest.mark.parametrize("bias", [torch.linspace(-1, 1, 11), None])
def test_the_inner_norm_sees_the_real_columns_only(bias: Tensor | None) -> None:
    product = torch.randn(3, 5, 24)
    product[..., 22:] = 0
    weight = torch.linspace(0.5, 2, 11)
    hidden = F.silu(product[..., :11]) * product[..., 11:22]
    wanted = F.rms_norm(hidden, (11,), weight, 1e-6)
    if bias is not None:
        wanted = F.layer_norm(hidden, (11,), weight, bias, 1e-6)
    found = fusing.gate_and_normalise(product, 11, 16, weight, bias, 1e-6)
    torch.testing.assert_close(found, append_zeros(wanted, 16), rtol=0, atol=0)
    assert not found[..., 11:].any()


@pytest.mark.slow
@pytest.mark.parametrize("compiled", ["functions", "blocks"])
def test_compiled_functions_and_blocks_are_the_plain_ones(compiled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model("eva02-l-14-336", layers=1).float()
    wanted = torch.autograd.grad(_loss_in_float32(model), list(model.parameters()))
    if compiled == "functions":
        monkeypatch.setattr(fusing, "_mode", "on")
    else:
        for block in model.visual.blocks:
            block.compile(backend="aot_eager")
    with forced(True):
        found = torch.autograd.grad(_loss_in_float32(model), list(model.parameters()))
    for gradient, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, plain, rtol=1e-3, atol=1e-4 * float(plain.abs().max()) + 1e-7)


def _loss_in_float32(model: Clip) -> Tensor:
    image, text, scale = model(pixels(model), TOKENS)
    return (F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T * scale).logsumexp(1).sum() + image.square().mean()


def save_updated(out: str, padded: bool) -> None:
    """The weights after a step under ZeRO-3 on this rank, with padded widths or without."""
    with forced(padded):
        config = shrunk("eva02-l-14-336", layers=2).override(image_size=56)
        save_steps(out, config, TOKENS, learning_rate=1.0, steps=1)


@pytest.mark.slow
def test_zero_3_steps_are_those_of_the_plain_widths(tmp_path: Path) -> None:
    target = "tests.trainer.models.test_padding:save_updated"
    for padded in (False, True):
        run_ranks(2, target, out=str(tmp_path / f"{padded}.pt"), padded=padded)
    torch.testing.assert_close(
        torch.load(tmp_path / "True.pt"), torch.load(tmp_path / "False.pt"), rtol=1e-4, atol=1e-5
    )
