"""Count what a stretch of code asks of the device: operators, reads by the host, and the largest tensor."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_VIEWS = frozenset({"detach", "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "lift_fresh"})
"""Operators that start no kernel although their schemas do not say that they return views."""


class OperatorCounter(TorchDispatchMode):
    """Operators that start at least one kernel, by name, while the block runs, those of backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.largest = 0
        """Elements of the largest tensor that any operator returned, views left out."""

    @property
    def total(self) -> int:
        """Operators of all names."""
        return self.operators.total()

    @property
    def host_reads(self) -> int:
        """Times that the host waited for a number."""
        return self.operators["_local_scalar_dense"]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and count it."""
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        if not is_view and name not in _VIEWS and torch.Tag.inplace_view not in func.tags:
            self.operators[name] += 1
            sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self.largest = max(self.largest, *sizes, 0)
        return result
