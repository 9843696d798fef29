"""What compiling the small functions between the products saves, measured without a GPU.

Each function runs forward and backward alone, at the sizes and as often as a step of the model calls it. Counted are
operators, kernels that torch's compiler leaves of them, and bytes read and written, which is what such functions cost
on a GPU; the time of the host is measured on tensors so small that nothing else takes any.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from trainer import models
from trainer.models import fusing
from trainer.models.clip import Clip
from trainer.models.padding import forced
from trainer.models.tracing import OperatorCounter

PAIRS, TOKENS = 128, 32
MODELS = ("eva02-l-14", "eva02-e-14-plus", "eva-clip-18b")
BYTES_A_SECOND = 2.97e12
"""An H100's device copy, read and written, measured."""
HOST_CALLS, HOST_TURNS = 100, 5
LEAST_BYTES = 10**9
NOTES = [
    f"bf16, {PAIRS} pairs, captions of {TOKENS} tokens, forward and backward; calls of a function with one shape are a "
    "row, and what moves less than 1 GB a step is left out.",
    "operators: those of the function without compiling, each at least one kernel. kernels: what torch's compiler "
    "leaves of them on a CPU, whose rules forbid some fusions that its rules for GPUs allow; a sum over rows, as for a "
    "gain's gradient, becomes two kernels on a GPU.",
    "MB: read and written by a call. Compiled it reads its inputs and writes its results once; on the way back it "
    "reads their gradients and the smaller of its inputs and what separate operators keep.",
    "ms a step: bytes at an H100's measured 2.97 TB/s, all calls together. No GPU was at hand: this is no time that "
    "anybody saw.",
    "RMSNorm without compiling is counted as torch takes it apart on the meta device, in 24 operators; on GPUs torch "
    "has kernels of its own for it, so that eva-clip-18b gains as eva02-e-14-plus does, and no more.",
    "What follows: rotation and gate are worth compiling many times over. An addition with its norm is as many kernels "
    "as before and 1.6 ms less of a step of eva02-l-14 and 5 ms of eva02-e-14-plus, about 1 %; the host pays 100 us "
    "more for each call. So on GPUs tensors of 2^22 elements and more are compiled, and smaller ones (one token of "
    "each sample, short captions) are not. The addition at the end of a block stays by itself: the norm behind it is "
    "the next block's, and blocks are what is recomputed, sharded and compiled one by one.",
    "host us: processor time of a call on tiny tensors on one core, the least of several turns. The host pays it for "
    "each call, compiled or not, and a GPU hides it while its queue is not empty.",
]


@dataclass(frozen=True)
class Call:
    """A small function with the shapes of its tensors; other arguments are as they are."""

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def make(self, device: str, samples: int | None = None) -> list[Any]:
        """Arguments of these shapes, of fewer samples if so wished."""
        return [_make(argument, device, samples) for argument in self.arguments]


@dataclass(frozen=True)
class Shape:
    """A tensor without its elements."""

    sizes: tuple[int, ...]
    dtype: torch.dtype
    trains: bool


def _make(argument: Any, device: str, samples: int | None) -> Any:
    if not isinstance(argument, Shape):
        return argument
    sizes = argument.sizes
    if samples is not None and sizes[0] == PAIRS:
        sizes = (samples, *sizes[1:])
    made = torch.zeros(sizes, dtype=argument.dtype, device=device)
    return made.requires_grad_(argument.trains)


def trace_model(name: str) -> list[dict[str, Any]]:
    """A row for each small function and shape of a step of the model."""
    rows = []
    for call, uses in _list_calls(name).items():
        counter, fused = _count_separate(call), _count_fused(call)
        if uses * counter.bytes_moved < LEAST_BYTES:
            continue
        host = _time_host(call)
        rows.append(
            {
                "model": name,
                "function": call.name.lstrip("_"),
                "tokens × width": "×".join(str(size) for size in _first(call).sizes[1:]),
                "calls": uses,
                "operators": counter.total,
                "kernels": _count_kernels(call),
                "MB": counter.bytes_moved / 1e6,
                "compiled": fused / 1e6,
                "ms a step": uses * counter.bytes_moved / BYTES_A_SECOND * 1e3,
                "compiled ": uses * fused / BYTES_A_SECOND * 1e3,
                "host us": host[0],
                "compiled  ": host[1],
            }
        )
    return rows


