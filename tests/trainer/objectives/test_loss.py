"""Losses equal textbook formulas in one process."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.models.tracing import OperatorCounter
from trainer.objectives import loss

BATCH, WIDTH = 16, 6


def _pairs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    image, text = torch.randn(2, BATCH, WIDTH, generator=generator, dtype=torch.float64)
    return F.normalize(image, dim=-1), F.normalize(text, dim=-1)


def test_infonce_is_the_mean_of_two_softmax_losses() -> None:
    image, text = _pairs()
    logits = (13.0 * image @ text.T).numpy()
    of_images = [-(row[i] - torch.logsumexp(torch.tensor(row), 0).item()) for i, row in enumerate(logits)]
    of_texts = [-(row[i] - torch.logsumexp(torch.tensor(row), 0).item()) for i, row in enumerate(logits.T)]
    wanted = sum(of_images + of_texts) / (2 * BATCH)
    assert loss.infonce(image, text, torch.tensor(13.0)).item() == pytest.approx(wanted, rel=1e-5)


def test_siglip_is_the_sum_over_all_pairs_divided_by_the_batch() -> None:
    image, text = _pairs()
    total = 0.0
    for i in range(BATCH):
        for j in range(BATCH):
            sign = 1.0 if i == j else -1.0
            total += torch.log1p(torch.exp(-sign * (10.0 * image[i] @ text[j] - 5.0))).item()
    found = loss.siglip(image, text, torch.tensor([10.0]), torch.tensor([-5.0]))
    assert found.item() == pytest.approx(total / BATCH, rel=1e-5)


def _whole_infonce(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    targets = torch.arange(len(image))
    of_images = F.cross_entropy(scale * image @ text.T, targets)
    return (of_images + F.cross_entropy(scale * text @ image.T, targets)) / 2 + 0 * bias.sum()


def _whole_siglip(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    signs = 2 * torch.eye(len(image)) - 1
    return -F.logsigmoid(signs * (scale * image @ text.T + bias)).sum() / len(image)


WHOLE = {"infonce": _whole_infonce, "siglip": _whole_siglip}


def _leaves(batch: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(11)
    image, text = F.normalize(torch.randn(2, batch, width, generator=generator), dim=-1)
    return [leaf.requires_grad_() for leaf in (image, text, torch.tensor([14.0]), torch.tensor([-5.0]))]


@pytest.mark.parametrize("name", sorted(WHOLE))
@pytest.mark.parametrize("chunk_rows", [1, 7, 32, 100])
def test_chunks_of_rows_are_the_whole_matrix(name: str, chunk_rows: int) -> None:
    leaves = _leaves(32, 24)
    wanted = WHOLE[name](*leaves)
    wanted_gradients = torch.autograd.grad(3 * wanted, leaves)
    found = loss.LOSSES[name](*leaves, chunk_rows)
    gradients = torch.autograd.grad(3 * found, leaves, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    for gradient, wanted_gradient in zip(gradients, wanted_gradients, strict=True):
        scale = float(wanted_gradient.abs().max()) + 1e-6
        torch.testing.assert_close(gradient / scale, wanted_gradient / scale, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_no_tensor_is_larger_than_a_chunk_of_rows_by_the_batch(name: str) -> None:
    """Nor larger than the features themselves, `[512, 16]`, here the smaller of the two."""
    leaves = _leaves(512, 16)
    with OperatorCounter() as whole:
        WHOLE[name](*leaves).backward()
    with OperatorCounter() as chunked:
        loss.LOSSES[name](*leaves, 32).backward()
    assert whole.largest == 512 * 512
    assert chunked.largest == 32 * 512
