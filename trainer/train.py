"""Train an EVA-CLIP on curated shards.

    deepspeed --module trainer.train --config trainer/recipes/debug.toml --set data.root=ROOT --set "data.where=…"
    torchrun --nproc-per-node 2 -m trainer.train --config debug --set data.root=ROOT
    python -m trainer.train --config eva-clip-18b --dry-run --num-gpus 360

What a user can get wrong is found before a process group exists or a GPU is touched: one sentence, exit status 2.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.errors import UserError
from trainer import checkpoint, config, launch, models
from trainer.config import Config, PhaseConfig
from trainer.launch import Rank

if TYPE_CHECKING:
    from trainer.loop import Loop

logger = logging.getLogger("trainer")


def arguments(prog: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line that training, distillation and evaluation share."""
    parser = argparse.ArgumentParser(prog=f"python -m {prog}", description="See the documentation: docs/training.md.")
    parser.add_argument("--config", required=True, metavar="FILE", help="a TOML file or a shipped recipe's name")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one value")
    parser.add_argument("--resume", metavar="HOW", help="auto, never or a checkpoint: checkpoint.resume")
    parser.add_argument("--dry-run", action="store_true", help="print size, memory, speed and days, and stop")
    parser.add_argument("--num-gpus", type=int, default=8, help="of the dry run")
    # The deepspeed launcher passes it to every process; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)
    found = parser.parse_args(argv)
    if found.resume:
        found.set.append(f"checkpoint.resume={found.resume}")
    return found


def run_command(prog: str, argv: Sequence[str] | None, run: Callable[[Config, Rank], bool]) -> int:
    """Read the configuration, dry-run or `run` it; 2 with one sentence when the user can put it right."""
    options = arguments(prog, argv)
    rank = launch.this_rank()
    try:
        settings = config.load(options.config, options.set)
        if options.dry_run:
            from trainer import dry_run

            sys.stdout.write(dry_run.report(settings, num_gpus=options.num_gpus))
            return 0
        launch.prepare(rank)
        _log_to_stderr(rank)
        run(settings, rank)
    except UserError as error:
        if rank.is_first:
            sys.stderr.write(f"{error}\n")
        return 2
    return 0


def preflight(settings: Config, rank: Rank) -> Path | None:
    """Refuse what cannot work and find the checkpoint to resume, with neither process group nor GPU."""
    models.config(settings.model.name, image_size=settings.model.image_size)
    settings.train.num_micro_batches(rank.world_size)
    if settings.train.precision == "fp16" and not launch.has_gpu():
        raise UserError("fp16 needs a GPU: set train.precision to bf16 or fp32.")
    _require_sinks(settings)
    resume = checkpoint.to_resume(settings.checkpoint, Path(settings.folder) / "checkpoints")
    if resume:
        progress = checkpoint.read_progress(resume)
        checkpoint.check(progress, settings, resume)
        checkpoint.check_layout(progress, settings, rank.world_size, resume)
    return resume


def _require_sinks(settings: Config) -> None:
    for wanted, package in ((settings.log.tensorboard, "tensorboard"), (settings.log.wandb_project, "wandb")):
        if wanted and importlib.util.find_spec(package) is None:
            raise UserError(f"The log asks for {package}, which is not installed: pip install {package}.")


def _log_to_stderr(rank: Rank) -> None:
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(logging.INFO if rank.is_first else logging.WARNING)


def loader_maker(settings: Config, rank: Rank) -> Callable[[PhaseConfig], Any]:
    """Phase → its loader; making one raises UserError when nothing matches."""
    from trainer.data import Loader

    def make(phase: PhaseConfig) -> Any:
        size = phase.image_size or settings.model.image_size
        image_size = models.config(settings.model.name, image_size=size).vision.image_size
        micro_batches = settings.train.num_micro_batches(rank.world_size)
        return Loader(
            settings.data.root,
            where=settings.data.where if phase.where is None else phase.where,
            mix=settings.data.mix if phase.mix is None else phase.mix,
            batch_size=settings.train.batch_size // (rank.world_size * micro_batches),
            image_size=image_size,
            seed=settings.train.seed,
            rank=rank.rank,
            world_size=rank.world_size,
            num_workers=settings.data.num_workers,
        )

    return make


def train(settings: Config, rank: Rank) -> bool:
    """Train, export and evaluate; False when a SIGTERM ended it early."""
    resume = preflight(settings, rank)
    make_loader = loader_maker(settings, rank)
    # Fails here, not hours later, when a phase's WHERE finds nothing.
    for phase in settings.phases:
        make_loader(phase)
    with launch.process_group(rank) as device:
        from trainer.loop import Loop
        from trainer.objective import Contrastive

        loop = Loop(settings, Contrastive(settings), make_loader, rank=rank, device=device, resume=resume)
        finished = loop.run()
        if finished:
            _finish(settings, loop, rank)
        loop.close()
    return finished


def _finish(settings: Config, loop: Loop, rank: Rank) -> None:
    path = Path(settings.folder) / "model.safetensors"
    loop.save_weights(path)
    logger.info("wrote %s", path)
    if settings.eval.retrieval or settings.eval.image_folders:
        from trainer import evaluate

        results = evaluate.evaluate(loop.engine, settings, rank, loop.device)
        loop.metrics.write_values({"step": loop.step, **results}, loop.step)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    return run_command("trainer.train", argv, train)


if __name__ == "__main__":
    sys.exit(main())
