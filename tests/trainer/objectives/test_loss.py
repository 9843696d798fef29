"""Losses equal textbook formulas in one process."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

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
