"""Which patches a student does not see: blocks of random size and shape (BEiT, arXiv 2106.08254, algorithm 1).

All images of a batch are drawn side by side, so that a batch costs some hundred small operations on its device and
nothing waits for a Python loop over images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_BLOCK = 16
"""Patches of the smallest block while as many are missing (EVA's --min_mask_patches_per_block)."""
MAX_ASPECT = 1 / 0.3
_ROUNDS = 40
"""Blocks tried for each image; EVA tries ten in a row before it gives an image up."""


def num_masked(num_patches: int, share: float) -> int:
    """Patches hidden of each image: the nearest number, at least one and never all."""
    return min(max(1, round(num_patches * share)), num_patches - 1)


def draw_block_masks(num_images: int, grid: int, share: float, device: torch.device | None = None) -> Tensor:
    """Draw from torch's default generator: bool `[num_images, grid²]`, true for exactly `num_masked` of each row.

    EVA's generator stops short when no block fits any more; here what is missing then is drawn patch by patch, so that
    every image has as many and no rank's loss weighs more than another's.
    """
    wanted = num_masked(grid * grid, share)
    mask = torch.zeros(num_images, grid, grid, dtype=torch.bool, device=device)
    for _ in range(_ROUNDS):
        missing = wanted - mask.sum((1, 2))
        block = _draw_blocks(missing, grid)
        added = (block & ~mask).sum((1, 2))
        mask |= block & ((added > 0) & (added <= missing))[:, None, None]
    flat = mask.flatten(1)
    # A random order of the patches that are seen; the first of them fill up.
    order = torch.rand(flat.shape, device=device).masked_fill(flat, 2.0).argsort(1).argsort(1)
    return flat | (order < (wanted - flat.sum(1))[:, None])


def _draw_blocks(missing: Tensor, grid: int) -> Tensor:
    """One rectangle an image, `[n, grid, grid]`, of at most about `missing` patches; empty where it would not fit."""
    low = missing.clamp(max=MIN_BLOCK).float()
    area = low + _draw_uniform(missing) * (missing - low)
    aspect = torch.exp((2 * _draw_uniform(missing) - 1) * math.log(MAX_ASPECT))
    height, width = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    top = (_draw_uniform(missing) * (grid - height + 1)).floor()
    left = (_draw_uniform(missing) * (grid - width + 1)).floor()
    place = torch.arange(grid, device=missing.device)
    rows = (place >= top[:, None]) & (place < (top + height)[:, None])
    columns = (place >= left[:, None]) & (place < (left + width)[:, None])
    fits = (height < grid) & (width < grid)
    return rows[:, :, None] & columns[:, None, :] & fits[:, None, None]


def _draw_uniform(like: Tensor) -> Tensor:
    return torch.rand(like.shape, device=like.device)
