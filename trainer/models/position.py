"""Fit a learned position embedding to another image size."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_position_embedding(embedding: Tensor, num_patches: int) -> Tensor:
    """Interpolate the patches' rows bicubically between square grids and keep the one of CLS.

    As EVA-CLIP's own code does it (`eva_clip/utils.py`, resize_evaclip_pos_embed): corners not aligned, and no low-pass
    filter when shrinking. Computed in float32.

    Args:
        embedding: `[1, 1 + old_grid², width]`.
        num_patches: of the new grid, a square number.

    Returns:
        `[1, 1 + num_patches, width]` in the embedding's dtype.
    """
    cls, patches = embedding[:, :1], embedding[:, 1:]
    old, new = math.isqrt(patches.shape[1]), math.isqrt(num_patches)
    if old == new:
        return embedding
    grid = patches.float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat((cls, grid.flatten(2).transpose(1, 2).to(cls.dtype)), dim=1)
