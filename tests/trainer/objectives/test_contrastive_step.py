"""One contrastive step: micro-batches and ranks give the loss and gradient of the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.trainer.ranks import run_ranks
from tests.support.trainer.tower_styles import randomise, shrunk
from trainer.config import TrainConfig
from trainer.data import tokenizer
from trainer.models.clip import Clip
from trainer.objectives.contrastive_model import ContrastiveModel, Outputs
from trainer.objectives.contrastive_step import contrastive_step

BATCH, WIDTH = 16, 6


class Toy(nn.Module):
    """Two linear towers; dropout stands for everything random, which both passes of a micro-batch must repeat."""

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(5, WIDTH), nn.Linear(4, WIDTH)
        self.drop = nn.Dropout(drop)
        self.scale, self.bias = nn.Parameter(torch.tensor([1.5])), nn.Parameter(torch.tensor([-2.0]))

    def forward(self, pixels: Tensor, tokens: Tensor) -> Outputs:
        """Normalised features."""
        image = F.normalize(self.drop(torch.tanh(self.image(pixels))), dim=-1)
        return Outputs(image, F.normalize(torch.tanh(self.text(tokens)), dim=-1), self.scale.exp(), self.bias)


class PlainEngine:
    """A DeepSpeed engine's face on one process: backward adds to `.grad`."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *inputs: Tensor) -> Any:
        return self.module(*inputs)

    def set_gradient_accumulation_boundary(self, last: bool) -> None:
        """Nothing to reduce."""

    def backward(self, value: Tensor) -> None:
        """Plain autograd."""
        value.backward()


def _batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {"pixels": torch.randn(BATCH, 5, generator=generator), "tokens": torch.randn(BATCH, 4, generator=generator)}


def _cut(batch: dict[str, Tensor], parts: int) -> list[dict[str, Tensor]]:
    return [{k: v.chunk(parts)[i] for k, v in batch.items()} for i in range(parts)]


def _step(name: str, parts: int, drop: float = 0.0) -> dict[str, Tensor]:
    module = Toy(drop)
    seed = torch.manual_seed if drop else lambda index: None
    value, scale = contrastive_step(PlainEngine(module), _cut(_batch(), parts), name, seed, lambda _: True)
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    return {"loss": value, "inverse temperature": scale, **gradients}


def _assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", ["infonce", "siglip"])
@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_equals_the_large_batch(name: str, parts: int) -> None:
    _assert_equal(_step(name, parts), _step(name, 1))


@pytest.mark.parametrize("style", ["eva02-b-16", "eva-clip-18b"])
def test_a_clip_accumulated_equals_the_large_batch(style: str) -> None:
    """Whole towers, patch dropout and stochastic depth off: only then has every batch the same forward."""
    images = torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    tokens = tokenizer.tokenize([f"a photo of thing {number}" for number in range(8)])
    results = []
    for parts in (1, 4):
        clip = Clip(shrunk(style))
        randomise(clip)
        module = ContrastiveModel(clip, TrainConfig(batch_size=8))
        batches = _cut({"pixels": images, "tokens": tokens}, parts)
        value, _ = contrastive_step(PlainEngine(module), batches, "infonce", torch.manual_seed, lambda _: True)
        gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
        results.append({"loss": value, **{name: g for name, g in gradients.items() if g is not None}})
    assert len(results[0]) == 1 + len(list(module.parameters()))
    _assert_equal(*results)


def test_plain_accumulation_would_not() -> None:
    module = Toy()
    for batch in _cut(_batch(), 4):
        contrastive_step(PlainEngine(module), [batch], "infonce", lambda _: None, lambda _: True)
    wanted = _step("infonce", 1)
    assert (module.image.weight.grad / 4 - wanted["image.weight"]).abs().max() > 1e-3


def test_the_second_pass_repeats_the_first_ones_random_numbers() -> None:
    # Finite differences of the cached loss under the same seeds are the oracle.
    found = _step("infonce", 2, drop=0.5)
    step, gaps = 1e-3, []
    for sign in (1, -1):
        module = Toy(0.5)
        with torch.no_grad():
            module.image.bias[0] += sign * step
        value, _ = contrastive_step(
            PlainEngine(module), _cut(_batch(), 2), "infonce", torch.manual_seed, lambda _: True
        )
        gaps.append(value.item())
    assert found["image.bias"][0].item() == pytest.approx((gaps[0] - gaps[1]) / (2 * step), rel=2e-2, abs=1e-4)


def test_an_unsound_loss_leaves_no_gradient() -> None:
    for parts in (1, 2):
        module = Toy()
        contrastive_step(PlainEngine(module), _cut(_batch(), parts), "infonce", lambda _: None, lambda _: False)
        assert all(p.grad is None for p in module.parameters())


def save_share(name: str, parts: int, stage: int, out: str) -> None:
    """One step under DeepSpeed on this rank's share; rank 0 saves loss and weights after a plain SGD step."""
    import deepspeed
    import torch.distributed as dist

    from trainer.launch import process_group, read_rank

    rank = read_rank()
    share = BATCH // rank.world_size
    settings = {
        "train_micro_batch_size_per_gpu": share // parts,
        "gradient_clipping": 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0},
    }
    mine = {k: v[rank.rank * share : (rank.rank + 1) * share] for k, v in _batch().items()}
    with process_group(rank):
        module = Toy()
        engine, *_ = deepspeed.initialize(
            model=module, optimizer=torch.optim.SGD(module.parameters(), 1.0), config=settings
        )
        value, _ = contrastive_step(engine, _cut(mine, parts), name, lambda _: None, lambda _: True)
        dist.all_reduce(value)
        engine.step()
        named = dict(engine.module.named_parameters())
        with deepspeed.zero.GatheredParameters(list(named.values()), enabled=stage == 3):
            if rank.is_first:
                torch.save({"loss": value / rank.world_size, **{n: p.detach().clone() for n, p in named.items()}}, out)


@pytest.mark.parametrize(
    ("name", "parts", "stage"),
    [
        ("infonce", 1, 1),
        ("siglip", 2, 3),
        pytest.param("infonce", 2, 2, marks=pytest.mark.slow),
        pytest.param("infonce", 4, 0, marks=pytest.mark.slow),
        pytest.param("siglip", 1, 1, marks=pytest.mark.slow),
    ],
)
def test_two_ranks_equal_one_process(name: str, parts: int, stage: int, tmp_path: Path) -> None:
    out = tmp_path / "step.pt"
    run_ranks(
        2,
        "tests.trainer.objectives.test_contrastive_step:save_share",
        name=name,
        parts=parts,
        stage=stage,
        out=str(out),
    )
    gradients = _step(name, 1)
    start = dict(Toy().named_parameters())
    unused = {n: torch.zeros_like(p) for n, p in start.items()}
    wanted = {n: p.detach() - gradients.get(n, unused[n]) for n, p in start.items()}
    _assert_equal(torch.load(out), {"loss": gradients["loss"], **wanted})
