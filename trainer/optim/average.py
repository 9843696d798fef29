"""An exponential moving average of the masters, kept where the optimizer keeps its moments.

So ZeRO shards and offloads it with them, and checkpoints and `trainer.partitions` carry it along.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

AVERAGE = "ema"
_COUNT = "ema_steps"


def keep_average(optimizer: torch.optim.Optimizer, decay: float) -> None:
    """Let every step of `optimizer` update an average of its parameters, float32, in its state under "ema".

    The average after step n is decay_n · average + (1 - decay_n) · weights, where decay_n is `decay` but at most
    (1 + n) / (10 + n), so that the first weights do not weigh for long.
    """
    optimizer.register_step_post_hook(partial(_update_averages, decay))


@torch.no_grad()
def _update_averages(decay: float, optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """One operator for all averages that are equally old, as those of an optimizer without ZeRO are."""
    by_count: dict[int, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        state: dict[str, Any] = optimizer.state[parameter]
        if AVERAGE not in state:
            state[AVERAGE], state[_COUNT] = parameter.detach().float().clone(), 0
            continue
        state[_COUNT] += 1
        averages, masters = by_count[int(state[_COUNT])]
        averages.append(state[AVERAGE])
        masters.append(parameter.float())
    for count, (averages, masters) in by_count.items():
        torch._foreach_lerp_(averages, masters, 1 - min(decay, (1 + count) / (10 + count)))
