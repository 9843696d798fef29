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
        self._layouts: dict[tuple[int, ...], _Layout] = {}

    def set_segments(self, segments: dict[Tensor, Segments]) -> None:
        """Declare the flat partitions among the parameters; any other parameter counts as one whole tensor."""
        self._segments, self._layouts = segments, {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Apply one update; all ranks that share a flat group must call it together.

        It takes as many operators for any number of groups and tensors.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        chosen = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if chosen:
            parameters, groups = [p for p, _ in chosen], [group for _, group in chosen]
            updates = self._directions(parameters, groups)
            layout = self._find_layout(parameters)
            weights, steps = [p.view(-1) for p in parameters], [update.view(-1) for update in updates]
            factors = layout.spread(self._rates(weights, steps, layout, groups))
            torch._foreach_addcmul_(weights, steps, factors, -1.0)
        return loss

    def _find_layout(self, parameters: list[Tensor]) -> _Layout:
        """The layout of these partitions; ZeRO steps one group at a time, so there may be several."""
        key = tuple(map(id, parameters))
        if key not in self._layouts:
            segments = [self._segments.get(p, Segments(((0, p.numel(), 0),), 1)) for p in parameters]
            self._layouts[key] = _Layout(segments, parameters)
        return self._layouts[key]

    def _rates(
        self, weights: list[Tensor], steps: list[Tensor], layout: _Layout, groups: list[dict[str, Any]]
    ) -> Tensor:
        """The learning rate of every whole tensor times its trust ratio, `[number of tensors]`."""
        highest = [float(group["max_trust_ratio"]) for group in groups]
        adapts = [float(bool(group["weight_decay"] or group["always_adapt"])) for group in groups]
        values = torch.tensor([[g["lr"] for g in groups], highest, adapts], dtype=torch.float64)
        rates, bounds, adapted = values.to(weights[0].device)[:, layout.partition_of]
        weight_norms, step_norms = layout.measure_norms(weights, steps)
        ratios = torch.minimum(weight_norms / step_norms, bounds)
        is_adapted = (weight_norms > 0) & (step_norms > 0) & (adapted > 0)
        scales: Tensor = rates * torch.where(is_adapted, ratios, torch.ones_like(ratios))
        return scales.to(weights[0].dtype)

    def _directions(self, parameters: list[Tensor], groups: list[dict[str, Any]]) -> list[Tensor]:
        """Adam's bias-corrected directions plus weight decay: r of algorithm 2."""
        (beta1, beta2), eps = groups[0]["betas"], groups[0]["eps"]
        states = [self.state[p] for p in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if not state:
                state["step"] = 0
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"] += 1
        gradients = [p.grad for p in parameters if p.grad is not None]
        means, squares = [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        roots = torch._foreach_div(squares, [1 - beta2 ** int(s["step"]) for s in states])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, eps)
        updates = torch._foreach_div(means, [1 - beta1 ** int(s["step"]) for s in states])
        torch._foreach_div_(updates, roots)
        decays = [float(group["weight_decay"]) for group in groups]
        if any(decays):
            torch._foreach_add_(updates, torch._foreach_mul(parameters, decays))
        return list(updates)


class _Layout:
    """All partitions of an optimizer cut at the ends of their segments: pieces, of whole tensors or of padding."""

    def __init__(self, segments: list[Segments], partitions: list[Tensor]) -> None:
        self.partitions = partitions  # kept alive, since layouts are found by the partitions' ids
        self.cuts: list[list[int]] = []
        """Sizes of the pieces of each partition."""
        owners: list[int] = []
        self.counts = [found.num_parameters for found in segments]
        self.process_groups = [found.process_group for found in segments]
        first, padding = 0, sum(self.counts)
        for found, partition in zip(segments, partitions, strict=True):
            cuts, end = [], 0
            for start, length, index in (*sorted(found.spans), (partition.numel(), 0, -1)):
                if start > end:
                    cuts.append(start - end)
                    owners.append(padding)
                if length:
                    cuts.append(length)
                    owners.append(first + index)
                end = start + length
            self.cuts.append(cuts)
            first += found.num_parameters
        device = partitions[0].device
        self.real = [number for number, owner in enumerate(owners) if owner < padding]
        self.owners = torch.tensor(owners, device=device)
        self.real_owners = self.owners[self.real]
        self.lengths = [size for cuts in self.cuts for size in cuts]
        self.sizes = [partition.numel() for partition in partitions]
        self.partition_of = torch.arange(len(partitions)).repeat_interleave(torch.tensor(self.counts)).to(device)

    def measure_norms(self, *vectors: list[Tensor]) -> Tensor:
        """‖·‖ of every whole tensor in each of the vectors, float64 `[vectors, tensors]`, from all ranks' pieces."""
        squares = torch.stack([self._sum_squares(flats) for flats in vectors])
        if len(set(map(id, self.process_groups))) == 1:
            return sum_over(squares, self.process_groups[0]).sqrt()
        parts = squares.split(self.counts, dim=1)
        sums = [sum_over(part.contiguous(), g) for part, g in zip(parts, self.process_groups, strict=True)]
        return torch.cat(sums, dim=1).sqrt()

    def _sum_squares(self, flats: list[Tensor]) -> Tensor:
        sums = torch.zeros(sum(self.counts), dtype=torch.float64, device=flats[0].device)
        if not self.real:
            return sums
        pieces = [piece for flat, cuts in zip(flats, self.cuts, strict=True) for piece in flat.split(cuts)]
        norms = torch._foreach_norm([pieces[number] for number in self.real])
        return sums.index_add_(0, self.real_owners, torch.stack(norms).double().square())

    def spread(self, rates: Tensor) -> list[Tensor]:
        """The rate of every element's tensor, as flat as the partitions; 0 for padding."""
        by_piece = torch.cat((rates, rates.new_zeros(1)))[self.owners]
        # repeat_interleave would make an int64 index of every element, twice as large as the result.
        spread = torch.cat([rate.expand(n) for rate, n in zip(by_piece.unbind(), self.lengths, strict=True)])
        return list(spread.split(self.sizes))


def sum_over(values: Tensor, process_group: Any) -> Tensor:
    """All-reduce on a device the backend can reach: partitions that are offloaded lie on the CPU, NCCL sees none."""
    if process_group is None or dist.get_world_size(process_group) == 1:
        return values
    on_gpu = dist.get_backend(process_group) == "nccl"
    reachable = values.cuda() if on_gpu else values
    dist.all_reduce(reachable, group=process_group)
    return reachable.to(values.device)
