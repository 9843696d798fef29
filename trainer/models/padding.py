"""Widths that matrix units are fast at, for layers whose own widths are none.

The hidden widths of SwiGLU in eva02-l-14 are 2730 and 5460, and its patches have 588 numbers. Products of such sizes
run on old kernels at a third of the speed of 2752, 5504 and 592. So on a GPU the layers append zeros to weights and
activations inside their forward: the products' results are the same numbers, and the parameters, their gradients,
their norms and all files know nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn.functional as F
from torch import Tensor

from trainer.models.widths import fast_width

_forced: bool | None = None


def pad_width(width: int, like: Tensor) -> int:
    """The width to compute with in place of `width`, on the device of `like`: the same on a CPU."""
    if not (like.is_cuda if _forced is None else _forced):
        return width
    return fast_width(width)


def append_zeros(x: Tensor, width: int, axis: int = -1) -> Tensor:
    """`x` with zeros appended along `axis`, the last or the first, up to `width`; `x` itself when it is as wide."""
    missing = width - x.shape[axis]
    if not missing:
        return x
    return F.pad(x, (0, missing) if axis == -1 else (0, 0) * (x.dim() - 1) + (0, missing))


@contextmanager
def forced(padded: bool) -> Iterator[None]:
    """Compute with padded widths everywhere, or nowhere, whatever the device: for tests and traces."""
    global _forced
    before, _forced = _forced, padded
    try:
        yield
    finally:
        _forced = before
