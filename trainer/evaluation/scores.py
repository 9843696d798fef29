"""Scores of features: retrieval recall with any number of captions an image, and zero-shot classification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

RECALL_AT = (1, 5, 10)
_ROWS = 1024
"""Rows of similarities held at once."""


def score_retrieval(image: Tensor, text: Tensor, image_of: Tensor, at: Sequence[int] = RECALL_AT) -> dict[str, float]:
    """Recall@k both ways, with what a random order would give.

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
    to_text, to_image = _rank_image_to_text(image, text, image_of), _rank_text_to_image(image, text, image_of)
    for k in at:
        if k <= len(text):
            others = (len(text) - captions_of, captions_of)
            result[f"image_to_text_recall@{k}"] = _expected_hits(*to_text, k)
            result[f"image_to_text_chance@{k}"] = _expected_hits(torch.zeros_like(captions_of), *others, k)
        if k <= len(image):
            result[f"text_to_image_recall@{k}"] = _expected_hits(*to_image, k)
            result[f"text_to_image_chance@{k}"] = k / len(image)
    return result


def _rank_image_to_text(image: Tensor, text: Tensor, image_of: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Foreign captions above an image's best own one, foreign ones level with it, and own ones level with it."""
    parts = []
    for start in range(0, len(image), _ROWS):
        scores = image[start : start + _ROWS].float() @ text.float().T
        own = image_of == torch.arange(start, start + len(scores))[:, None]
        best = scores.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
        above, level = scores > best, scores == best
        parts.append(torch.stack(((above & ~own).sum(1), (level & ~own).sum(1), (level & own).sum(1))))
    above, foreign, own_level = torch.cat(parts, dim=1)
    return above, foreign, own_level


def _rank_text_to_image(image: Tensor, text: Tensor, image_of: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images above a caption's own, images level with it, and 1."""
    parts = []
    for start in range(0, len(text), _ROWS):
        scores = text[start : start + _ROWS].float() @ image.float().T
        own = scores.gather(1, image_of[start : start + _ROWS, None])
        parts.append(torch.stack(((scores > own).sum(1), (scores == own).sum(1) - 1)))
    above, level = torch.cat(parts, dim=1)
    return above, level, torch.ones_like(above)


def _expected_hits(above: Tensor, foreign: Tensor, own: Tensor, k: int) -> float:
    """Mean chance that one of `own` is among the first k when `above` come first and `foreign + own` in any order."""
    places = (k - above).clamp(min=0)
    miss = torch.ones(len(above), dtype=torch.float64)
    for place in range(k):
        left = (foreign + own - place).clamp(min=1)
        still = (foreign - place).clamp(min=0).double() / left
        miss = torch.where(place < places, miss * still, miss)
    return (1 - miss).mean().item()


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


@dataclass(frozen=True)
class Hits:
    """Pictures of each class that were seen, and named right at first guess and within five; float64 `[c]` each.

    A picture whose class ties with others counts by the chance that it comes first: classes of the same name, of which
    ImageNet has some, share their hits, and features that collapse to one point score as chance does.
    """

    seen: Tensor
    first: Tensor
    five: Tensor

    def accuracy(self) -> dict[str, float]:
        """Top-1 and top-5 accuracy over pictures, top-1 over classes, and chance."""
        num_classes = len(self.seen)
        present = self.seen > 0
        result = {
            "num_images": float(self.seen.sum()),
            "num_classes": float(num_classes),
            "accuracy": (self.first.sum() / self.seen.sum()).item(),
            "mean_class_accuracy": (self.first[present] / self.seen[present]).double().mean().item(),
            "chance": 1 / num_classes,
        }
        return result | ({"accuracy@5": (self.five.sum() / self.seen.sum()).item()} if num_classes > 5 else {})


def count_hits(image: Tensor, labels: Tensor, rows: Tensor) -> Hits:
    """Classify normalised features `[n, d]` with labels int64 `[n]` by class rows `[c, d]`."""
    parts = []
    for start in range(0, len(image), _ROWS):
        scores = image[start : start + _ROWS].float() @ rows.T
        own = scores.gather(1, labels[start : start + _ROWS, None])
        parts.append(torch.stack(((scores > own).sum(1), (scores == own).sum(1))))
    above, level = torch.cat(parts, dim=1).double() if parts else torch.zeros(2, 0, dtype=torch.float64)
    chances = (torch.ones_like(above), *(((k - above) / level).clamp(0, 1) for k in (1, 5)))
    return Hits(*(torch.bincount(labels, chance, minlength=len(rows)) for chance in chances))
