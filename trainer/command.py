"""What the commands of this package share: the command line, the log, and one sentence for a wrong use.

`trainer.train`, `trainer.distill` and `trainer.evaluate` are what a person starts; each of them passes its work here.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Callable, Sequence

from curation.command import run_guarded
from curation.terminal import write_out
from trainer import dry_run, launch
from trainer.config import Config, load_config
from trainer.launch import Rank
from trainer.metrics import DENSE_BF16_TFLOPS

logger = logging.getLogger("trainer")


def run_training_command(prog: str, argv: Sequence[str] | None, train: Callable[[Config, Rank], bool]) -> int:
    """Read the configuration and describe the run or `train`; returns the exit status, as `run_checked` does."""
    options = _parse_training_arguments(prog, argv)
    rank = launch.read_rank()

    def work() -> None:
        settings = load_config(options.config, options.set)
        if options.dry_run:
            write_out(dry_run.describe_run(settings, options.num_gpus, options.gpu))
            return
        launch.prepare_environment(rank)
        log_to_stderr(rank)
        train(settings, rank)

    return run_checked(rank, work)


def run_checked(rank: Rank, work: Callable[[], None]) -> int:
    """The exit status of `work`: 0, or 2 with one sentence on stderr, whatever ended it; 130 when interrupted.

    What the user can put right is said once a node, as it may be wrong on one node only; anything else by every rank
    that it ends.
    """
    host = "" if rank.is_first else f"{socket.gethostname()}: "
    place = host if rank.local_rank == 0 else f"{host}rank {rank.rank}: "
    return run_guarded(work, place, tells_refusals=rank.local_rank == 0)


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that launchers start."""
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one value")
    # The deepspeed launcher passes it to every process; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)


def log_to_stderr(rank: Rank) -> None:
    """The run's log: every line of the first rank, warnings of the others."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logger.setLevel(logging.INFO if rank.is_first else logging.WARNING)


def _parse_training_arguments(prog: str, argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=f"python -m {prog}", description="See docs/training.md and, for trainer.distill, docs/distillation.md."
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="a TOML file or a shipped recipe's name")
    add_shared_arguments(parser)
    parser.add_argument("--resume", metavar="HOW", help="auto, never or a checkpoint: checkpoint.resume")
    parser.add_argument("--dry-run", action="store_true", help="print size, memory, speed and days, and stop")
    parser.add_argument("--num-gpus", type=int, default=8, metavar="N", help="of the dry run; 8 by default")
    parser.add_argument("--gpu", default="H100", choices=sorted(DENSE_BF16_TFLOPS), help="of the dry run")
    options = parser.parse_args(argv)
    if options.resume:
        options.set.append(f"checkpoint.resume={options.resume}")
    return options
