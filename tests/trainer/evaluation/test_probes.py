"""Linear probe against scikit-learn, neighbours against a loop, intervals against the normal's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.evaluation import probes


def clusters(
    seed: int, num: int = 240, dim: int = 16, num_classes: int = 5, spread: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Features around one centre a class; the centres are the same for every seed."""
    centres = torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes, (num,), generator=generator)
    noise = torch.randn(num, dim, generator=generator)
    return F.normalize(centres[labels] + spread * noise, dim=-1), labels


@pytest.mark.parametrize("strength", [0.01, 1.0, 1000.0])
def test_the_linear_classifier_is_scikit_learns(strength: float) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is the oracle")
    train, labels = clusters(0)
    test, wanted = clusters(1)
    weight, bias = probes.fit_linear(train, labels, 5, strength)
    oracle = linear_model.LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(train.double().numpy(), labels)
    torch.testing.assert_close(weight, torch.from_numpy(oracle.coef_), rtol=1e-4, atol=1e-5 * math.sqrt(strength))
    guess = (test.double() @ weight.T + bias).argmax(1)
    expected = oracle.score(test.double().numpy(), wanted)
    assert (guess == wanted).double().mean().item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("k", [1, 3, 20])
def test_neighbours_vote_as_a_loop_by_hand(k: int) -> None:
    train, labels = clusters(2, spread=2.0)
    test, _ = clusters(3, num=50, spread=2.0)
    guesses = probes.vote(train, labels, test, 5, k)
    for row, guess in zip(test, guesses, strict=True):
        cosines = sorted(
            ((float(row @ other), int(label)) for other, label in zip(train, labels, strict=True)), reverse=True
        )
        votes = np.zeros(5)
        for cosine, label in cosines[:k]:
            votes[label] += math.exp(cosine / 0.07)
        assert int(guess) == votes.argmax()


def test_every_fifth_picture_of_a_class_chooses_the_strength() -> None:
    labels = torch.tensor([0, 1] * 7 + [1])
    held = probes.hold_back(labels)
    assert [int(i) for i in held.nonzero()] == [8, 9]
    assert probes.choose_strength(torch.eye(15), torch.arange(15), 15) == 1.0
    train, labels = clusters(4)
    assert probes.choose_strength(train, labels, 5) in probes.STRENGTHS


def test_probe_tells_everything_and_finds_separable_classes() -> None:
    train, labels = clusters(5, spread=0.1)
    test, wanted = clusters(6, spread=0.1)
    result = probes.probe(train, labels, test, wanted, 5)
    assert result["linear_accuracy"] == result["knn@1_accuracy"] == result["knn@20_accuracy"] == 1
    assert (result["num_train"], result["num_test"]) == (240, 240)
    few = probes.probe(train[:10], labels[:10], test, wanted, 5)
    assert "knn@20_accuracy" not in few and few["knn@1_low"] <= few["knn@1_accuracy"] <= few["knn@1_high"]
