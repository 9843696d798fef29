"""Lion (arXiv 2302.06675, algorithm 2): the sign of interpolated momentum. Element-wise, so any ZeRO stage is exact."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class Lion(torch.optim.Optimizer):
    """Sign-momentum optimizer with decoupled weight decay. Its rates are 3 to 10 times below AdamW's."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Apply one update to every parameter that has a gradient; `closure` recomputes the loss first."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        chosen = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        if chosen:
            self._update([p for p, _ in chosen], [group for _, group in chosen])
        return loss

    def _update(self, parameters: list[Tensor], groups: list[dict[str, Any]]) -> None:
        """As many operators for any number of tensors and groups."""
        beta1, beta2 = groups[0]["betas"]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]["exp_avg"] for parameter in parameters]
        gradients = [p.grad for p in parameters if p.grad is not None]
        directions = torch._foreach_lerp(gradients, momenta, beta1)
        torch._foreach_sign_(directions)
        torch._foreach_mul_(directions, [float(group["lr"]) for group in groups])
        torch._foreach_mul_(parameters, [1 - group["lr"] * group["weight_decay"] for group in groups])
        torch._foreach_sub_(parameters, directions)
        torch._foreach_lerp_(momenta, gradients, 1 - beta2)
