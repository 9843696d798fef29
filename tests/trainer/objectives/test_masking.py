"""Masks of masked image modelling: as many patches as wanted, in blocks, anew for every image."""

from __future__ import annotations

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from trainer.objectives.masking import draw_block_masks, num_masked


def test_evas_share_hides_105_of_256() -> None:
    assert num_masked(256, 105 / 256) == 105
    assert (num_masked(16, 0.01), num_masked(4, 0.99)) == (1, 3)


@given(st.integers(1, 9), st.integers(2, 20), st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_every_image_has_exactly_as_many(num_images: int, grid: int, share: float, seed: int) -> None:
    torch.manual_seed(seed)
    mask = draw_block_masks(num_images, grid, share)
    assert mask.shape == (num_images, grid * grid) and mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [num_masked(grid * grid, share)] * num_images
    torch.manual_seed(seed)
    assert torch.equal(draw_block_masks(num_images, grid, share), mask)


def border(mask: Tensor, grid: int) -> float:
    """Mean number of neighbouring pairs of patches of which one is hidden."""
    image = mask.view(-1, grid, grid).int()
    pairs = (image.diff(dim=1).abs().sum((1, 2)) + image.diff(dim=2).abs().sum((1, 2))).float()
    return pairs.mean().item()


def loop_by_hand(num_images: int, grid: int, wanted: int) -> Tensor:
    """BEiT's algorithm 1 with EVA's numbers, block by block; stops short where ten blocks in a row do not fit."""
    rng = random.Random(0)
    masks = torch.zeros(num_images, grid, grid, dtype=torch.bool)
    for mask in masks:
        failures = 0
        while failures < 10 and (missing := wanted - int(mask.sum())) > 0:
            area, aspect = rng.uniform(16, missing), math.exp(rng.uniform(math.log(0.3), -math.log(0.3)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            failures += 1
            if height < grid and width < grid:
                top, left = rng.randint(0, grid - height), rng.randint(0, grid - width)
                block = mask[top : top + height, left : left + width]
                if 0 < int((~block).sum()) <= missing:
                    block[:] = True
                    failures = 0
    return masks


@pytest.mark.parametrize("grid", [14, 16])
def test_blocks_lie_as_those_of_a_loop_by_hand(grid: int) -> None:
    torch.manual_seed(0)
    wanted = num_masked(grid * grid, 105 / 256)
    ours, loop = draw_block_masks(2000, grid, 105 / 256).view(-1, grid, grid), loop_by_hand(500, grid, wanted)
    # How often each place is hidden: the border seldom, since blocks lie wholly inside.
    torch.testing.assert_close(ours.float().mean(0), loop.float().mean(0), atol=0.12, rtol=0)
    assert ours[:, 0, 0].float().mean() < 0.1 and ours[:, grid // 2, grid // 2].float().mean() > 0.6
    scattered = torch.rand(500, grid * grid).argsort(1) < wanted
    assert border(loop, grid) < border(ours, grid) < 1.25 * border(loop, grid) < 0.4 * border(scattered, grid)
    assert len({tuple(row.tolist()) for row in ours[:500].flatten(1)}) > 490
