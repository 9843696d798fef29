"""The norms of the towers, each together with the small steps beside it, which a GPU does in the same pass over memory.

Every norm is LayerNorm, or RMSNorm (arXiv 1910.07467), and its class says where it stands. ZeRO-3 gathers a module's
parameters around its forward, so what is computed with a gain is computed by the module that owns it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from trainer.models.fusing import add_and_normalise, gate_and_normalise, normalise, normalise_and_add

Kind = Literal["layer", "rms"]


class _Gains(nn.Module):
    """The gain `[width]`, which starts at `gain`, and the bias `[width]`, which starts at zero; RMSNorm has no bias."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, width: int, eps: float, kind: Kind = "layer", gain: float = 1.0) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = nn.Parameter(torch.full((width,), gain))
        self.register_parameter("bias", nn.Parameter(torch.zeros(width)) if kind == "layer" else None)

    def extra_repr(self) -> str:
        """What a printed module says of it."""
        return f"{self.width}, eps={self.eps}, bias={self.bias is not None}"


class Norm(_Gains):
    """A norm by itself."""

    def forward(self, x: Tensor) -> Tensor:
        """`[…, width]` to the same shape."""
        return normalise(x, self.weight, self.bias, self.eps)


class NormOfSum(_Gains):
    """The norm at the entry of a residual branch, with the addition of the branch before it."""

    def forward(self, x: Tensor, branch: Tensor, drop_path: float = 0.0) -> tuple[Tensor, Tensor]:
        """The sum of two `[b, n, width]`, and its norm; see `trainer.models.fusing.add_branch`."""
        return add_and_normalise(x, branch, drop_path, self.weight, self.bias, self.eps)


class NormOfBranch(_Gains):
    """The norm at the exit of a residual branch (post-norm), with the addition of that branch.

    A gain that starts at 0 makes the branch start as nothing.
    """

    def forward(self, x: Tensor, branch: Tensor, drop_path: float = 0.0) -> Tensor:
        """The sum of `x` and the norm of the branch, both `[b, n, width]`; see `trainer.models.fusing.add_branch`."""
        return normalise_and_add(x, branch, drop_path, self.weight, self.bias, self.eps)


class GatedNorm(_Gains):
    """The gate of a `SwiGlu` with its inner norm (sub-LN)."""

    def forward(self, product: Tensor, padded: int | None = None) -> Tensor:
        """`[…, ≥ 2 · width]`, gates before values, to `[…, padded]`."""
        return gate_and_normalise(product, self.width, padded or self.width, self.weight, self.bias, self.eps)
