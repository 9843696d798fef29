"""Contrastive losses over the batch of all ranks: each rank scores its own rows against everybody's features.

The mean of the ranks' losses is the loss of the whole batch in one process, and so is the mean of the ranks'
gradients, which is what DeepSpeed reduces to. No rank ever holds the global [N, N] matrix, and not even its own [b, N]
rows of it: `trainer.objectives.chunked` goes through them some rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.objectives.chunked import sum_cross_entropy, sum_sigmoid_loss

Loss = Callable[[Tensor, Tensor, Tensor, Tensor | None, int], Tensor]

CHUNK_ROWS = 1024
"""Rows whose logits are held at once: enough for a matrix product at full speed."""


class _Gather(torch.autograd.Function):
    """Rows of all ranks, in rank order; the backward sums what every rank's loss says about our rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = rows.new_empty(dist.get_world_size() * rows.shape[0], *rows.shape[1:])
        dist.all_gather_into_tensor(gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        ours = gradient.new_empty(gradient.shape[0] // dist.get_world_size(), *gradient.shape[1:])
        dist.reduce_scatter_tensor(ours, gradient.contiguous())
        return ours


def world_size() -> int:
    """Number of ranks, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(rows: Tensor) -> tuple[Tensor, int]:
    """Rows `[b, …]` of all ranks as `[world_size · b, …]`, with gradients, and where ours begin."""
    if world_size() == 1:
        return rows, 0
    gather_rows: Callable[[Tensor], Tensor] = _Gather.apply
    return gather_rows(rows), dist.get_rank() * rows.shape[0]


def infonce(
    image: Tensor, text: Tensor, scale: Tensor, bias: Tensor | None = None, chunk_rows: int = CHUNK_ROWS
) -> Tensor:
    """Symmetric cross-entropy over cosine similarities (CLIP, arXiv 2103.00020, figure 3).

    Args:
        image, text: normalised features of this rank's pairs, `[b, d]` each, the same b on every rank.
        scale: inverse temperature, `[]` or `[1]`.
        bias: unused; SigLIP has one.
        chunk_rows: rows of logits that are in memory at once.

    Returns:
        This rank's loss, `[]`, float32; its mean over the ranks is the loss of the global batch.
    """
    image, text = image.float(), text.float()
    all_rows, start = gather(torch.cat((image, text), dim=1))
    all_image, all_text = all_rows.split(image.shape[1], dim=1)
    of_images = sum_cross_entropy(image, all_text, scale, start, chunk_rows)
    of_texts = sum_cross_entropy(text, all_image, scale, start, chunk_rows)
    return (of_images + of_texts) / (2 * image.shape[0])


def siglip(
    image: Tensor, text: Tensor, scale: Tensor, bias: Tensor | None = None, chunk_rows: int = CHUNK_ROWS
) -> Tensor:
    """Sigmoid loss of every pair (SigLIP, arXiv 2303.15343, algorithm 1): the sum over pairs divided by the batch.

    Arguments and result as `infonce`; `bias` is added to every logit.
    """
    all_text, start = gather(text.float())
    bias = scale.new_zeros(1) if bias is None else bias
    return sum_sigmoid_loss(image.float(), all_text, scale, bias, start, chunk_rows) / image.shape[0]


LOSSES: dict[str, Loss] = {"infonce": infonce, "siglip": siglip}
