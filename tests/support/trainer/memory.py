"""What a stretch of code takes of memory, measured: bytes that autograd keeps, and the highest point of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile


def measure_kept(module: nn.Module, call: Callable[[], Any]) -> int:
    """Bytes of the tensors that `call` leaves for its backward pass, the module's parameters left out."""
    parameters = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    kept: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return sum(storage.nbytes() for key, storage in kept.items() if key not in parameters)


def measure_peak(prepare: Callable[[], Any], call: Callable[[], Any]) -> tuple[int, int]:
    """Bytes that `prepare` leaves allocated on the CPU, and the most that are while `call` runs, those included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        prepare()
        with torch.profiler.record_function("prepared"):
            pass
        call()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    now = before = most = 0
    for event in events:
        if event.name() == "prepared":
            before = most = now
        elif event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return before, most


class FlashAttention(torch.autograd.Function):
    """Keeps for its backward pass what the attention of a GPU keeps; on the meta device torch takes it apart."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """A tensor of the right shape."""
        mixed = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, mixed)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """None is taken."""
        raise AssertionError("only what is kept is measured")
