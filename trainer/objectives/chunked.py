"""Sums of contrastive losses over a matrix of logits that never exists as a whole.

The logits of some rows are made, give their part of the loss and of every gradient, and are overwritten by the next
ones. The gradients are computed in the forward pass, while the logits are at hand, so nothing is computed twice: three
matrix products a chunk, as many as autograd's, and no [rows, columns] matrix waits for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def sum_cross_entropy(rows: Tensor, columns: Tensor, scale: Tensor, start: int, chunk_rows: int) -> Tensor:
    """Sum over i of -log softmax(scale · rows[i] · columnsᵀ)[start + i], `[]`.

    Args:
        rows: float32 `[b, d]`.
        columns: float32 `[n, d]`; row i belongs to column `start + i`.
        scale: `[]` or `[1]`.
        chunk_rows: rows of logits that are in memory at once, at least 1.
    """
    apply: Callable[..., Tensor] = _CrossEntropy.apply
    return apply(rows, columns, scale, start, chunk_rows)


def sum_sigmoid_loss(rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor, start: int, chunk_rows: int) -> Tensor:
    """Sum over all pairs of -log sigmoid(± logit), + for the pairs that belong together; arguments as above.

    `bias`, `[]` or `[1]`, is added to every logit.
    """
    apply: Callable[..., Tensor] = _SigmoidLoss.apply
    return apply(rows, columns, scale, bias, start, chunk_rows)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, columns: Tensor, scale: Tensor, start: int, chunk_rows: int) -> Tensor:
        sums = _Sums(rows, columns, scale)
        for chunk, similarity in _similarities(rows, columns, chunk_rows):
            targets = torch.arange(start + chunk.start, start + chunk.stop, device=rows.device)[:, None]
            right = similarity.gather(1, targets)
            logits = similarity * scale
            normaliser = logits.logsumexp(1, keepdim=True)
            sums.loss += (normaliser - right * scale).sum()
            # The gradient with respect to the logits: softmax, less one where row and column belong together.
            by_logits = logits.sub_(normaliser).exp_()
            by_logits.scatter_add_(1, targets, torch.full_like(right, -1.0))
            sums.add(chunk, similarity, by_logits)
        return sums.save(ctx)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, scale, _ = (saved * gradients[0] for saved in ctx.saved_tensors)
        return rows, columns, scale.view(ctx.scale_shape), None, None


class _SigmoidLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, scale: Tensor, bias: Tensor, start: int, chunk_rows: int
    ) -> Tensor:
        sums = _Sums(rows, columns, scale)
        for chunk, similarity in _similarities(rows, columns, chunk_rows):
            targets = torch.arange(start + chunk.start, start + chunk.stop, device=rows.device)[:, None]
            logits = similarity * scale + bias
            # -log sigmoid(x) is softplus(-x), and softplus(x) - x for the pairs that belong together.
            sums.loss += F.softplus(logits).sum() - logits.gather(1, targets).sum()
            by_logits = logits.sigmoid_()
            by_logits.scatter_add_(1, targets, torch.full_like(targets, -1.0, dtype=by_logits.dtype))
            sums.bias += by_logits.sum()
            sums.add(chunk, similarity, by_logits)
        ctx.bias_shape = bias.shape
        return sums.save(ctx)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, columns, scale, bias = (saved * gradients[0] for saved in ctx.saved_tensors)
        return rows, columns, scale.view(ctx.scale_shape), bias.view(ctx.bias_shape), None, None


class _Sums:
    """The loss and its gradients with respect to all that it depends on, summed chunk by chunk."""

    def __init__(self, rows: Tensor, columns: Tensor, scale: Tensor) -> None:
        self.inputs, self.factor, self.scale_shape = (rows, columns), scale, scale.shape
        self.rows, self.columns = torch.empty_like(rows), torch.zeros_like(columns)
        self.loss, self.scale, self.bias = rows.new_zeros(()), rows.new_zeros(()), rows.new_zeros(())

    def add(self, chunk: slice, similarity: Tensor, by_logits: Tensor) -> None:
        """Add what the chunk's logits contribute; overwrites both matrices, `[chunk, n]`."""
        rows, columns = self.inputs
        self.scale += similarity.mul_(by_logits).sum()
        by_similarity = by_logits.mul_(self.factor)
        torch.mm(by_similarity, columns, out=self.rows[chunk])
        self.columns.addmm_(by_similarity.T, rows[chunk])

    def save(self, ctx: Any) -> Tensor:
        """Keep the gradients for the backward pass; returns the loss."""
        ctx.scale_shape = self.scale_shape
        ctx.save_for_backward(self.rows, self.columns, self.scale, self.bias)
        return self.loss


def _similarities(rows: Tensor, columns: Tensor, chunk_rows: int) -> Iterator[tuple[slice, Tensor]]:
    """The inner products of some rows with all columns, `[chunk, n]`, and which rows they are."""
    for first in range(0, rows.shape[0], chunk_rows):
        chunk = slice(first, min(first + chunk_rows, rows.shape[0]))
        yield chunk, rows[chunk] @ columns.T
