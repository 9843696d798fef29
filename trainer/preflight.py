"""What a run checks before a process group exists or a GPU is touched, and the loaders that it will read from.

A run that cannot work ends here, with one sentence, and not hours later in its last phase.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from curation.errors import UserError
from trainer import checkpoint, launch, models
from trainer.config import Config, PhaseConfig
from trainer.launch import Rank

if TYPE_CHECKING:
    from trainer.data import Loader
    from trainer.data.clips import ClipLoader

    MakeLoader = Callable[[PhaseConfig], Loader | ClipLoader]


def check_settings(settings: Config, rank: Rank) -> Path | None:
    """Refuse settings that cannot work; returns the checkpoint to resume, or None for a fresh start.

    Raises:
        UserError: for the first thing that is wrong.
    """
    models.config(settings.model.sized_name, image_size=settings.model.image_size)
    for phase in settings.phases:
        settings.num_micro_batches(rank.world_size, phase)
    require_gpu_for_fp16(settings)
    _require_log_packages(settings)
    resume = checkpoint.choose_checkpoint(settings.checkpoint, Path(settings.folder) / "checkpoints")
    if resume:
        progress = checkpoint.read_progress(resume)
        checkpoint.require_same_run(progress, settings, resume)
    return resume


def require_gpu_for_fp16(settings: Config) -> None:
    """Raise UserError for fp16 on a machine without a GPU."""
    if settings.train.precision == "fp16" and not launch.has_gpu():
        raise UserError("fp16 needs a GPU: set train.precision to bf16 or fp32.")


def _require_log_packages(settings: Config) -> None:
    for wanted, package in ((settings.log.tensorboard, "tensorboard"), (settings.log.wandb_project, "wandb")):
        if wanted and importlib.util.find_spec(package) is None:
            raise UserError(f"The log asks for {package}, which is not installed: pip install {package}.")


def prepare_loaders(settings: Config, rank: Rank) -> MakeLoader:
    """A function that makes the loader of a phase, and raises UserError when fewer samples than a batch match.

    Raises:
        UserError: when the configuration names no root.
    """
    # These import torch, which reads the environment that launch.prepare_environment sets.
    from trainer.data import Cache, Loader, TrainTransform
    from trainer.data.clips import ClipLoader
    from trainer.data.tokenizer import tokenize

    if not settings.data.root and not all(phase.clips for phase in settings.phases):
        raise UserError("There is nothing to train on: name the curated root, as in --set data.root=ROOT.")

    def make_loader(phase: PhaseConfig) -> Loader | ClipLoader:
        data, train = settings.data, settings.train
        batch_size = train.batch_size // (rank.world_size * settings.num_micro_batches(rank.world_size, phase))
        size = phase.image_size or settings.model.image_size
        image_size = models.config(settings.model.sized_name, image_size=size).vision.image_size
        where = data.where if phase.where is None else phase.where
        transform = TrainTransform(image_size)
        if phase.clips:
            clips = ClipLoader(
                folder=Path(phase.clips),
                frames=phase.frames,
                batch_size=batch_size,
                transform=transform,
                tokenizer=tokenize,
                seed=train.seed,
                rank=rank.rank,
                world_size=rank.world_size,
                num_threads=data.num_workers,
            )
            _require_batch(len(clips.index), phase.clips, "every clip", train.batch_size)
            return clips
        if settings.distill:
            transform = TrainTransform(image_size, scale=settings.distill.crop_scale)
        loader = Loader(
            data.root,
            where=where,
            mix=data.mix if phase.mix is None else phase.mix,
            table=data.table,
            captions=data.captions or None,
            verify=data.verify,
            cache=Cache(folder=Path(data.cache), max_bytes=data.cache_bytes) if data.cache else None,
            batch_size=batch_size,
            transform=transform,
            tokenizer=None if settings.distill else tokenize,
            seed=train.seed,
            rank=rank.rank,
            world_size=rank.world_size,
            num_workers=data.num_workers,
            pin_memory=launch.has_gpu(),
        )
        _require_batch(len(loader.index), data.root, repr(where or "every row"), train.batch_size)
        return loader

    return make_loader


def _require_batch(num_samples: int, place: str, where: str, batch_size: int) -> None:
    """Raise UserError when a batch would have a sample twice."""
    if num_samples < batch_size:
        raise UserError(
            f"Only {num_samples} samples of {place} match {where}, less than "
            f"one batch of {batch_size}, which a sample may be in once: lower train.batch_size."
        )


def check_data(settings: Config, make_loader: MakeLoader, resume: Path | None) -> None:
    """Open the selection of every phase that is left, and the position to resume in it. Raises UserError."""
    progress = checkpoint.read_progress(resume) if resume else None
    end = 0
    for phase, steps in zip(settings.phases, settings.phase_steps(), strict=True):
        begin, end = end, end + steps
        if progress and progress.step >= end:
            continue
        loader = make_loader(phase)
        if progress and begin < progress.step < end:
            loader.load_state_dict(progress.loader)
