"""Pre-train an image tower by masked image modelling, with a CLIP as its teacher, on curated shards.

    deepspeed --module trainer.distill --config mim-eva02-l-14 --set data.root=ROOT --set distill.teacher_weights=FILE
    torchrun --nproc-per-node 2 -m trainer.distill --config mim-debug --set data.root=ROOT
    python -m trainer.distill --config mim-eva-clip-18b --dry-run --num-gpus 360

What it writes starts the image tower of contrastive training: `model.image_weights=FOLDER/model.safetensors`. Loop,
checkpoints, log and wrong use are those of `trainer.train`; docs/distillation.md says more.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from curation.command import run_program
from curation.errors import UserError
from trainer import preflight
from trainer.command import run_training_command
from trainer.config import Config
from trainer.launch import Rank

if TYPE_CHECKING:
    from trainer.loop import Loop
    from trainer.objectives.distillation import Distillation
    from trainer.preflight import MakeLoader

logger = logging.getLogger("trainer")


def prepare(settings: Config, rank: Rank) -> tuple[Distillation, MakeLoader, Path | None]:
    """As `trainer.train.prepare`. Raises UserError for the first thing that is wrong."""
    if settings.distill is None:
        raise UserError("This configuration has no [distill] that names a teacher: run it with trainer.train.")
    resume = preflight.check_settings(settings, rank)
    make_loader = preflight.prepare_loaders(settings, rank)
    preflight.check_data(settings, make_loader, resume)
    # This imports torch, which reads the environment that launch.prepare_environment has set.
    from trainer.objectives.distillation import Distillation

    objective = Distillation(settings)
    objective.check_files()
    if settings.eval.where is not None:
        from trainer.objectives.heldout import open_heldout

        open_heldout(settings, rank, objective.student_config(settings.model.image_size).vision.image_size)
    return objective, make_loader, resume


def distill(settings: Config, rank: Rank) -> bool:
    """Pre-train and export; False when a SIGTERM ended it early."""
    objective, make_loader, resume = prepare(settings, rank)
    from trainer.loop import run_loop  # imports torch and deepspeed, as above

    return run_loop(settings, rank, objective, make_loader, resume, measure=partial(_measure_heldout, objective))


def _measure_heldout(objective: Distillation, settings: Config, loop: Loop, rank: Rank, prefix: str) -> None:
    if settings.eval.where is None:
        return
    from trainer.objectives.heldout import measure_heldout  # imports torch, as above

    measured = measure_heldout(loop.engine, objective, settings, rank, loop.device)
    logger.info("held back: %s", ", ".join(f"{name} {value:.4f}" for name, value in measured.items()))
    loop.metrics.write_values(
        {"step": loop.step, **{prefix + name: value for name, value in measured.items()}}, loop.step
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    return run_training_command("trainer.distill", argv, distill)


if __name__ == "__main__":
    run_program(main)
