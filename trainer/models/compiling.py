"""Compile the blocks of the towers, and how many graphs the compiler keeps."""

from __future__ import annotations

import torch
from torch import nn

LEAST_CACHE_SIZE = 64
"""Graphs that the compiler keeps of one function; both towers in training and evaluation need more than its default."""


def compile_blocks(*towers: nn.Module) -> None:
    """Compile every transformer block by itself: all of one tower share one graph, and ZeRO's hooks stay outside."""
    keep_many_graphs()
    for tower in towers:
        for block in tower.get_submodule("blocks").children():
            block.compile()


def keep_many_graphs() -> None:
    """Let the compiler keep `LEAST_CACHE_SIZE` graphs of a function; beyond its limit a function runs uncompiled."""
    torch._dynamo.config.cache_size_limit = max(LEAST_CACHE_SIZE, torch._dynamo.config.cache_size_limit)
