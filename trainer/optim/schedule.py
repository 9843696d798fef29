"""Learning rate over a run: linear warm-up, then a cosine (arXiv 1608.03983, one cycle)."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, warmup_steps: int, total_steps: int, final_ratio: float = 0.0) -> float:
    """Factor of the base learning rate at `step`, counted from 0.

    Rises as (step + 1) / warmup_steps, is 1 at the end of the warm-up and falls to `final_ratio` at `total_steps`.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return final_ratio + (1 - final_ratio) * (1 + math.cos(math.pi * progress)) / 2