def _first(call: Call) -> Shape:
    return next(argument for argument in call.arguments if isinstance(argument, Shape))


def _list_calls(name: str) -> Counter[Call]:
    """Small functions that a forward pass in training calls."""
    calls: Counter[Call] = Counter()

    def record(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            shapes = tuple(_describe(argument) for argument in arguments)
            calls[Call(function.__name__, function, shapes)] += 1
            return function(*arguments)

        return call

    with forced(True), fusing.compiled_by(record), torch.device("meta"):
        model = Clip(models.config(name)).to(torch.bfloat16)
        side = model.config.vision.image_size
        pixels = torch.empty(PAIRS, 3, side, side, dtype=torch.bfloat16)
        model(pixels, torch.empty(PAIRS, TOKENS, dtype=torch.int64))
    return calls


def _describe(argument: Any) -> Any:
    if not isinstance(argument, Tensor):
        return argument
    return Shape(tuple(argument.shape), argument.dtype, argument.requires_grad)


def _count_separate(call: Call) -> OperatorCounter:
    arguments = call.make("meta")
    with torch.device("meta"):
        upstream = [torch.zeros_like(output) for output in _outputs(call.function(*arguments))]
        counter = OperatorCounter()
        with counter:
            torch.autograd.grad(_outputs(call.function(*arguments)), _leaves(arguments), upstream)
    return counter


def _count_fused(call: Call) -> int:
    """Bytes of a call in one pass forward and one pass back."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[id(storage._cdata)] = storage.nbytes()
        return tensor

    arguments = call.make("meta")
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = _outputs(call.function(*arguments))
    inputs, results = _sum_bytes(tensors), _sum_bytes(outputs)
    gradients = torch.autograd.grad(outputs, _leaves(arguments), [o.detach() for o in outputs])
    written = _sum_bytes(list({id(gradient): gradient for gradient in gradients}.values()))
    return inputs + results + results + min(inputs, sum(kept.values())) + written


def _sum_bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _leaves(arguments: list[Any]) -> list[Tensor]:
    return [argument for argument in arguments if isinstance(argument, Tensor) and argument.requires_grad]


def _outputs(result: Any) -> list[Tensor]:
    return [result] if isinstance(result, Tensor) else list(result)


def _count_kernels(call: Call) -> int:
    """Kernels of forward and backward after the compiler has fused what it can."""
    from torch._inductor import config as inductor
    from torch._inductor.scheduler import NopKernelSchedulerNode, Scheduler

    counts = []
    generate = Scheduler.codegen

    def count(scheduler: Scheduler) -> None:
        counts.append(sum(not isinstance(node, NopKernelSchedulerNode) for node in scheduler.nodes))
        generate(scheduler)

    with inductor.patch(force_disable_caches=True), patch.object(Scheduler, "codegen", count):
        _run(torch.compile(call.function), call.make("cpu", samples=2))
    torch._dynamo.reset()
    return sum(counts)


def _run(function: Callable[..., Any], arguments: list[Any]) -> None:
    outputs = _outputs(function(*arguments))
    torch.autograd.grad(outputs, _leaves(arguments), outputs)


def _time_host(call: Call) -> tuple[float, float]:
    """Microseconds of a call, separate and compiled, with one thread on one sample."""
    small = Call(call.name, call.function, tuple(_shrink(argument) for argument in call.arguments))
    functions = (call.function, torch.compile(call.function))
    fastest = [float("inf")] * 2
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(HOST_TURNS):
            for index, function in enumerate(functions):
                arguments = small.make("cpu")
                _run(function, arguments)
                begin = time.thread_time()
                for _ in range(HOST_CALLS):
                    _run(function, arguments)
                fastest[index] = min(fastest[index], (time.thread_time() - begin) / HOST_CALLS * 1e6)
    finally:
        torch.set_num_threads(threads)
        torch._dynamo.reset()
    return fastest[0], fastest[1]


def _shrink(argument: Any) -> Any:
    """One token of two samples: axis 0 is samples, or 1 in a table of all samples, and axis 1 tokens."""
    if not isinstance(argument, Shape) or len(argument.sizes) < 3:
        return argument
    samples = 2 if argument.sizes[0] == PAIRS else argument.sizes[0]
    return Shape((samples, 2, *argument.sizes[2:]), argument.dtype, argument.trains)
