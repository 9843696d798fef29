"""Train an EVA-CLIP on curated shards.

    deepspeed --module trainer.train --config trainer/recipes/debug.toml --set data.root=ROOT --set "data.where=…"
    torchrun --nproc-per-node 2 -m trainer.train --config debug --set data.root=ROOT
    python -m trainer.train --config eva-clip-18b --dry-run --num-gpus 360 --gpu H200

What a user can get wrong is found before a process group exists or a GPU is touched: one sentence, exit status 2.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curation.errors import UserError
from trainer import checkpoint, config, launch, models
from trainer.config import Config, PhaseConfig
from trainer.launch import Rank
from trainer.metrics import DENSE_BF16_TFLOPS

if TYPE_CHECKING:
    from trainer.loop import Loop, Objective

logger = logging.getLogger("trainer")


def arguments(prog: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line that training, distillation and evaluation share."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {prog}", description="See docs/training.md and, for trainer.distill, docs/distillation.md."
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="a TOML file or a shipped recipe's name")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one value")
    parser.add_argument("--resume", metavar="HOW", help="auto, never or a checkpoint: checkpoint.resume")
    parser.add_argument("--dry-run", action="store_true", help="print size, memory, speed and days, and stop")
    parser.add_argument("--num-gpus", type=int, default=8, metavar="N", help="of the dry run; 8 by default")
    parser.add_argument("--gpu", default="H100", choices=sorted(DENSE_BF16_TFLOPS), help="of the dry run")
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

            sys.stdout.write(dry_run.report(settings, options.num_gpus, options.gpu))
            return 0
        launch.prepare(rank)
        log_to_stderr(rank)
        run(settings, rank)
    except UserError as error:
        # Once a node: what is wrong may be wrong on one node only.
        if rank.local_rank == 0:
            sys.stderr.write(f"{error}\n" if rank.is_first else f"{socket.gethostname()}: {error}\n")
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


def log_to_stderr(rank: Rank) -> None:
    """The run's log: every line of the first rank, warnings of the others."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(logging.INFO if rank.is_first else logging.WARNING)


def loader_maker(settings: Config, rank: Rank) -> Callable[[PhaseConfig], Any]:
    """Phase → its loader; making one raises UserError when too little matches."""
    from trainer.data import Cache, Loader, TrainTransform
    from trainer.data.tokenizer import tokenize

    if not settings.data.root:
        raise UserError("There is nothing to train on: name the curated root, as in --set data.root=ROOT.")

    def make(phase: PhaseConfig) -> Any:
        size = phase.image_size or settings.model.image_size
        image_size = models.config(settings.model.name, image_size=size).vision.image_size
        micro_batches = settings.train.num_micro_batches(rank.world_size)
        where = settings.data.where if phase.where is None else phase.where
        transform = TrainTransform(image_size)
        if settings.distill:
            transform = TrainTransform(image_size, scale=settings.distill.crop_scale)
        data = settings.data
        loader = Loader(
            data.root,
            where=where,
            mix=data.mix if phase.mix is None else phase.mix,
            table=data.table,
            captions=data.captions or None,
            verify=data.verify,
            cache=Cache(folder=Path(data.cache), max_bytes=data.cache_bytes) if data.cache else None,
            batch_size=settings.train.batch_size // (rank.world_size * micro_batches),
            transform=transform,
            tokenizer=None if settings.distill else tokenize,
            seed=settings.train.seed,
            rank=rank.rank,
            world_size=rank.world_size,
            num_workers=data.num_workers,
            pin_memory=launch.has_gpu(),
        )
        if len(loader.index) < settings.train.batch_size:
            raise UserError(
                f"Only {len(loader.index)} samples of {settings.data.root} match {where or 'every row'!r}, less than "
                f"one batch of {settings.train.batch_size}, which a sample may be in once: lower train.batch_size."
            )
        return loader

    return make


def check_data(settings: Config, make_loader: Callable[[PhaseConfig], Any], resume: Path | None) -> None:
    """Open every phase's selection, and the position to resume in its: fails here, not hours later."""
    progress = checkpoint.read_progress(resume) if resume else None
    end = 0
    for phase, steps in zip(settings.phases, settings.phase_steps(), strict=True):
        begin, end = end, end + steps
        if progress and progress.step >= end:
            continue
        loader = make_loader(phase)
        if progress and begin < progress.step < end:
            loader.load_state_dict(progress.loader)


def train(settings: Config, rank: Rank) -> bool:
    """Train, export and evaluate; False when a SIGTERM ended it early."""
    if settings.distill is not None:
        raise UserError("This configuration has a [distill] section: run it with trainer.distill.")
    resume = preflight(settings, rank)
    make_loader = loader_maker(settings, rank)
    check_data(settings, make_loader, resume)
    if settings.eval.names_any:
        from trainer import evaluate

        evaluate.check(settings)
    from trainer.objectives.contrastive import Contrastive

    objective = Contrastive(settings)
    objective.check_weights()
    return run_loop(settings, rank, objective, make_loader, resume, at_end=_evaluate)


def run_loop(
    settings: Config,
    rank: Rank,
    objective: Objective,
    make_loader: Callable[[PhaseConfig], Any],
    resume: Path | None,
    at_end: Callable[[Config, Loop, Rank], None] | None = None,
) -> bool:
    """Train to the end, write model.safetensors and call `at_end`; False when a SIGTERM ended it early."""
    with launch.process_group(rank) as device:
        from trainer.loop import Loop

        loop = Loop(settings, objective, make_loader, rank=rank, device=device, resume=resume)
        finished = loop.run()
        if finished:
            path = Path(settings.folder) / "model.safetensors"
            loop.save_weights(path)
            logger.info("wrote %s", path)
            if at_end is not None:
                at_end(settings, loop, rank)
        loop.close()
    return finished


def _evaluate(settings: Config, loop: Loop, rank: Rank) -> None:
    if settings.eval.names_any:
        from trainer import evaluate

        results = evaluate.evaluate(loop.engine, settings, rank, loop.device)
        loop.metrics.write_values({"step": loop.step, **results}, loop.step)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    return run_command("trainer.train", argv, train)


if __name__ == "__main__":
    launch.end(main())
