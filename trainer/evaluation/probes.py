"""What frozen features are worth: a linear classifier and nearest neighbours, with intervals by the bootstrap.

Features are the normalised embeddings that retrieval uses, as in clip_benchmark; the probe of CLIP's paper
(arXiv 2103.00020, section 3.2) reads the layer before the projection, so its figures are others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.evaluation.intervals import bootstrap_interval

STRENGTHS = tuple(10.0**e for e in range(-2, 6))
"""C of logistic regression, one for the other by accuracy on held-back training pictures."""
NEIGHBOURS = (1, 20)
TEMPERATURE = 0.07
"""Of the neighbours' votes (Wu et al., arXiv 1805.01978, section 3.1)."""
HELD_BACK = 5
"""Every fifth training picture of a class chooses C."""
_ROWS = 1024


def probe(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, num_classes: int) -> dict[str, float]:
    """Accuracy of a linear classifier and of k nearest neighbours, each with its 95 % interval over test pictures.

    Args:
        train, test: normalised features, `[n, d]` and `[m, d]`.
        train_labels, test_labels: int64 `[n]` and `[m]`, below `num_classes`.
    """
    strength = choose_strength(train, train_labels, num_classes)
    weight, bias = fit_linear(train, train_labels, num_classes, strength)
    result = {"num_train": float(len(train)), "num_test": float(len(test)), "linear_c": strength}
    guesses = {"linear": (test.double() @ weight.T + bias).argmax(1)}
    for k in NEIGHBOURS:
        if k <= len(train):
            guesses[f"knn@{k}"] = vote(train, train_labels, test, num_classes, k)
    for name, guess in guesses.items():
        right = (guess == test_labels).double()
        low, high = bootstrap_interval(right)
        result |= {f"{name}_accuracy": right.mean().item(), f"{name}_low": low, f"{name}_high": high}
    return result


def fit_linear(features: Tensor, labels: Tensor, num_classes: int, strength: float) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression: weight `[num_classes, d]` and bias `[num_classes]`, float64.

    Minimises ½‖W‖² + C Σ cross-entropy, the bias unpenalised, as scikit-learn's LogisticRegression does.
    """
    rows = features.double()
    weight = torch.zeros(num_classes, rows.shape[1], dtype=torch.float64, device=rows.device, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, device=rows.device, requires_grad=True)
    scale = 1 / (strength * len(rows))  # of order one whatever C and n, so that the tolerances mean the same
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=2_000,
        tolerance_grad=1e-9,
        tolerance_change=1e-15,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        with torch.enable_grad():
            fit = F.cross_entropy(rows @ weight.T + bias, labels)
            loss = fit + 0.5 * scale * weight.square().sum()
            loss.backward()
        return loss.detach()

    optimizer.step(closure)
    return weight.detach(), bias.detach()


def choose_strength(features: Tensor, labels: Tensor, num_classes: int) -> float:
    """The smallest of STRENGTHS with the highest accuracy on every fifth picture of each class."""
    held = hold_back(labels)
    if not held.any() or held.all():
        return 1.0
    best, most = STRENGTHS[0], -1.0
    for strength in STRENGTHS:
        weight, bias = fit_linear(features[~held], labels[~held], num_classes, strength)
        right = ((features[held].double() @ weight.T + bias).argmax(1) == labels[held]).double().mean().item()
        if right > most:
            best, most = strength, right
    return best


def hold_back(labels: Tensor) -> Tensor:
    """bool `[n]`: every HELD_BACK-th picture of its class, in the order given."""
    order = torch.argsort(labels, stable=True)
    sorted_labels = labels[order]
    first = torch.searchsorted(sorted_labels, sorted_labels)
    place = torch.empty_like(labels)
    place[order] = torch.arange(len(labels), device=labels.device) - first
    return place % HELD_BACK == HELD_BACK - 1


def vote(train: Tensor, train_labels: Tensor, test: Tensor, num_classes: int, k: int) -> Tensor:
    """The class with the largest sum of exp(cosine / TEMPERATURE) among the k nearest, int64 `[m]`."""
    guesses = []
    for start in range(0, len(test), _ROWS):
        similarity, nearest = (test[start : start + _ROWS].float() @ train.float().T).topk(k, dim=1)
        # Relative to the nearest, so that nothing overflows; the order of the sums is the same.
        weight = ((similarity - similarity[:, :1]) / TEMPERATURE).exp().double()
        votes = torch.zeros(len(weight), num_classes, dtype=torch.float64, device=weight.device)
        guesses.append(votes.scatter_add(1, train_labels[nearest], weight).argmax(1))
    return torch.cat(guesses)
