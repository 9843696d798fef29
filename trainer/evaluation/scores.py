"""Scores of features: retrieval recall with any number of captions an image, and zero-shot classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.evaluation.intervals import bootstrap_class_mean, bootstrap_interval, resample, with_interval

RECALL_AT = (1, 5, 10)
_ROWS = 512
"""Rows of similarities held at once."""
_TIE = 1e-6
"""Similarities that differ by no more are level: float32 sums of equal vectors differ by their order."""


def score_retrieval(image: Tensor, text: Tensor, image_of: Tensor, at: Sequence[int] = RECALL_AT) -> dict[str, float]:
    """Recall@k both ways with its 95 % interval, and what a random order would give.

    Image to text counts an image when any of its captions is among its k nearest texts; text to image counts a caption
    when its image is among its k nearest images (Flickr30K's and COCO's protocol, arXiv 2103.00020, appendix).

    Args:
        image: normalised features of n images, `[n, d]`.
        text: normalised features of m captions, `[m, d]`.
        image_of: int64 `[m]`, the image that each caption belongs to; every image has at least one.
        at: the k's; those above the number of candidates are left out.

    Ties count by their expected rank, so features that collapse to one point score as chance does, not 1.
    """
    captions_of = torch.bincount(image_of, minlength=len(image))
    result = {"num_images": float(len(image)), "num_captions": float(len(text))}
    to_text, to_image = _rank_pairs(image, text, image_of)
    for k in at:
        if k <= len(text):
            others = (len(text) - captions_of, captions_of)
            result |= _describe_recall(f"image_to_text_recall@{k}", _expect_hits(*to_text, k))
            chance = _expect_hits(torch.zeros_like(captions_of), *others, k).mean().item()
            result[f"image_to_text_chance@{k}"] = chance
        if k <= len(image):
            result |= _describe_recall(f"text_to_image_recall@{k}", _expect_hits(*to_image, k))
            result[f"text_to_image_chance@{k}"] = k / len(image)
    return result


class _Places(NamedTuple):
    """Of each query: candidates above its own best, foreign ones level with it, own ones level with it; int64 `[n]`."""

    above: Tensor
    foreign: Tensor
    own: Tensor


def _rank_pairs(image: Tensor, text: Tensor, image_of: Tensor) -> tuple[_Places, _Places]:
    """Places of images among texts and of texts among images, from one pass over all similarities.

    NumPy counts a block's comparisons ten times as fast as torch does on a CPU. All blocks share two buffers: fresh
    ones would cost a seventh of the time in pages that the kernel clears.
    """
    image, text = image.float(), text.float()
    own = torch.cat(
        [(image[part] * rows).sum(1) for part, rows in zip(image_of.split(_ROWS), text.split(_ROWS), strict=True)]
    )
    best = torch.full((len(image),), -torch.inf).scatter_reduce(0, image_of, own, "amax")
    own_level = torch.bincount(image_of[own >= best[image_of] - _TIE], minlength=len(image))
    above_image, level_image = torch.zeros(2, len(image), dtype=torch.int64)
    above_text, level_text = np.zeros((2, len(text)), np.int64)
    over, under = (own + _TIE).numpy(), (own - _TIE).numpy()
    buffer = torch.empty(min(_ROWS, len(image)), len(text))
    hit_buffer = np.empty(buffer.shape, bool)
    for start in range(0, len(image), _ROWS):
        part = slice(start, start + _ROWS)
        bound = best[part, None].numpy()
        scores, hits = torch.matmul(image[part], text.T, out=buffer[: len(bound)]).numpy(), hit_buffer[: len(bound)]
        above_image[part] = torch.from_numpy(_count_rows(np.greater(scores, bound + _TIE, out=hits)))
        level_image[part] = torch.from_numpy(_count_rows(np.greater_equal(scores, bound - _TIE, out=hits)))
        above_text += _count_columns(np.greater(scores, over, out=hits))
        level_text += _count_columns(np.greater_equal(scores, under, out=hits))
    to_text = _Places(above_image, level_image - above_image - own_level, own_level)
    above, at_least = torch.from_numpy(above_text), torch.from_numpy(level_text)
    return to_text, _Places(above, at_least - above - 1, torch.ones_like(above))


def _count_rows(hits: np.ndarray) -> np.ndarray:
    """How many of each row of bool `[n, m]`."""
    return np.asarray(np.count_nonzero(hits, axis=1))


def _count_columns(hits: np.ndarray) -> np.ndarray:
    """How many of each column of bool `[n, m]`, n at most _ROWS."""
    return np.asarray(hits.view(np.uint8).sum(0, dtype=np.uint16))


def _describe_recall(name: str, hits: Tensor) -> dict[str, float]:
    return with_interval(name, hits.mean().item(), bootstrap_interval(hits))


def _expect_hits(above: Tensor, foreign: Tensor, own: Tensor, k: int) -> Tensor:
    """The chance, float64 `[n]`, that one of `own` is among the first k.

    `above` come first, then `foreign + own` in any order.
    """
    places = (k - above).clamp(min=0)
    miss = torch.ones(len(above), dtype=torch.float64)
    for place in range(k):
        left = (foreign + own - place).clamp(min=1)
        still = (foreign - place).clamp(min=0).double() / left
        miss = torch.where(place < places, miss * still, miss)
    return 1 - miss


def pairs_loss(image: Tensor, text: Tensor, scale: float, bias: float | None, block: int) -> float:
    """Mean contrastive loss of normalised pairs, `[n, d]` each, among `block` pairs at a time.

    InfoNCE where `bias` is None, else SigLIP's, as training computes it over a batch of that size; a last block that is
    not whole is left out, unless it is the only one.
    """
    block = min(block, len(image))
    losses = []
    for start in range(0, len(image) - block + 1, block):
        logits = scale * image[start : start + block].float() @ text[start : start + block].float().T
        own = torch.arange(block)
        if bias is None:
            losses.append((F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2)
        else:
            signs = 2 * torch.eye(block) - 1
            losses.append(-F.logsigmoid(signs * (logits + bias)).sum() / block)
    return torch.stack(losses).mean().item()


def build_class_rows(prompts: Tensor, num_templates: int) -> Tensor:
    """Classifier rows `[c, d]` of normalised prompt features `[c · num_templates, d]`, class by class.

    A row is the normalised mean of its class's prompts (arXiv 2103.00020, section 3.1.4).
    """
    return F.normalize(prompts.float().unflatten(0, (len(prompts) // num_templates, num_templates)).mean(1), dim=-1)


def score_classes(image: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
    """Of each picture the chance that its class is named first and among the first five, float64 `[n, 2]`.

    A picture whose class ties with others counts by the chance that it comes first: classes of the same name, of which
    ImageNet has some, share their hits, and features that collapse to one point score as chance does.

    Args:
        image: normalised features, `[n, d]`.
        labels: int64 `[n]`.
        rows: class rows, `[c, d]`.
    """
    parts = [torch.zeros(2, 0, dtype=torch.int64)]
    for start in range(0, len(image), _ROWS):
        scores = image[start : start + _ROWS].float() @ rows.T
        own = scores.gather(1, labels[start : start + _ROWS, None])
        parts.append(torch.stack(((scores > own).sum(1), (scores == own).sum(1))))
    above, level = torch.cat(parts, dim=1).double()
    return torch.stack([((k - above) / level).clamp(0, 1) for k in (1, 5)], dim=1)


def score_label_sets(image: Tensor, present: Tensor, rows: Tensor) -> Tensor:
    """As `score_classes` for pictures with several classes, `present` bool `[n, c]`: any of them counts."""
    scores = (image.float() @ rows.T).double()
    best = scores.masked_fill(~present, -torch.inf).amax(1, keepdim=True)
    foreign = ((scores == best) & ~present).sum(1)
    places = ((scores > best).sum(1), foreign, ((scores == best) & present).sum(1))
    return torch.stack([_expect_hits(*places, k) for k in (1, 5)], dim=1)


def describe_hits(labels: Tensor | None, hits: Tensor, num_classes: int) -> dict[str, float]:
    """Top-1 and top-5 accuracy over pictures, top-1 over classes, each with its 95 % interval, and chance.

    Args:
        labels: int64 `[n]`, None where a picture has several classes.
        hits: float64 `[n, 2]`, as `score_classes` gives them.
    """
    result = {"num_images": float(len(hits)), "num_classes": float(num_classes)}
    result |= with_interval("accuracy", hits[:, 0].mean().item(), bootstrap_interval(hits[:, 0]))
    if num_classes > 5:
        result |= with_interval("accuracy@5", hits[:, 1].mean().item(), bootstrap_interval(hits[:, 1]))
    if labels is None:
        return result
    seen = torch.bincount(labels, minlength=num_classes)
    sums = torch.bincount(labels, hits[:, 0], minlength=num_classes)
    mean = (sums[seen > 0] / seen[seen > 0]).mean().item()
    result |= with_interval("mean_class_accuracy", mean, bootstrap_class_mean(labels, hits[:, 0]))
    return result | {"chance": 1 / num_classes}


def describe_top_mean(hits: Tensor) -> dict[str, float]:
    """The mean of top-1 and top-5 accuracy, which Kinetics is told by, of `hits` `[n, 2]`, with its 95 % interval."""
    both = hits.mean(1)
    return with_interval("mean_top1_top5", both.mean().item(), bootstrap_interval(both))


def score_precision(scores: Tensor, present: Tensor) -> dict[str, float]:
    """Mean average precision of `scores` `[n, c]` over the classes that any picture has, with its 95 % interval.

    A class's average precision is the sum of precision times the gain in recall over its distinct scores, the highest
    first, so pictures that tie count together (scikit-learn's `average_precision_score`); `present` is bool `[n, c]`.
    """
    columns = [_sort_column(scores[:, c], present[:, c]) for c in range(scores.shape[1]) if present[:, c].any()]

    def measure(draws: np.ndarray) -> np.ndarray:
        return np.asarray(np.nanmean(np.stack([column.measure(draws) for column in columns]), axis=0))

    once = np.ones((1, len(scores)), dtype=np.int64)
    interval = resample(once[0], measure)
    return with_interval("mean_average_precision", float(measure(once)[0]), interval)


class _SortedColumn(NamedTuple):
    """A class's pictures from its highest score to its lowest: their numbers, hits, and where a score ends."""

    order: np.ndarray
    hits: np.ndarray
    ends: np.ndarray

    def measure(self, draws: np.ndarray) -> np.ndarray:
        """Average precision of each draw of pictures, NaN without a hit; `draws` counts them, `[draws, n]`."""
        counts = draws[:, self.order]
        seen = counts.cumsum(1)[:, self.ends]
        right = (counts * self.hits).cumsum(1)[:, self.ends]
        gain = np.diff(right, axis=1, prepend=0)
        with np.errstate(invalid="ignore"):
            return np.asarray((gain * right / np.maximum(seen, 1)).sum(1) / right[:, -1])


def _sort_column(scores: Tensor, present: Tensor) -> _SortedColumn:
    values = scores.double().numpy()
    order = np.argsort(-values, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))
    return _SortedColumn(order, present.numpy()[order].astype(np.int64), ends)
