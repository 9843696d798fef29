"""Train an EVA-CLIP on curated shards.

    deepspeed --module trainer.train --config trainer/recipes/debug.toml --set data.root=ROOT --set "data.where=…"
    torchrun --nproc-per-node 2 -m trainer.train --config debug --set data.root=ROOT
    python -m trainer.train --config eva-clip-18b --dry-run --num-gpus 360 --gpu H200

What a user can get wrong is found before a process group exists or a GPU is touched: one sentence, exit status 2.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    from trainer.objectives.contrastive import Contrastive
    from trainer.preflight import MakeLoader


def prepare(settings: Config, rank: Rank) -> tuple[Contrastive, MakeLoader, Path | None]:
    """Check all that the run needs: what it trains, its loaders, and the checkpoint that it goes on from.

    Raises:
        UserError: for the first thing that is wrong.
    """
    if settings.distill is not None:
        raise UserError("This configuration has a [distill] section: run it with trainer.distill.")
    resume = preflight.check_settings(settings, rank)
    make_loader = preflight.prepare_loaders(settings, rank)
    preflight.check_data(settings, make_loader, resume)
    # These import torch and deepspeed, which read the environment that launch.prepare_environment has set.
    from trainer import evaluate
    from trainer.objectives.contrastive import Contrastive

    if settings.eval.names_any:
        evaluate.check_sets(settings)
    objective = Contrastive(settings)
    objective.check_files()
    return objective, make_loader, resume


def train(settings: Config, rank: Rank) -> bool:
    """Train, export and evaluate; False when a SIGTERM ended it early."""
    objective, make_loader, resume = prepare(settings, rank)
    from trainer.loop import run_loop  # imports torch and deepspeed, as above

    return run_loop(settings, rank, objective, make_loader, resume, measure=_evaluate)


def _evaluate(settings: Config, loop: Loop, rank: Rank, prefix: str) -> None:
    from trainer import evaluate  # imports torch, as above

    if settings.eval.names_any:
        measured = evaluate.evaluate(loop.engine, settings, rank, loop.device)
        results = {prefix + name: value for name, value in measured.items()}
        loop.metrics.write_values({"step": loop.step, **results}, loop.step)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    return run_training_command("trainer.train", argv, train)


if __name__ == "__main__":
    run_program(main)
