"""Count what a stretch of code asks of its device: operators, reads by the host, products, the largest tensor.

It works on any device, "meta" included, so that launches a step can be compared without a GPU.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_NO_KERNEL = frozenset({"detach", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"})
"""Operators that start no kernel although their schemas do not say that they return views."""
_PRODUCTS = {"mm": 0, "addmm": 1}
"""Matrix products of layers, and which argument is the left matrix; attention is a kernel of its own on a GPU."""


@dataclass(frozen=True)
class Product:
    """A matrix product of `[rows, inner]` and `[inner, columns]`."""

    rows: int
    inner: int
    columns: int

    @property
    def flops(self) -> int:
        """A multiply-add counts as two."""
        return 2 * self.rows * self.inner * self.columns


class OperatorCounter(TorchDispatchMode):
    """Operators that start at least one kernel, by name, while the block runs, those of backward passes included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self.operators: Counter[str] = Counter()
        self.products: list[Product] = []
        self.largest = 0
        """Elements of the largest tensor that any operator returned, views left out."""
        self.bytes_moved = 0
        """Bytes that operators read and wrote, each tensor once an operator."""

    @property
    def total(self) -> int:
        """Operators of all names."""
        return self.operators.total()

    @property
    def host_reads(self) -> int:
        """Times that the host waited for a number."""
        return self.operators["_local_scalar_dense"]

    def share_of_flops(self, multiple: int) -> float:
        """Share of the products' FLOPs in those of which every size is a multiple of `multiple`."""
        total = sum(product.flops for product in self.products)
        whole = sum(p.flops for p in self.products if not any(s % multiple for s in (p.rows, p.inner, p.columns)))
        return whole / total

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and count it."""
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if not is_view and name not in _NO_KERNEL and torch.Tag.inplace_view not in func.tags:
            self.operators[name] += 1
            sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self.largest = max(self.largest, *sizes, 0)
            self.bytes_moved += sum(map(_size, tree_leaves((args, kwargs)))) + sum(map(_size, tree_leaves(result)))
            if name in _PRODUCTS:
                left, right = args[_PRODUCTS[name] : _PRODUCTS[name] + 2]
                self.products.append(Product(left.shape[0], left.shape[1], right.shape[1]))
        return result


def _size(leaf: Any) -> int:
    """Bytes of a tensor that lie in memory: an expanded one is read once."""
    if not isinstance(leaf, Tensor):
        return 0
    return min(leaf.numel() * leaf.element_size(), leaf.untyped_storage().nbytes())
