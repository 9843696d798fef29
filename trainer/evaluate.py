"""Measure a CLIP: image↔text recall against chance, and zero-shot classification with prompt templates.

    deepspeed --module trainer.evaluate --config runs/x.toml --set model.weights=runs/x/model.safetensors

Every rank encodes its share and all of them run every forward: under ZeRO-3 a forward on one rank alone hangs. Ranks
whose share is smaller run the last batch again and drop what comes out.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from curation.errors import UserError
from trainer import launch
from trainer.config import Config
from trainer.launch import Rank
from trainer.tokenizer import tokenize, trim

logger = logging.getLogger("trainer")
RECALL_AT = (1, 5, 10)


def recall(image: Tensor, text: Tensor, at: Sequence[int] = RECALL_AT) -> dict[str, float]:
    """Share of rows whose own partner is among the k most similar, both ways, with what chance would give.

    Args:
        image, text: normalised features of pairs, `[n, d]` each.
        at: the k's; those above n are left out.

    A partner that ties with others counts by its expected rank among them, so features that collapse to one point
    score as chance does, not 1.
    """
    similarity = image.float() @ text.float().T
    result: dict[str, float] = {"num_pairs": float(len(image))}
    for name, scores in (("image_to_text", similarity), ("text_to_image", similarity.T)):
        own = scores.diagonal()[:, None]
        above, ties = (scores > own).sum(1), (scores == own).sum(1)
        for k in at:
            if k <= len(image):
                hits = ((k - above).clamp(min=0) / ties).clamp(max=1)
                result[f"{name}_recall@{k}"] = hits.double().mean().item()
    result |= {f"chance_recall@{k}": k / len(image) for k in at if k <= len(image)}
    return result


def class_weights(encode_text: Callable[[Tensor], Tensor], names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """One classifier row a class, `[c, d]`: the normalised mean of its prompts' normalised features (CLIP, §3.1.4)."""
    rows = []
    for name in names:
        prompts = tokenize([template.format(name) for template in templates])
        rows.append(F.normalize(encode_text(prompts).float(), dim=-1).mean(0))
    return F.normalize(torch.stack(rows), dim=-1)


def accuracy(image: Tensor, labels: Tensor, weights: Tensor) -> dict[str, float]:
    """Top-1 and top-5 accuracy, and their chance, of features `[n, d]` against class rows `[c, d]`."""
    k = min(5, len(weights))
    best = (image.float() @ weights.T).topk(k, dim=1).indices
    hits = best == labels[:, None]
    return {
        "accuracy": hits[:, 0].double().mean().item(),
        "accuracy@5": hits.any(1).double().mean().item(),
        "chance": 1 / len(weights),
        "num_images": float(len(image)),
    }


def share(total: int, rank: Rank, batch_size: int) -> Iterator[tuple[list[int], int]]:
    """This rank's rows of `total` in batches, as (indices, how many of them are new), equally many on every rank."""
    mine = list(range(rank.rank, total, rank.world_size))
    longest = -(-total // rank.world_size)
    for start in range(0, longest, batch_size):
        real = mine[start : start + batch_size]
        yield real or [rank.rank % total], len(real)


def gather_rows(rows: Tensor, total: int, rank: Rank) -> Tensor:
    """Rows that `share` dealt out, back in their order, `[total, …]`, on every rank and on the CPU."""
    if rank.world_size == 1:
        return rows.cpu()
    parts: list[Any] = [None] * rank.world_size
    dist.all_gather_object(parts, rows.cpu())
    result = rows.new_empty(total, *rows.shape[1:], device="cpu")
    for index, part in enumerate(parts):
        result[index :: rank.world_size] = part
    return result
