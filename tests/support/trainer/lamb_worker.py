"""A toy regression trained with LAMB, unsharded or under ZeRO, on the same global batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

NUM_STEPS = 20
BATCH = 8


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The same global batches for everybody."""
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(BATCH, 5, generator=generator), torch.randn(BATCH, 3, generator=generator))
        for _ in range(NUM_STEPS)
    ]


class Toy(nn.Module):
    """The toy with its scale used in the forward, as ZeRO-3 wants it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
        self.scale = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[b, 5]` to `[b, 3]`."""
        output: torch.Tensor = self.layers(x) * self.scale
        return output


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups of different rate and decay, as towers have."""
    named = dict(model.named_parameters())
    first = [p for n, p in named.items() if n.startswith("layers.0")]
    rest = [p for n, p in named.items() if not n.startswith("layers.0")]
    return [{"params": first, "lr": 0.05, "weight_decay": 0.1}, {"params": rest, "lr": 0.02, "weight_decay": 0.0}]


def reference(optimizer_class: Any) -> dict[str, torch.Tensor]:
    """Weights after plain, unsharded training on whole batches."""
    model = Toy()
    optimizer = optimizer_class(groups(model))
    for x, y in batches():
        optimizer.zero_grad()
        ((model(x) - y) ** 2).mean().backward()
        optimizer.step()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def train(stage: int, out: str, bind: bool = True, extra: dict[str, Any] | None = None) -> None:
    """The same training under ZeRO on this rank's share of every batch; rank 0 saves the weights."""
    import deepspeed
    import torch.distributed as dist

    from trainer.launch import process_group, read_rank
    from trainer.optim import Lamb, bind_to_zero

    rank = read_rank()
    share = BATCH // rank.world_size
    settings = {
        "train_micro_batch_size_per_gpu": share,
        "gradient_clipping": 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0, **(extra or {})},
    }
    with process_group(rank):
        model = Toy()
        engine, *_ = deepspeed.initialize(model=model, optimizer=Lamb(groups(model)), config=settings)
        if bind:
            bind_to_zero(engine)
        for x, y in batches():
            rows = slice(rank.rank * share, (rank.rank + 1) * share)
            engine.backward(((engine(x[rows]) - y[rows]) ** 2).mean())
            engine.step()
        named = dict(engine.module.named_parameters())
        with deepspeed.zero.GatheredParameters(list(named.values()), enabled=stage == 3):
            if dist.get_rank() == 0:
                torch.save({name: p.detach().clone() for name, p in named.items()}, Path(out))
