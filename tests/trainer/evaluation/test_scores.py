"""Scores against brute force over all orders of ties, and against sorting."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainer.evaluation import scores
from trainer.objectives import loss


def features(values: list[list[int]]) -> Tensor:
    """Small whole numbers: ties are many and exact."""
    return torch.tensor(values, dtype=torch.float32)


def expected_hit(own: set[int], similarity: list[float], k: int) -> float:
    """Share of all orders that sort `similarity` downwards which have one of `own` among their first k."""
    count = hits = 0
    for order in permutations(range(len(similarity))):
        values = [similarity[i] for i in order]
        if values == sorted(values, reverse=True):
            count += 1
            hits += bool(own & set(order[:k]))
    return hits / count


VECTORS = st.lists(st.integers(-1, 1), min_size=2, max_size=2)


@settings(max_examples=60, deadline=None)
@given(st.lists(VECTORS, min_size=1, max_size=4), st.lists(VECTORS, min_size=0, max_size=2), st.data())
def test_recall_is_the_mean_over_all_orders_of_ties(
    image: list[list[int]], more: list[list[int]], data: st.DataObject
) -> None:
    image_of = list(range(len(image)))
    image_of += [data.draw(st.integers(0, len(image) - 1)) for _ in more]
    text = [data.draw(VECTORS) for _ in image_of]
    found = scores.score_retrieval(features(image), features(text), torch.tensor(image_of), at=(1, 2, 3))
    similarity = features(image) @ features(text).T
    for k in (1, 2, 3):
        if k <= len(text):
            own = [{t for t, i in enumerate(image_of) if i == index} for index in range(len(image))]
            hits = [expected_hit(own[i], similarity[i].tolist(), k) for i in range(len(image))]
            assert math.isclose(found[f"image_to_text_recall@{k}"], sum(hits) / len(hits))
            chance = [expected_hit(own[i], [0.0] * len(text), k) for i in range(len(image))]
            assert math.isclose(found[f"image_to_text_chance@{k}"], sum(chance) / len(chance))
        if k <= len(image):
            hits = [expected_hit({image_of[t]}, similarity[:, t].tolist(), k) for t in range(len(text))]
            assert math.isclose(found[f"text_to_image_recall@{k}"], sum(hits) / len(hits))
            assert found[f"text_to_image_chance@{k}"] == k / len(image)
        assert (f"text_to_image_recall@{k}" in found) == (k <= len(image))


def test_recall_of_many_rows_equals_that_by_sorting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "_ROWS", 7)
    torch.manual_seed(0)
    image_of = torch.cat((torch.arange(40), torch.randint(0, 40, (60,))))
    image = F.normalize(torch.randn(40, 8), dim=1)
    text = F.normalize(image[image_of] + 0.6 * torch.randn(100, 8), dim=1)
    found = scores.score_retrieval(image, text, image_of)
    for k in (1, 5, 10):
        nearest = (image @ text.T).topk(k, dim=1).indices
        hits = (image_of[nearest] == torch.arange(40)[:, None]).any(1).double().mean().item()
        assert math.isclose(found[f"image_to_text_recall@{k}"], hits) and hits > 0
        nearest = (text @ image.T).topk(k, dim=1).indices
        hits = (nearest == image_of[:, None]).any(1).double().mean().item()
        assert math.isclose(found[f"text_to_image_recall@{k}"], hits) and hits > 0
    assert found["num_images"] == 40 and found["num_captions"] == 100


def test_collapsed_features_score_as_chance_does() -> None:
    image_of = torch.tensor([0, 1, 2, 3, 3, 3])
    found = scores.score_retrieval(torch.ones(4, 3), torch.ones(6, 3), image_of, at=(1, 3))
    for way in ("image_to_text", "text_to_image"):
        for k in (1, 3):
            assert math.isclose(found[f"{way}_recall@{k}"], found[f"{way}_chance@{k}"])


def accuracies(image: Tensor, labels: Tensor, rows: Tensor) -> dict[str, float]:
    return scores.describe_hits(labels, scores.score_classes(image, labels, rows), len(rows))


def test_classes_that_tie_share_the_hit() -> None:
    rows = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), dim=1)
    hits = scores.score_classes(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1, 2]), rows)
    assert hits.T.tolist() == [[0.5, 0.5, 1.0], [1.0, 1.0, 1.0]]
    collapsed = accuracies(torch.ones(8, 2), torch.arange(8), torch.ones(8, 2))
    assert collapsed["accuracy"] == collapsed["chance"] == 1 / 8 and collapsed["accuracy@5"] == 5 / 8


def test_accuracy_over_pictures_and_over_classes() -> None:
    rows = torch.eye(7)
    image = torch.eye(7)[[0, 0, 1, 2, 3]] + 0.1 * torch.arange(7)  # ties go to the later class
    labels = torch.tensor([0, 0, 1, 1, 6])
    assert scores.score_classes(image, labels, rows)[:, 0].tolist() == [1, 1, 1, 0, 0]
    found = accuracies(image, labels, rows)
    assert math.isclose(found["accuracy"], 3 / 5, rel_tol=1e-6)
    assert math.isclose(found["mean_class_accuracy"], (1 + 0.5 + 0) / 3, rel_tol=1e-6)
    assert math.isclose(found["accuracy@5"], 4 / 5, rel_tol=1e-6)
    assert (found["chance"], found["num_images"], found["num_classes"]) == (1 / 7, 5, 7)
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]
    assert "accuracy@5" not in accuracies(image[:, :3], labels.clamp(max=2), rows[:3, :3])


@pytest.mark.parametrize("levels", [3, 10_000])
def test_average_precision_is_scikit_learns(levels: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is the oracle")
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(0, levels, (200, 6), generator=generator) / levels
    present = torch.rand(200, 6, generator=generator) < 0.15
    present[:, 5] = False
    expected = metrics.average_precision_score(present[:, :5].numpy(), values[:, :5].numpy(), average="macro")
    found = scores.score_precision(values, present)
    assert found["mean_average_precision"] == pytest.approx(expected, abs=1e-6)
    assert found["mean_average_precision_low"] < expected < found["mean_average_precision_high"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=2, max_size=4), st.data())
def test_any_class_of_a_picture_counts_and_ties_by_all_orders(similarity: list[int], data: st.DataObject) -> None:
    own = data.draw(st.sets(st.integers(0, len(similarity) - 1), min_size=1))
    present = torch.zeros(1, len(similarity), dtype=torch.bool)
    present[0, list(own)] = True
    hits = scores.score_label_sets(features([similarity]), present, torch.eye(len(similarity)))
    assert math.isclose(hits[0, 0].item(), expected_hit(own, [float(value) for value in similarity], 1))


@pytest.mark.parametrize("block", [1, 3, 4, 12, 100])
def test_the_loss_of_pairs_is_that_of_training_block_by_block(block: int) -> None:
    image, text = (F.normalize(torch.randn(11, 8, generator=torch.Generator().manual_seed(s)), dim=-1) for s in (0, 1))
    parts = [slice(at, at + block) for at in range(0, 11 - block + 1, block)] or [slice(0, 11)]
    scale = torch.tensor(20.0)
    expected = [loss.infonce(image[part], text[part], scale).item() for part in parts]
    assert scores.pairs_loss(image, text, 20.0, None, block) == pytest.approx(sum(expected) / len(parts), abs=1e-5)
    bias = torch.tensor([-3.0])
    expected = [loss.siglip(image[part], text[part], scale, bias).item() for part in parts]
    assert scores.pairs_loss(image, text, 20.0, -3.0, block) == pytest.approx(sum(expected) / len(parts), abs=1e-5)
