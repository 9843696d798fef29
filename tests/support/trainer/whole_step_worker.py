"""A toy trained by DeepSpeed's own step and by `trainer.optim.whole_step`, side by side on every rank."""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.distributed as dist

from tests.support.trainer import lamb_worker
from tests.support.trainer.lamb_worker import Toy
from trainer.launch import Rank, process_group, read_rank
from trainer.models.tracing import OperatorCounter
from trainer.optim import bind_to_zero, build_optimizer, step_at_once

CLIP = 0.2
ALL = 10**9
MOST_OPERATORS = 75
"""Of a step of all groups at once, the exchanges between ranks included; DeepSpeed's takes 15 to 20 a tensor."""
SPOILED = 7
"""The step in which a gradient of one rank is not finite."""


def compare(stages: list[int], optimizers: list[str], precisions: list[str]) -> None:
    """Train 20 steps both ways; norms, masters and weights stay equal, and the spoiled step changes neither."""
    rank = read_rank()
    with process_group(rank):
        for stage, name, precision in itertools.product(stages, optimizers, precisions):
            where = f"{name} in {precision} at stage {stage} on {rank.world_size} ranks"
            wanted = _train(stage, name, precision, rank, None)
            for max_elements in (40, ALL):  # a bundle a group, and all groups in one
                found = _train(stage, name, precision, rank, max_elements)
                for key, value in wanted.items():
                    _require_close(found[key], value, f"{key} of {where}, {max_elements}")


def _require_close(found: torch.Tensor, wanted: torch.Tensor, where: str) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, msg=lambda text: f"{where}: {text}")


def _train(stage: int, name: Any, precision: str, rank: Rank, max_elements: int | None) -> dict[str, torch.Tensor]:
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    from trainer.config import OptimConfig, TowerConfig

    share = lamb_worker.BATCH // rank.world_size
    settings = {
        "train_micro_batch_size_per_gpu": share,
        "gradient_clipping": CLIP,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": precision == "bf16"},
        "zero_optimization": {"stage": stage, "stage3_param_persistence_threshold": 0, "overlap_comm": False},
    }
    model = Toy()
    config = OptimConfig(name=name, image=TowerConfig(lr=1.0), text=TowerConfig(lr=1.0))
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=build_optimizer(lamb_worker.groups(model), config), config=settings
    )
    bind_to_zero(engine)
    if max_elements is not None:
        step_at_once(engine, max_elements)
        assert "step" in vars(engine.optimizer)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    norms = []
    for number, (x, y) in enumerate(lamb_worker.batches()):
        mine = slice(rank.rank * share, (rank.rank + 1) * share)
        loss = ((engine(x[mine].to(dtype)).float() - y[mine]) ** 2).mean()
        engine.backward(loss * float("inf") if number == SPOILED and rank.rank == 0 else loss)
        with OperatorCounter() as counter:
            engine.step()
        assert engine.was_step_applied() == (number != SPOILED), (number, stage, name, max_elements)
        norms.append(float(engine.get_global_grad_norm()))
    if max_elements == ALL:
        assert counter.host_reads == 1 and counter.total < MOST_OPERATORS, (counter.total, counter.operators)
    masters = {key: safe_get_full_fp32_param(p).clone() for key, p in engine.module.named_parameters()}
    result = {"norms": torch.tensor([norm for number, norm in enumerate(norms) if number != SPOILED]), **masters}
    for key, parameter in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=stage == 3):
            result[f"weight {key}"] = parameter.detach().float().clone()
    engine.destroy()
    dist.barrier()
    return result
