"""Small functions between the matrix products, each compiled into one kernel on a GPU.

Eagerly a rotation or a gated hidden layer is four to six passes over memory. These functions take tensors and know no
module, so that ZeRO's hooks, recomputation and compiled blocks see nothing of their compilation.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.models.padding import append_zeros

logger = logging.getLogger("trainer")

Mode = Literal["auto", "on", "off"]
_mode: Mode = "auto"


def set_mode(mode: Mode) -> None:
    """Compile on GPUs where a first small function compiles (auto), always (on), or never (off)."""
    global _mode
    _mode = mode


def fuse(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, compiled where `set_mode` says so. Its first argument is a tensor on the device that computes."""
    compiled = functools.cache(lambda: torch.compile(function))

    @functools.wraps(function)
    def call(x: Tensor, *rest: Any) -> Tensor:
        # Inside a compiled block the compiler sees the function itself.
        if torch.compiler.is_compiling() or not _is_compiled_on(x.device.type):
            return function(x, *rest)
        result: Tensor = compiled()(x, *rest)
        return result

    return call


def _is_compiled_on(device_type: str) -> bool:
    if _mode == "auto":
        return device_type == "cuda" and _compiles_on(device_type)
    return _mode == "on"


@functools.cache
def _compiles_on(device_type: str) -> bool:
    """Whether the compiler works here at all: it needs Triton and a C compiler, which not every machine has."""
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(8, device=device_type))
    except Exception as error:  # the compiler raises whatever its parts raise
        logger.warning("small functions are not compiled, since torch.compile fails here: %s", error)
        return False
    return True


@fuse
def gate(product: Tensor, width: int, padded: int) -> Tensor:
    """SiLU of the first `width` columns times the next ones: `[…, ≥ 2 · width]` to `[…, padded]`, zeros behind."""
    return append_zeros(_gate(product, width), padded)


@fuse
def gate_and_normalise(
    product: Tensor, width: int, padded: int, weight: Tensor, bias: Tensor | None, eps: float
) -> Tensor:
    """As `gate`, with a norm over the `width` real columns between: LayerNorm with a bias, and RMSNorm without."""
    hidden = _gate(product, width)
    if bias is None:
        return append_zeros(F.rms_norm(hidden, (width,), weight, eps), padded)
    return append_zeros(F.layer_norm(hidden, (width,), weight, bias, eps), padded)


def _gate(product: Tensor, width: int) -> Tensor:
    asking, value, _ = product.split((width, width, product.shape[-1] - 2 * width), dim=-1)
    gated: Tensor = F.silu(asking) * value
    return gated


@fuse
def rotate_pairs(x: Tensor, table: Tensor) -> Tensor:
    """Turn neighbouring pairs of the last axis: see `trainer.models.rope.rotate`, whose `table` is broadcast here."""
    wide = x if x.dtype == torch.float64 else x.float()
    pairs = wide.unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():
        # The compiler fuses this; of complex numbers it makes separate kernels.
        cosine, sine = table.unbind(-1)
        even, odd = pairs.unbind(-1)
        turned = torch.stack((even * cosine - odd * sine, odd * cosine + even * sine), dim=-1)
    else:
        # Three operators instead of nine, and a third of the time of the lines above.
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table))
    return turned.flatten(-2).to(x.dtype)


def add_branch(x: Tensor, branch: Tensor, drop_path: float) -> Tensor:
    """A residual branch under stochastic depth (arXiv 1603.09382): a sample's whole branch is zero with `drop_path`.

    Args:
        x, branch: `[b, n, width]`.
        drop_path: in [0, 1); 0 outside training.
    """
    if not drop_path:
        return x + branch
    keep = branch.new_empty(branch.shape[0], 1, 1).bernoulli_(1 - drop_path)
    return torch.addcmul(x, branch, keep, value=1 / (1 - drop_path))
