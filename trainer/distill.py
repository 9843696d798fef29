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
from trainer import launch
from trainer.config import Config
from trainer.launch import Rank
from trainer.train import check_data, loader_maker, preflight, run_command, run_loop


def distill(settings: Config, rank: Rank) -> bool:
    """Pre-train and export; False when a SIGTERM ended it early."""
    if settings.distill is None:
        raise UserError("This configuration has no [distill] that names a teacher: run it with trainer.train.")
    resume = preflight(settings, rank)
    make_loader = loader_maker(settings, rank)
    check_data(settings, make_loader, resume)
    from trainer.objectives.distillation import Distillation

    objective = Distillation(settings)
    objective.check()
    return run_loop(settings, rank, objective, make_loader, resume)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    return run_command("trainer.distill", argv, distill)


if __name__ == "__main__":
    launch.end(main())
