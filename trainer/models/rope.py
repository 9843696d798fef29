"""Rotary position embedding in two dimensions, as the EVA-02 towers use it (arXiv 2303.11331, section 2.1)."""

import torch
from torch import Tensor

from trainer.models.fusing import rotate_pairs


def rotation_table(
    grid: int, head_width: int, pretrained_grid: int, *, theta: float = 10_000.0, device: torch.device | None = None
) -> Tensor:
    """Angles' cosines and sines for CLS and every patch, row by row.

    The first half of a head's pairs turns with the row, the second half with the column; positions are scaled so that
    a finer grid spans the pre-trained one. CLS is not turned: its row is cosine 1, sine 0.

    Returns:
        float32 `[1 + grid², head_width / 2, 2]`: for every pair of a head the cosine and the sine.
    """
    position = torch.arange(grid, device=device, dtype=torch.float32) / grid * pretrained_grid
    num_frequencies = head_width // 4
    exponent = torch.arange(num_frequencies, device=device, dtype=torch.float32) / num_frequencies
    angle = position[:, None] * (1.0 / theta**exponent)
    rows = angle[:, None, :].expand(grid, grid, -1)
    columns = angle[None, :, :].expand(grid, grid, -1)
    patches = torch.cat((rows, columns), dim=-1).flatten(0, 1)
    angles = torch.cat((patches.new_zeros(1, head_width // 2), patches))
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turn neighbouring pairs of the last axis by the angles of their token.

    Args:
        x: `[batch, tokens, …, head_width]`, any floating dtype.
        table: `[tokens, head_width / 2, 2]`, or with a batch axis in front where every sample kept its own patches.

    Returns:
        The shape and dtype of `x`; the arithmetic is float32 or wider.
    """
    middle = (1,) * (x.dim() - 3)
    table = table.to(torch.promote_types(x.dtype, torch.float32))
    return rotate_pairs(x, table.view(-1, x.shape[1], *middle, x.shape[-1] // 2, 2))
