"""What a student of masked image modelling has learned, on pictures that were held back from it."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from trainer.config import Config
from trainer.data import EvalTransform, Loader
from trainer.launch import Rank
from trainer.objectives.distillation import Distillation


def open_heldout(settings: Config, rank: Rank, image_size: int) -> Loader:
    """Whole pictures of the rows that eval.where selects, at most eval.max_samples, always the same.

    Raises:
        UserError: when it selects none.
    """
    loader = Loader(
        settings.data.root,
        where=settings.eval.where,
        table=settings.data.table,
        batch_size=settings.eval.batch_size,
        transform=EvalTransform(image_size),
        tokenizer=None,
        rank=rank.rank,
        world_size=rank.world_size,
        num_workers=settings.data.num_workers,
    )
    loader.epoch_samples = min(settings.eval.max_samples, len(loader.index))
    return loader


@torch.no_grad()
def measure_heldout(
    engine: Any, objective: Distillation, settings: Config, rank: Rank, device: torch.device
) -> dict[str, float]:
    """The student's loss and that of the best constant, over the hidden patches; every rank has to call this.

    A student that has learned nothing about single pictures says the same for every patch. Of all constants the mean
    direction m of the teacher's normalised features has the lowest loss, which is -‖m‖.
    """
    student = engine.module.config
    was_training = engine.module.training
    engine.eval()
    total = torch.zeros(2, device=device, dtype=torch.float64)
    direction: torch.Tensor | None = None
    with torch.random.fork_rng():
        for number, batch in enumerate(open_heldout(settings, rank, student.vision.image_size)):
            torch.manual_seed(number * rank.world_size + rank.rank)
            real = len(batch["uid"]) - batch["padding"]
            predicted, wanted = objective.predict(engine, batch["pixels"].to(device))
            patches = len(wanted) // len(batch["uid"]) * real
            wanted = F.normalize(wanted[:patches].double(), dim=-1)
            cosines = (F.normalize(predicted[:patches].double(), dim=-1) * wanted).sum(-1)
            total += torch.stack([cosines.sum(), torch.tensor(float(patches), device=device, dtype=torch.float64)])
            direction = wanted.sum(0) + (0 if direction is None else direction)
    assert direction is not None, "the loader pads its last batch, so every rank has one"
    dist.all_reduce(total)
    dist.all_reduce(direction)
    engine.train(was_training)
    count = total[1].item()
    return {"heldout/loss": -total[0].item() / count, "heldout/constant_loss": -direction.norm().item() / count}
