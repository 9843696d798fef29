"""Small functions between the matrix products, each compiled into one kernel on a GPU.

Eagerly a rotation or a gated hidden layer is four to six passes over memory. These functions take tensors and know no
module, so that ZeRO's hooks, recomputation and compiled blocks see nothing of their compilation.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.models.compiling import keep_many_graphs
from trainer.models.padding import append_zeros

logger = logging.getLogger("trainer")

Mode = Literal["auto", "on", "off"]
LEAST_ELEMENTS = 2**22
"""Below it a function takes a GPU less than the 100 us that a compiled call takes the host longer."""
_mode: Mode = "auto"
_compile: Callable[[Any], Any] | None = None
"""What compiles in the place of torch.compile."""
P = ParamSpec("P")
R = TypeVar("R")


def set_mode(mode: Mode) -> None:
    """Compile always (on), never (off), or for large tensors on GPUs where a first small function compiles (auto)."""
    global _mode
    _mode = mode


@contextmanager
def compiled_by(compiler: Callable[[Any], Any]) -> Iterator[None]:
    """Give every small function to `compiler` and call what it returns, on any device: for tests and traces."""
    global _mode, _compile
    before, _mode, _compile = _mode, "on", compiler
    try:
        yield
    finally:
        _mode, _compile = before, None


def fuse(function: Callable[Concatenate[Tensor, P], R]) -> Callable[Concatenate[Tensor, P], R]:
    """The function, compiled where `set_mode` says so. Its first argument is a tensor on the device that computes."""

    @functools.cache
    def compile_once(compiler: Callable[[Any], Any] | None) -> Callable[Concatenate[Tensor, P], R]:
        if compiler is None:
            keep_many_graphs()
            compiler = torch.compile
        compiled: Callable[Concatenate[Tensor, P], R] = compiler(function)
        return compiled

    @functools.wraps(function)
    def call(x: Tensor, /, *rest: P.args, **named: P.kwargs) -> R:
        # Inside a compiled block the compiler sees the function itself.
        if torch.compiler.is_compiling() or not _is_compiled(x.device.type, x.numel()):
            return function(x, *rest, **named)
        return compile_once(_compile)(x, *rest, **named)

    return call


def _is_compiled(device_type: str, num_elements: int) -> bool:
    if _mode == "auto":
        return device_type == "cuda" and num_elements >= LEAST_ELEMENTS and _compiles_on(device_type)
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
    """As `gate`, with `normalise` over the `width` real columns between."""
    return append_zeros(normalise(_gate(product, width), weight, bias, eps), padded)


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


def normalise(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """LayerNorm with a bias, and RMSNorm without, of the last axis of `x`; torch has one kernel for either."""
    width = (weight.shape[0],)
    return F.rms_norm(x, width, weight, eps) if bias is None else F.layer_norm(x, width, weight, bias, eps)


def add_branch(x: Tensor, branch: Tensor, drop_path: float) -> Tensor:
    """A residual branch under stochastic depth (arXiv 1603.09382): a sample's whole branch is zero with `drop_path`.

    Args:
        x, branch: `[b, n, width]`.
        drop_path: in [0, 1); 0 outside training.
    """
    keep = _draw_kept(branch, drop_path)
    return x + branch if keep is None else _add_kept(x, branch, keep)


def add_and_normalise(
    x: Tensor, branch: Tensor, drop_path: float, weight: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """As `add_branch`, and `normalise` of the sum."""
    return _add_and_normalise(x, branch, _draw_kept(branch, drop_path), weight, bias, eps)


def normalise_and_add(
    x: Tensor, branch: Tensor, drop_path: float, weight: Tensor, bias: Tensor | None, eps: float
) -> Tensor:
    """As `add_branch`, of `normalise` of the branch."""
    return _normalise_and_add(x, branch, _draw_kept(branch, drop_path), weight, bias, eps)


def _draw_kept(branch: Tensor, drop_path: float) -> Tensor | None:
    """Of every sample 0, or what makes up for the zeros of others: `[b, 1, 1]`, float32 or wider; None keeps all."""
    if not drop_path:
        return None
    wide = torch.promote_types(branch.dtype, torch.float32)
    # Drawn outside of what is compiled, whose random numbers would be others.
    return branch.new_empty(branch.shape[0], 1, 1, dtype=wide).bernoulli_(1 - drop_path).div_(1 - drop_path)


@fuse
def _add_kept(x: Tensor, branch: Tensor, keep: Tensor) -> Tensor:
    return _add(x, branch, keep)


@fuse
def _add_and_normalise(
    x: Tensor, branch: Tensor, keep: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    total = _add(x, branch, keep)
    return total, normalise(total, weight, bias, eps)


@fuse
def _normalise_and_add(
    x: Tensor, branch: Tensor, keep: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float
) -> Tensor:
    return _add(x, normalise(branch, weight, bias, eps), keep)


def _add(x: Tensor, branch: Tensor, keep: Tensor | None) -> Tensor:
    return x + branch if keep is None else torch.addcmul(x, branch, keep).to(x.dtype)
