"""Pre-train an image tower by masked image modelling, with a CLIP as its teacher, on curated shards.

    deepspeed --module trainer.distill --config mim-eva02-l-14 --set data.root=ROOT --set distill.teacher_weights=FILE
    torchrun --nproc-per-node 2 -m trainer.distill --config mim-debug --set data.root=ROOT
    python -m trainer.distill --config mim-eva-clip-18b --dry-run --num-gpus 360

What it writes starts the image tower of contrastive training: `model.image_weights=FOLDER/model.safetensors`. Loop,
checkpoints, log and wrong use are those of `trainer.train`; docs/distillation.md says more.
"""

from __future__ import annotations

from collections.abc import Sequence

from curation.errors import UserError
from trainer import launch, preflight
from trainer.command import run_training_command
from trainer.config import Config
from trainer.launch import Rank


def distill(settings: Config, rank: Rank) -> bool:
    """Pre-train and export; False when a SIGTERM ended it early."""
    if settings.distill is None:
        raise UserError("This configuration has no [distill] that names a teacher: run it with trainer.train.")
    resume = preflight.check_settings(settings, rank)
    make_loader = preflight.prepare_loaders(settings, rank)
    preflight.check_data(settings, make_loader, resume)
    # These import torch and deepspeed, which read the environment that launch.prepare_environment has set.
    from trainer.loop import run_loop
    from trainer.objectives.distillation import Distillation

    objective = Distillation(settings)
    objective.check_files()
    return run_loop(settings, rank, objective, make_loader, resume)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    return run_training_command("trainer.distill", argv, distill)


if __name__ == "__main__":
    launch.end_process(main())
