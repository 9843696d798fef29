"""LAMB (arXiv 1904.00962, algorithm 2) that stays LAMB when ZeRO flattens, pads and shards its parameters.

The trust ratio is a ratio of norms of one whole weight tensor. ZeRO hands an optimizer flat partitions instead, of
which a tensor may fill a part, or several parts on several ranks, so a plain LAMB computes other ratios at every stage
and world size. This one is told which stretch of a partition belongs to which parameter (`trainer.optim.segments`),
sums squares stretch by stretch and adds them up over the ranks: the result is the unsharded one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Which stretches of one flat partition belong to which parameters.

    `spans` are (start, length, index of the parameter); `num_parameters` counts the parameters of the whole flat
    group, those without a stretch on this rank included, so that the ranks' norms line up.
    """

    spans: tuple[tuple[int, int, int], ...]
    num_parameters: int
    process_group: Any = None


class Lamb(torch.optim.Optimizer):
    """Layer-wise adaptive Adam with decoupled weight decay inside the trust ratio.

    A ratio is 1 where the weight's or the update's norm is zero, and at most `max_trust_ratio`. Without `always_adapt`
    it is 1 in groups of no weight decay too, so that those are trained by Adam (the rule of NVIDIA's FusedLAMB).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        max_trust_ratio: float = 10.0,
        always_adapt: bool = True,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "always_adapt": always_adapt}
        super().__init__(params, {**defaults, "max_trust_ratio": max_trust_ratio})
        self._segments: dict[Tensor, Segments] = {}
        self._pieces: dict[Tensor, _Pieces] = {}

    def set_segments(self, segments: dict[Tensor, Segments]) -> None:
        """Declare the flat partitions among the parameters; any other parameter counts as one whole tensor."""
        self._segments, self._pieces = segments, {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Apply one update; all ranks that share a flat group must call it together."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        update = self._direction(parameter, group)
        if group["weight_decay"] or group["always_adapt"]:
            ratios = self._measure_ratios(parameter, update, group["max_trust_ratio"])
            parameter.view(-1).addcmul_(update.view(-1), ratios, value=-group["lr"])
        else:
            parameter.add_(update, alpha=-group["lr"])

    def _measure_ratios(self, parameter: Tensor, update: Tensor, highest: float) -> Tensor:
        """The trust ratio of every element's whole tensor, flat, or `[1]` where that is one tensor."""
        pieces = self._pieces.get(parameter)
        if pieces is None:
            segments = Segments(spans=((0, parameter.numel(), 0),), num_parameters=1)
            pieces = self._pieces[parameter] = _Pieces(self._segments.get(parameter, segments), parameter)
        return pieces.spread(_trust_ratios(parameter.view(-1), update.view(-1), pieces, highest))

    def _direction(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        """Adam's bias-corrected direction plus weight decay: r of algorithm 2."""
        gradient, (beta1, beta2), state = parameter.grad, group["betas"], self.state[parameter]
        assert gradient is not None
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (state["exp_avg_sq"] / (1 - beta2 ** state["step"])).sqrt_().add_(group["eps"])
        update: Tensor = state["exp_avg"] / (1 - beta1 ** state["step"])
        return update.div_(root).add_(parameter, alpha=group["weight_decay"])


class _Pieces:
    """A flat partition cut at the ends of its segments, so that a step is as many operators whatever their number."""

    def __init__(self, segments: Segments, partition: Tensor) -> None:
        self.num_parameters, self.process_group = segments.num_parameters, segments.process_group
        self.sizes: list[int] = []
        owners: list[int] = []
        end = 0
        for start, length, index in (*sorted(segments.spans), (partition.numel(), 0, -1)):
            if start > end:
                # Padding between and behind the parameters, whose owner is one more than there are parameters.
                self.sizes.append(start - end)
                owners.append(self.num_parameters)
            if length:
                self.sizes.append(length)
                owners.append(index)
            end = start + length
        self.real = [number for number, owner in enumerate(owners) if owner < self.num_parameters]
        self.owners = torch.tensor(owners, device=partition.device)
        self.real_owners = self.owners[self.real]
        self.lengths = torch.tensor(self.sizes, device=partition.device)

    def sum_squares(self, flat: Tensor) -> Tensor:
        """The sum of squares of every parameter's part of `flat`, float64 `[num_parameters]`."""
        sums = torch.zeros(self.num_parameters, dtype=torch.float64, device=flat.device)
        if not self.real:
            return sums
        parts = flat.split(self.sizes)
        norms = torch._foreach_norm([parts[number] for number in self.real])
        return sums.index_add_(0, self.real_owners, torch.stack(norms).double().square())

    def spread(self, ratios: Tensor) -> Tensor:
        """The ratio of every element's parameter, `[numel of the partition]`, or `[1]` where there is one piece."""
        if len(self.sizes) == 1 and self.real:
            return ratios[self.owners]
        by_piece = torch.cat((ratios, ratios.new_ones(1)))[self.owners]
        return by_piece.repeat_interleave(self.lengths, output_size=sum(self.sizes))


def _trust_ratios(weights: Tensor, steps: Tensor, pieces: _Pieces, highest: float) -> Tensor:
    """‖w‖ / ‖update‖ of every parameter of the flat group, `[num_parameters]`, from all ranks' stretches."""
    squares = torch.stack((pieces.sum_squares(weights), pieces.sum_squares(steps)))
    if pieces.process_group is not None:
        squares = _sum_over(squares, pieces.process_group)
    weight_norms, step_norms = squares.sqrt()
    ratios = (weight_norms / step_norms).clamp(max=highest)
    return torch.where((weight_norms > 0) & (step_norms > 0), ratios, torch.ones_like(ratios)).to(weights.dtype)


def _sum_over(values: Tensor, process_group: Any) -> Tensor:
    """All-reduce on a device the backend can reach: partitions that are offloaded lie on the CPU, NCCL sees none."""
    if dist.get_world_size(process_group) == 1:
        return values
    on_gpu = dist.get_backend(process_group) == "nccl"
    reachable = values.cuda() if on_gpu else values
    dist.all_reduce(reachable, group=process_group)
    return reachable.to(values.device)
